//! Stored state against what it is derived from: the ledger, the awards, the calendar, the blocks.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use tbg_core::UserId;
use tbg_core::period::IsoWeek;

use super::save;
use crate::rules::causes::Outcome;
use crate::rules::derive::{Mended, Sources, Stored, mend};
use crate::rules::player::{Player, Week};
use crate::rules::streak::Streak;

/// Users whose state changed since, by id, after one; all users without `since`, also those without a row.
pub(crate) async fn page_of_changed(
    pool: &PgPool,
    since: Option<DateTime<Utc>>,
    after: i64,
    at_most: i64,
) -> Result<Vec<i64>, sqlx::Error> {
    let Some(since) = since else {
        return sqlx::query_scalar!(
            "SELECT id FROM users WHERE id > $1 AND deleted_at IS NULL ORDER BY id LIMIT $2",
            after,
            at_most
        )
        .fetch_all(pool)
        .await;
    };
    sqlx::query_scalar!(
        "SELECT user_id FROM user_gamification
         WHERE user_id > $2 AND updated_at >= $1 ORDER BY user_id LIMIT $3",
        since,
        after,
        at_most
    )
    .fetch_all(pool)
    .await
}

/// Those of `users` whose state is not what follows from its sources. One statement sees one state of the
/// database: it needs no lock.
pub(crate) async fn differing(conn: &mut PgConnection, users: &[i64]) -> Result<Vec<Mended>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT u.id, coalesce(g.total_xp, 0) AS "total_xp!", coalesce(g.level, 1) AS "level!",
                  coalesce(g.level_title, 'Nocoiner') AS "level_title!", coalesce(g.xp_entries, 0) AS "xp_entries!",
                  coalesce(g.badges_earned, 0) AS "badges_earned!", coalesce(g.current_streak, 0) AS "current_streak!",
                  coalesce(g.longest_streak, 0) AS "longest_streak!", g.streak_start_date AS "streak_start_date?",
                  g.last_active_week AS "last_active_week?", coalesce(g.freezes, 0::SMALLINT) AS "freezes!",
                  coalesce(g.total_shares, 0) AS "total_shares!", coalesce(g.best_difficulty, 0) AS "best_difficulty!",
                  g.best_difficulty_week AS "best_difficulty_week?", coalesce(g.blocks_found, 0) AS "blocks_found!",
                  g.first_share_day AS "first_share_day?", coalesce(g.updated_at, u.created_at) AS "updated_at!",
                  ledger.sum AS "sum!", ledger.entries AS "entries!", badges.count AS "badges!", badges.first_share,
                  ledger.blocks || badges.blocks AS "paid_blocks!", blocks.found AS "found_blocks!",
                  weeks.starts AS "starts!", weeks.shares AS "shares!", weeks.bests AS "bests!", weeks.days AS "days!",
                  weeks.frozen AS "frozen!"
           FROM users u LEFT JOIN user_gamification g ON g.user_id = u.id
           CROSS JOIN LATERAL (
               SELECT coalesce(sum(amount), 0)::BIGINT AS sum, count(*)::INT AS entries,
                      coalesce(array_agg((created_at AT TIME ZONE 'UTC')::DATE) FILTER (WHERE source = 'block'), '{}') AS blocks
               FROM xp_ledger l WHERE l.user_id = u.id
           ) ledger
           CROSS JOIN LATERAL (
               SELECT count(DISTINCT badge_id)::INT AS count,
                      min((earned_at AT TIME ZONE 'UTC')::DATE) FILTER (WHERE badge_id = 1) AS first_share,
                      coalesce(array_agg((earned_at AT TIME ZONE 'UTC')::DATE) FILTER (WHERE badge_id = 4), '{}') AS blocks
               FROM user_badges b WHERE b.user_id = u.id
           ) badges
           CROSS JOIN LATERAL (
               SELECT coalesce(array_agg((found_at AT TIME ZONE 'UTC')::DATE), '{}') AS found
               FROM blocks k WHERE k.user_id = u.id
           ) blocks
           CROSS JOIN LATERAL (
               SELECT coalesce(array_agg(week_start), '{}') AS starts, coalesce(array_agg(share_count), '{}') AS shares,
                      coalesce(array_agg(best_diff), '{}') AS bests, coalesce(array_agg(active_days), '{}') AS days,
                      coalesce(array_agg(is_frozen), '{}') AS frozen
               FROM streak_calendar c WHERE c.user_id = u.id
           ) weeks
           WHERE u.id = ANY ($1) AND u.deleted_at IS NULL"#,
        users
    )
    .fetch_all(conn)
    .await?;
    let mended = rows.into_iter().filter_map(|row| {
        let user = UserId(row.id);
        let counts = row.shares.into_iter().zip(row.bests);
        let marks = row.days.into_iter().zip(row.frozen);
        let weeks = row.starts.into_iter().zip(counts.zip(marks));
        let weeks: BTreeMap<IsoWeek, Week> = weeks
            .map(|(monday, ((shares, best_diff), (active_days, is_frozen)))| {
                (IsoWeek::of_day(monday), Week { shares, best_diff, active_days, is_frozen })
            })
            .collect();
        let sources = Sources {
            user,
            total_xp: row.sum,
            xp_entries: row.entries,
            badges: row.badges,
            first_share_day: row.first_share,
            paid_blocks: row.paid_blocks,
            found_blocks: row.found_blocks,
            weeks,
        };
        let player = player_of!(user, row);
        let stored = Stored { player, level: row.level, title: row.level_title, updated_at: row.updated_at };
        mend(sources, &stored)
    });
    Ok(mended.collect())
}

/// Puts right what differs of users; rows that are missing come back. No celebration follows.
pub(crate) async fn repair(conn: &mut PgConnection, users: &[i64]) -> Result<Vec<Mended>, sqlx::Error> {
    // Whoever is being deleted goes first or waits: no row may come after its user has gone.
    sqlx::query!(
        "WITH alive AS (SELECT id FROM users WHERE id = ANY ($1) AND deleted_at IS NULL ORDER BY id FOR SHARE)
         INSERT INTO user_gamification (user_id) SELECT id FROM alive ORDER BY id ON CONFLICT (user_id) DO NOTHING",
        users
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "SELECT user_id FROM user_gamification WHERE user_id = ANY ($1) ORDER BY user_id FOR UPDATE",
        users
    )
    .fetch_all(&mut *conn)
    .await?;
    let mended = differing(conn, users).await?;
    let mut outcome = Outcome::default();
    for Mended { player, weeks, .. } in &mended {
        outcome.weeks.extend(weeks.iter().map(|week| (player.user, *week)));
        outcome.players.insert(player.user, player.clone());
    }
    save::players(conn, &outcome.players, None).await?;
    save::weeks(conn, &outcome).await?;
    Ok(mended)
}

/// Holders of each badge among those who count, and their part of them.
pub(crate) async fn keep_statistics(pool: &PgPool, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin().await?;
    // First: who is awarded meanwhile waits, so that what is counted below is not older than what it replaces.
    sqlx::query!("SELECT badge_id FROM badge_stats ORDER BY badge_id FOR UPDATE").fetch_all(&mut *tx).await?;
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
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}
