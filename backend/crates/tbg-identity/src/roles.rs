//! What an operator does to a user from the command line (contract `auth-users.md` §9): the admin flag and
//! the ban. Nothing of it can be done through the API.
//!
//! Each action is one transaction; [`publish`] then tells the running servers, which would otherwise learn of
//! it when their cached state is 30 s old.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgPool;
use tbg_bitcoin::{BtcAddress, Network};
use tbg_core::UserId;
use tbg_core::audit::{self, Action, Entry};
use tbg_core::outbox::{self, DomainEvent};
use tbg_core::redis::Redis;
use uuid::Uuid;

use crate::store::roles as store;

/// Characters of a reason that are kept.
pub const MAX_REASON_CHARS: usize = 200;
/// An access token outlives its session by no more than this.
const DENYLIST_SECONDS: u64 = 3660;

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleChange {
    /// Whose flag it was.
    pub user: UserId,
    /// False when the flag was as wished before; then nothing was written.
    pub changed: bool,
    /// The user's address, whose public profile is cached.
    pub btc_address: Option<String>,
    /// Sessions that ended.
    pub ended_sessions: Vec<Uuid>,
}

/// The user whom an operator names: by id, or by an address of `network`.
///
/// # Errors
/// When the database does not answer.
pub async fn find_user(pool: &PgPool, text: &str, network: Network) -> Result<Option<UserId>, sqlx::Error> {
    let address = BtcAddress::parse(text, network).ok();
    let mut conn = pool.acquire().await?;
    let found = store::find(&mut conn, text.parse().ok(), address.as_ref().map(BtcAddress::as_str)).await?;
    Ok(found.map(UserId))
}

/// Gives or takes the admin flag. `None` when there is no such user.
///
/// # Errors
/// When the database does not answer.
pub async fn grant_admin(
    pool: &PgPool,
    user: UserId,
    granted: bool,
    now: DateTime<Utc>,
) -> Result<Option<RoleChange>, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let Some(flags) = store::lock(&mut tx, user).await? else { return Ok(None) };
    let changed = flags.is_admin != granted;
    if changed {
        store::set_admin(&mut tx, user, granted, now).await?;
        let action = if granted { Action::AdminRoleGranted } else { Action::AdminRoleRevoked };
        let entry = Entry::new(action, "user").on(user).details(json!({ "by": "cli" }));
        audit::record(&mut tx, &entry).await?;
    }
    tx.commit().await?;
    Ok(Some(RoleChange { user, changed, btc_address: flags.btc_address, ended_sessions: Vec::new() }))
}

/// Bans a user, which ends all sessions, or lifts the ban. Of who is banned already, the sessions that the ban ended
/// are named again, so that the servers can be told again. Only the first [`MAX_REASON_CHARS`] characters of
/// the reason are kept. `None` when there is no such user.
///
/// # Errors
/// When the database does not answer.
pub async fn ban(
    pool: &PgPool,
    user: UserId,
    reason: &str,
    banned: bool,
    now: DateTime<Utc>,
) -> Result<Option<RoleChange>, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let Some(flags) = store::lock(&mut tx, user).await? else { return Ok(None) };
    let changed = flags.is_banned != banned;
    let mut ended_sessions = Vec::new();
    if changed {
        let (action, event) = if banned {
            ended_sessions = store::ban(&mut tx, user, now).await?;
            (Action::AdminUserBanned, DomainEvent::user_banned(user))
        } else {
            store::unban(&mut tx, user, now).await?;
            (Action::AdminUserUnbanned, DomainEvent::privacy_changed(user))
        };
        outbox::write(&mut tx, &[event]).await?;
        let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
        let entry = Entry::new(action, "user").on(user).details(json!({ "reason": reason, "by": "cli" }));
        audit::record(&mut tx, &entry).await?;
    } else if banned {
        // Redis may not have been told the first time.
        ended_sessions = store::banned_sessions(&mut tx, user).await?;
    }
    tx.commit().await?;
    Ok(Some(RoleChange { user, changed, btc_address: flags.btc_address, ended_sessions }))
}

/// Tells the running servers: cached state and public profile are dropped, ended sessions denied, and open
/// sockets of a user whose sessions ended are closed. Doing it again does no harm.
///
/// # Errors
/// When Redis does not answer. The change stands all the same: servers know it within 30 s.
pub async fn publish(redis: &mut Redis, change: &RoleChange) -> redis::RedisResult<()> {
    let user = change.user;
    let mut pipe = redis::pipe();
    pipe.cmd("DEL").arg(format!("auth:user_state:{user}"));
    if let Some(address) = &change.btc_address {
        pipe.arg(format!("public:profile:{address}"));
    }
    pipe.ignore();
    for sid in &change.ended_sessions {
        let key = format!("auth:sid_revoked:{sid}");
        pipe.cmd("SET").arg(key).arg(1).arg("EX").arg(DENYLIST_SECONDS).ignore();
        pipe.cmd("PUBLISH").arg("auth:revoked").arg(revocation(user, *sid)).ignore();
    }
    pipe.query_async(redis).await
}

fn revocation(user: UserId, sid: Uuid) -> String {
    json!({ "user_id": user, "sid": sid }).to_string()
}
