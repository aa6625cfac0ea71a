//! Tokens that were mailed: `email_verification_tokens`, `password_reset_tokens` (contract `auth-users.md`
//! §5). Only hashes are stored. A token works once, and only the newest of its kind works.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::types::ipnetwork::IpNetwork;
use tbg_core::UserId;
use uuid::Uuid;

use crate::mail::Purpose;

/// A verification token that was just used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Whose it was.
    pub(crate) user_id: UserId,
    /// What the address is for.
    pub(crate) purpose: Purpose,
    /// The address that it proves.
    pub(crate) email: String,
}

/// Why a token does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhyNot {
    /// There is no such token.
    Invalid,
    /// It is too old.
    Expired,
    /// It was used, or a newer one has taken its place.
    Used,
}

impl WhyNot {
    /// The word in the audit log.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::Used => "used",
        }
    }
}

/// Stores a verification token; the user's earlier unused ones of that purpose no longer work. `false` when
/// the account is gone. For use inside a transaction.
pub(crate) async fn issue_verification(
    conn: &mut PgConnection,
    user: UserId,
    purpose: Purpose,
    email: &str,
    token_hash: &str,
    expires: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    if !lock_account(conn, user).await? {
        return Ok(false);
    }
    sqlx::query!(
        "UPDATE email_verification_tokens SET used_at = $3
         WHERE user_id = $1 AND purpose = $2 AND used_at IS NULL",
        user.0,
        purpose.as_str(),
        now
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "INSERT INTO email_verification_tokens
             (id, user_id, purpose, email, token_hash, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        Uuid::now_v7(),
        user.0,
        purpose.as_str(),
        email,
        token_hash,
        now,
        expires
    )
    .execute(conn)
    .await?;
    Ok(true)
}

/// Stores a password reset token; the user's earlier unused ones no longer work. `false` when the account is
/// gone. For use inside a transaction.
pub(crate) async fn issue_reset(
    conn: &mut PgConnection,
    user: UserId,
    requested_from: Option<IpAddr>,
    token_hash: &str,
    expires: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    if !lock_account(conn, user).await? {
        return Ok(false);
    }
    sqlx::query!(
        "UPDATE password_reset_tokens SET used_at = $2 WHERE user_id = $1 AND used_at IS NULL",
        user.0,
        now
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "INSERT INTO password_reset_tokens (id, user_id, token_hash, created_at, expires_at, ip_address)
         VALUES ($1, $2, $3, $4, $5, $6)",
        Uuid::now_v7(),
        user.0,
        token_hash,
        now,
        expires,
        requested_from.map(IpNetwork::from)
    )
    .execute(conn)
    .await?;
    Ok(true)
}

/// Makes those who issue tokens of one account wait for each other, or two at once would both stay valid.
/// `false` when the account is gone.
async fn lock_account(conn: &mut PgConnection, user: UserId) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar!(
        "SELECT id FROM users WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE",
        user.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

/// Uses a verification token, if it works.
pub(crate) async fn take_verification(
    conn: &mut PgConnection,
    token_hash: &str,
    now: DateTime<Utc>,
) -> Result<Option<Taken>, sqlx::Error> {
    let row = sqlx::query!(
        "UPDATE email_verification_tokens SET used_at = $2
         WHERE token_hash = $1 AND used_at IS NULL AND expires_at > $2
         RETURNING user_id, purpose, email",
        token_hash,
        now
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let purpose = Purpose::parse(&row.purpose)
        .ok_or_else(|| sqlx::Error::Decode("a purpose that is not known".into()))?;
    Ok(Some(Taken { user_id: UserId(row.user_id), purpose, email: row.email }))
}

/// Uses a password reset token, if it works: whose password may be set.
pub(crate) async fn take_reset(
    conn: &mut PgConnection,
    token_hash: &str,
    now: DateTime<Utc>,
) -> Result<Option<UserId>, sqlx::Error> {
    let user = sqlx::query_scalar!(
        "UPDATE password_reset_tokens SET used_at = $2
         WHERE token_hash = $1 AND used_at IS NULL AND expires_at > $2
         RETURNING user_id",
        token_hash,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(user.map(UserId))
}

/// Locks the account behind a verification token, before the token itself: like whoever issues one.
pub(crate) async fn lock_owner_of_verification(
    conn: &mut PgConnection,
    token_hash: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT u.id FROM email_verification_tokens t JOIN users u ON u.id = t.user_id
         WHERE t.token_hash = $1 FOR NO KEY UPDATE OF u",
        token_hash
    )
    .fetch_optional(conn)
    .await?;
    Ok(())
}

/// Locks the account behind a reset token, before the token itself: like whoever issues one.
pub(crate) async fn lock_owner_of_reset(
    conn: &mut PgConnection,
    token_hash: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT u.id FROM password_reset_tokens t JOIN users u ON u.id = t.user_id
         WHERE t.token_hash = $1 FOR NO KEY UPDATE OF u",
        token_hash
    )
    .fetch_optional(conn)
    .await?;
    Ok(())
}

/// Why [`take_verification`] gives nothing; none if the token works.
pub(crate) async fn why_not_verification(
    conn: &mut PgConnection,
    token_hash: &str,
    now: DateTime<Utc>,
) -> Result<Option<WhyNot>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT used_at IS NOT NULL AS "used!", expires_at FROM email_verification_tokens
           WHERE token_hash = $1"#,
        token_hash
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map_or(Some(WhyNot::Invalid), |row| why_not(row.used, row.expires_at, now)))
}

/// Why [`take_reset`] gives nothing; none if the token works.
pub(crate) async fn why_not_reset(
    conn: &mut PgConnection,
    token_hash: &str,
    now: DateTime<Utc>,
) -> Result<Option<WhyNot>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT used_at IS NOT NULL AS "used!", expires_at FROM password_reset_tokens
           WHERE token_hash = $1"#,
        token_hash
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map_or(Some(WhyNot::Invalid), |row| why_not(row.used, row.expires_at, now)))
}

fn why_not(used: bool, expires_at: DateTime<Utc>, now: DateTime<Utc>) -> Option<WhyNot> {
    if used { Some(WhyNot::Used) } else { (expires_at <= now).then_some(WhyNot::Expired) }
}
