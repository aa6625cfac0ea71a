//! Reads credentials, and knows the state of those who bring them.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use chrono::{DateTime, Utc};
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use subtle::ConstantTimeEq as _;
use tbg_core::redis::Redis;
use tbg_core::{Clock, UserId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::keys::{self, Claims, Keys, TokenFault, TokenKind};
use super::seen::Seen;
use super::state::{States, UserState};
use super::store::{self, ApiKeyRow};
use super::{Caller, Session};
use crate::error::{ApiError, ErrorCode};
use crate::limit::Limiter;

const API_KEY_HEADER: &str = "x-api-key";
/// `tbg_` and 40 letters or digits.
const API_KEY_LENGTH: usize = 44;
const API_KEY_PREFIX_LENGTH: usize = 12;
/// No token of ours is longer.
const MAX_TOKEN_BYTES: usize = 4096;
/// How old a key's row may be.
const API_KEY_MAX_AGE: Duration = Duration::from_secs(5);
/// Lookups of unknown keys at once: a flood of invented keys must not take the pool's connections from others.
const API_KEY_LOOKUPS: usize = 4;
/// A verified signature stays verified; what can change is asked for each time.
const TOKENS_CACHED: u64 = 100_000;
const TOKEN_MAX_IDLE: Duration = Duration::from_secs(600);
const FLUSH_INTERVAL: Duration = Duration::from_secs(2);

/// What a request brought.
#[derive(Clone)]
pub enum Credential {
    /// Nothing.
    Absent,
    /// An access token with a good signature.
    Token(Arc<Claims>),
    /// A live API key.
    ApiKey(Arc<ApiKeyRow>),
    /// Something that proves nobody.
    Refused(ErrorCode),
    /// The database could not be asked.
    Unknown(ApiError),
}

/// What the authenticator stands on.
pub struct AuthenticatorParts {
    /// Keys of tokens.
    pub keys: Keys,
    /// The primary database.
    pub pool: PgPool,
    /// The shared Redis.
    pub redis: Redis,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Knows whether Redis is up.
    pub limiter: Limiter,
}

/// Reads credentials and knows who may ask.
pub struct Authenticator {
    keys: Keys,
    pool: PgPool,
    clock: Arc<dyn Clock>,
    states: States,
    /// Claims by the SHA-256 of a token whose signature is good.
    tokens: Cache<[u8; 32], Arc<Claims>>,
    api_keys: Cache<[u8; 32], Arc<ApiKeyRow>>,
    api_key_lookups: Semaphore,
    seen: Seen,
}

impl Authenticator {
    /// Puts the parts together; nothing is read yet.
    #[must_use]
    pub fn new(parts: AuthenticatorParts) -> Self {
        Self {
            keys: parts.keys,
            states: States::new(parts.pool.clone(), parts.redis, parts.limiter),
            pool: parts.pool,
            clock: parts.clock,
            tokens: Cache::builder().max_capacity(TOKENS_CACHED).time_to_idle(TOKEN_MAX_IDLE).build(),
            api_keys: Cache::builder().max_capacity(TOKENS_CACHED).time_to_live(API_KEY_MAX_AGE).build(),
            api_key_lookups: Semaphore::new(API_KEY_LOOKUPS),
            seen: Seen::new(),
        }
    }

    /// The keys of tokens.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The database behind it.
    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// What the headers prove. `X-API-Key` wins over `Authorization`.
    pub async fn identify(&self, headers: &HeaderMap) -> Credential {
        if let Some(key) = headers.get(API_KEY_HEADER) {
            return Box::pin(self.read_api_key(key.as_bytes())).await;
        }
        let Some(header) = headers.get(AUTHORIZATION) else { return Credential::Absent };
        let token = header.to_str().ok().and_then(bearer);
        match token.ok_or(TokenFault::Invalid).and_then(|token| self.access_token(token)) {
            Ok(claims) => Credential::Token(claims),
            Err(TokenFault::Invalid) => Credential::Refused(ErrorCode::AuthTokenInvalid),
            Err(TokenFault::Expired) => Credential::Refused(ErrorCode::AuthTokenExpired),
        }
    }

    /// The claims of an access token with a good signature.
    ///
    /// # Errors
    /// See [`TokenFault`].
    pub fn access_token(&self, token: &str) -> Result<Arc<Claims>, TokenFault> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenFault::Invalid);
        }
        let now = self.clock.now();
        let fingerprint: [u8; 32] = Sha256::digest(token).into();
        if let Some(claims) = self.tokens.get(&fingerprint) {
            return if keys::is_expired(&claims, now) { Err(TokenFault::Expired) } else { Ok(claims) };
        }
        let claims = Arc::new(self.keys.verify(token, TokenKind::Access, now)?);
        self.tokens.insert(fingerprint, Arc::clone(&claims));
        Ok(claims)
    }

    async fn read_api_key(&self, key: &[u8]) -> Credential {
        const REFUSED: Credential = Credential::Refused(ErrorCode::ApiKeyInvalid);
        let Some(prefix) = api_key_prefix(key) else { return REFUSED };
        let fingerprint: [u8; 32] = Sha256::digest(key).into();
        let row = match self.api_keys.get(&fingerprint) {
            Some(row) => row,
            None => match self.look_up(prefix).await {
                Ok(Some(row)) if is_same_hash(&row.key_hash, &fingerprint) => {
                    let row = Arc::new(row);
                    self.api_keys.insert(fingerprint, Arc::clone(&row));
                    row
                }
                Ok(_) => return REFUSED,
                Err(error) => return Credential::Unknown(error.into()),
            },
        };
        let expired = row.expires_at.is_some_and(|at| at <= self.clock.now());
        if expired { REFUSED } else { Credential::ApiKey(row) }
    }

    async fn look_up(&self, prefix: &str) -> Result<Option<ApiKeyRow>, sqlx::Error> {
        // Never closed.
        let _turn = self.api_key_lookups.acquire().await;
        store::api_key(&self.pool, prefix).await
    }

    /// Who a token's claims stand for, if that user may ask now. Also for sockets.
    ///
    /// # Errors
    /// 401 for an ended session or a deleted user, 403 for a banned one, 503 while the database is away.
    pub async fn session(&self, claims: &Claims) -> Result<(Session, bool), ApiError> {
        let user_id = claims.sub.parse().map(UserId).map_err(|_| refusal(ErrorCode::AuthTokenInvalid))?;
        let (state, revoked) = self.states.of(user_id, Some(claims.sid)).await?;
        if state.deleted {
            return Err(refusal(ErrorCode::AuthTokenRevoked));
        }
        // A ban ends all sessions too: the person should read why.
        admit(state)?;
        if revoked || claims.iat < state.tokens_valid_from {
            return Err(refusal(ErrorCode::AuthTokenRevoked));
        }
        self.seen.note(user_id, None);
        let session = Session {
            user_id,
            sid: claims.sid,
            auth_time: DateTime::<Utc>::from_timestamp(claims.auth_time, 0).unwrap_or_default(),
            auth_method: claims.auth_method,
        };
        Ok((session, state.admin))
    }

    /// The owner of an API key, if that user may ask now.
    pub(super) async fn owner(&self, key: &ApiKeyRow) -> Result<Caller, ApiError> {
        let user_id = UserId(key.user_id);
        let (state, _) = self.states.of(user_id, None).await?;
        if state.deleted {
            return Err(refusal(ErrorCode::ApiKeyInvalid));
        }
        admit(state)?;
        self.seen.note(user_id, Some(key.id));
        Ok(Caller { user_id, session: None })
    }

    /// To be called after each commit that changes a user's ban, role, deletion or `tokens_valid_from`.
    pub async fn forget_user(&self, user: UserId) {
        self.states.forget_user(user).await;
    }

    /// To be called after the commit that ended `sids`: requests are refused and sockets closed.
    pub async fn revoke_sessions(&self, user: UserId, sids: &[Uuid]) {
        self.states.revoke(user, sids).await;
    }

    /// To be called after the commit that revoked a key, by its hash.
    pub async fn forget_api_key(&self, key_hash: &str) {
        let mut fingerprint = [0; 32];
        if decode_hex(key_hash, &mut fingerprint) {
            self.api_keys.invalidate(&fingerprint);
        }
    }

    /// Writes who was seen, every two seconds until `shutdown` and once after it.
    pub async fn write_seen(&self, shutdown: CancellationToken) {
        loop {
            let stopping = tokio::select! {
                () = shutdown.cancelled() => true,
                () = tokio::time::sleep(FLUSH_INTERVAL) => false,
            };
            self.flush_seen().await;
            if stopping {
                return;
            }
        }
    }

    async fn flush_seen(&self) {
        let pending = self.seen.take();
        let (users, keys): (Vec<_>, Vec<_>) =
            (pending.users.into_iter().collect(), pending.keys.into_iter().collect());
        if let Err(error) = store::write_seen(&self.pool, &users, &keys, self.clock.now()).await {
            tracing::warn!(%error, "who was seen could not be written; the next minute will");
        }
    }
}

fn admit(state: UserState) -> Result<(), ApiError> {
    if state.banned { Err(refusal(ErrorCode::AccountBanned)) } else { Ok(()) }
}

/// The refusal that belongs to a code of authentication.
pub(super) fn refusal(code: ErrorCode) -> ApiError {
    let detail = match code {
        ErrorCode::AuthRequired => "Authentication required",
        ErrorCode::AuthTokenExpired => "Access token has expired",
        ErrorCode::AuthTokenRevoked => "Session has ended",
        ErrorCode::ApiKeyInvalid => "API key is invalid",
        ErrorCode::AccountBanned => "Account is banned",
        ErrorCode::AdminRequired => "Administrator rights required",
        ErrorCode::SessionRequired => "Sign in: an API key is not enough here",
        ErrorCode::ApiKeyPermission => "API key lacks the permission",
        _ => "Access token is invalid",
    };
    ApiError::new(code, detail)
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' ')).filter(|token| !token.is_empty())
}

fn api_key_prefix(key: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(key).ok().filter(|text| text.len() == API_KEY_LENGTH)?;
    let secret = text.strip_prefix("tbg_")?;
    secret.bytes().all(|byte| byte.is_ascii_alphanumeric()).then(|| &text[..API_KEY_PREFIX_LENGTH])
}

fn is_same_hash(stored: &str, fingerprint: &[u8; 32]) -> bool {
    let mut bytes = [0; 32];
    decode_hex(stored, &mut bytes) && bytes.ct_eq(fingerprint).into()
}

fn decode_hex(text: &str, into: &mut [u8; 32]) -> bool {
    text.len() == 64
        && text.as_bytes().chunks(2).zip(into.iter_mut()).all(|(pair, byte)| {
            let parsed = std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
            parsed.map(|value| *byte = value).is_some()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_header_has_a_scheme_and_a_token() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for bad in ["", "Bearer", "Bearer ", "Basic abc", "abc"] {
            assert_eq!(bearer(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_api_key_has_44_characters_of_its_alphabet() {
        let key = format!("tbg_{}", "0123456789".repeat(4));
        assert_eq!(api_key_prefix(key.as_bytes()), Some("tbg_01234567"));
        for bad in [&key[..43], &format!("{key}0"), &key.replace("tbg", "abc"), &key.replace('9', "-")] {
            assert_eq!(api_key_prefix(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(api_key_prefix(&[0xff; 44]), None);
    }

    #[test]
    fn hashes_are_compared_by_their_bytes() {
        let fingerprint: [u8; 32] = Sha256::digest("key").into();
        let hex: String = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(is_same_hash(&hex, &fingerprint));
        assert!(!is_same_hash(&hex.replace('0', "1"), &fingerprint));
        assert!(!is_same_hash("", &fingerprint));
        assert!(!is_same_hash(&"+1".repeat(32), &fingerprint));
    }
}
