//! `hashrate_snapshots` as charts read them.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use tbg_core::UserId;

use crate::routes::hashrate::Point;
use crate::rules::window::Window;

/// The points of a window, oldest first: of one worker, or of all of a user's together.
pub(crate) async fn points(
    conn: &mut PgConnection,
    user: UserId,
    worker: Option<&str>,
    window: Window,
    now: DateTime<Utc>,
) -> Result<Vec<Point>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT date_bin(make_interval(secs => $5), time, 'epoch') AS "at!", avg(hashrate_5m) AS "rate!"
           FROM hashrate_snapshots
           WHERE user_id = $1 AND worker_name IS NOT DISTINCT FROM $2 AND time > $3 AND time <= $4
           GROUP BY 1 ORDER BY 1 DESC LIMIT $6"#,
        user.0,
        worker,
        now - window.length(),
        now,
        f64::from(window.step_seconds()),
        window.points()
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().rev().map(|row| Point { time: row.at, hashrate: row.rate }).collect())
}

/// Σ assigned difficulty of accepted shares of an address in the last minute, five minutes, hour and day. The
/// day comes from the rollups of hours, in which the oldest counts as far as it lies in the day.
pub(crate) async fn recent_work(
    conn: &mut PgConnection,
    address: &str,
    now: DateTime<Utc>,
) -> Result<[f64; 4], sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT coalesce(sum(difficulty) FILTER (WHERE time >= $3), 0) AS "m1!",
                  coalesce(sum(difficulty) FILTER (WHERE time >= $4), 0) AS "m5!",
                  coalesce(sum(difficulty), 0) AS "h1!",
                  coalesce((SELECT sum(work * least(1, extract(epoch FROM bucket + INTERVAL '1 hour' - $5) / 3600)::FLOAT8)
                            FROM hourly_shares
                            WHERE btc_address = $1 AND bucket > $5::TIMESTAMPTZ - INTERVAL '1 hour' AND bucket <= $6), 0)
                      AS "h24!"
           FROM shares WHERE btc_address = $1 AND is_valid AND time >= $2 AND time <= $6"#,
        address,
        now - TimeDelta::hours(1),
        now - TimeDelta::minutes(1),
        now - TimeDelta::minutes(5),
        now - TimeDelta::days(1),
        now
    )
    .fetch_one(conn)
    .await?;
    Ok([row.m1, row.m5, row.h1, row.h24])
}
