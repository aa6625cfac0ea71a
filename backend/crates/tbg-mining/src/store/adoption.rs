//! Rows that change hands: adoption of a proven address, and what an account leaves behind.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use sqlx::PgConnection;
use tbg_core::UserId;

/// Whether the user holds the address and has proven it.
pub(crate) async fn holds_proven(
    conn: &mut PgConnection,
    user: UserId,
    address: &str,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM users WHERE id = $1 AND btc_address = $2 AND is_verified AND deleted_at IS NULL)
               AS "holds!""#,
        user.0,
        address
    )
    .fetch_one(conn)
    .await
}

/// Since when the address has rows that can change hands; none if it has none.
pub(crate) async fn first_activity(
    conn: &mut PgConnection,
    address: &str,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT least((SELECT min(bucket) FROM hourly_shares WHERE btc_address = $1),
                      (SELECT min(week_start)::TIMESTAMP AT TIME ZONE 'UTC' FROM weekly_best_diff WHERE btc_address = $1),
                      (SELECT min(found_at) FROM blocks WHERE btc_address = $1))",
        address
    )
    .fetch_one(conn)
    .await
}

/// Others who have rows of the address and never proved it.
pub(crate) async fn unproven_holders(
    conn: &mut PgConnection,
    user: UserId,
    address: &str,
) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT DISTINCT holder AS "holder!" FROM (
               SELECT user_id AS holder FROM hourly_shares WHERE btc_address = $2
               UNION SELECT user_id FROM weekly_best_diff WHERE btc_address = $2
               UNION SELECT user_id FROM blocks WHERE btc_address = $2
           ) rows
           WHERE holder IS NOT NULL AND holder <> $1
             AND NOT EXISTS (SELECT FROM wallet_credentials w WHERE w.user_id = holder AND w.btc_address = $2)
           ORDER BY 1"#,
        user.0,
        address
    )
    .fetch_all(conn)
    .await
}

/// Takes the bests of former holders away that shares of the address made.
pub(crate) async fn lower_former_bests(
    conn: &mut PgConnection,
    former: &[i64],
    address: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM personal_bests b WHERE b.user_id = ANY ($1) AND (
             EXISTS (SELECT FROM weekly_best_diff w WHERE w.btc_address = $2
                     AND w.best_share_time = b.share_time AND w.best_difficulty = b.best_difficulty)
             OR EXISTS (SELECT FROM shares s WHERE s.btc_address = $2
                        AND s.time = b.share_time AND s.share_diff = b.best_difficulty))",
        former,
        address
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes the rows his; returns the days of which hours changed hands.
pub(crate) async fn take_over(
    conn: &mut PgConnection,
    user: UserId,
    address: &str,
    former: &[i64],
    since: DateTime<Utc>,
) -> Result<Vec<NaiveDate>, sqlx::Error> {
    let days = sqlx::query_scalar!(
        r#"WITH adopted AS (
               UPDATE hourly_shares SET user_id = $1
               WHERE btc_address = $2 AND (user_id IS NULL OR user_id = ANY ($3)) RETURNING bucket
           ), weeks AS (
               UPDATE weekly_best_diff SET user_id = $1
               WHERE btc_address = $2 AND (user_id IS NULL OR user_id = ANY ($3))
           ), found AS (
               UPDATE blocks SET user_id = $1
               WHERE btc_address = $2 AND (user_id IS NULL OR user_id = ANY ($3))
           )
           SELECT DISTINCT (bucket AT TIME ZONE 'UTC')::DATE AS "day!" FROM adopted"#,
        user.0,
        address,
        former
    )
    .fetch_all(&mut *conn)
    .await?;
    // The archive too, so that a rebuild gives the same rows: shares through their index by user, the two other
    // kinds that make rows of a user through the one by kind and time.
    sqlx::query!(
        "UPDATE mining_events SET user_id = $1
         WHERE event_type = 'share_submitted' AND payload ->> 'user' = $2
           AND (user_id IS NULL OR user_id = ANY ($3))",
        user.0,
        address,
        former
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE mining_events SET user_id = $1
         WHERE event_type IN ('share_best_diff', 'block_found') AND ts >= $4 AND payload ->> 'user' = $2
           AND (user_id IS NULL OR user_id = ANY ($3))",
        user.0,
        address,
        former,
        since
    )
    .execute(conn)
    .await?;
    Ok(days)
}

/// Sums the given days of the new and of the former holders up anew, from the hours that are theirs.
pub(crate) async fn recompute_days(
    conn: &mut PgConnection,
    user: UserId,
    former: &[i64],
    days: &[NaiveDate],
) -> Result<(), sqlx::Error> {
    if days.is_empty() {
        return Ok(());
    }
    let mut users = former.to_vec();
    users.push(user.0);
    sqlx::query!(
        "INSERT INTO user_daily_stats AS d (user_id, day, total_shares, accepted_shares, rejected_shares, work,
                                            sum_share_diff, best_diff, avg_diff)
         SELECT asked.user_id, asked.day, coalesce(sum(h.total), 0), coalesce(sum(h.accepted), 0),
                coalesce(sum(h.rejected), 0), coalesce(sum(h.work), 0), coalesce(sum(h.sum_share_diff), 0),
                coalesce(max(h.best_diff), 0), coalesce(sum(h.sum_share_diff) / nullif(sum(h.accepted), 0), 0)
         FROM unnest($1::BIGINT[]) AS u (user_id) CROSS JOIN unnest($2::DATE[]) AS days (day)
         CROSS JOIN LATERAL (SELECT u.user_id, days.day) AS asked
         LEFT JOIN hourly_shares h ON h.user_id = asked.user_id
              AND h.bucket >= asked.day::TIMESTAMP AT TIME ZONE 'UTC'
              AND h.bucket < (asked.day + 1)::TIMESTAMP AT TIME ZONE 'UTC'
         GROUP BY asked.user_id, asked.day
         HAVING count(h.bucket) > 0
             OR EXISTS (SELECT FROM user_daily_stats e WHERE e.user_id = asked.user_id AND e.day = asked.day)
         ON CONFLICT (user_id, day) DO UPDATE SET
             total_shares = EXCLUDED.total_shares, accepted_shares = EXCLUDED.accepted_shares,
             rejected_shares = EXCLUDED.rejected_shares, work = EXCLUDED.work,
             sum_share_diff = EXCLUDED.sum_share_diff, best_diff = EXCLUDED.best_diff, avg_diff = EXCLUDED.avg_diff",
        &users,
        days
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Raises the user's bests to what the address achieved: from its shares as far as they are kept, else from
/// the best of each week.
pub(crate) async fn raise_bests(
    conn: &mut PgConnection,
    user: UserId,
    address: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"INSERT INTO personal_bests AS b (user_id, timeframe, period_key, best_difficulty, share_time, worker_name)
           WITH achieved AS (
               SELECT time, share_diff, worker_name FROM shares
               WHERE btc_address = $2 AND is_valid AND time >= $3 AND share_diff > 0
               UNION ALL
               SELECT best_share_time, best_difficulty, NULL FROM weekly_best_diff
               WHERE btc_address = $2 AND user_id = $1 AND best_share_time IS NOT NULL AND best_difficulty > 0
           ), framed AS (
               SELECT 'week' AS timeframe, to_char(time AT TIME ZONE 'UTC', 'IYYY"-W"IW') AS period_key, * FROM achieved
               UNION ALL
               SELECT 'month', to_char(time AT TIME ZONE 'UTC', 'YYYY-MM'), * FROM achieved
               UNION ALL
               SELECT 'alltime', NULL, * FROM achieved
           )
           SELECT DISTINCT ON (timeframe, period_key) $1, timeframe, period_key, share_diff, time, worker_name
           FROM framed ORDER BY timeframe, period_key, share_diff DESC, time, worker_name NULLS LAST
           ON CONFLICT (user_id, timeframe, period_key) DO UPDATE SET
               best_difficulty = EXCLUDED.best_difficulty, share_time = EXCLUDED.share_time,
               worker_name = EXCLUDED.worker_name, updated_at = now()
           WHERE EXCLUDED.best_difficulty > b.best_difficulty
              OR (EXCLUDED.best_difficulty = b.best_difficulty AND EXCLUDED.share_time < b.share_time)"#,
        user.0,
        address,
        now - TimeDelta::days(90)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives former holders the bests that the weeks of their own addresses still vouch for.
pub(crate) async fn raise_former_bests(conn: &mut PgConnection, former: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"INSERT INTO personal_bests AS b (user_id, timeframe, period_key, best_difficulty, share_time)
           WITH achieved AS (
               SELECT user_id, best_share_time AS time, best_difficulty FROM weekly_best_diff
               WHERE user_id = ANY ($1) AND best_share_time IS NOT NULL AND best_difficulty > 0
           ), framed AS (
               SELECT 'week' AS timeframe, to_char(time AT TIME ZONE 'UTC', 'IYYY"-W"IW') AS period_key, * FROM achieved
               UNION ALL
               SELECT 'month', to_char(time AT TIME ZONE 'UTC', 'YYYY-MM'), * FROM achieved
               UNION ALL
               SELECT 'alltime', NULL, * FROM achieved
           )
           SELECT DISTINCT ON (user_id, timeframe, period_key) user_id, timeframe, period_key, best_difficulty, time
           FROM framed ORDER BY user_id, timeframe, period_key, best_difficulty DESC, time
           ON CONFLICT (user_id, timeframe, period_key) DO UPDATE SET
               best_difficulty = EXCLUDED.best_difficulty, share_time = EXCLUDED.share_time, updated_at = now()
           WHERE EXCLUDED.best_difficulty > b.best_difficulty"#,
        former
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Creates the celebrations that the user's blocks lack; those of former holders that wait go.
pub(crate) async fn celebrate(
    conn: &mut PgConnection,
    user: UserId,
    former: &[i64],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH gone AS (
             DELETE FROM block_celebrations c USING blocks b
             WHERE c.block_id = b.id AND b.user_id = $1 AND c.user_id = ANY ($2) AND NOT c.celebrated
         )
         INSERT INTO block_celebrations (block_id, user_id, created_at)
         SELECT id, $1, found_at FROM blocks WHERE user_id = $1
         ON CONFLICT (block_id, user_id) DO NOTHING",
        user.0,
        former
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What is left of a deleted account: rows without a person. The archive names nobody either, or a rebuild would
/// bring the rows back.
pub(crate) async fn forget(
    conn: &mut PgConnection,
    user: UserId,
    address: Option<&str>,
) -> Result<(), sqlx::Error> {
    tbg_engine::engine::take_turn(conn).await?;
    super::rebuild::without_timeout(conn).await?;
    sqlx::query!(
        "UPDATE mining_events e SET user_id = NULL
         FROM (SELECT $2 AS address UNION SELECT old_address FROM wallet_address_history WHERE user_id = $1
               UNION SELECT new_address FROM wallet_address_history WHERE user_id = $1) held
         WHERE e.event_type = 'share_submitted' AND e.payload ->> 'user' = held.address AND e.user_id = $1",
        user.0,
        address
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE mining_events SET user_id = NULL
         WHERE event_type IN ('share_best_diff', 'block_found') AND user_id = $1",
        user.0
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "WITH hours AS (UPDATE hourly_shares SET user_id = NULL WHERE user_id = $1),
              weeks AS (UPDATE weekly_best_diff SET user_id = NULL WHERE user_id = $1),
              found AS (UPDATE blocks SET user_id = NULL WHERE user_id = $1),
              days AS (DELETE FROM user_daily_stats WHERE user_id = $1),
              bests AS (DELETE FROM personal_bests WHERE user_id = $1),
              rigs AS (DELETE FROM workers WHERE user_id = $1),
              celebrations AS (DELETE FROM block_celebrations WHERE user_id = $1),
              snapshots AS (DELETE FROM hashrate_snapshots WHERE user_id = $1),
              upcoming AS (DELETE FROM upcoming_events WHERE target_user_id = $1)
         UPDATE shares SET ip_address = NULL WHERE btc_address = $2 AND ip_address IS NOT NULL",
        user.0,
        address
    )
    .execute(conn)
    .await?;
    Ok(())
}
