//! What is shown: by key, nothing counts or scans.

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use tbg_core::UserId;

/// A badge with its holders.
pub(crate) struct BadgeRow {
    pub id: i32,
    pub slug: String,
    pub name: String,
    pub description: String,
    pub category: String,
    pub rarity: String,
    pub xp_reward: i32,
    pub repeatable: bool,
    pub icon_url: Option<String>,
    pub total_earned: i32,
    pub percentage: f64,
}

/// All badges that can be earned, in their order.
pub(crate) async fn badges(pool: &PgPool) -> Result<Vec<BadgeRow>, sqlx::Error> {
    sqlx::query_as!(
        BadgeRow,
        r#"SELECT d.id, slug, name, description, category, rarity, xp_reward, repeatable, icon_url,
                  coalesce(s.total_earned, 0) AS "total_earned!",
                  coalesce(s.percentage, 0)::FLOAT8 AS "percentage!"
           FROM badge_definitions d LEFT JOIN badge_stats s ON s.badge_id = d.id
           WHERE is_active ORDER BY sort_order, d.id LIMIT 1000"#
    )
    .fetch_all(pool)
    .await
}

/// Who earned a badge, and when.
pub(crate) struct Earner {
    pub name: String,
    pub earned_at: DateTime<Utc>,
}

/// The newest awards of a badge to users who may be named.
pub(crate) async fn earners(pool: &PgPool, badge: i32, at_most: i64) -> Result<Vec<Earner>, sqlx::Error> {
    sqlx::query_as!(
        Earner,
        r#"SELECT coalesce(u.display_name, 'Miner-' || left(u.btc_address, 8), 'Miner') AS "name!", b.earned_at
           FROM user_badges b JOIN users u ON u.id = b.user_id
           LEFT JOIN user_settings s ON s.user_id = u.id
           WHERE b.badge_id = $1 AND NOT u.is_banned AND NOT u.is_test AND u.deleted_at IS NULL
             AND coalesce((s.privacy ->> 'publicProfile')::BOOLEAN, TRUE)
           ORDER BY b.earned_at DESC, b.id DESC LIMIT $2"#,
        badge,
        at_most
    )
    .fetch_all(pool)
    .await
}

/// A badge of a user, all its awards in one.
pub(crate) struct EarnedRow {
    pub slug: String,
    pub earned_at: DateTime<Utc>,
    pub last_earned_at: DateTime<Utc>,
    pub times: i64,
    pub metadata: Value,
}

/// The badges of a user, newest award first, and how many there are.
pub(crate) async fn earned(pool: &PgPool, user: UserId) -> Result<(Vec<EarnedRow>, i64), sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT d.slug AS "slug?", e.first AS "earned_at?", e.last AS "last_earned_at?", e.times AS "times?", e.metadata AS "metadata?",
                  (SELECT count(*) FROM badge_definitions WHERE is_active) AS "total!"
           FROM (SELECT 1) one LEFT JOIN (
               SELECT badge_id, min(earned_at) AS first, max(earned_at) AS last, count(*) AS times,
                      (array_agg(metadata ORDER BY earned_at, id))[1] AS metadata, max(id) AS newest
               FROM user_badges WHERE user_id = $1 GROUP BY badge_id
           ) e ON TRUE LEFT JOIN badge_definitions d ON d.id = e.badge_id
           ORDER BY e.last DESC NULLS LAST, e.newest DESC LIMIT 1000"#,
        user.0
    )
    .fetch_all(pool)
    .await?;
    let total = rows.first().map_or(0, |row| row.total);
    let earned = rows.into_iter().filter_map(|row| {
        Some(EarnedRow {
            slug: row.slug?,
            earned_at: row.earned_at?,
            last_earned_at: row.last_earned_at?,
            times: row.times?,
            metadata: row.metadata?,
        })
    });
    Ok((earned.collect(), total))
}

/// Where a user stands.
pub(crate) struct StateRow {
    /// Which of the questions it answers, from 1.
    pub place: i64,
    /// When the account was made.
    pub created_at: DateTime<Utc>,
    pub total_xp: i64,
    pub badges_earned: i32,
    pub current_streak: i32,
    pub longest_streak: i32,
    pub streak_start_date: Option<NaiveDate>,
    pub last_active_week: Option<String>,
    pub freezes: i16,
    pub total_shares: i64,
    pub best_difficulty: f64,
    pub blocks_found: i32,
    /// Days of the current week.
    pub active_days: i16,
    pub badges_total: i64,
    /// Levels that were reached, with when.
    pub levels: Vec<i32>,
    pub reached: Vec<DateTime<Utc>>,
}

/// The states of many users; the defaults of one without a row, none for a user who does not exist.
pub(crate) async fn states(
    pool: &PgPool,
    users: &[i64],
    weeks: &[String],
) -> Result<Vec<StateRow>, sqlx::Error> {
    // The arrays come from a query of their own, so that no plan depends on how many were asked this time: one is
    // made and kept.
    sqlx::query_as!(
        StateRow,
        r#"SELECT q.place AS "place!", u.created_at, coalesce(g.total_xp, 0) AS "total_xp!",
                  coalesce(g.badges_earned, 0) AS "badges_earned!",
                  coalesce(g.current_streak, 0) AS "current_streak!", coalesce(g.longest_streak, 0) AS "longest_streak!",
                  g.streak_start_date AS "streak_start_date?", g.last_active_week AS "last_active_week?",
                  coalesce(g.freezes, 0::SMALLINT) AS "freezes!", coalesce(g.total_shares, 0) AS "total_shares!",
                  coalesce(g.best_difficulty, 0) AS "best_difficulty!", coalesce(g.blocks_found, 0) AS "blocks_found!",
                  coalesce((SELECT active_days FROM streak_calendar c WHERE c.user_id = q.user_id AND c.week_iso = q.week),
                           0::SMALLINT) AS "active_days!",
                  (SELECT count(*) FROM badge_definitions WHERE is_active) AS "badges_total!",
                  levels.levels AS "levels!", levels.reached AS "reached!"
           FROM ROWS FROM (unnest((SELECT $1::BIGINT[])), unnest((SELECT $2::TEXT[]))) WITH ORDINALITY AS q (user_id, week, place)
           JOIN users u ON u.id = q.user_id
           LEFT JOIN user_gamification g ON g.user_id = q.user_id
           CROSS JOIN LATERAL (
               SELECT coalesce(array_agg(new_level ORDER BY new_level), '{}') AS levels,
                      coalesce(array_agg(created_at ORDER BY new_level), '{}') AS reached
               FROM level_celebrations l WHERE l.user_id = q.user_id
           ) levels"#,
        users,
        weeks
    )
    .fetch_all(pool)
    .await
}

/// A row of the ledger.
pub(crate) struct EntryRow {
    pub amount: i32,
    pub source: String,
    pub source_id: String,
    pub description: String,
    pub created_at: DateTime<Utc>,
}

/// A page of a user's ledger, newest first.
pub(crate) async fn history(
    pool: &PgPool,
    user: UserId,
    offset: i64,
    limit: i64,
) -> Result<Vec<EntryRow>, sqlx::Error> {
    sqlx::query_as!(
        EntryRow,
        "SELECT amount, source, source_id, description, created_at FROM xp_ledger
         WHERE user_id = $1 ORDER BY created_at DESC, id DESC OFFSET $2 LIMIT $3",
        user.0,
        offset,
        limit
    )
    .fetch_all(pool)
    .await
}

/// Entries of a user's ledger.
pub(crate) async fn entries(pool: &PgPool, user: UserId) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar!("SELECT xp_entries FROM user_gamification WHERE user_id = $1", user.0)
        .fetch_optional(pool)
        .await?;
    Ok(count.unwrap_or(0).into())
}

/// Sums of a user's ledger by source, the largest first.
pub(crate) async fn by_source(pool: &PgPool, user: UserId) -> Result<Vec<(String, i64, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT source, sum(amount)::BIGINT AS "amount!", count(*) AS "entries!" FROM xp_ledger
           WHERE user_id = $1 GROUP BY source ORDER BY 2 DESC, source LIMIT 16"#,
        user.0
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.source, row.amount, row.entries)).collect())
}

/// A week of the calendar.
pub(crate) struct WeekRow {
    pub week_iso: String,
    pub share_count: i64,
    pub best_diff: f64,
    pub active_days: i16,
    pub is_active: bool,
    pub is_frozen: bool,
}

/// A user's calendar with the streak that it ends in.
pub(crate) struct CalendarRows {
    pub current_streak: i32,
    pub freezes: i16,
    pub last_active_week: Option<String>,
    pub weeks: Vec<WeekRow>,
}

/// The active and frozen weeks of a user since a week, newest first.
pub(crate) async fn calendar(pool: &PgPool, user: UserId, since: &str) -> Result<CalendarRows, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT g.current_streak, g.freezes, g.last_active_week, c.week_iso AS "week_iso?",
                  c.share_count AS "share_count?", c.best_diff AS "best_diff?", c.active_days AS "active_days?",
                  c.is_active AS "is_active?", c.is_frozen AS "is_frozen?"
           FROM user_gamification g
           LEFT JOIN streak_calendar c
             ON c.user_id = g.user_id AND c.week_iso >= $2 AND (c.is_active OR c.is_frozen)
           WHERE g.user_id = $1 ORDER BY c.week_iso DESC LIMIT 200"#,
        user.0,
        since
    )
    .fetch_all(pool)
    .await?;
    let mut calendar =
        CalendarRows { current_streak: 0, freezes: 0, last_active_week: None, weeks: Vec::new() };
    for row in rows {
        calendar.current_streak = row.current_streak;
        calendar.freezes = row.freezes;
        calendar.last_active_week = row.last_active_week;
        if let (Some(week_iso), Some(share_count)) = (row.week_iso, row.share_count) {
            calendar.weeks.push(WeekRow {
                week_iso,
                share_count,
                best_diff: row.best_diff.unwrap_or(0.0),
                active_days: row.active_days.unwrap_or(0),
                is_active: row.is_active.unwrap_or(false),
                is_frozen: row.is_frozen.unwrap_or(false),
            });
        }
    }
    Ok(calendar)
}

/// A level that waits to be celebrated.
pub(crate) struct LevelRow {
    pub id: i64,
    pub old_level: i32,
    pub new_level: i32,
    pub new_title: String,
    pub created_at: DateTime<Utc>,
}

/// The oldest levels that wait.
pub(crate) async fn pending_levels(
    pool: &PgPool,
    user: UserId,
    at_most: i64,
) -> Result<Vec<LevelRow>, sqlx::Error> {
    sqlx::query_as!(
        LevelRow,
        "SELECT id, old_level, new_level, new_title, created_at FROM level_celebrations
         WHERE user_id = $1 AND NOT celebrated ORDER BY created_at, id LIMIT $2",
        user.0,
        at_most
    )
    .fetch_all(pool)
    .await
}

/// A milestone that waits to be celebrated.
pub(crate) struct MilestoneRow {
    pub id: i64,
    pub streak_weeks: i32,
    pub milestone: String,
    pub created_at: DateTime<Utc>,
}

/// The oldest milestones that wait.
pub(crate) async fn pending_milestones(
    pool: &PgPool,
    user: UserId,
    at_most: i64,
) -> Result<Vec<MilestoneRow>, sqlx::Error> {
    sqlx::query_as!(
        MilestoneRow,
        "SELECT id, streak_weeks, milestone, created_at FROM streak_celebrations
         WHERE user_id = $1 AND NOT celebrated ORDER BY created_at, id LIMIT $2",
        user.0,
        at_most
    )
    .fetch_all(pool)
    .await
}

/// Celebrates a level of the user that waits; false if there is none.
pub(crate) async fn acknowledge_level(
    pool: &PgPool,
    user: UserId,
    id: i64,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "UPDATE level_celebrations SET celebrated = TRUE, celebrated_at = $3
         WHERE id = $1 AND user_id = $2 AND NOT celebrated",
        id,
        user.0,
        now
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Celebrates a milestone of the user that waits; false if there is none.
pub(crate) async fn acknowledge_milestone(
    pool: &PgPool,
    user: UserId,
    id: i64,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "UPDATE streak_celebrations SET celebrated = TRUE, celebrated_at = $3
         WHERE id = $1 AND user_id = $2 AND NOT celebrated",
        id,
        user.0,
        now
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A streak that is about to end or has ended.
pub(crate) struct StreakRow {
    pub user_id: i64,
    pub current_streak: i32,
    pub freezes: i16,
    pub last_active_week: String,
}

/// Streaks whose last active week is one of `weeks`, by user, after one; locked, so that no share changes them while they
/// are told.
pub(crate) async fn streaks(
    conn: &mut PgConnection,
    weeks: &[String],
    after: i64,
    at_most: i64,
) -> Result<Vec<StreakRow>, sqlx::Error> {
    sqlx::query_as!(
        StreakRow,
        r#"SELECT g.user_id, g.current_streak, g.freezes, g.last_active_week AS "last_active_week!"
           FROM user_gamification g JOIN users u ON u.id = g.user_id
           WHERE g.current_streak > 0 AND g.last_active_week = ANY ($1) AND g.user_id > $2
             AND NOT u.is_banned AND u.deleted_at IS NULL
           ORDER BY g.user_id LIMIT $3 FOR UPDATE OF g"#,
        weeks,
        after,
        at_most
    )
    .fetch_all(conn)
    .await
}
