//! What the deployment's gauges show: one statement, every part by an index or over a small table.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

/// See the module.
pub(crate) struct GaugeRow {
    pub blocks: i64,
    pub draws: i64,
    /// Players of the last 15 minutes.
    pub active_players: i64,
    /// Of the oldest event that waits for a consumer; 0 without any.
    pub outbox_age_seconds: f64,
    /// Events that wait for a consumer; counted up to 100,000 of each, beyond which the number says nothing new.
    pub outbox_depth: i64,
    /// When the newest WAL file was archived; none while archiving is off.
    pub wal_archived_at: Option<DateTime<Utc>>,
}

/// Reads it.
pub(crate) async fn read(
    pool: &PgPool,
    now: DateTime<Utc>,
    consumers: &[&str],
) -> Result<GaugeRow, sqlx::Error> {
    sqlx::query_as!(
        GaugeRow,
        r#"SELECT (SELECT count(*) FROM blocks) AS "blocks!",
                  (SELECT count(*) FROM lottery_draws WHERE status = 'completed') AS "draws!",
                  (SELECT count(DISTINCT user_id) FROM game_sessions
                   WHERE last_played_at > $1::TIMESTAMPTZ - INTERVAL '15 minutes') AS "active_players!",
                  coalesce(extract(EPOCH FROM $1 - (SELECT min(oldest.created_at) FROM unnest($2::TEXT[]) AS c (consumer)
                      CROSS JOIN LATERAL (SELECT created_at FROM domain_outbox o
                                          WHERE o.consumer = c.consumer AND o.done_at IS NULL ORDER BY o.id LIMIT 1) oldest)), 0)::FLOAT8 AS "outbox_age_seconds!",
                  (SELECT count(*) FROM unnest($2::TEXT[]) AS c (consumer)
                   CROSS JOIN LATERAL (SELECT o.id FROM domain_outbox o
                                       WHERE o.consumer = c.consumer AND o.done_at IS NULL ORDER BY o.id LIMIT 100000) waiting) AS "outbox_depth!",
                  (SELECT last_archived_time FROM pg_stat_archiver) AS wal_archived_at"#,
        now,
        consumers as &[&str]
    )
    .fetch_one(pool)
    .await
}
