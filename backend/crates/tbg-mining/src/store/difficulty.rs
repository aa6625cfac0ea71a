//! Bests and achieved difficulties.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use tbg_core::UserId;

use crate::rules::histogram::{BUCKETS, edges};

/// A best of a user.
pub(crate) struct BestRow {
    pub timeframe: String,
    pub period_key: Option<String>,
    pub best_difficulty: f64,
    pub share_time: DateTime<Utc>,
    pub worker_name: Option<String>,
    pub percentile: Option<f64>,
}

/// The user's bests of the named weeks and month and of all time.
pub(crate) async fn bests(
    conn: &mut PgConnection,
    user: UserId,
    periods: &[String],
) -> Result<Vec<BestRow>, sqlx::Error> {
    sqlx::query_as!(
        BestRow,
        "SELECT timeframe, period_key, best_difficulty, share_time, worker_name, percentile FROM personal_bests
         WHERE user_id = $1 AND (timeframe = 'alltime' OR period_key = ANY ($2)) LIMIT 10",
        user.0,
        periods
    )
    .fetch_all(conn)
    .await
}

/// A best and where it stands among those of its period.
pub(crate) struct Place {
    pub best_difficulty: f64,
    pub share_time: DateTime<Utc>,
    pub worker_name: Option<String>,
    pub above: i64,
    pub below: i64,
    pub total: i64,
}

/// Where the user's best of a period stands. `IS NOT DISTINCT FROM` finds nothing in an index: the period and none are
/// asked for apart.
pub(crate) async fn place(
    conn: &mut PgConnection,
    user: UserId,
    timeframe: &str,
    period: Option<&str>,
) -> Result<Option<Place>, sqlx::Error> {
    sqlx::query_as!(
        Place,
        r#"WITH peers AS (
               SELECT best_difficulty FROM personal_bests WHERE timeframe = $2 AND period_key = $3
               UNION ALL
               SELECT best_difficulty FROM personal_bests WHERE timeframe = $2 AND period_key IS NULL AND $3::TEXT IS NULL
           )
           SELECT mine.best_difficulty, mine.share_time, mine.worker_name,
                  counts.above AS "above!", counts.below AS "below!", counts.total AS "total!"
           FROM personal_bests mine
           CROSS JOIN LATERAL (
               SELECT count(*) FILTER (WHERE peers.best_difficulty > mine.best_difficulty) AS above,
                      count(*) FILTER (WHERE peers.best_difficulty < mine.best_difficulty) AS below,
                      count(*) AS total
               FROM peers
           ) counts
           WHERE mine.user_id = $1 AND mine.timeframe = $2 AND mine.period_key IS NOT DISTINCT FROM $3"#,
        user.0,
        timeframe,
        period
    )
    .fetch_optional(conn)
    .await
}

/// Times and achieved difficulties of the newest accepted shares, newest first.
pub(crate) async fn scatter(
    conn: &mut PgConnection,
    user: UserId,
    at_most: i64,
) -> Result<Vec<(DateTime<Utc>, f64)>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT s.time, s.share_diff FROM users u JOIN shares s ON s.btc_address = u.btc_address
         WHERE u.id = $1 AND u.deleted_at IS NULL AND s.is_valid
         ORDER BY s.time DESC, s.id DESC LIMIT $2",
        user.0,
        at_most
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.time, row.share_diff)).collect())
}

/// Edges and counts of the accepted shares of the last 30 days; none without shares. Computed where the shares
/// are; the answer is kept for a minute.
pub(crate) async fn histogram(
    conn: &mut PgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<Option<([f64; BUCKETS + 1], [i64; BUCKETS])>, sqlx::Error> {
    let from = now - TimeDelta::days(30);
    let range = sqlx::query!(
        "SELECT min(s.share_diff) AS low, max(s.share_diff) AS high
         FROM users u JOIN shares s ON s.btc_address = u.btc_address
         WHERE u.id = $1 AND u.deleted_at IS NULL AND s.is_valid AND s.time >= $2",
        user.0,
        from
    )
    .fetch_one(&mut *conn)
    .await?;
    let Some((low, high)) = range.low.zip(range.high) else { return Ok(None) };
    let edges = edges(low, high);
    // Whatever came in between is counted by the inner edges alone: no share is outside.
    let inner = edges.get(1..BUCKETS).unwrap_or_default().to_vec();
    let rows = sqlx::query!(
        r#"SELECT width_bucket(s.share_diff, $3::FLOAT8[]) AS "bucket!", count(*) AS "count!"
           FROM users u JOIN shares s ON s.btc_address = u.btc_address
           WHERE u.id = $1 AND u.deleted_at IS NULL AND s.is_valid AND s.time >= $2
           GROUP BY 1"#,
        user.0,
        from,
        &inner
    )
    .fetch_all(conn)
    .await?;
    let mut counts = [0; BUCKETS];
    for row in rows {
        if let Some(count) = usize::try_from(row.bucket).ok().and_then(|bucket| counts.get_mut(bucket)) {
            *count = row.count;
        }
    }
    Ok(Some((edges, counts)))
}

/// Brings the stored percentiles of a time frame and period up to date.
pub(crate) async fn refresh_percentiles(
    conn: &mut PgConnection,
    timeframe: &str,
    period: Option<&str>,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        "WITH peers AS (
             SELECT id, best_difficulty FROM personal_bests WHERE timeframe = $1 AND period_key = $2
             UNION ALL
             SELECT id, best_difficulty FROM personal_bests
             WHERE timeframe = $1 AND period_key IS NULL AND $2::TEXT IS NULL
         )
         UPDATE personal_bests b SET percentile = ranked.percentile
         FROM (SELECT id, round((100.0 * (rank() OVER (ORDER BY best_difficulty) - 1)
                                 / count(*) OVER ())::NUMERIC, 2)::FLOAT8 AS percentile FROM peers) ranked
         WHERE b.id = ranked.id AND b.percentile IS DISTINCT FROM ranked.percentile",
        timeframe,
        period
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
