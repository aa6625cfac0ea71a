//! Writes what a transaction decided: one statement per table.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use tbg_core::UserId;
use tbg_core::progress::level_of;

use crate::rules::causes::{AwardRow, LedgerRow, LevelUp, Milestone, Outcome};
use crate::rules::player::Player;

/// Saves an outcome. What the ledger turns out to hold already is taken off its player again.
pub(crate) async fn save(
    conn: &mut PgConnection,
    outcome: &mut Outcome,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let given = ledger(conn, &outcome.ledger).await?;
    if given.len() < outcome.ledger.len() {
        let Outcome { players, ledger, .. } = outcome;
        ledger.retain(|row| {
            let is_given = given.contains(&row.grant.key);
            if let Some(player) = players.get_mut(&row.user).filter(|_| !is_given) {
                player.total_xp -= i64::from(row.grant.amount);
                player.xp_entries -= 1;
            }
            is_given
        });
    }
    awards(conn, &outcome.awards).await?;
    players(conn, &outcome.players, Some(now)).await?;
    weeks(conn, outcome).await?;
    levels(conn, &outcome.level_ups).await?;
    milestones(conn, &outcome.milestones).await?;
    statistics(conn, &outcome.awards, now).await
}

async fn ledger(conn: &mut PgConnection, rows: &[LedgerRow]) -> Result<HashSet<String>, sqlx::Error> {
    if rows.is_empty() {
        return Ok(HashSet::new());
    }
    let users: Vec<i64> = rows.iter().map(|row| row.user.0).collect();
    let amounts: Vec<i32> = rows.iter().map(|row| row.grant.amount).collect();
    let sources: Vec<String> = rows.iter().map(|row| row.grant.source.to_owned()).collect();
    let ids: Vec<String> = rows.iter().map(|row| row.grant.source_id.clone()).collect();
    let descriptions: Vec<String> = rows.iter().map(|row| row.grant.description.clone()).collect();
    let keys: Vec<String> = rows.iter().map(|row| row.grant.key.clone()).collect();
    let times: Vec<DateTime<Utc>> = rows.iter().map(|row| row.at).collect();
    let given = sqlx::query_scalar!(
        "INSERT INTO xp_ledger (user_id, amount, source, source_id, description, idempotency_key, created_at)
         SELECT * FROM unnest($1::BIGINT[], $2::INT[], $3::TEXT[], $4::TEXT[], $5::TEXT[], $6::TEXT[], $7::TIMESTAMPTZ[])
         ON CONFLICT (idempotency_key) DO NOTHING RETURNING idempotency_key",
        &users,
        &amounts,
        &sources,
        &ids,
        &descriptions,
        &keys,
        &times
    )
    .fetch_all(conn)
    .await?;
    Ok(given.into_iter().collect())
}

async fn awards(conn: &mut PgConnection, rows: &[AwardRow]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let users: Vec<i64> = rows.iter().map(|row| row.user.0).collect();
    let badges: Vec<i32> = rows.iter().map(|row| row.badge).collect();
    let periods: Vec<String> = rows.iter().map(|row| row.period.clone()).collect();
    let times: Vec<DateTime<Utc>> = rows.iter().map(|row| row.at).collect();
    let metadata: Vec<Value> = rows.iter().map(|row| row.metadata.clone()).collect();
    sqlx::query!(
        "INSERT INTO user_badges (user_id, badge_id, period_key, earned_at, metadata)
         SELECT * FROM unnest($1::BIGINT[], $2::INT[], $3::TEXT[], $4::TIMESTAMPTZ[], $5::JSONB[])
         ON CONFLICT DO NOTHING",
        &users,
        &badges,
        &periods,
        &times,
        &metadata
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes the state of players as of `now`; without it, of a correction, since when it holds stays.
pub(super) async fn players(
    conn: &mut PgConnection,
    players: &BTreeMap<UserId, Player>,
    now: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    if players.is_empty() {
        return Ok(());
    }
    let of = |value: fn(&Player) -> i64| -> Vec<i64> { players.values().map(value).collect() };
    let small = |value: fn(&Player) -> i32| -> Vec<i32> { players.values().map(value).collect() };
    let freezes: Vec<i16> = players.values().map(|player| player.streak.freezes).collect();
    let titles: Vec<String> =
        players.values().map(|player| level_of(player.total_xp).title.to_owned()).collect();
    let starts: Vec<Option<NaiveDate>> = players.values().map(|player| player.streak.start).collect();
    let last: Vec<Option<String>> =
        players.values().map(|player| player.streak.last_active.map(|week| week.to_string())).collect();
    let bests: Vec<f64> = players.values().map(|player| player.best_difficulty).collect();
    let best_weeks: Vec<Option<String>> =
        players.values().map(|player| player.best_week.map(|week| week.to_string())).collect();
    let first_days: Vec<Option<NaiveDate>> = players.values().map(|player| player.first_share_day).collect();
    sqlx::query!(
        "UPDATE user_gamification g SET
             total_xp = n.total_xp, level = n.level, level_title = n.title, badges_earned = n.badges,
             current_streak = n.current, longest_streak = n.longest, streak_start_date = n.start,
             last_active_week = n.last, freezes = n.freezes, total_shares = n.shares, best_difficulty = n.best,
             best_difficulty_week = n.best_week, blocks_found = n.blocks, first_share_day = n.first_day,
             xp_entries = n.entries, updated_at = coalesce($16, g.updated_at)
         FROM unnest($1::BIGINT[], $2::BIGINT[], $3::INT[], $4::TEXT[], $5::INT[], $6::INT[], $7::INT[], $8::DATE[],
                     $9::TEXT[], $10::SMALLINT[], $11::BIGINT[], $12::FLOAT8[], $13::TEXT[], $14::INT[], $15::DATE[],
                     $17::INT[])
              AS n (id, total_xp, level, title, badges, current, longest, start, last, freezes, shares, best,
                    best_week, blocks, first_day, entries)
         WHERE g.user_id = n.id",
        &of(|player| player.user.0),
        &of(|player| player.total_xp),
        &small(|player| level_of(player.total_xp).level),
        &titles,
        &small(|player| player.badges_earned),
        &small(|player| player.streak.current),
        &small(|player| player.streak.longest),
        &starts as &[Option<NaiveDate>],
        &last as &[Option<String>],
        &freezes,
        &of(|player| player.total_shares),
        &bests,
        &best_weeks as &[Option<String>],
        &small(|player| player.blocks_found),
        &first_days as &[Option<NaiveDate>],
        now as Option<DateTime<Utc>>,
        &small(|player| player.xp_entries)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A best only rises: a week that is frozen because a later one was active may not have been loaded.
pub(super) async fn weeks(conn: &mut PgConnection, outcome: &Outcome) -> Result<(), sqlx::Error> {
    let rows: Vec<_> = outcome
        .weeks
        .iter()
        .filter_map(|(user, week)| Some((*user, *week, *outcome.players.get(user)?.weeks.get(week)?)))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let users: Vec<i64> = rows.iter().map(|(user, ..)| user.0).collect();
    let names: Vec<String> = rows.iter().map(|(_, week, _)| week.to_string()).collect();
    let starts: Vec<NaiveDate> = rows.iter().map(|(_, week, _)| week.monday()).collect();
    let shares: Vec<i64> = rows.iter().map(|(.., row)| row.shares).collect();
    let bests: Vec<f64> = rows.iter().map(|(.., row)| row.best_diff).collect();
    let days: Vec<i16> = rows.iter().map(|(.., row)| row.active_days).collect();
    let frozen: Vec<bool> = rows.iter().map(|(.., row)| row.is_frozen).collect();
    sqlx::query!(
        "INSERT INTO streak_calendar
             (user_id, week_iso, week_start, share_count, best_diff, active_days, is_active, is_frozen)
         SELECT user_id, week_iso, week_start, shares, best, days, shares > 0, frozen
         FROM unnest($1::BIGINT[], $2::TEXT[], $3::DATE[], $4::BIGINT[], $5::FLOAT8[], $6::SMALLINT[], $7::BOOLEAN[])
              AS n (user_id, week_iso, week_start, shares, best, days, frozen)
         ON CONFLICT (user_id, week_iso) DO UPDATE SET
             share_count = EXCLUDED.share_count,
             best_diff = greatest(streak_calendar.best_diff, EXCLUDED.best_diff), active_days = EXCLUDED.active_days,
             is_active = EXCLUDED.is_active, is_frozen = EXCLUDED.is_frozen",
        &users,
        &names,
        &starts,
        &shares,
        &bests,
        &days,
        &frozen
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn levels(conn: &mut PgConnection, rows: &[LevelUp]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let users: Vec<i64> = rows.iter().map(|row| row.user.0).collect();
    let old: Vec<i32> = rows.iter().map(|row| row.old_level).collect();
    let new: Vec<i32> = rows.iter().map(|row| row.level).collect();
    let titles: Vec<String> = rows.iter().map(|row| row.title.to_owned()).collect();
    let times: Vec<DateTime<Utc>> = rows.iter().map(|row| row.at).collect();
    sqlx::query!(
        "INSERT INTO level_celebrations (user_id, old_level, new_level, new_title, created_at)
         SELECT * FROM unnest($1::BIGINT[], $2::INT[], $3::INT[], $4::TEXT[], $5::TIMESTAMPTZ[])
         ON CONFLICT (user_id, new_level) DO NOTHING",
        &users,
        &old,
        &new,
        &titles,
        &times
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn milestones(conn: &mut PgConnection, rows: &[Milestone]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let users: Vec<i64> = rows.iter().map(|row| row.user.0).collect();
    let weeks: Vec<i32> = rows.iter().map(|row| row.weeks).collect();
    let names: Vec<String> = rows.iter().map(|row| row.name.to_owned()).collect();
    let times: Vec<DateTime<Utc>> = rows.iter().map(|row| row.at).collect();
    sqlx::query!(
        "INSERT INTO streak_celebrations (user_id, streak_weeks, milestone, created_at)
         SELECT * FROM unnest($1::BIGINT[], $2::INT[], $3::TEXT[], $4::TIMESTAMPTZ[])
         ON CONFLICT (user_id, streak_weeks) DO NOTHING",
        &users,
        &weeks,
        &names,
        &times
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Holders per badge, last of all and in the order of badges: these rows are everybody's.
async fn statistics(
    conn: &mut PgConnection,
    awards: &[AwardRow],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let mut holders: BTreeMap<i32, (i32, DateTime<Utc>)> = BTreeMap::new();
    for award in awards.iter().filter(|award| award.counts) {
        let (count, last) = holders.entry(award.badge).or_insert((0, award.at));
        *count += 1;
        *last = (*last).max(award.at);
    }
    if holders.is_empty() {
        return Ok(());
    }
    let badges: Vec<i32> = holders.keys().copied().collect();
    let (counts, times): (Vec<i32>, Vec<DateTime<Utc>>) = holders.into_values().unzip();
    sqlx::query!(
        "WITH more AS (
             SELECT s.badge_id, n.count, n.last
             FROM unnest($1::INT[], $2::INT[], $3::TIMESTAMPTZ[]) AS n (badge_id, count, last)
             JOIN badge_stats s ON s.badge_id = n.badge_id ORDER BY s.badge_id FOR UPDATE OF s
         )
         UPDATE badge_stats s SET
             total_earned = s.total_earned + more.count, last_earned_at = greatest(s.last_earned_at, more.last),
             updated_at = $4
         FROM more WHERE s.badge_id = more.badge_id",
        &badges,
        &counts,
        &times,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes everything of a user. A batch that still knows them is waited for, or its rows would come after.
pub(crate) async fn forget(conn: &mut PgConnection, user: UserId) -> Result<(), sqlx::Error> {
    tbg_engine::engine::take_turn(conn).await?;
    sqlx::query!(
        "WITH ledger AS (DELETE FROM xp_ledger WHERE user_id = $1),
              badges AS (DELETE FROM user_badges WHERE user_id = $1),
              weeks AS (DELETE FROM streak_calendar WHERE user_id = $1),
              levels AS (DELETE FROM level_celebrations WHERE user_id = $1),
              milestones AS (DELETE FROM streak_celebrations WHERE user_id = $1)
         DELETE FROM user_gamification WHERE user_id = $1",
        user.0
    )
    .execute(conn)
    .await?;
    Ok(())
}
