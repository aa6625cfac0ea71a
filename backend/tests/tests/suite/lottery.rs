//! Games and the weekly lottery from the outside (contract `games.md`; the numbers in names are its acceptance
//! examples).

mod calendar;
mod clocks;
mod draws;
mod late;
mod life;
mod many;
mod people;
mod proofs;
mod ranking;
mod wallets;
mod weeks;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tbg_games::Waits;
use tbg_tests::app::App;
use tbg_tests::at;

/// The five of the contract's examples, users 1 to 5: address, best, its time in microseconds, shares.
const FIVE: [(&str, f64, i64, i64); 5] = [
    ("bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l", 4_231_847_293.0, 1_772_013_600_000_000, 47_832),
    ("15CRxFdyRpGZLW9w8HnHvVduizdL5jKNbs", 4_231_847_293.0, 1_771_920_000_000_000, 1_200),
    ("3LbZqMMHu371r5Fjve9qNhSQzuNi7EzqUR", 1000.5, 1_772_409_599_999_999, 10),
    (
        "bc1ppv609nr0vr25u07u95waq5lucwfm6tde4nydujnu8npg4q75mr5sxq8lt3",
        4_231_847_293.0,
        1_771_920_000_000_000,
        1_300,
    ),
    ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", 4_231_847_293.0, 1_771_920_000_000_000, 1_300),
];

/// The seal of their draw.
const SEAL: &str = "661ec9634bbcc5868972ccebe5b6e5489b89bf14c986cc9f59b6ae5d3b25d73e";

/// The Monday on which their week, 2026-W09, is drawn.
const MONDAY: &str = "2026-03-02";

/// The best of a week at an address, as mining has written it: difficulty, time, shares.
async fn best(
    app: &App,
    user: Option<i64>,
    address: &str,
    week_start: &str,
    row: (f64, Option<DateTime<Utc>>, i64),
) {
    sqlx::query(
        "INSERT INTO weekly_best_diff (user_id, btc_address, week_start, best_difficulty, best_share_time, total_shares)
         VALUES ($1, $2, $3::DATE, $4, $5, $6)",
    )
    .bind(user)
    .bind(address)
    .bind(week_start)
    .bind(row.0)
    .bind(row.1)
    .bind(row.2)
    .execute(&app.db.pool)
    .await
    .expect("a week's best");
}

/// What ingest has committed: all shares until then.
async fn watermark(app: &App, instant: &str) {
    sqlx::query("INSERT INTO lottery_watermark VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET max_share_ts = EXCLUDED.max_share_ts")
        .bind(at(instant))
        .execute(&app.db.pool)
        .await
        .expect("a watermark");
}

/// The users of the five, of whom no best is known yet.
async fn users_of_five(now: &str) -> App {
    let app = App::at(at(now)).await;
    for (address, ..) in FIVE {
        app.db.user(address).await;
    }
    app
}

/// The best of the week of one of the five.
async fn best_of(app: &App, user: i64) {
    let (address, difficulty, time_us, shares) = FIVE[usize::try_from(user - 1).expect("from 1")];
    let time = DateTime::from_timestamp_micros(time_us);
    best(app, Some(user), address, "2026-02-23", (difficulty, time, shares)).await;
}

/// The week of the five, at the Monday after.
async fn five() -> App {
    let app = users_of_five("2026-03-02T00:00:00Z").await;
    for user in 1..=5 {
        best_of(&app, user).await;
    }
    app
}

/// The same, drawn.
async fn drawn() -> App {
    let app = five().await;
    draw_on(&app, MONDAY).await;
    app
}

/// Freezes and draws the week before a Monday, as soon as it is due.
async fn draw_on(app: &App, monday: &str) {
    watermark(app, &format!("{monday}T00:05:00Z")).await;
    for time in ["00:10:00", "00:15:00"] {
        cycle_at(app, &format!("{monday}T{time}Z")).await;
    }
    app.consume().await;
}

/// Runs the cycle's job at an instant.
async fn cycle_at(app: &App, when: &str) {
    app.clock.set(at(when));
    app.run_job("lottery_cycle").await;
}

/// Runs the cycle of several replicas at once, each at what its own clock shows.
async fn cycle_at_once(app: &App, clocks: &[DateTime<Utc>]) {
    let cycle = app.cycle();
    let runs = clocks.iter().map(|now| cycle.run(*now, Waits::Kept));
    for outcome in futures_util::future::join_all(runs).await {
        outcome.expect("whoever comes second finds the step done");
    }
}

/// What has become of 2026-W09; an empty text before anybody looked at it.
async fn status(app: &App) -> String {
    let row = sqlx::query_scalar("SELECT status FROM lottery_draws WHERE week_iso = '2026-W09'");
    row.fetch_optional(&app.db.pool).await.expect("draws").unwrap_or_default()
}

/// All that the freeze of 2026-W09 leaves and nothing may change later.
async fn frozen(app: &App) -> Vec<String> {
    let mut rows = app.db.rows("SELECT * FROM lottery_entries ORDER BY leaf_index").await;
    rows.extend(app.db.rows("SELECT * FROM lottery_tree_levels ORDER BY level").await);
    let sealed =
        "SELECT week_start, week_end, total_participants, total_shares, merkle_root, previous_seal, seal
        FROM lottery_draws WHERE week_iso = '2026-W09'";
    rows.extend(app.db.rows(sealed).await);
    rows
}

/// There are as many draws, and each follows from its entries.
async fn assert_sound(app: &App, draws: usize) {
    let (looked_at, wrong) = tbg_games::check(&app.db.pool).await.expect("a check");
    assert_eq!((looked_at, wrong), (draws, vec![]));
}

/// What everybody reads under `/api/v1`.
async fn get(app: &App, path: &str) -> Value {
    app.get(&format!("/api/v1{path}"), None).await.ok()
}
