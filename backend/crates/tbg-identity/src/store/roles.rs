//! What an operator changes about a user: the admin flag and the ban.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tbg_core::UserId;
use uuid::Uuid;

/// The flags of a user, locked until the end of the transaction.
pub(crate) struct Flags {
    pub btc_address: Option<String>,
    pub is_admin: bool,
    pub is_banned: bool,
}

/// The user who has that id, or has *proven* that address: anybody can name any address as theirs.
pub(crate) async fn find(
    conn: &mut PgConnection,
    id: Option<i64>,
    address: Option<&str>,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT id FROM users WHERE (id = $1 OR (btc_address = $2 AND is_verified)) AND deleted_at IS NULL",
        id,
        address
    )
    .fetch_optional(conn)
    .await
}

/// Reads and locks.
pub(crate) async fn lock(conn: &mut PgConnection, user: UserId) -> Result<Option<Flags>, sqlx::Error> {
    sqlx::query_as!(
        Flags,
        "SELECT btc_address, is_admin, is_banned FROM users
         WHERE id = $1 AND deleted_at IS NULL FOR UPDATE",
        user.0
    )
    .fetch_optional(conn)
    .await
}

/// Sets the admin flag.
pub(crate) async fn set_admin(
    conn: &mut PgConnection,
    user: UserId,
    is_admin: bool,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE users SET is_admin = $2, updated_at = $3 WHERE id = $1", user.0, is_admin, now)
        .execute(conn)
        .await?;
    Ok(())
}

/// Bans a user: no token issued before `now` is good any more, and none can be renewed. Returns the sessions
/// that were good until then.
pub(crate) async fn ban(
    conn: &mut PgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query!(
        "UPDATE users SET is_banned = TRUE, tokens_valid_from = $2, updated_at = $2 WHERE id = $1",
        user.0,
        now
    )
    .execute(&mut *conn)
    .await?;
    let mut sids = sqlx::query_scalar!(
        "UPDATE refresh_tokens SET is_revoked = TRUE, revoked_at = $2, revoke_reason = 'banned'
         WHERE user_id = $1 AND NOT is_revoked
         RETURNING family_id",
        user.0,
        now
    )
    .fetch_all(conn)
    .await?;
    sids.sort_unstable();
    sids.dedup();
    Ok(sids)
}

/// Of the bans that ended sessions of a user, what the last one ended.
pub(crate) async fn banned_sessions(conn: &mut PgConnection, user: UserId) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT DISTINCT family_id FROM refresh_tokens t
         WHERE user_id = $1 AND revoke_reason = 'banned' AND revoked_at =
             (SELECT max(revoked_at) FROM refresh_tokens WHERE user_id = $1 AND revoke_reason = 'banned')
         ORDER BY family_id",
        user.0
    )
    .fetch_all(conn)
    .await
}

/// Lifts a ban. The sessions of before stay revoked.
pub(crate) async fn unban(
    conn: &mut PgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE users SET is_banned = FALSE, updated_at = $2 WHERE id = $1", user.0, now)
        .execute(conn)
        .await?;
    Ok(())
}
