//! The challenges that wait to be signed: each in a key of its own, so that nobody can cancel another's
//! sign-in, and taken atomically, so that each is tried once (contract §4.1, §11).

use std::sync::LazyLock;

use chrono::{DateTime, TimeDelta, Utc};
use redis::Script;
use serde::{Deserialize, Serialize};
use tbg_bitcoin::BtcAddress;
use tbg_core::UserId;
use tbg_core::random::bytes;
use tbg_web::ApiError;

use crate::Identity;
use crate::rules::challenge::{Purpose, message, nonce_text, timestamp_text};

/// Outstanding challenges of one address; the oldest is dropped.
const MAX_OUTSTANDING: usize = 20;

/// Stores a challenge and drops the oldest beyond the limit.
static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
          redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4])
          redis.call('EXPIRE', KEYS[2], ARGV[2])
          local extra = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[5])
          if extra > 0 then
            for _, old in ipairs(redis.call('ZPOPMIN', KEYS[2], extra)) do
              redis.call('DEL', ARGV[6] .. old)
            end
          end
          return 1",
    )
});

/// A challenge as Redis keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Challenge {
    /// The exact text that must be signed.
    pub message: String,
    /// When it was issued, as in the text.
    pub timestamp: String,
}

impl Challenge {
    /// Whether the wallet took longer than it has, by our clock.
    fn is_expired(&self, now: DateTime<Utc>, ttl_seconds: u64) -> bool {
        let ttl = TimeDelta::seconds(ttl_seconds.try_into().unwrap_or(i64::MAX / 1_000));
        DateTime::parse_from_rfc3339(&self.timestamp).map_or(true, |issued| now - issued.to_utc() > ttl)
    }
}

/// Makes and stores a challenge; returns its nonce and text.
pub(crate) async fn issue(
    identity: &Identity,
    purpose: Purpose,
    address: &BtcAddress,
) -> Result<(String, String), ApiError> {
    let (now, config) = (identity.clock.now(), &identity.config);
    let nonce = nonce_text(bytes(identity.entropy.as_ref()));
    let timestamp = timestamp_text(now);
    let text = message(purpose, &config.auth_domain, config.network, address, &nonce, &timestamp);
    let challenge = Challenge { message: text.clone(), timestamp };
    let json = serde_json::to_string(&challenge).map_err(ApiError::internal)?;
    let prefix = prefix(purpose, address);
    let mut redis = identity.redis.clone();
    PUT.key(format!("{prefix}{nonce}"))
        .key(outstanding_key(purpose, address))
        .arg(json)
        .arg(config.challenge_ttl_seconds)
        .arg(now.timestamp_millis())
        .arg(&nonce)
        .arg(MAX_OUTSTANDING)
        .arg(&prefix)
        .invoke_async::<()>(&mut redis)
        .await?;
    Ok((nonce, text))
}

/// Takes a challenge: it is gone, whatever follows. None if there is none, or it is too old.
pub(crate) async fn take(
    identity: &Identity,
    purpose: Purpose,
    address: &BtcAddress,
    nonce: &str,
) -> Result<Option<Challenge>, ApiError> {
    let mut redis = identity.redis.clone();
    let (json, _): (Option<String>, i64) = redis::pipe()
        .cmd("GETDEL")
        .arg(format!("{}{nonce}", prefix(purpose, address)))
        .cmd("ZREM")
        .arg(outstanding_key(purpose, address))
        .arg(nonce)
        .query_async(&mut redis)
        .await?;
    Ok(json.and_then(|json| live(identity, &json)))
}

/// All outstanding challenges of an address for a sign-in, newest first, with their nonces. None is taken.
pub(crate) async fn outstanding(
    identity: &Identity,
    address: &BtcAddress,
) -> Result<Vec<(String, Challenge)>, ApiError> {
    let mut redis = identity.redis.clone();
    let nonces: Vec<String> = redis::cmd("ZREVRANGE")
        .arg(outstanding_key(Purpose::SignIn, address))
        .arg(0)
        .arg(MAX_OUTSTANDING - 1)
        .query_async(&mut redis)
        .await?;
    if nonces.is_empty() {
        return Ok(Vec::new());
    }
    let prefix = prefix(Purpose::SignIn, address);
    let keys: Vec<String> = nonces.iter().map(|nonce| format!("{prefix}{nonce}")).collect();
    let values: Vec<Option<String>> = redis::cmd("MGET").arg(keys).query_async(&mut redis).await?;
    let challenges = values.into_iter().map(|json| json.and_then(|json| live(identity, &json)));
    Ok(nonces
        .into_iter()
        .zip(challenges)
        .filter_map(|(nonce, challenge)| Some((nonce, challenge?)))
        .collect())
}

fn live(identity: &Identity, json: &str) -> Option<Challenge> {
    let challenge: Challenge = serde_json::from_str(json).ok()?;
    let expired = challenge.is_expired(identity.clock.now(), identity.config.challenge_ttl_seconds);
    (!expired).then_some(challenge)
}

fn prefix(purpose: Purpose, address: &BtcAddress) -> String {
    match purpose {
        Purpose::SignIn => format!("auth:nonce:{address}:"),
        Purpose::Link(UserId(user)) => format!("auth:link_nonce:{user}:{address}:"),
    }
}

fn outstanding_key(purpose: Purpose, address: &BtcAddress) -> String {
    match purpose {
        Purpose::SignIn => format!("auth:nonces:{address}"),
        Purpose::Link(UserId(user)) => format!("auth:nonces:link:{user}:{address}"),
    }
}
