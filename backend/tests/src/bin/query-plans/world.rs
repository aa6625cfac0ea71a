//! A year of a game: players, their weeks, and a day of shares that went through the engine.

use chrono::{DateTime, TimeDelta, Utc};
use indicatif::{ProgressBar, ProgressStyle};
use tbg_core::UserId;
use tbg_engine::decode::decode_text;
use tbg_tests::app::App;
use tbg_tests::{TestDb, share};

/// Events of one batch while the archive is filled.
const CHUNK: u32 = 5_000;
/// The archive holds the shares of so many hours.
const HOURS: i64 = 20;

/// Users `bench0`, `bench1`, …; a year of their weeks; and their shares of the last hours, applied by the engine.
pub async fn fill(db: &TestDb, users: u32, events: u32, now: DateTime<Utc>) -> anyhow::Result<()> {
    for statement in YEAR {
        sqlx::query(statement).bind(i32::try_from(users)?).execute(&db.pool).await?;
    }
    let engine = tbg_tests::engine();
    let mut conn = db.connect().await;
    let bar = ProgressBar::new(u64::from(events));
    bar.set_style(ProgressStyle::with_template("shares {bar:40} {pos}/{len} {eta}")?);
    let step = TimeDelta::hours(HOURS).num_microseconds().unwrap_or_default() / i64::from(events.max(1));
    for first in (0..events).step_by(CHUNK as usize) {
        let numbers = first..(first + CHUNK).min(events);
        let lines = numbers.map(|number| {
            let when = now - TimeDelta::hours(HOURS) + TimeDelta::microseconds(step * i64::from(number));
            line(users, number, when)
        });
        let batch: Vec<_> = lines.map(|line| decode_text(&line).expect("an event")).collect();
        bar.inc(batch.len() as u64);
        engine.apply(&mut conn, batch, &[], now).await?;
    }
    bar.finish_and_clear();
    sqlx::query("VACUUM (ANALYZE)").execute(&db.pool).await?;
    Ok(())
}

/// A share; its number makes it another one than all others.
fn line(users: u32, number: u32, when: DateTime<Utc>) -> String {
    let ts = format!("{}.{:06}", when.timestamp(), when.timestamp_subsec_micros());
    let difficulty = 512.0 + f64::from(number.wrapping_mul(2_654_435_761) % 1_000_000);
    share(&format!("bench{}", number % users), "rig1", &ts, 512.0, difficulty, !number.is_multiple_of(50))
}

/// A batch of new shares of the last seconds.
pub fn batch(users: u32, size: u32, number: u32, now: DateTime<Utc>) -> Vec<String> {
    let first = number * size;
    (first..first + size)
        .map(|n| line(users, n, now - TimeDelta::milliseconds(i64::from(n % 9_000) + 1)))
        .collect()
}

/// Asks all reads of the document that are for players, as `readers` of them.
pub async fn read_as_players(app: &App, readers: i64) {
    let first = first(app).await;
    for (path, class) in reads(app).await.into_iter().filter(|(_, class)| class != "admin") {
        for reader in first..first + readers {
            let token = app.token(reader);
            let answer = app.get(&path, (class != "none").then_some(token.as_str())).await;
            assert!(answer.status < 500, "{path}: {}", answer.text);
        }
    }
}

/// Asks those that are for administrators.
pub async fn read_as_administrator(app: &App) {
    let first = first(app).await;
    tbg_identity::roles::grant_admin(&app.db.pool, UserId(first), true, tbg_tests::now())
        .await
        .expect("granted");
    for (path, _) in reads(app).await.into_iter().filter(|(_, class)| class == "admin") {
        let answer = app.get(&path, Some(&app.token(first))).await;
        assert!(answer.status < 500, "{path}: {}", answer.text);
    }
}

async fn first(app: &App) -> i64 {
    app.db.number("SELECT min(id) FROM users WHERE btc_address LIKE 'bench%'").await
}

/// Paths of all documented reads, and their classes.
async fn reads(app: &App) -> Vec<(String, String)> {
    let document = app.get("/openapi.json", None).await.ok();
    let paths = document["paths"].as_object().expect("paths");
    let class = |item: &serde_json::Value| item["get"]["x-auth-class"].as_str().map(str::to_owned);
    paths.iter().filter_map(|(path, item)| Some((filled(path), class(item)?))).collect()
}

/// A path with parameters of things that are there.
fn filled(path: &str) -> String {
    path.replace("{name}", "rig1")
        .replace("{height}", "800001")
        .replace("{slug}", "first_share")
        .replace("{game}", "hammer")
        .replace("{week}", "2026-W30")
        .replace("{address}", "bench7")
}

/// A year of everybody's weeks.
const YEAR: [&str; 12] = [
    "INSERT INTO users (btc_address, is_verified) SELECT 'bench' || n, TRUE FROM generate_series(0, $1 - 1) n",
    "INSERT INTO user_daily_stats (user_id, day, total_shares, accepted_shares, rejected_shares, best_diff, uptime_minutes)
     SELECT id, current_date - d, 100 + d, 98 + d, 2, 5000 + d, 700 FROM users, generate_series(1, 364) d WHERE $1 > 0",
    "INSERT INTO weekly_best_diff (user_id, btc_address, week_start, best_difficulty, best_share_time, total_shares)
     SELECT id, btc_address, date_trunc('week', now())::DATE - 7 * w, 5000 + id % 977 + w, now() - make_interval(weeks => w), 100
     FROM users, generate_series(1, 52) w WHERE $1 > 0",
    "INSERT INTO personal_bests (user_id, timeframe, period_key, best_difficulty, share_time, worker_name)
     SELECT id, 'week', to_char(date_trunc('week', now()) - make_interval(weeks => w), 'IYYY-\"W\"IW'), 5000 + id, now(), 'r1'
     FROM users, generate_series(1, 52) w WHERE $1 > 0",
    "INSERT INTO hashrate_snapshots (time, user_id, hashrate_5m, hashrate_1h)
     SELECT to_timestamp(floor(extract(epoch FROM now()) / 300) * 300) - make_interval(mins => 5 * s), id, 1e12, 1e12
     FROM users, generate_series(0, 288) s WHERE $1 > 0",
    "INSERT INTO blocks (block_height, block_hash, btc_address, found_at, reward_btc)
     SELECT 800000 + n, lpad(n::TEXT, 64, '0'), 'bench' || n, now() - make_interval(hours => 24 * n), 3.125
     FROM generate_series(1, 200) n WHERE $1 > 0",
    "INSERT INTO activity_feed (event_type, title, dedupe_key)
     SELECT 'block', 'Somebody found block #' || n, 'plans:' || n FROM generate_series(1, 10000) n WHERE $1 > 0",
    "INSERT INTO streak_calendar (user_id, week_iso, week_start, share_count, best_diff, active_days, is_active)
     SELECT id, to_char(monday, 'IYYY-\"W\"IW'), monday::DATE, 100, 5000, 127, TRUE
     FROM users, generate_series(date_trunc('week', now()) - interval '52 weeks', date_trunc('week', now()) - interval '1 week', interval '7 days') monday
     WHERE $1 > 0",
    "INSERT INTO xp_ledger (user_id, amount, source, source_id, description, idempotency_key, created_at)
     SELECT id, 25, 'streak', w::TEXT, 'A week of the year', 'plans:' || id || ':' || w, now() - make_interval(days => w)
     FROM users, generate_series(1, 100) w WHERE $1 > 0",
    "INSERT INTO notifications (user_id, type, subtype, title, dedupe_key, created_at)
     SELECT id, 'system', 'plans', 'Something happened', 'plans:' || n, now() - make_interval(hours => n)
     FROM users, generate_series(1, 200) n WHERE $1 > 0",
    "INSERT INTO lottery_draws (week_iso, week_start, week_end, status, merkle_root, drawn_at, frozen_at, total_participants)
     SELECT to_char(monday, 'IYYY-\"W\"IW'), monday::DATE, monday::DATE + 6, 'completed', sha256(monday::TEXT::BYTEA), monday + interval '8 days', monday + interval '7 days', $1
     FROM generate_series(date_trunc('week', now()) - interval '52 weeks', date_trunc('week', now()) - interval '2 weeks', interval '7 days') monday",
    "WITH results AS (
       INSERT INTO lottery_results (draw_id, user_id, rank, best_difficulty, total_shares, xp_awarded, created_at)
       SELECT d.id, u.id, row_number() OVER (PARTITION BY d.id ORDER BY u.id), 5000, 100, 10, d.drawn_at
       FROM lottery_draws d, users u WHERE $1 > 0)
     INSERT INTO game_sessions (user_id, game_type, week_iso, week_start, played_at, last_played_at)
     SELECT u.id, game, d.week_iso, d.week_start, d.drawn_at, d.drawn_at
     FROM lottery_draws d, users u, unnest(ARRAY['hammer', 'horse_race', 'slot_machine', 'scratch_card']) game",
];
