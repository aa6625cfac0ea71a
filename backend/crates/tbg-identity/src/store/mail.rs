//! `email_outbox`: mail that waits, is being sent, or was. `next_attempt_at` says when a waiting mail is due,
//! and when the claim on a mail that is being sent ends.
//!
//! The attempt number fences: who has lost a row to another worker can no longer change it.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use tbg_core::UserId;
use uuid::Uuid;

use crate::mail::Template;

/// A claimed mail.
#[derive(Clone, Debug)]
pub(crate) struct OutboxRow {
    pub(crate) id: Uuid,
    pub(crate) user_id: Option<UserId>,
    pub(crate) to_address: String,
    pub(crate) template: String,
    pub(crate) context: Value,
    /// Number of this attempt, from 1.
    pub(crate) attempts: i32,
}

/// Queues a mail in the caller's transaction: it is sent if, and only if, that commits. `context` has the
/// keys of [`Context`](crate::mail::Context) and never a token. Templates that carry a token need the user.
///
/// # Errors
/// When the database does not answer.
pub async fn enqueue(
    conn: &mut PgConnection,
    user: Option<UserId>,
    to: &str,
    template: Template,
    context: &Value,
) -> Result<Uuid, sqlx::Error> {
    let id = Uuid::now_v7();
    sqlx::query!(
        "INSERT INTO email_outbox (id, user_id, to_address, template, context, next_attempt_at)
         VALUES ($1, $2, $3, $4, $5, now())",
        id,
        user.map(|user| user.0),
        to,
        template.as_str(),
        context
    )
    .execute(conn)
    .await?;
    Ok(id)
}

/// Claims up to `at_most` due mails until `lease_until`: waiting ones, and those whose worker has not come
/// back.
pub(crate) async fn claim(
    conn: &mut PgConnection,
    at_most: i64,
    now: DateTime<Utc>,
    lease_until: DateTime<Utc>,
) -> Result<Vec<OutboxRow>, sqlx::Error> {
    // Spelled with OR, so that each side has its partial index.
    let rows = sqlx::query!(
        "WITH due AS MATERIALIZED (
             SELECT id FROM email_outbox
             WHERE (status = 'pending' AND next_attempt_at <= $2)
                OR (status = 'sending' AND next_attempt_at <= $2)
             ORDER BY next_attempt_at
             LIMIT $1
             FOR UPDATE SKIP LOCKED
         )
         UPDATE email_outbox AS o
         SET status = 'sending', attempts = o.attempts + 1, next_attempt_at = $3
         FROM due WHERE o.id = due.id
         RETURNING o.id, o.user_id, o.to_address, o.template, o.context, o.attempts",
        at_most,
        now,
        lease_until
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| OutboxRow {
            id: row.id,
            user_id: row.user_id.map(UserId),
            to_address: row.to_address,
            template: row.template,
            context: row.context,
            attempts: row.attempts,
        })
        .collect())
}

/// The mail is out.
pub(crate) async fn mark_sent(
    conn: &mut PgConnection,
    row: &OutboxRow,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE email_outbox SET status = 'sent', sent_at = $3, last_error = NULL
         WHERE id = $1 AND attempts = $2 AND status = 'sending'",
        row.id,
        row.attempts,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The mail waits for another attempt.
pub(crate) async fn mark_retry(
    conn: &mut PgConnection,
    row: &OutboxRow,
    next_attempt_at: DateTime<Utc>,
    error: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE email_outbox SET status = 'pending', next_attempt_at = $3, last_error = left($4, 500)
         WHERE id = $1 AND attempts = $2 AND status = 'sending'",
        row.id,
        row.attempts,
        next_attempt_at,
        error
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The mail is given up after an error.
pub(crate) async fn mark_failed(
    conn: &mut PgConnection,
    row: &OutboxRow,
    error: &str,
) -> Result<(), sqlx::Error> {
    end_unsent(conn, row, "failed", error).await
}

/// The mail is not to be sent.
pub(crate) async fn mark_dropped(
    conn: &mut PgConnection,
    row: &OutboxRow,
    reason: &str,
) -> Result<(), sqlx::Error> {
    end_unsent(conn, row, "dropped", reason).await
}

async fn end_unsent(
    conn: &mut PgConnection,
    row: &OutboxRow,
    status: &str,
    why: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE email_outbox SET status = $3, last_error = left($4, 500)
         WHERE id = $1 AND attempts = $2 AND status = 'sending'",
        row.id,
        row.attempts,
        status,
        why
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Mails that wait or are being sent.
pub(crate) async fn pending_count(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM email_outbox WHERE status = 'pending' OR status = 'sending'"#
    )
    .fetch_one(conn)
    .await
}
