//! What must hold for every sequence of events: how it is cut into batches, how users interleave, how often
//! it is fed, and whether rows were kept or rebuilt makes no difference.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;
use tbg_bitcoin::Network;
use tbg_engine::PoolEvent;
use tbg_engine::decode::decode_text;
use tbg_mining::{MiningConfig, rebuild};
use tbg_sim::{SimConfig, Simulator};
use tbg_tests::{Game, TestDb, at, share};

use crate::support::{USER, decoded, everything};

const SEEDS: std::ops::RangeInclusive<u64> = 1..=4;
const EVENTS: usize = 3_000;
/// Sunday 23:45 UTC: the events cross an hour, a day and a week.
const START_US: i64 = 1_771_803_900_000_000;
/// Sums of doubles depend on the order of addition; nothing else may.
const SUMS: [&str; 3] = ["work", "sum_share_diff", "avg_diff"];
const CONFIG: MiningConfig = MiningConfig { network: Network::Mainnet, persist_raw: true };

/// Rollups, bests, blocks.
const DERIVED: [&str; 6] = [
    "SELECT * FROM hourly_shares ORDER BY btc_address, bucket",
    "SELECT * FROM user_daily_stats ORDER BY user_id, day",
    "SELECT user_id, btc_address, week_start, best_difficulty, best_share_time, total_shares
     FROM weekly_best_diff ORDER BY btc_address, week_start",
    "SELECT user_id, timeframe, period_key, best_difficulty, share_time, worker_name
     FROM personal_bests ORDER BY user_id, timeframe, period_key",
    "SELECT block_height, block_hash, user_id, btc_address, worker_name, reward_btc, fees_btc, difficulty,
            network_difficulty, confirmations, confirmed, found_at, coinbase_sig, source, region
     FROM blocks ORDER BY block_height",
    "SELECT * FROM network_difficulty ORDER BY block_height",
];
/// The archive, and how many of everything else.
const RAW: [&str; 2] = [
    "SELECT time, btc_address, worker_name, difficulty, share_diff, is_valid, is_block
     FROM shares ORDER BY time, btc_address, worker_name",
    "SELECT (SELECT count(*) FROM mining_events) AS events,
            (SELECT count(*) FROM ingest_ledger) AS ledger,
            (SELECT count(*) FROM block_celebrations) AS celebrations,
            (SELECT count(*) FROM activity_feed) AS feed,
            (SELECT count(*) FROM domain_outbox) AS outbox",
];

/// A small deterministic source of choices (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// A pool's events by time, and the addresses of its miners.
fn pool(seed: u64) -> (Vec<PoolEvent>, Vec<String>) {
    let simulator = Simulator::new(SimConfig {
        seed,
        miners: 25,
        start_us: START_US,
        target_share_seconds: 30.0,
        reject_rate: 0.05,
        duplicate_rate: 0.05,
        out_of_order_rate: 0.1,
        mean_session_seconds: 600.0,
        forced_block_every_seconds: Some(240.0),
        ..SimConfig::default()
    });
    let mut addresses: Vec<String> = simulator.miners().iter().map(|miner| miner.address.clone()).collect();
    addresses.dedup();
    let mut lines: Vec<_> = simulator.take(EVENTS).collect();
    lines.sort_by_key(|line| line.ts_us);
    let events = lines.iter().map(|line| decode_text(&line.json).expect(&line.json)).collect();
    (events, addresses)
}

/// A game in which two of three addresses have a user, with the same ids every time.
async fn game(addresses: &[String]) -> Game {
    let game = Game::new().await;
    for (index, address) in addresses.iter().enumerate() {
        if index % 3 != 2 {
            game.db.user(address).await;
        }
    }
    game
}

/// Applies `events` in batches of the given sizes, in turn; returns (applied, duplicate).
async fn feed(game: &mut Game, events: &[PoolEvent], mut size: impl FnMut() -> usize) -> (usize, usize) {
    let (mut applied, mut duplicate) = (0, 0);
    let mut rest = events;
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(size().clamp(1, rest.len()));
        rest = later;
        let newest = batch.iter().map(|event| event.ts).max().unwrap();
        let outcome = game.apply_at(batch.to_vec(), newest).await;
        applied += outcome.applied;
        duplicate += outcome.duplicate;
    }
    (applied, duplicate)
}

async fn rows(db: &TestDb, queries: &[&'static str]) -> Vec<Value> {
    let mut rows = Vec::new();
    for sql in queries.iter().copied() {
        rows.extend(db.rows(sql).await.iter().map(|row| serde_json::from_str::<Value>(row).unwrap()));
    }
    rows
}

async fn all_rows(db: &TestDb) -> Vec<Value> {
    let mut all = rows(db, &DERIVED).await;
    all.extend(rows(db, &RAW).await);
    all
}

#[track_caller]
fn assert_same(left: &[Value], right: &[Value], what: &str) {
    assert_eq!(left.len(), right.len(), "{what}: number of rows");
    for (a, b) in left.iter().zip(right) {
        let (a_fields, b_fields) = (a.as_object().unwrap(), b.as_object().unwrap());
        assert_eq!(a_fields.len(), b_fields.len(), "{what}: {a} and {b}");
        for (name, a_value) in a_fields {
            let b_value = &b_fields[name];
            let same = if SUMS.contains(&name.as_str()) {
                let (a_sum, b_sum) = (a_value.as_f64().unwrap(), b_value.as_f64().unwrap());
                (a_sum - b_sum).abs() <= a_sum.abs().max(b_sum.abs()) * 1e-9
            } else {
                a_value == b_value
            };
            assert!(same, "{what}: {name} differs:\n{a}\n{b}");
        }
    }
}

#[tokio::test]
async fn the_simulated_pool_exercises_every_table() {
    for seed in SEEDS {
        let (events, addresses) = pool(seed);
        let mut game = game(&addresses).await;

        let (applied, duplicate) = feed(&mut game, &events, || 500).await;

        assert_eq!(applied + duplicate, EVENTS);
        assert!(duplicate > 0, "seed {seed}: no duplicates");
        for sql in [
            "SELECT count(*) FROM shares WHERE is_block",
            "SELECT count(*) FROM shares WHERE NOT is_valid",
            "SELECT count(*) FROM blocks WHERE user_id IS NOT NULL",
            "SELECT count(*) FROM hourly_shares WHERE user_id IS NULL",
            "SELECT count(*) FROM user_daily_stats",
            "SELECT count(*) FROM personal_bests",
        ] {
            assert!(game.db.number(sql).await > 0, "seed {seed}: {sql}");
        }
        assert_eq!(game.db.number("SELECT count(DISTINCT week_start) FROM weekly_best_diff").await, 2);
        game.close().await;
    }
}

#[tokio::test]
async fn how_events_are_cut_into_batches_changes_no_row() {
    for seed in SEEDS {
        let (events, addresses) = pool(seed);
        let mut whole = game(&addresses).await;
        let mut cut = game(&addresses).await;
        let mut dice = Dice(seed);

        let as_one = feed(&mut whole, &events, || EVENTS).await;
        let in_pieces = feed(&mut cut, &events, || [1, 7, 40, 300][dice.below(4)]).await;

        assert_eq!(as_one, in_pieces);
        assert_same(&all_rows(&whole.db).await, &all_rows(&cut.db).await, &format!("seed {seed}"));
        whole.close().await;
        cut.close().await;
    }
}

#[tokio::test]
async fn feeding_everything_again_changes_nothing_at_all() {
    for seed in SEEDS {
        let (events, addresses) = pool(seed);
        let mut game = game(&addresses).await;
        feed(&mut game, &events, || 250).await;
        let before = everything(&game.db).await;

        for size in [EVENTS, 111] {
            let again = feed(&mut game, &events, || size).await;

            assert_eq!(again, (0, EVENTS), "seed {seed}");
            assert_eq!(everything(&game.db).await, before, "seed {seed}");
        }
        game.close().await;
    }
}

#[tokio::test]
async fn how_the_events_of_different_users_interleave_changes_no_row() {
    for seed in SEEDS {
        let (events, addresses) = pool(seed);
        let mut dice = Dice(seed + 100);
        let shuffled = interleaved(&events, &mut dice);
        let mut ordered = game(&addresses).await;
        let mut mixed = game(&addresses).await;

        let in_order = feed(&mut ordered, &events, || 250).await;
        let in_disorder = feed(&mut mixed, &shuffled, || 1 + dice.below(200)).await;

        assert_eq!(in_order, in_disorder);
        assert_same(&all_rows(&ordered.db).await, &all_rows(&mixed.db).await, &format!("seed {seed}"));
        ordered.close().await;
        mixed.close().await;
    }
}

/// The same events, each user's in their order, the users in any.
fn interleaved(events: &[PoolEvent], dice: &mut Dice) -> Vec<PoolEvent> {
    let mut queues: BTreeMap<&str, VecDeque<&PoolEvent>> = BTreeMap::new();
    for event in events {
        queues.entry(&event.user).or_default().push_back(event);
    }
    let mut queues: Vec<_> = queues.into_values().collect();
    let mut shuffled = Vec::with_capacity(events.len());
    while !queues.is_empty() {
        let chosen = dice.below(queues.len());
        for _ in 0..=dice.below(5) {
            shuffled.extend(queues[chosen].pop_front().cloned());
        }
        if queues[chosen].is_empty() {
            queues.swap_remove(chosen);
        }
    }
    assert_eq!(shuffled.len(), events.len());
    shuffled
}

#[tokio::test]
async fn a_rebuild_gives_the_same_rows_also_after_they_were_damaged() {
    for seed in SEEDS {
        let (events, addresses) = pool(seed);
        let mut game = game(&addresses).await;
        let (first, second) = events.split_at(EVENTS / 2);
        feed(&mut game, first, || 250).await;
        // The other addresses find their users in the middle: what was before stays nobody's.
        for address in addresses.iter().skip(2).step_by(3) {
            game.db.user(address).await;
        }
        feed(&mut game, second, || 250).await;
        run(&game.db, "UPDATE user_daily_stats SET uptime_minutes = 77, workers_seen = 3").await;
        let before = rows(&game.db, &DERIVED).await;
        let archived = game.db.number("SELECT count(*) FROM mining_events").await;

        rebuild_of(&game.db, archived).await;
        assert_same(&before, &rows(&game.db, &DERIVED).await, &format!("seed {seed}, intact rows"));

        for damage in [
            "UPDATE hourly_shares SET total = total + 5, work = 0, best_diff = 1e30, user_id = NULL",
            "DELETE FROM hourly_shares WHERE bucket = (SELECT min(bucket) FROM hourly_shares)",
            "UPDATE user_daily_stats SET accepted_shares = 0, avg_diff = -1, best_diff = 1e30",
            "UPDATE weekly_best_diff SET best_difficulty = 1, total_shares = 9, user_id = NULL",
            "DELETE FROM weekly_best_diff WHERE id % 2 = 0",
            "UPDATE personal_bests SET best_difficulty = best_difficulty * 2, worker_name = 'x'",
            "DELETE FROM personal_bests WHERE timeframe = 'week'",
            "DELETE FROM blocks WHERE id = (SELECT min(id) FROM blocks)",
        ] {
            run(&game.db, damage).await;
        }
        rebuild_of(&game.db, archived).await;
        assert_same(&before, &rows(&game.db, &DERIVED).await, &format!("seed {seed}, damaged rows"));
        game.close().await;
    }
}

#[tokio::test]
async fn a_rebuild_announces_and_celebrates_nothing_anew() {
    let (events, addresses) = pool(1);
    let mut game = game(&addresses).await;
    feed(&mut game, &events, || 250).await;
    let before = rows(&game.db, &RAW).await;

    rebuild_of(&game.db, game.db.number("SELECT count(*) FROM mining_events").await).await;

    assert_eq!(rows(&game.db, &RAW).await, before);
    game.close().await;
}

#[tokio::test]
async fn a_rebuild_keeps_bests_from_before_the_archive() {
    let mut game = Game::new().await;
    game.db.user(USER).await;
    let now = at("2026-06-01T12:00:00Z");
    game.apply_at(decoded(&[share(USER, "old", "1771804800.0", 512.0, 9e9, true)]), now).await;
    game.apply_at(decoded(&[share(USER, "rig1", "1780315200.0", 512.0, 100.0, true)]), now).await;
    let before = rows(&game.db, &DERIVED).await;

    rebuild_of(&game.db, 1).await;

    assert_same(&before, &rows(&game.db, &DERIVED).await, "bests of replayed old events");
    game.close().await;
}

#[tokio::test]
async fn a_rebuild_counts_two_equal_shares_that_their_event_ids_tell_apart() {
    let mut game = Game::new().await;
    game.db.user(USER).await;
    let line = |id: &str, ts: &str| {
        format!(
            r#"{{"event":"share_submitted","ts":{ts},"event_id":"{id}","data":{{"user":"{USER}","sdiff":4096.5}}}}"#
        )
    };
    game.apply(&[line("a", "1771804800.0"), line("b", "1771804801.0")]).await;
    let before = rows(&game.db, &DERIVED).await;
    assert_eq!(game.db.number("SELECT total FROM hourly_shares").await, 2);

    rebuild_of(&game.db, 2).await;

    assert_same(&before, &rows(&game.db, &DERIVED).await, "shares with event ids");
    game.close().await;
}

async fn rebuild_of(db: &TestDb, archived: i64) {
    let mut conn = db.connect().await;
    let mut progress = 0;
    let rebuilt = rebuild(&db.pool, &mut conn, CONFIG, |events| progress = events).await.unwrap();
    assert_eq!(i64::try_from(rebuilt.events).unwrap(), archived);
    assert_eq!(progress, rebuilt.events);
}

async fn run(db: &TestDb, sql: &'static str) {
    let done = sqlx::query(sql).execute(&db.pool).await.unwrap();
    assert!(done.rows_affected() > 0, "{sql} changed nothing");
}
