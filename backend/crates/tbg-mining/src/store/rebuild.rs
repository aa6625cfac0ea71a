//! What a rebuild reads and resets.

use chrono::{DateTime, NaiveDate, Utc};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// A row of the archive.
pub(crate) struct Archived {
    pub(crate) ts: DateTime<Utc>,
    pub(crate) event_type: String,
    pub(crate) source: String,
    pub(crate) payload: String,
    pub(crate) region: String,
    pub(crate) event_key: Option<Uuid>,
    pub(crate) user_id: Option<i64>,
}

/// How far back rows can be rebuilt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// The first day of the archive. Retention drops whole days, so the day is whole.
    pub(crate) since: DateTime<Utc>,
    /// Whether rollups reach further back than the archive.
    pub(crate) has_history: bool,
}

/// A rebuild takes as long as it takes: lifts the time limit of statements in this transaction.
pub(crate) async fn without_timeout(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT set_config('statement_timeout', '0', true)").fetch_one(conn).await?;
    Ok(())
}

/// The archive's reach; `None` when it is empty.
pub(crate) async fn reach(conn: &mut PgConnection) -> Result<Option<Reach>, sqlx::Error> {
    let since = sqlx::query_scalar!("SELECT date_trunc('day', min(ts), 'UTC') FROM mining_events")
        .fetch_one(&mut *conn)
        .await?;
    let Some(since) = since else { return Ok(None) };
    let has_history = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM hourly_shares WHERE bucket < $1) AS "exists!""#,
        since
    )
    .fetch_one(conn)
    .await?;
    Ok(Some(Reach { since, has_history }))
}

/// The archive in the order in which batches apply events.
pub(crate) fn archive(pool: &PgPool) -> BoxStream<'_, Result<Archived, sqlx::Error>> {
    sqlx::query_as!(
        Archived,
        r#"SELECT ts, event_type, source, payload::TEXT AS "payload!", region, event_key, user_id
           FROM mining_events ORDER BY ts, event_key"#
    )
    .fetch(pool)
    .into_stream()
    .boxed()
}

/// Takes what the archive will count again out of the rollups. Days keep their uptime and workers; weeks
/// that began before the archive, and bests from before it, stay.
pub(crate) async fn reset(
    conn: &mut PgConnection,
    reach: Reach,
    weeks_from: NaiveDate,
) -> Result<(), sqlx::Error> {
    let since_day = reach.since.date_naive();
    sqlx::query!("DELETE FROM hourly_shares WHERE bucket >= $1", reach.since).execute(&mut *conn).await?;
    sqlx::query!(
        "UPDATE user_daily_stats
         SET total_shares = 0, accepted_shares = 0, rejected_shares = 0, best_diff = 0, avg_diff = 0,
             sum_share_diff = 0, work = 0
         WHERE day >= $1",
        since_day
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("DELETE FROM weekly_best_diff WHERE week_start >= $1", weeks_from)
        .execute(&mut *conn)
        .await?;
    // A best from before the archive cannot be found again, and stays.
    sqlx::query!("DELETE FROM personal_bests WHERE share_time >= $1", reach.since).execute(conn).await?;
    Ok(())
}
