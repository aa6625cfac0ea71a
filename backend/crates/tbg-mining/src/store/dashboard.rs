//! What a dashboard lists: feed, events, badges; and the upkeep of feed and events.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use tbg_core::UserId;

/// A public row of the feed.
pub(crate) struct FeedRow {
    pub id: i64,
    pub event_type: String,
    pub title: String,
    pub description: Option<String>,
    pub created_at: DateTime<Utc>,
    pub metadata: Value,
}

/// Public rows, newest first, before row `before`.
pub(crate) async fn feed(
    conn: &mut PgConnection,
    before: Option<i64>,
    at_most: i64,
) -> Result<Vec<FeedRow>, sqlx::Error> {
    sqlx::query_as!(
        FeedRow,
        "SELECT id, event_type, title, description, created_at, metadata FROM activity_feed
         WHERE is_global AND id < coalesce($1::BIGINT, 9223372036854775807) ORDER BY id DESC LIMIT $2",
        before,
        at_most
    )
    .fetch_all(conn)
    .await
}

/// Something that is about to end.
pub(crate) struct EventRow {
    pub id: String,
    pub event_type: String,
    pub title: String,
    pub description: Option<String>,
    pub ends_at: DateTime<Utc>,
    pub action_label: Option<String>,
    pub action_href: Option<String>,
    pub target_user_id: Option<i64>,
}

/// Events for a user, the next to end first.
pub(crate) async fn events(
    conn: &mut PgConnection,
    user: UserId,
    now: DateTime<Utc>,
    at_most: i64,
) -> Result<Vec<EventRow>, sqlx::Error> {
    sqlx::query_as!(
        EventRow,
        "SELECT id, event_type, title, description, ends_at, action_label, action_href, target_user_id
         FROM upcoming_events
         WHERE is_active AND ends_at > $2 AND (target_user_id IS NULL OR target_user_id = $1)
         ORDER BY ends_at, id LIMIT $3",
        user.0,
        now,
        at_most
    )
    .fetch_all(conn)
    .await
}

/// A badge that a user earned.
pub(crate) struct BadgeRow {
    pub slug: String,
    pub name: String,
    pub description: String,
    pub rarity: String,
    pub earned_at: DateTime<Utc>,
}

/// The badges that a user earned last.
pub(crate) async fn badges(
    conn: &mut PgConnection,
    user: UserId,
    at_most: i64,
) -> Result<Vec<BadgeRow>, sqlx::Error> {
    sqlx::query_as!(
        BadgeRow,
        "SELECT d.slug, d.name, d.description, d.rarity, b.earned_at
         FROM user_badges b JOIN badge_definitions d ON d.id = b.badge_id
         WHERE b.user_id = $1 ORDER BY b.earned_at DESC, b.id DESC LIMIT $2",
        user.0,
        at_most
    )
    .fetch_all(conn)
    .await
}

/// Brings the events of the week up to date: the lottery for all, and a streak for everybody who has one that
/// lives. Matches of the World Cup will come with the competition's tables.
pub(crate) async fn sync_events(
    pool: &PgPool,
    week: &str,
    ends_at: DateTime<Utc>,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        "INSERT INTO upcoming_events AS e (id, event_type, title, description, ends_at, action_label, action_href,
                                           target_user_id)
         SELECT 'lottery-' || $1, 'lottery', 'Weekly lottery', 'Every accepted share of the week takes part', $2::TIMESTAMPTZ,
                'Preview Ticket', '/games', NULL::BIGINT
         UNION ALL
         SELECT 'streak-' || $1 || '-' || g.user_id, 'streak',
                'Keep your ' || g.current_streak || '-week streak', 'One accepted share this week keeps it', $2::TIMESTAMPTZ,
                'View Streak', '/profile/streaks', g.user_id
         FROM user_gamification g JOIN users u ON u.id = g.user_id
         WHERE g.current_streak >= 1 AND NOT u.is_banned AND u.deleted_at IS NULL
           AND (date_trunc('week', $2::TIMESTAMPTZ - INTERVAL '1 second', 'UTC') AT TIME ZONE 'UTC')::DATE
               - to_date(g.last_active_week, 'IYYY\"-W\"IW') <= 7 * (g.freezes + 1)
         ON CONFLICT (id) DO UPDATE SET title = EXCLUDED.title, ends_at = EXCLUDED.ends_at
         WHERE (e.title, e.ends_at) IS DISTINCT FROM (EXCLUDED.title, EXCLUDED.ends_at)",
        week,
        ends_at
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

/// Marks up to `at_most` events as reminded of at `minutes` before their end, and returns them.
pub(crate) async fn take_reminders(
    pool: &PgPool,
    minutes: i32,
    now: DateTime<Utc>,
    at_most: i64,
) -> Result<Vec<EventRow>, sqlx::Error> {
    sqlx::query_as!(
        EventRow,
        r#"UPDATE upcoming_events e
           SET metadata = jsonb_set(metadata, '{reminded}', coalesce(metadata -> 'reminded', '[]') || to_jsonb($1::INT))
           WHERE id IN (
               SELECT id FROM upcoming_events
               WHERE is_active AND ends_at > $2 AND ends_at <= $2::TIMESTAMPTZ + make_interval(mins => $1)
                 AND NOT coalesce(metadata -> 'reminded', '[]') @> to_jsonb($1::INT)
               ORDER BY ends_at, id LIMIT $3
           )
           RETURNING id, event_type, title, description, ends_at, action_label, action_href, target_user_id"#,
        minutes,
        now,
        at_most
    )
    .fetch_all(pool)
    .await
}

/// Deletes events that ended before `before`, and public rows of the feed beyond the newest `keep`.
pub(crate) async fn prune(
    pool: &PgPool,
    before: DateTime<Utc>,
    keep: i64,
    at_most: i64,
) -> Result<u64, sqlx::Error> {
    let events = sqlx::query!(
        "DELETE FROM upcoming_events WHERE id IN (SELECT id FROM upcoming_events WHERE ends_at < $1 LIMIT $2)",
        before,
        at_most
    )
    .execute(pool)
    .await?;
    let rows = sqlx::query!(
        "DELETE FROM activity_feed WHERE id IN (
             SELECT id FROM activity_feed WHERE is_global
               AND id <= (SELECT id FROM activity_feed WHERE is_global ORDER BY id DESC OFFSET $1 LIMIT 1)
             ORDER BY id LIMIT $2)",
        keep,
        at_most
    )
    .execute(pool)
    .await?;
    Ok(events.rows_affected() + rows.rows_affected())
}

/// Shares of a day by `shares` minus shares by `hourly_shares`: 0 unless a counter drifted.
pub(crate) async fn drift(pool: &PgPool, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT ((SELECT count(*) FROM shares WHERE time >= $1 AND time < $2
                    AND btc_address NOT IN ('', 'unknown', 'pool'))
                   - coalesce((SELECT sum(total) FROM hourly_shares WHERE bucket >= $1 AND bucket < $2), 0))::BIGINT AS "drift!""#,
        from,
        to
    )
    .fetch_one(pool)
    .await
}
