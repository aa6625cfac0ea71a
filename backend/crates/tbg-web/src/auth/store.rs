//! What authentication asks of the database.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use tbg_core::UserId;
use uuid::Uuid;

use super::state::UserState;

/// The state of a user; an unknown one counts as deleted.
pub(super) async fn user_state(pool: &PgPool, user: UserId) -> Result<UserState, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT is_banned, is_admin, deleted_at IS NOT NULL AS "deleted!", tokens_valid_from
           FROM users WHERE id = $1"#,
        user.0
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map_or(UserState::GONE, |row| UserState {
        banned: row.is_banned,
        admin: row.is_admin,
        deleted: row.deleted,
        tokens_valid_from: row.tokens_valid_from.timestamp(),
    }))
}

/// An API key as its prefix finds it.
#[derive(Clone, Debug)]
pub struct ApiKeyRow {
    /// Row id; names the key in limits and logs.
    pub id: Uuid,
    /// Owner.
    pub user_id: i64,
    /// SHA-256 of the whole key, hex.
    pub key_hash: String,
    /// Words of what it may do.
    pub permissions: serde_json::Value,
    /// End of validity, if any.
    pub expires_at: Option<DateTime<Utc>>,
}

/// The key with this prefix, unless it was revoked.
pub(super) async fn api_key(pool: &PgPool, prefix: &str) -> Result<Option<ApiKeyRow>, sqlx::Error> {
    sqlx::query_as!(
        ApiKeyRow,
        "SELECT id, user_id, key_hash, permissions, expires_at
         FROM api_keys WHERE key_prefix = $1 AND NOT is_revoked",
        prefix
    )
    .fetch_optional(pool)
    .await
}

/// Writes when users and keys were last seen, each in one statement.
pub(super) async fn write_seen(
    pool: &PgPool,
    users: &[i64],
    keys: &[Uuid],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let due = now - TimeDelta::seconds(60);
    if !users.is_empty() {
        sqlx::query!(
            "UPDATE users SET last_seen = $2 FROM unnest($1::BIGINT[]) AS seen (user_id)
             WHERE id = seen.user_id AND (last_seen IS NULL OR last_seen <= $3)",
            users,
            now,
            due
        )
        .execute(pool)
        .await?;
    }
    if !keys.is_empty() {
        sqlx::query!(
            "UPDATE api_keys SET last_used_at = $2 FROM unnest($1::UUID[]) AS used (key_id)
             WHERE id = used.key_id AND (last_used_at IS NULL OR last_used_at <= $3)",
            keys,
            now,
            due
        )
        .execute(pool)
        .await?;
    }
    Ok(())
}
