//! What the hourly clean-up deletes (contract `auth-users.md` §12), a batch at a time.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

/// Rows that one statement deletes.
pub(crate) const BATCH: i64 = 1000;
/// Tokens that were mailed are kept this long after they expire.
const KEEP_EXPIRED_TOKENS: TimeDelta = TimeDelta::hours(24);
/// Failed sign-ins are forgotten after this long without another.
const KEEP_IDLE_ATTEMPTS: TimeDelta = TimeDelta::hours(24);
/// Mail that is done with is kept this long.
const KEEP_MAIL: TimeDelta = TimeDelta::days(30);

/// Deletes one batch from each table and returns the largest number of rows that any of them lost: below
/// [`BATCH`], there is nothing left to delete.
pub(crate) async fn sweep(conn: &mut PgConnection, now: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let deleted = [
        refresh_tokens(conn, now).await?,
        verification_tokens(conn, now - KEEP_EXPIRED_TOKENS).await?,
        reset_tokens(conn, now - KEEP_EXPIRED_TOKENS).await?,
        login_attempts(conn, now - KEEP_IDLE_ATTEMPTS).await?,
        mail(conn, now - KEEP_MAIL).await?,
    ];
    Ok(deleted.into_iter().max().unwrap_or_default())
}

/// Expired ones only: a rotated token must be recognised until it expires, or its reuse would go unnoticed.
async fn refresh_tokens(conn: &mut PgConnection, expired_before: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        "DELETE FROM refresh_tokens WHERE id IN
           (SELECT id FROM refresh_tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)",
        expired_before,
        BATCH
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

async fn verification_tokens(
    conn: &mut PgConnection,
    expired_before: DateTime<Utc>,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        "DELETE FROM email_verification_tokens WHERE id IN
           (SELECT id FROM email_verification_tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)",
        expired_before,
        BATCH
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

async fn reset_tokens(conn: &mut PgConnection, expired_before: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        "DELETE FROM password_reset_tokens WHERE id IN
           (SELECT id FROM password_reset_tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)",
        expired_before,
        BATCH
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// The age is checked again where the row is deleted: it may have counted another failure since it was found.
async fn login_attempts(conn: &mut PgConnection, idle_since: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        "DELETE FROM login_attempts WHERE updated_at < $1 AND email_hash IN
           (SELECT email_hash FROM login_attempts WHERE updated_at < $1 ORDER BY updated_at LIMIT $2)",
        idle_since,
        BATCH
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

async fn mail(conn: &mut PgConnection, created_before: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        "DELETE FROM email_outbox WHERE id IN
           (SELECT id FROM email_outbox WHERE status IN ('sent', 'dropped') AND created_at < $1 LIMIT $2)",
        created_before,
        BATCH
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
