//! What is shown of weeks and draws: by key and by rank range.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgPool;
use tbg_core::UserId;

use crate::rules::week::{Merged, merged};

/// A user's week, with the frozen draw where there is one.
pub(crate) struct WeekRow {
    /// Of its question, from 1 on.
    pub place: i64,
    pub display_name: Option<String>,
    pub btc_address: Option<String>,
    /// Per address of the user: the best, its time, the shares.
    pub bests: Vec<f64>,
    pub best_times: Vec<Option<DateTime<Utc>>>,
    pub shares: Vec<i64>,
    pub days: Vec<NaiveDate>,
    pub day_bests: Vec<f64>,
    pub hash: Option<String>,
    pub hash_best: Option<f64>,
    pub network_difficulty: Option<f64>,
    pub block_height: Option<i32>,
    pub block_reward: Option<f64>,
    pub block_hash: Option<String>,
    pub status: Option<String>,
    pub participants: Option<i32>,
    pub rank: Option<i32>,
    pub percentile: Option<f64>,
    pub frozen_best: Option<f64>,
    pub frozen_time: Option<DateTime<Utc>>,
    pub frozen_shares: Option<i64>,
    pub played: Vec<String>,
}

impl WeekRow {
    /// Whether it was drawn.
    pub(crate) fn is_completed(&self) -> bool {
        self.status.as_deref() == Some("completed")
    }

    /// What the user mined in it, as it stands.
    pub(crate) fn live(&self) -> Merged {
        merged(&self.bests, &self.best_times, &self.shares)
    }
}

/// Everything that a week before the current one shows of a user: one statement, by keys.
pub(crate) async fn past_week(
    pool: &PgPool,
    user: UserId,
    monday: NaiveDate,
) -> Result<Option<WeekRow>, sqlx::Error> {
    sqlx::query_as!(
        WeekRow,
        r#"SELECT 1::BIGINT AS "place!", u.display_name, u.btc_address, coalesce(weeks.bests, '{}') AS "bests!",
                  coalesce(weeks.times, '{}') AS "best_times!: Vec<Option<DateTime<Utc>>>", coalesce(weeks.shares, '{}') AS "shares!",
                  days.days AS "days!", days.bests AS "day_bests!", h.hash AS "hash?", h.best_difficulty AS "hash_best?",
                  (SELECT difficulty FROM network_difficulty
                   WHERE time < ($2::DATE + 7)::TIMESTAMP AT TIME ZONE 'UTC' ORDER BY time DESC LIMIT 1) AS network_difficulty,
                  block.block_height AS "block_height?", block.reward_btc::FLOAT8 AS "block_reward?",
                  block.block_hash AS "block_hash?",
                  d.status AS "status?", d.total_participants AS "participants?", r.rank AS "rank?",
                  r.percentile::FLOAT8 AS "percentile?", e.best_difficulty AS "frozen_best?", e.best_time AS "frozen_time?",
                  e.total_shares AS "frozen_shares?",
                  ARRAY(SELECT game_type FROM game_sessions s WHERE s.user_id = u.id AND s.week_start = $2) AS "played!: Vec<String>"
           FROM users u
           CROSS JOIN LATERAL (
               SELECT array_agg(best_difficulty) AS bests, array_agg(best_share_time) AS times, array_agg(total_shares) AS shares
               FROM weekly_best_diff w WHERE w.user_id = $1 AND w.week_start = $2
           ) weeks
           CROSS JOIN LATERAL (
               SELECT coalesce(array_agg(day), '{}') AS days, coalesce(array_agg(best_diff), '{}') AS bests
               FROM user_daily_stats s WHERE s.user_id = u.id AND s.day BETWEEN $2 AND $2::DATE + 6
           ) days
           LEFT JOIN weekly_best_hashes h ON h.user_id = u.id AND h.week_start = $2
           LEFT JOIN LATERAL (
               SELECT block_height, reward_btc, block_hash FROM blocks b
               WHERE b.user_id = u.id AND b.found_at >= $2::TIMESTAMP AT TIME ZONE 'UTC'
                 AND b.found_at < ($2::DATE + 7)::TIMESTAMP AT TIME ZONE 'UTC'
               ORDER BY b.found_at DESC LIMIT 1
           ) block ON TRUE
           LEFT JOIN lottery_draws d ON d.week_start = $2
           LEFT JOIN lottery_entries e ON e.draw_id = d.id AND e.user_id = u.id
           LEFT JOIN lottery_results r ON r.draw_id = d.id AND r.user_id = u.id
           WHERE u.id = $1"#,
        user.0,
        monday
    )
    .fetch_optional(pool)
    .await
}

/// The same of weeks that run, which every dashboard asks for: for many users at once; none for a
/// user who does not exist. Such a week has no draw yet, and who wants the network's difficulty finds it
/// in Redis.
pub(crate) async fn current_weeks(
    pool: &PgPool,
    users: &[i64],
    mondays: &[NaiveDate],
) -> Result<Vec<WeekRow>, sqlx::Error> {
    // The arrays come from a query of their own, so that no plan depends on how many were asked this time: one is
    // made and kept.
    sqlx::query_as!(
        WeekRow,
        r#"SELECT q.place AS "place!", u.display_name, u.btc_address AS "btc_address?", coalesce(weeks.bests, '{}') AS "bests!",
                  coalesce(weeks.times, '{}') AS "best_times!: Vec<Option<DateTime<Utc>>>", coalesce(weeks.shares, '{}') AS "shares!",
                  coalesce(days.days, '{}') AS "days!", coalesce(days.bests, '{}') AS "day_bests!",
                  h.hash AS "hash?", h.best_difficulty AS "hash_best?", NULL::FLOAT8 AS network_difficulty,
                  block.block_height AS "block_height?", block.reward_btc::FLOAT8 AS "block_reward?",
                  block.block_hash AS "block_hash?", NULL::TEXT AS status, NULL::INT AS participants, NULL::INT AS rank,
                  NULL::FLOAT8 AS percentile, NULL::FLOAT8 AS frozen_best, NULL::TIMESTAMPTZ AS frozen_time,
                  NULL::BIGINT AS frozen_shares,
                  ARRAY(SELECT game_type FROM game_sessions s WHERE s.user_id = q.user_id AND s.week_start = q.monday) AS "played!: Vec<String>"
           FROM ROWS FROM (unnest((SELECT $1::BIGINT[])), unnest((SELECT $2::DATE[]))) WITH ORDINALITY AS q (user_id, monday, place)
           JOIN users u ON u.id = q.user_id
           CROSS JOIN LATERAL (
               SELECT array_agg(best_difficulty) AS bests, array_agg(best_share_time) AS times, array_agg(total_shares) AS shares
               FROM weekly_best_diff w WHERE w.user_id = q.user_id AND w.week_start = q.monday
           ) weeks
           CROSS JOIN LATERAL (
               SELECT array_agg(day) AS days, array_agg(best_diff) AS bests
               FROM user_daily_stats s WHERE s.user_id = q.user_id AND s.day BETWEEN q.monday AND q.monday + 6
           ) days
           LEFT JOIN weekly_best_hashes h ON h.user_id = q.user_id AND h.week_start = q.monday
           LEFT JOIN LATERAL (
               SELECT block_height, reward_btc, block_hash FROM blocks b
               WHERE b.user_id = q.user_id AND b.found_at >= q.monday::TIMESTAMP AT TIME ZONE 'UTC'
                 AND b.found_at < (q.monday + 7)::TIMESTAMP AT TIME ZONE 'UTC'
               ORDER BY b.found_at DESC LIMIT 1
           ) block ON TRUE"#,
        users,
        mondays
    )
    .fetch_all(pool)
    .await
}

/// The network's difficulty as the pool last reported it.
pub(crate) async fn network_difficulty(pool: &PgPool) -> Result<Option<f64>, sqlx::Error> {
    sqlx::query_scalar!("SELECT difficulty FROM network_difficulty ORDER BY time DESC LIMIT 1")
        .fetch_optional(pool)
        .await
}

/// A past week of a user.
pub(crate) struct PastRow {
    pub week_iso: String,
    pub week_start: NaiveDate,
    pub best_difficulty: f64,
    pub rank: i32,
    pub percentile: f64,
    pub participants: i32,
    pub xp: i32,
    pub game: Option<String>,
    pub total: i64,
}

/// A page of a user's completed weeks, newest first.
pub(crate) async fn history(
    pool: &PgPool,
    user: UserId,
    offset: i64,
    at_most: i64,
) -> Result<(Vec<PastRow>, i64), sqlx::Error> {
    let rows = sqlx::query_as!(
        PastRow,
        r#"WITH mine AS (
               SELECT d.week_iso, d.week_start, d.total_participants, r.best_difficulty, r.rank, r.percentile, r.xp_awarded
               FROM lottery_results r JOIN lottery_draws d ON d.id = r.draw_id AND d.status = 'completed'
               WHERE r.user_id = $1
           ), page AS (SELECT * FROM mine ORDER BY week_start DESC OFFSET $2 LIMIT $3)
           SELECT coalesce(p.week_iso, '') AS "week_iso!", coalesce(p.week_start, 'epoch'::DATE) AS "week_start!",
                  coalesce(p.best_difficulty, 0) AS "best_difficulty!", coalesce(p.rank, 0) AS "rank!",
                  coalesce(p.percentile, 0)::FLOAT8 AS "percentile!", coalesce(p.total_participants, 0) AS "participants!",
                  coalesce(p.xp_awarded, 0) AS "xp!", g.game_type AS "game?", n.total AS "total!"
           FROM (SELECT count(*) AS total FROM mine) n
           LEFT JOIN page p ON TRUE
           LEFT JOIN LATERAL (
               SELECT game_type FROM game_sessions s WHERE s.user_id = $1 AND s.week_start = p.week_start
               ORDER BY last_played_at DESC, id DESC LIMIT 1
           ) g ON TRUE
           ORDER BY p.week_start DESC NULLS LAST"#,
        user.0,
        offset,
        at_most
    )
    .fetch_all(pool)
    .await?;
    let total = rows.first().map_or(0, |row| row.total);
    Ok((rows.into_iter().filter(|row| row.rank > 0).collect(), total))
}

/// A draw.
pub(crate) struct DrawRow {
    pub id: i64,
    pub week_iso: String,
    pub week_start: NaiveDate,
    pub week_end: NaiveDate,
    pub total_participants: i32,
    pub total_shares: i64,
    pub winning_difficulty: Option<f64>,
    pub winner_user_id: Option<i64>,
    /// Public name of the winner; none if they show none.
    pub winner_name: Option<String>,
    pub status: String,
    pub frozen_at: Option<DateTime<Utc>>,
    pub drawn_at: Option<DateTime<Utc>>,
    pub merkle_root: Option<Vec<u8>>,
    pub previous_seal: Option<Vec<u8>>,
    pub seal: Option<Vec<u8>>,
    pub salt_key_id: Option<String>,
}

/// The draw of a week that is past its freeze; of the latest completed week without one.
pub(crate) async fn draw(pool: &PgPool, week_iso: Option<&str>) -> Result<Option<DrawRow>, sqlx::Error> {
    sqlx::query_as!(
        DrawRow,
        r#"SELECT d.id, d.week_iso, d.week_start, d.week_end, d.total_participants, d.total_shares, d.winning_difficulty,
                  d.winner_user_id,
                  CASE WHEN NOT u.is_banned AND u.deleted_at IS NULL
                            AND coalesce((s.privacy ->> 'publicProfile')::BOOLEAN, TRUE)
                            AND coalesce((s.privacy ->> 'showOnLeaderboard')::BOOLEAN, TRUE)
                       THEN coalesce(u.display_name, 'Miner-' || left(u.btc_address, 8), 'Miner') END AS winner_name,
                  d.status, d.frozen_at, d.drawn_at, d.merkle_root, d.previous_seal, d.seal, d.salt_key_id
           FROM lottery_draws d LEFT JOIN users u ON u.id = d.winner_user_id LEFT JOIN user_settings s ON s.user_id = u.id
           WHERE CASE WHEN $1::TEXT IS NULL THEN d.status = 'completed' ELSE d.week_iso = $1 AND d.status <> 'open' END
           ORDER BY d.week_start DESC LIMIT 1"#,
        week_iso
    )
    .fetch_optional(pool)
    .await
}

/// A line of a draw's results.
pub(crate) struct ResultLine {
    pub user_id: i64,
    pub name: String,
    /// Whether the name may be shown to others.
    pub is_public: bool,
    pub rank: i32,
    pub best_difficulty: f64,
    pub total_shares: i64,
    pub xp_awarded: i32,
    pub percentile: f64,
}

/// Results of a draw from a rank on, and the caller's own wherever it is.
pub(crate) async fn results(
    pool: &PgPool,
    draw: i64,
    after_rank: i32,
    at_most: i32,
    caller: Option<UserId>,
) -> Result<Vec<ResultLine>, sqlx::Error> {
    sqlx::query_as!(
        ResultLine,
        r#"SELECT r.user_id, coalesce(u.display_name, 'Miner-' || left(u.btc_address, 8), 'Miner') AS "name!",
                  (NOT u.is_banned AND u.deleted_at IS NULL AND coalesce((s.privacy ->> 'publicProfile')::BOOLEAN, TRUE)
                   AND coalesce((s.privacy ->> 'showOnLeaderboard')::BOOLEAN, TRUE)) AS "is_public!",
                  r.rank, r.best_difficulty, r.total_shares, r.xp_awarded, r.percentile::FLOAT8 AS "percentile!"
           FROM lottery_results r JOIN users u ON u.id = r.user_id LEFT JOIN user_settings s ON s.user_id = u.id
           WHERE r.draw_id = $1 AND ((r.rank > $2 AND r.rank <= $2 + $3) OR r.user_id = $4)
           ORDER BY r.rank"#,
        draw,
        after_rank,
        at_most,
        caller.map(|user| user.0)
    )
    .fetch_all(pool)
    .await
}

/// All draws in numbers.
pub(crate) struct StatsRow {
    pub draws: i64,
    pub participants: i64,
    pub sum_best: f64,
    pub highest: Option<f64>,
    pub latest: Option<String>,
}

/// Sums over completed draws.
pub(crate) async fn stats(pool: &PgPool) -> Result<StatsRow, sqlx::Error> {
    sqlx::query_as!(
        StatsRow,
        r#"SELECT count(*) AS "draws!", coalesce(sum(total_participants), 0)::BIGINT AS "participants!",
                  coalesce(sum(sum_best_difficulty), 0) AS "sum_best!", max(winning_difficulty) AS highest,
                  (array_agg(week_iso ORDER BY week_start DESC))[1] AS latest
           FROM lottery_draws WHERE status = 'completed'"#
    )
    .fetch_one(pool)
    .await
}

/// A user's lottery in numbers.
pub(crate) struct OwnStatsRow {
    pub weeks: i64,
    pub best_rank: Option<i32>,
    pub average_rank: f64,
    pub xp: i64,
    pub top_10: i64,
    pub top_50: i64,
    pub top_100: i64,
    pub hammer: i64,
    pub horse_race: i64,
    pub slot_machine: i64,
    pub scratch_card: i64,
    /// Consecutive results up to the latest completed draw.
    pub streak: i64,
}

/// Sums over a user's results and sessions.
pub(crate) async fn own_stats(pool: &PgPool, user: UserId) -> Result<OwnStatsRow, sqlx::Error> {
    sqlx::query_as!(
        OwnStatsRow,
        r#"WITH mine AS (
               SELECT r.rank, r.xp_awarded, d.week_start
               FROM lottery_results r JOIN lottery_draws d ON d.id = r.draw_id AND d.status = 'completed'
               WHERE r.user_id = $1
           ), games AS (
               SELECT game_type, count(*) AS weeks FROM game_sessions WHERE user_id = $1 GROUP BY game_type
           ), latest AS (
               SELECT max(week_start) AS week_start FROM lottery_draws WHERE status = 'completed'
           ), missed AS (
               SELECT max(d.week_start) AS week_start FROM lottery_draws d
               WHERE d.status = 'completed' AND NOT EXISTS (SELECT FROM mine m WHERE m.week_start = d.week_start)
           )
           SELECT count(*) AS "weeks!", min(rank) AS best_rank, coalesce(avg(rank), 0)::FLOAT8 AS "average_rank!",
                  coalesce(sum(xp_awarded), 0)::BIGINT AS "xp!",
                  count(*) FILTER (WHERE rank <= 10) AS "top_10!", count(*) FILTER (WHERE rank <= 50) AS "top_50!",
                  count(*) FILTER (WHERE rank <= 100) AS "top_100!",
                  coalesce((SELECT weeks FROM games WHERE game_type = 'hammer'), 0) AS "hammer!",
                  coalesce((SELECT weeks FROM games WHERE game_type = 'horse_race'), 0) AS "horse_race!",
                  coalesce((SELECT weeks FROM games WHERE game_type = 'slot_machine'), 0) AS "slot_machine!",
                  coalesce((SELECT weeks FROM games WHERE game_type = 'scratch_card'), 0) AS "scratch_card!",
                  count(*) FILTER (WHERE week_start > coalesce((SELECT week_start FROM missed), '-infinity'::DATE)) AS "streak!"
           FROM mine"#,
        user.0
    )
    .fetch_one(pool)
    .await
}

/// Draws past their freeze, newest week first.
pub(crate) async fn seals(
    pool: &PgPool,
    before: Option<NaiveDate>,
    at_most: i64,
) -> Result<Vec<DrawRow>, sqlx::Error> {
    sqlx::query_as!(
        DrawRow,
        r#"SELECT id, week_iso, week_start, week_end, total_participants, total_shares, winning_difficulty, winner_user_id,
                  NULL::TEXT AS winner_name, status, frozen_at, drawn_at, merkle_root, previous_seal, seal, salt_key_id
           FROM lottery_draws WHERE status <> 'open' AND ($1::DATE IS NULL OR week_start < $1)
           ORDER BY week_start DESC LIMIT $2"#,
        before,
        at_most
    )
    .fetch_all(pool)
    .await
}

/// A user's own entry, with their rank once it is drawn.
pub(crate) struct OwnEntry {
    pub draw_id: i64,
    pub leaf_index: i32,
    pub btc_address: Option<String>,
    pub salt: Option<Vec<u8>>,
    pub commitment: Vec<u8>,
    pub best_difficulty: f64,
    pub best_time: DateTime<Utc>,
    pub total_shares: i64,
    pub entries: i32,
    pub merkle_root: Vec<u8>,
    pub previous_seal: Vec<u8>,
    pub seal: Vec<u8>,
    pub rank: Option<i32>,
    pub xp_awarded: Option<i32>,
}

/// See [`OwnEntry`].
pub(crate) async fn own_entry(
    pool: &PgPool,
    user: UserId,
    week_iso: &str,
) -> Result<Option<OwnEntry>, sqlx::Error> {
    sqlx::query_as!(
        OwnEntry,
        r#"SELECT e.draw_id, e.leaf_index, e.btc_address, e.salt, e.commitment, e.best_difficulty, e.best_time,
                  e.total_shares, d.total_participants AS entries, d.merkle_root AS "merkle_root!",
                  d.previous_seal AS "previous_seal!", d.seal AS "seal!", r.rank AS "rank?", r.xp_awarded AS "xp_awarded?"
           FROM lottery_draws d JOIN lottery_entries e ON e.draw_id = d.id AND e.user_id = $1
           LEFT JOIN lottery_results r ON r.draw_id = d.id AND r.user_id = $1
           WHERE d.week_iso = $2 AND d.status <> 'open'"#,
        user.0,
        week_iso
    )
    .fetch_optional(pool)
    .await
}

/// Hashes of a draw's tree by level and index: one statement.
pub(crate) async fn hashes(
    pool: &PgPool,
    draw: i64,
    levels: &[i16],
    indexes: &[i32],
) -> Result<Vec<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT substring(l.hashes FROM asked.index * 32 + 1 FOR 32) AS "hash!"
           FROM unnest($2::SMALLINT[], $3::INT[]) WITH ORDINALITY AS asked (level, index, n)
           JOIN lottery_tree_levels l ON l.draw_id = $1 AND l.level = asked.level ORDER BY asked.n"#,
        draw,
        levels,
        indexes
    )
    .fetch_all(pool)
    .await
}

/// A line of the public file.
pub(crate) struct FileRow {
    pub leaf_index: i32,
    pub commitment: Vec<u8>,
    pub best_difficulty: f64,
    pub best_time: DateTime<Utc>,
    pub total_shares: i64,
    pub rank: i32,
}

/// A part of the public file, in leaf order. A range of leaves, which the planner can tell from the whole draw.
pub(crate) async fn file_rows(
    pool: &PgPool,
    draw: i64,
    from_leaf: i32,
    until_leaf: i32,
) -> Result<Vec<FileRow>, sqlx::Error> {
    sqlx::query_as!(
        FileRow,
        "SELECT e.leaf_index, e.commitment, e.best_difficulty, e.best_time, e.total_shares, r.rank
         FROM lottery_entries e JOIN lottery_results r ON r.draw_id = e.draw_id AND r.user_id = e.user_id
         WHERE e.draw_id = $1 AND e.leaf_index >= $2 AND e.leaf_index < $3 ORDER BY e.leaf_index",
        draw,
        from_leaf,
        until_leaf
    )
    .fetch_all(pool)
    .await
}

/// A user's best and shares of a week, and the draw of the week before with its status.
pub(crate) async fn current(
    pool: &PgPool,
    user: UserId,
    monday: NaiveDate,
) -> Result<(f64, i64, Option<(String, String)>), sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT coalesce(max(w.best_difficulty), 0) AS "best!", coalesce(sum(w.total_shares), 0)::BIGINT AS "shares!",
                  (SELECT week_iso FROM lottery_draws WHERE week_start = $2::DATE - 7) AS previous_week,
                  (SELECT status FROM lottery_draws WHERE week_start = $2::DATE - 7) AS previous_status
           FROM weekly_best_diff w WHERE w.user_id = $1 AND w.week_start = $2"#,
        user.0,
        monday
    )
    .fetch_one(pool)
    .await?;
    Ok((row.best, row.shares, row.previous_week.zip(row.previous_status)))
}
