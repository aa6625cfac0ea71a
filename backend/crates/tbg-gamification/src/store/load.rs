//! Players, locked for the transaction that decides about them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sqlx::PgConnection;
use tbg_core::period::IsoWeek;
use tbg_core::{UserId, outbox};

use crate::rules::catalogue::{Badge, Catalogue, Trigger};
use crate::rules::causes::best_key;
use crate::rules::player::{Player, Week};
use crate::rules::streak::Streak;
use crate::rules::words;

/// Who and what a transaction is about.
#[derive(Default)]
pub(crate) struct Wanted {
    /// Users, with whether they are test users.
    pub users: BTreeMap<UserId, bool>,
    /// Weeks of theirs in which something happened, with the greatest difficulty in each.
    pub weeks: BTreeMap<(UserId, IsoWeek), f64>,
    /// Keys of grants that may have been given before.
    pub keys: Vec<(UserId, String)>,
    /// Users who may be given a block. Its day is known only when it is merged: all days count that were paid.
    pub finders: BTreeSet<UserId>,
}

/// The badges that can be earned.
pub(crate) async fn catalogue(conn: &mut PgConnection) -> Result<Catalogue, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT id, slug, name, description, rarity, xp_reward, trigger_type, repeatable,
                  (trigger_config ->> 'threshold')::FLOAT8 AS threshold
           FROM badge_definitions WHERE is_active ORDER BY id LIMIT 1000"#
    )
    .fetch_all(conn)
    .await?;
    let badges = rows.into_iter().map(|row| {
        let threshold = row.threshold.unwrap_or(f64::INFINITY);
        let trigger = match row.trigger_type.as_str() {
            "share_count" => Trigger::ShareCount(threshold as i64),
            "best_diff" => Trigger::BestDiff(threshold),
            "streak" => Trigger::Streak(threshold as i32),
            "block_found" => Trigger::BlockFound,
            _ => Trigger::Event,
        };
        Badge {
            id: row.id,
            slug: row.slug,
            name: row.name,
            description: row.description,
            rarity: row.rarity,
            xp_reward: row.xp_reward,
            trigger,
            repeatable: row.repeatable,
        }
    });
    Ok(Catalogue::new(badges.collect()))
}

/// Those of `users` who take part, with whether they are test users.
pub(crate) async fn players_among(
    conn: &mut PgConnection,
    users: &[i64],
) -> Result<BTreeMap<UserId, bool>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT id, is_test FROM users WHERE id = ANY ($1) AND NOT is_banned AND deleted_at IS NULL ORDER BY id",
        users
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (UserId(row.id), row.is_test)).collect())
}

/// Loads and locks players: two statements, and one each for what is rare (new players, keys, missed and late weeks).
pub(crate) async fn load(
    conn: &mut PgConnection,
    wanted: &Wanted,
) -> Result<HashMap<UserId, Player>, sqlx::Error> {
    let ids: Vec<i64> = wanted.users.keys().map(|user| user.0).collect();
    let mut players = rows(conn, &ids, wanted).await?;
    let missing: Vec<i64> = ids.into_iter().filter(|id| !players.contains_key(&UserId(*id))).collect();
    if !missing.is_empty() {
        sqlx::query!(
            "INSERT INTO user_gamification (user_id) SELECT id FROM unnest($1::BIGINT[]) AS new (id) ORDER BY id
             ON CONFLICT (user_id) DO NOTHING",
            &missing
        )
        .execute(&mut *conn)
        .await?;
        players.extend(rows(conn, &missing, wanted).await?);
    }
    weeks(conn, wanted, &mut players).await?;
    keys(conn, wanted, &mut players).await?;
    told(conn, wanted, &mut players).await?;
    late(conn, wanted, &mut players).await?;
    Ok(players)
}

async fn rows(
    conn: &mut PgConnection,
    ids: &[i64],
    wanted: &Wanted,
) -> Result<HashMap<UserId, Player>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT g.user_id, total_xp, badges_earned, current_streak, longest_streak, streak_start_date,
                  last_active_week, freezes, total_shares, best_difficulty, best_difficulty_week, blocks_found,
                  first_share_day, xp_entries, held.badges AS "badges!", held.periods AS "periods!",
                  (SELECT max(new_level) FROM level_celebrations l WHERE l.user_id = g.user_id) AS peak_level
           FROM unnest($1::BIGINT[]) AS asked (id)
           JOIN user_gamification g ON g.user_id = asked.id
           CROSS JOIN LATERAL (
               SELECT coalesce(array_agg(badge_id ORDER BY id), '{}') AS badges,
                      coalesce(array_agg(period_key ORDER BY id), '{}') AS periods
               FROM user_badges b WHERE b.user_id = g.user_id
           ) held
           ORDER BY g.user_id FOR UPDATE OF g"#,
        ids
    )
    .fetch_all(conn)
    .await?;
    let players = rows.into_iter().map(|row| {
        let user = UserId(row.user_id);
        let mut held: HashMap<i32, HashSet<String>> = HashMap::new();
        for (badge, period) in row.badges.into_iter().zip(row.periods) {
            held.entry(badge).or_default().insert(period);
        }
        let player = Player {
            is_test: wanted.users.get(&user).copied().unwrap_or_default(),
            peak_level: row.peak_level.unwrap_or(0),
            held,
            ..player_of!(user, row)
        };
        (user, player)
    });
    Ok(players.collect())
}

async fn weeks(
    conn: &mut PgConnection,
    wanted: &Wanted,
    players: &mut HashMap<UserId, Player>,
) -> Result<(), sqlx::Error> {
    if wanted.weeks.is_empty() {
        return Ok(());
    }
    let (users, names): (Vec<i64>, Vec<String>) =
        wanted.weeks.keys().map(|(user, week)| (user.0, week.to_string())).unzip();
    let rows = sqlx::query!(
        "SELECT c.user_id, c.week_start, c.share_count, c.best_diff, c.active_days, c.is_frozen
         FROM unnest($1::BIGINT[], $2::TEXT[]) AS asked (user_id, week_iso)
         JOIN streak_calendar c ON c.user_id = asked.user_id AND c.week_iso = asked.week_iso",
        &users,
        &names
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        let week = Week {
            shares: row.share_count,
            best_diff: row.best_diff,
            active_days: row.active_days,
            is_frozen: row.is_frozen,
        };
        if let Some(player) = players.get_mut(&UserId(row.user_id)) {
            player.weeks.insert(IsoWeek::of_day(row.week_start), week);
        }
    }
    Ok(())
}

/// Grants that were given before, among all that the transaction may give: what is asked for, a best of each week
/// in which the present best is beaten, blocks.
async fn keys(
    conn: &mut PgConnection,
    wanted: &Wanted,
    players: &mut HashMap<UserId, Player>,
) -> Result<(), sqlx::Error> {
    let best = |user: &UserId| players.get(user).map_or(f64::INFINITY, |player| player.best_difficulty);
    let records = wanted.weeks.iter().filter(|((user, _), difficulty)| **difficulty > best(user));
    let records = records.map(|((user, week), _)| (*user, best_key(*user, *week)));
    let asked = wanted.keys.iter().cloned().chain(records);
    let (users, keys): (Vec<i64>, Vec<String>) = asked.map(|(user, key)| (user.0, key)).unzip();
    if keys.is_empty() && wanted.finders.is_empty() {
        return Ok(());
    }
    let finders: Vec<i64> = wanted.finders.iter().map(|user| user.0).collect();
    // A key need not name its user: a reference of an operator is used up for everybody.
    let rows = sqlx::query!(
        r#"SELECT asked.user_id AS "user_id!", asked.key AS "key!"
           FROM unnest($1::BIGINT[], $2::TEXT[]) AS asked (user_id, key)
           JOIN xp_ledger l ON l.idempotency_key = asked.key
           UNION ALL
           SELECT user_id, idempotency_key FROM xp_ledger WHERE user_id = ANY ($3) AND source = 'block'"#,
        &users,
        &keys,
        &finders
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        if let Some(player) = players.get_mut(&UserId(row.user_id)) {
            player.granted.insert(row.key);
        }
    }
    Ok(())
}

/// The missed weeks of which players have been told by the job that closes weeks.
async fn told(
    conn: &mut PgConnection,
    wanted: &Wanted,
    players: &mut HashMap<UserId, Player>,
) -> Result<(), sqlx::Error> {
    let mut asked = HashMap::new();
    for (user, week) in wanted.weeks.keys() {
        let last_active = players.get(user).and_then(|player| player.streak.last_active);
        if last_active.is_some_and(|last| week.weeks_since(last) > 1) {
            let missed = week.minus(1);
            asked.extend(words::close_keys(*user, missed).map(|key| (key, (*user, missed))));
        }
    }
    if asked.is_empty() {
        return Ok(());
    }
    let keys: Vec<String> = asked.keys().cloned().collect();
    for (user, missed) in outbox::written(conn, &keys).await?.iter().filter_map(|key| asked.get(key)) {
        if let Some(player) = players.get_mut(user) {
            player.told.insert(*missed);
        }
    }
    Ok(())
}

/// The whole calendar, and the streak weeks that were paid, of players with something in a week before their
/// last active one.
async fn late(
    conn: &mut PgConnection,
    wanted: &Wanted,
    players: &mut HashMap<UserId, Player>,
) -> Result<(), sqlx::Error> {
    let mut late: Vec<i64> = wanted
        .weeks
        .keys()
        .filter(|(user, week)| {
            players.get(user).is_some_and(|player| {
                player.streak.last_active.is_some_and(|last| *week < last)
                    && !player.weeks.get(week).is_some_and(|row| row.is_active())
            })
        })
        .map(|(user, _)| user.0)
        .collect();
    late.dedup();
    if late.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query!(
        r#"SELECT c.user_id AS "user_id!", c.week_start AS "week_start!", c.share_count AS "share_count!",
                  c.best_diff AS "best_diff!", c.active_days AS "active_days!", c.is_frozen AS "is_frozen!",
                  NULL::TEXT AS key
           FROM streak_calendar c WHERE c.user_id = ANY ($1)
           UNION ALL
           SELECT user_id, CURRENT_DATE, 0, 0, 0::SMALLINT, FALSE, idempotency_key
           FROM xp_ledger WHERE user_id = ANY ($1) AND source = 'streak'"#,
        &late
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        let Some(player) = players.get_mut(&UserId(row.user_id)) else { continue };
        player.has_whole_calendar = true;
        match row.key {
            Some(key) => {
                player.granted.insert(key);
            }
            None => {
                let week = Week {
                    shares: row.share_count,
                    best_diff: row.best_diff,
                    active_days: row.active_days,
                    is_frozen: row.is_frozen,
                };
                player.weeks.insert(IsoWeek::of_day(row.week_start), week);
            }
        }
    }
    Ok(())
}

/// Whether a week has its champion.
pub(crate) async fn has_champion(conn: &mut PgConnection, week: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM user_badges WHERE badge_id = 8 AND period_key = $1) AS "has_champion!""#,
        week
    )
    .fetch_one(conn)
    .await
}
