//! The numbers of a miner's overview, from rollups.

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use sqlx::PgConnection;
use tbg_core::UserId;
use tbg_core::period::IsoWeek;

use crate::rules::window::part_of_hour;

/// What shares of a user count.
pub(crate) struct Counts {
    pub total: i64,
    pub accepted: i64,
    pub rejected: i64,
    pub today_total: i64,
    pub today_accepted: i64,
    pub today_best: f64,
}

/// Counts of all time and of the day of `now`.
pub(crate) async fn counts(
    conn: &mut PgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<Counts, sqlx::Error> {
    let row = sqlx::query_as!(
        Counts,
        r#"SELECT coalesce(sum(total_shares), 0)::BIGINT AS "total!",
                  coalesce(sum(accepted_shares), 0)::BIGINT AS "accepted!",
                  coalesce(sum(rejected_shares), 0)::BIGINT AS "rejected!",
                  coalesce(sum(total_shares) FILTER (WHERE day = $2), 0)::BIGINT AS "today_total!",
                  coalesce(sum(accepted_shares) FILTER (WHERE day = $2), 0)::BIGINT AS "today_accepted!",
                  coalesce(max(best_diff) FILTER (WHERE day = $2), 0) AS "today_best!"
           FROM user_daily_stats WHERE user_id = $1"#,
        user.0,
        now.date_naive()
    )
    .fetch_one(conn)
    .await?;
    Ok(row)
}

/// The counts of a user, their bests, blocks, and what a change is measured against.
pub(crate) struct Standing {
    /// The address that the user holds.
    pub address: Option<String>,
    pub total: i64,
    pub accepted: i64,
    pub today_total: i64,
    pub today_accepted: i64,
    pub today_rejected: i64,
    pub today_best: f64,
    pub best_week: Option<f64>,
    pub best_alltime: Option<f64>,
    pub blocks: i64,
    /// Shares of yesterday until this time of the day.
    pub yesterday: f64,
    /// hashrate_1h of the snapshot nearest to 24 hours ago.
    pub hashrate_before: Option<f64>,
    /// Newest difficulty that the network published.
    pub network_difficulty: Option<f64>,
    /// Newest height that it published.
    pub network_height: Option<i32>,
}

/// See [`Standing`]. One statement over indexes.
pub(crate) async fn standing(
    conn: &mut PgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<Standing, sqlx::Error> {
    let day_ago = now - TimeDelta::days(1);
    let yesterday = day_ago.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
    sqlx::query_as!(
        Standing,
        r#"WITH holder AS (
               SELECT (SELECT btc_address FROM users WHERE id = $1 AND deleted_at IS NULL) AS address
           ), counts AS (
               SELECT coalesce(sum(total_shares), 0)::BIGINT AS total,
                      coalesce(sum(accepted_shares), 0)::BIGINT AS accepted,
                      coalesce(sum(total_shares) FILTER (WHERE day = $2), 0)::BIGINT AS today_total,
                      coalesce(sum(accepted_shares) FILTER (WHERE day = $2), 0)::BIGINT AS today_accepted,
                      coalesce(sum(rejected_shares) FILTER (WHERE day = $2), 0)::BIGINT AS today_rejected,
                      coalesce(max(best_diff) FILTER (WHERE day = $2), 0) AS today_best
               FROM user_daily_stats WHERE user_id = $1
           ), mine AS (
               SELECT best_difficulty AS best FROM personal_bests
               WHERE user_id = $1 AND timeframe = 'week' AND period_key = $3
           ), network AS (
               SELECT difficulty, block_height FROM network_difficulty ORDER BY block_height DESC LIMIT 1
           )
           SELECT holder.address, counts.total AS "total!", counts.accepted AS "accepted!",
                  counts.today_total AS "today_total!", counts.today_accepted AS "today_accepted!",
                  counts.today_rejected AS "today_rejected!", counts.today_best AS "today_best!",
                  (SELECT best FROM mine) AS best_week,
                  (SELECT best_difficulty FROM personal_bests WHERE user_id = $1 AND timeframe = 'alltime') AS best_alltime,
                  (SELECT count(*) FROM blocks WHERE user_id = $1) AS "blocks!",
                  coalesce((SELECT sum(total * CASE WHEN bucket + INTERVAL '1 hour' > $5 THEN $6::FLOAT8 ELSE 1 END)
                            FROM hourly_shares WHERE btc_address = holder.address AND bucket >= $4 AND bucket < $5), 0) AS "yesterday!",
                  (SELECT hashrate_1h FROM hashrate_snapshots
                   WHERE user_id = $1 AND worker_name IS NULL
                     AND time BETWEEN $5::TIMESTAMPTZ - INTERVAL '15 minutes' AND $5::TIMESTAMPTZ + INTERVAL '15 minutes'
                   ORDER BY abs(extract(epoch FROM time - $5)) LIMIT 1) AS hashrate_before,
                  (SELECT difficulty FROM network) AS network_difficulty,
                  (SELECT block_height FROM network) AS network_height
           FROM counts, holder"#,
        user.0,
        now.date_naive(),
        IsoWeek::of(now).to_string(),
        yesterday,
        day_ago,
        part_of_hour(now)
    )
    .fetch_one(conn)
    .await
}

/// The bests of everybody in the week of `now`, in ascending order.
pub(crate) async fn bests_of_week(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
) -> Result<Vec<f64>, sqlx::Error> {
    // One row of all, from the index that has them in this order.
    sqlx::query_scalar!(
        r#"SELECT coalesce(array_agg(best_difficulty ORDER BY best_difficulty), '{}') AS "bests!"
           FROM personal_bests WHERE timeframe = 'week' AND period_key = $1"#,
        IsoWeek::of(now).to_string()
    )
    .fetch_one(conn)
    .await
}

/// A day of a user.
pub(crate) struct Day {
    pub day: NaiveDate,
    pub total_shares: i64,
    pub accepted_shares: i64,
    pub rejected_shares: i64,
    pub best_diff: f64,
    pub avg_diff: f64,
    pub uptime_minutes: i32,
    pub workers_seen: i32,
}

/// The last `days` days until `today`, newest first, those that have a row.
pub(crate) async fn days(
    conn: &mut PgConnection,
    user: UserId,
    today: NaiveDate,
    days: i64,
) -> Result<Vec<Day>, sqlx::Error> {
    let back = u64::try_from(days).unwrap_or(1).saturating_sub(1);
    let from = today.checked_sub_days(Days::new(back)).unwrap_or(today);
    sqlx::query_as!(
        Day,
        "SELECT day, total_shares, accepted_shares, rejected_shares, best_diff, avg_diff, uptime_minutes, workers_seen
         FROM user_daily_stats WHERE user_id = $1 AND day BETWEEN $2 AND $3 ORDER BY day DESC LIMIT $4",
        user.0,
        from,
        today,
        days
    )
    .fetch_all(conn)
    .await
}

/// What the game knows of a user.
pub(crate) struct Progress {
    pub total_xp: i64,
    pub badges_earned: i32,
    pub current_streak: i32,
    pub freezes: i16,
    pub last_active_week: Option<String>,
}

/// The row of the game, if there is one.
pub(crate) async fn progress(conn: &mut PgConnection, user: UserId) -> Result<Option<Progress>, sqlx::Error> {
    sqlx::query_as!(
        Progress,
        "SELECT total_xp, badges_earned, current_streak, freezes, last_active_week
         FROM user_gamification WHERE user_id = $1",
        user.0
    )
    .fetch_optional(conn)
    .await
}
