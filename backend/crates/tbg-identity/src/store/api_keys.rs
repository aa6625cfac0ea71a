//! `api_keys`. Only a prefix and a hash are stored; the key itself is shown once and never again.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use tbg_core::UserId;
use uuid::Uuid;

/// More keys than a user can have active; the rest are expired ones.
const LIST_LIMIT: i64 = 100;

/// A key as its owner sees it.
#[derive(Debug)]
pub(crate) struct KeyRow {
    pub(crate) id: Uuid,
    pub(crate) key_prefix: String,
    pub(crate) name: String,
    pub(crate) permissions: Value,
    pub(crate) last_used_at: Option<DateTime<Utc>>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
}

/// A key that is about to exist.
#[derive(Debug)]
pub(crate) struct NewKey<'a> {
    pub(crate) user: UserId,
    pub(crate) prefix: &'a str,
    pub(crate) hash: &'a str,
    pub(crate) name: &'a str,
    pub(crate) permissions: &'a Value,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
}

/// A key that its owner wants to revoke.
#[derive(Debug)]
pub(crate) struct OwnedKey {
    pub(crate) key_prefix: String,
    pub(crate) key_hash: String,
    pub(crate) permissions: Value,
    pub(crate) is_revoked: bool,
}

/// Locks the owner until the end of the transaction, so that a count of keys stays true; false when the
/// user is gone. Rows that refer to the user can still be written meanwhile.
pub(crate) async fn lock_owner(conn: &mut PgConnection, user: UserId) -> Result<bool, sqlx::Error> {
    let id = sqlx::query_scalar!(
        "SELECT id FROM users WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE",
        user.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(id.is_some())
}

/// How many keys of a user work at `now`.
pub(crate) async fn count_active(
    conn: &mut PgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM api_keys
           WHERE user_id = $1 AND NOT is_revoked AND (expires_at IS NULL OR expires_at > $2)"#,
        user.0,
        now
    )
    .fetch_one(conn)
    .await
}

/// Stores a key; `None` when its prefix is taken.
pub(crate) async fn insert(conn: &mut PgConnection, key: &NewKey<'_>) -> Result<Option<KeyRow>, sqlx::Error> {
    sqlx::query_as!(
        KeyRow,
        "INSERT INTO api_keys (id, user_id, key_prefix, key_hash, name, permissions, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (key_prefix) DO NOTHING
         RETURNING id, key_prefix, name, permissions, last_used_at, created_at, expires_at",
        Uuid::now_v7(),
        key.user.0,
        key.prefix,
        key.hash,
        key.name,
        key.permissions,
        key.created_at,
        key.expires_at
    )
    .fetch_optional(conn)
    .await
}

/// The keys of a user that were not revoked, newest first.
pub(crate) async fn list(conn: &mut PgConnection, user: UserId) -> Result<Vec<KeyRow>, sqlx::Error> {
    sqlx::query_as!(
        KeyRow,
        "SELECT id, key_prefix, name, permissions, last_used_at, created_at, expires_at
         FROM api_keys WHERE user_id = $1 AND NOT is_revoked
         ORDER BY created_at DESC, id DESC
         LIMIT $2",
        user.0,
        LIST_LIMIT
    )
    .fetch_all(conn)
    .await
}

/// A key of this user, locked until the end of the transaction.
pub(crate) async fn lock(
    conn: &mut PgConnection,
    user: UserId,
    id: Uuid,
) -> Result<Option<OwnedKey>, sqlx::Error> {
    sqlx::query_as!(
        OwnedKey,
        "SELECT key_prefix, key_hash, permissions, is_revoked
         FROM api_keys WHERE id = $1 AND user_id = $2
         FOR UPDATE",
        id,
        user.0
    )
    .fetch_optional(conn)
    .await
}

/// Ends a key.
pub(crate) async fn revoke(conn: &mut PgConnection, id: Uuid, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE api_keys SET is_revoked = TRUE, revoked_at = $2 WHERE id = $1 AND NOT is_revoked",
        id,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}
