//! Rows of `refresh_tokens`. A session is a family of them; `family_id` is its `sid`.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::types::ipnetwork::IpNetwork;
use tbg_core::UserId;
use uuid::Uuid;

/// A token to be stored.
pub(crate) struct NewToken<'a> {
    pub id: Uuid,
    pub user: UserId,
    pub family: Uuid,
    /// SHA-256 of the token, hex.
    pub hash: &'a str,
    pub auth_method: &'a str,
    pub session_started_at: DateTime<Utc>,
    pub issued_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub ip: Option<IpAddr>,
    pub user_agent: Option<&'a str>,
}

/// A stored token.
#[derive(Clone, Debug)]
pub(crate) struct StoredToken {
    pub user_id: i64,
    pub family_id: Uuid,
    pub token_hash: String,
    pub auth_method: String,
    pub session_started_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub is_revoked: bool,
    pub revoke_reason: Option<String>,
}

pub(crate) async fn insert(conn: &mut PgConnection, token: &NewToken<'_>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO refresh_tokens (id, user_id, family_id, token_hash, auth_method, session_started_at,
                                     issued_at, expires_at, ip_address, user_agent)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        token.id,
        token.user.0,
        token.family,
        token.hash,
        token.auth_method,
        token.session_started_at,
        token.issued_at,
        token.expires_at,
        token.ip.map(IpNetwork::from),
        token.user_agent
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(crate) async fn find(conn: &mut PgConnection, id: Uuid) -> Result<Option<StoredToken>, sqlx::Error> {
    sqlx::query_as!(
        StoredToken,
        "SELECT user_id, family_id, token_hash, auth_method, session_started_at, expires_at, is_revoked,
                revoke_reason
         FROM refresh_tokens WHERE id = $1",
        id
    )
    .fetch_optional(conn)
    .await
}

/// Retires a live token in favour of its successor; false if somebody was faster.
pub(crate) async fn rotate(
    conn: &mut PgConnection,
    id: Uuid,
    successor: Uuid,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "UPDATE refresh_tokens
         SET is_revoked = TRUE, revoked_at = $3, revoke_reason = 'rotated', replaced_by = $2
         WHERE id = $1 AND NOT is_revoked AND expires_at > $3",
        id,
        successor,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends one session; false if it had ended.
pub(crate) async fn revoke_family(
    conn: &mut PgConnection,
    family: Uuid,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "UPDATE refresh_tokens SET is_revoked = TRUE, revoked_at = $3, revoke_reason = $2
         WHERE family_id = $1 AND NOT is_revoked",
        family,
        reason,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Ends all sessions of a user but `except`; returns those that were live.
pub(crate) async fn revoke_all(
    conn: &mut PgConnection,
    user: UserId,
    reason: &str,
    except: Option<Uuid>,
    now: DateTime<Utc>,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let rows = sqlx::query!(
        "UPDATE refresh_tokens SET is_revoked = TRUE, revoked_at = $3, revoke_reason = $2
         WHERE user_id = $1 AND NOT is_revoked AND ($4::UUID IS NULL OR family_id <> $4)
         RETURNING family_id, expires_at",
        user.0,
        reason,
        now,
        except
    )
    .fetch_all(conn)
    .await?;
    let mut live: Vec<Uuid> =
        rows.into_iter().filter(|row| row.expires_at > now).map(|row| row.family_id).collect();
    live.sort_unstable();
    live.dedup();
    Ok(live)
}
