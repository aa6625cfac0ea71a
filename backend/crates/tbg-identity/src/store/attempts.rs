//! Rows of `login_attempts`: failures per e-mail (contract §4.3).

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

/// What the counter says about a log-in that is about to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// It may be checked.
    Allowed {
        /// It is the last one: if it fails, the e-mail is locked.
        is_last: bool,
    },
    /// The e-mail is locked until then.
    Locked(DateTime<Utc>),
}

/// Counts an attempt *before* it is checked, in one statement: however many come at once, no more than
/// `threshold` are checked. The last one locks at once; success takes everything back.
pub(crate) async fn reserve(
    conn: &mut PgConnection,
    email_hash: &str,
    threshold: i32,
    lock_seconds: i64,
    now: DateTime<Utc>,
) -> Result<Attempt, sqlx::Error> {
    let window_start = now - TimeDelta::seconds(lock_seconds);
    let locked_until = now + TimeDelta::seconds(lock_seconds);
    let reserved = sqlx::query!(
        "INSERT INTO login_attempts AS a (email_hash, failed_count, window_started_at, locked_until, updated_at)
         VALUES ($1, 1, $2, CASE WHEN 1 >= $3 THEN $5::TIMESTAMPTZ END, $2)
         ON CONFLICT (email_hash) DO UPDATE SET
             failed_count = CASE
                 WHEN a.failed_count = 0 OR a.window_started_at < $4 THEN 1
                 WHEN a.failed_count + 1 >= $3 THEN 0
                 ELSE a.failed_count + 1
             END,
             window_started_at = CASE
                 WHEN a.failed_count = 0 OR a.window_started_at < $4 THEN $2
                 ELSE a.window_started_at
             END,
             locked_until = CASE
                 WHEN a.failed_count > 0 AND a.window_started_at >= $4 AND a.failed_count + 1 >= $3
                 THEN $5::TIMESTAMPTZ
             END,
             updated_at = $2
         WHERE a.locked_until IS NULL OR a.locked_until <= $2
         RETURNING locked_until",
        email_hash,
        now,
        threshold,
        window_start,
        locked_until
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(row) = reserved {
        return Ok(Attempt::Allowed { is_last: row.locked_until.is_some() });
    }
    let until =
        sqlx::query_scalar!("SELECT locked_until FROM login_attempts WHERE email_hash = $1", email_hash)
            .fetch_optional(conn)
            .await?
            .flatten();
    // Between the two statements a success may have taken the lock back: then the client tries again.
    Ok(Attempt::Locked(until.unwrap_or(now + TimeDelta::seconds(1))))
}

/// An attempt that was reserved was not checked after all: it counts for nothing.
pub(crate) async fn give_back(
    conn: &mut PgConnection,
    email_hash: &str,
    was_last: bool,
    threshold: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE login_attempts SET
             failed_count = CASE WHEN $2 THEN $3 - 1 ELSE greatest(failed_count - 1, 0) END,
             locked_until = CASE WHEN NOT $2 THEN locked_until END
         WHERE email_hash = $1",
        email_hash,
        was_last,
        threshold
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A success, or a new password: nothing is held against the e-mail.
pub(crate) async fn clear(conn: &mut PgConnection, email_hash: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM login_attempts WHERE email_hash = $1", email_hash).execute(conn).await?;
    Ok(())
}
