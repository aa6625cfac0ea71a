//! Stored state against what it is derived from: the ledger, the awards, the calendar.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::{PgConnection, PgPool};
use tbg_core::period::IsoWeek;
use tbg_core::progress::level_of;

use crate::rules::streak::fold;

/// Users whose state changed since, by id, after one; all users without `since`.
pub(crate) async fn page_of_changed(
    pool: &PgPool,
    since: Option<DateTime<Utc>>,
    after: i64,
    at_most: i64,
) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT user_id FROM user_gamification
         WHERE user_id > $2 AND ($1::TIMESTAMPTZ IS NULL OR updated_at >= $1) ORDER BY user_id LIMIT $3",
        since,
        after,
        at_most
    )
    .fetch_all(pool)
    .await
}

/// A field of a user that was wrong, put right.
pub(crate) struct Drift {
    pub user_id: i64,
    pub field: &'static str,
}

/// Derives the state of users anew and puts right what differs. No celebration follows.
pub(crate) async fn repair(conn: &mut PgConnection, users: &[i64]) -> Result<Vec<Drift>, sqlx::Error> {
    sqlx::query!(
        "SELECT user_id FROM user_gamification WHERE user_id = ANY ($1) ORDER BY user_id FOR UPDATE",
        users
    )
    .fetch_all(&mut *conn)
    .await?;
    let rows = sqlx::query!(
        r#"SELECT g.user_id, g.total_xp, g.level, g.level_title, g.xp_entries, g.badges_earned, g.current_streak,
                  g.longest_streak, g.streak_start_date, g.last_active_week, g.freezes, g.total_shares,
                  ledger.sum AS "sum!", ledger.entries AS "entries!", badges.count AS "badges!",
                  weeks.shares AS "shares!", weeks.active AS "active!"
           FROM user_gamification g
           CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0)::BIGINT AS sum, count(*)::INT AS entries
                               FROM xp_ledger l WHERE l.user_id = g.user_id) ledger
           CROSS JOIN LATERAL (SELECT count(DISTINCT badge_id)::INT AS count
                               FROM user_badges b WHERE b.user_id = g.user_id) badges
           CROSS JOIN LATERAL (SELECT coalesce(sum(share_count), 0)::BIGINT AS shares,
                                      coalesce(array_agg(week_start ORDER BY week_start) FILTER (WHERE is_active), '{}') AS active
                               FROM streak_calendar c WHERE c.user_id = g.user_id) weeks
           WHERE g.user_id = ANY ($1) ORDER BY g.user_id"#,
        users
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut drifts = Vec::new();
    for row in rows {
        let level = level_of(row.sum);
        let streak = fold(row.active.iter().map(|monday| IsoWeek::of_day(*monday))).streak;
        let last = streak.last_active.map(|week| week.to_string());
        let wrong = [
            ("total_xp", row.total_xp != row.sum),
            ("level", row.level != level.level || row.level_title != level.title),
            ("xp_entries", row.xp_entries != row.entries),
            ("badges_earned", row.badges_earned != row.badges),
            (
                "streak",
                (row.current_streak, row.longest_streak, row.streak_start_date, row.freezes)
                    != (streak.current, streak.longest, streak.start, streak.freezes)
                    || row.last_active_week != last,
            ),
            ("total_shares", row.total_shares != row.shares),
        ];
        let before = drifts.len();
        drifts.extend(
            wrong
                .into_iter()
                .filter(|(_, is_wrong)| *is_wrong)
                .map(|(field, _)| Drift { user_id: row.user_id, field }),
        );
        if drifts.len() > before {
            let start: Option<NaiveDate> = streak.start;
            sqlx::query!(
                "UPDATE user_gamification SET total_xp = $2, level = $3, level_title = $4, xp_entries = $5,
                     badges_earned = $6, current_streak = $7, longest_streak = $8, streak_start_date = $9,
                     last_active_week = $10, freezes = $11, total_shares = $12
                 WHERE user_id = $1",
                row.user_id,
                row.sum,
                level.level,
                level.title,
                row.entries,
                row.badges,
                streak.current,
                streak.longest,
                start,
                last,
                streak.freezes,
                row.shares
            )
            .execute(&mut *conn)
            .await?;
        }
    }
    Ok(drifts)
}

/// Holders of each badge among those who count, and their part of them.
pub(crate) async fn keep_statistics(pool: &PgPool, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH population AS (
             SELECT id FROM users WHERE deleted_at IS NULL AND NOT is_banned AND NOT is_test
         ), holders AS (
             SELECT b.badge_id, count(DISTINCT b.user_id) AS holders, max(b.earned_at) AS last
             FROM user_badges b JOIN population p ON p.id = b.user_id GROUP BY b.badge_id
         ), size AS (SELECT count(*) AS users FROM population)
         INSERT INTO badge_stats AS s (badge_id, total_earned, percentage, last_earned_at, updated_at)
         SELECT d.id, coalesce(h.holders, 0),
                CASE WHEN size.users > 0 THEN round(100.0 * coalesce(h.holders, 0) / size.users, 2) ELSE 0 END, h.last, $1
         FROM badge_definitions d CROSS JOIN size LEFT JOIN holders h ON h.badge_id = d.id ORDER BY d.id
         ON CONFLICT (badge_id) DO UPDATE SET
             total_earned = EXCLUDED.total_earned, percentage = EXCLUDED.percentage,
             last_earned_at = EXCLUDED.last_earned_at, updated_at = EXCLUDED.updated_at",
        now
    )
    .execute(pool)
    .await?;
    Ok(())
}
