//! `pool_hourly_totals`: shares of the whole pool by hour.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// The newest hour that is there.
pub(crate) async fn newest(conn: &mut PgConnection) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar!("SELECT max(bucket) FROM pool_hourly_totals").fetch_one(conn).await
}

/// Sums the hours from that of `from` to that of `to` anew. An hour without shares is a row of zeros, so that
/// one whose shares went away is put right too. Returns how many rows are new or changed. The join names the
/// range once more, because only that brings the index on `hourly_shares (bucket)` into play.
pub(crate) async fn recompute(
    conn: &mut PgConnection,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        "INSERT INTO pool_hourly_totals AS p (bucket, total, accepted, rejected)
         SELECT hours.bucket, COALESCE(sum(h.total), 0), COALESCE(sum(h.accepted), 0),
                COALESCE(sum(h.rejected), 0)
         FROM generate_series(date_trunc('hour', $1::TIMESTAMPTZ, 'UTC'), $2::TIMESTAMPTZ, INTERVAL '1 hour')
              AS hours (bucket)
         LEFT JOIN hourly_shares h ON h.bucket = hours.bucket
              AND h.bucket BETWEEN date_trunc('hour', $1::TIMESTAMPTZ, 'UTC') AND $2::TIMESTAMPTZ
         GROUP BY hours.bucket ORDER BY hours.bucket
         ON CONFLICT (bucket) DO UPDATE
         SET total = EXCLUDED.total, accepted = EXCLUDED.accepted, rejected = EXCLUDED.rejected
         WHERE (p.total, p.accepted, p.rejected)
               IS DISTINCT FROM (EXCLUDED.total, EXCLUDED.accepted, EXCLUDED.rejected)",
        from,
        to
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
