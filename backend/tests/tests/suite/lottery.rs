//! Games and the weekly lottery from the outside (contract `games.md`; the numbers in names are its acceptance
//! examples).

mod calendar;
mod clocks;
mod late;
mod life;
mod people;
mod proofs;
mod ranking;
mod wallets;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tbg_core::Clock as _;
use tbg_games::Waits;
use tbg_tests::app::App;
use tbg_tests::{at, share};

/// The five of the contract's examples: address, best, its time in microseconds, shares.
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

const MONDAY: &str = "2026-03-02";

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

async fn watermark(app: &App, instant: &str) {
    sqlx::query("INSERT INTO lottery_watermark VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET max_share_ts = EXCLUDED.max_share_ts")
        .bind(at(instant))
        .execute(&app.db.pool)
        .await
        .expect("a watermark");
}

/// The week 2026-W09 of the five users, at the Monday after.
async fn five() -> App {
    let app = App::at(at("2026-03-02T00:00:00Z")).await;
    for (address, difficulty, time_us, shares) in FIVE {
        let user = app.db.user(address).await;
        let time = DateTime::from_timestamp_micros(time_us);
        best(&app, Some(user), address, "2026-02-23", (difficulty, time, shares)).await;
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
        app.clock.set(at(&format!("{monday}T{time}Z")));
        app.run_job("lottery_cycle").await;
    }
    app.consume().await;
}

async fn get(app: &App, path: &str) -> Value {
    app.get(&format!("/api/v1{path}"), None).await.ok()
}

async fn read(app: &App, user: i64, path: &str) -> Value {
    app.get(&format!("/api/v1{path}"), Some(&app.token(user))).await.ok()
}

#[tokio::test]
async fn examples_3_and_5_the_draw_of_the_five() {
    let app = drawn().await;

    let (draws, wrong) = tbg_games::check(&app.db.pool).await.unwrap();
    assert_eq!((draws, wrong.len()), (1, 0), "the draw follows from its entries");
    let latest = read(&app, 3, "/lottery/results").await;
    let ranks: Vec<(i64, i64, f64)> = latest["top_10"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (
                entry["user_id"].as_i64().unwrap(),
                entry["xp_awarded"].as_i64().unwrap(),
                entry["percentile"].as_f64().unwrap(),
            )
        })
        .collect();
    assert_eq!(ranks, [(5, 100, 80.0), (4, 100, 60.0), (2, 100, 40.0), (1, 100, 20.0), (3, 100, 0.0)]);
    assert_eq!(latest["your_result"]["rank"], 5);
    let draw = &latest["draw"];
    assert_eq!((&draw["winner_user_id"], &draw["total_shares"]), (&json!(5), &json!(51_642)));
    assert_eq!(draw["merkle_root"], "6888e9a2d6e3828df49abbeb534df4b6210012b5661fe6b078865be6e8de4d59");
    assert_eq!(draw["seal"], "661ec9634bbcc5868972ccebe5b6e5489b89bf14c986cc9f59b6ae5d3b25d73e");
    assert_eq!(
        get(&app, "/lottery/stats").await,
        json!({
            "total_draws": 1, "total_participants_all_time": 5, "average_participants_per_draw": 5.0,
            "average_best_diff": 3_385_478_034.5, "highest_winning_diff": 4_231_847_293.0,
            "most_recent_draw": "2026-W09",
        })
    );
    assert_eq!(app.db.number("SELECT sum(total_xp)::BIGINT FROM user_gamification").await, 500);
    assert_eq!(
        app.db.number("SELECT count(*) FROM notifications WHERE subtype = 'lottery_results'").await,
        5
    );
    let feed = app.db.rows("SELECT title FROM activity_feed WHERE event_type = 'competition'").await;
    assert_eq!(feed, [r#"{"title": "Miner-1A1zP1eP topped the 2026-W09 lottery"}"#]);
    let own = read(&app, 1, "/lottery/stats/me").await;
    assert_eq!((&own["best_rank"], &own["current_streak"]), (&json!(4), &json!(1)));
    let audited = "SELECT count(*) FROM audit_log WHERE action IN ('lottery.frozen', 'lottery.drawn')";
    assert_eq!(app.db.number(audited).await, 2);
}

#[tokio::test]
async fn examples_6_and_21_what_is_not_drawn() {
    let app = five().await;
    for (path, code) in [
        ("/lottery/results", "LOTTERY_NO_RESULTS"),
        ("/lottery/results/2099-W01", "LOTTERY_DRAW_NOT_FOUND"),
        ("/lottery/results/abc", "LOTTERY_DRAW_NOT_FOUND"),
        ("/lottery/results/2025-W53", "LOTTERY_DRAW_NOT_FOUND"),
        ("/lottery/proofs/2026-W09", "LOTTERY_DRAW_NOT_FOUND"),
        ("/lottery/proofs/2026-W09/file", "LOTTERY_DRAW_NOT_FOUND"),
    ] {
        assert_eq!(app.get(&format!("/api/v1{path}"), None).await.outcome(), (404, code), "{path}");
    }
    // A week without shares after one with.
    app.clock.set(at("2026-03-09T02:00:00Z"));
    for _ in 0..5 {
        app.run_job("lottery_cycle").await;
        app.clock.advance(TimeDelta::hours(1));
    }
    let empty = get(&app, "/lottery/proofs/2026-W10").await;
    assert_eq!((&empty["status"], &empty["entries_count"]), (&json!("completed"), &json!(0)));
    assert_eq!(empty["merkle_root"], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(empty["seal"], "eb76b01ec6e1939a4d834c7cbda6ffd4378daa9b1a1ba33543a01cf0c064a858");
    let (code, report) =
        proofs::verified(&app.get("/api/v1/lottery/proofs/2026-W10/file", None).await.text).await;
    assert_eq!((code, &report["entries"]), (Some(0), &json!(0)), "{report}");
    assert_eq!(get(&app, "/lottery/results/2026-02-25").await["draw"]["week_iso"], "2026-W09");
    let seals = get(&app, "/lottery/proofs?limit=1").await;
    assert_eq!(seals["data"][0]["week_iso"], "2026-W10");
    let next = seals["pagination"]["next_cursor"].as_str().unwrap();
    let page = get(&app, &format!("/lottery/proofs?limit=1&cursor={next}")).await;
    assert_eq!(
        (&page["data"][0]["week_iso"], &page["pagination"]["has_more"]),
        (&json!("2026-W09"), &json!(false))
    );
}

#[tokio::test]
async fn examples_9_and_10_the_freeze_waits_for_shares_and_then_for_nobody() {
    let app = five().await;
    watermark(&app, "2026-03-02T00:04:59Z").await;
    let status = async || app.db.rows("SELECT status FROM lottery_draws WHERE week_iso = '2026-W09'").await;
    app.clock.set(at("2026-03-02T00:10:00Z"));
    app.run_job("lottery_cycle").await;
    assert_eq!(status().await, [r#"{"status": "open"}"#]);

    watermark(&app, "2026-03-02T00:05:00Z").await;
    app.clock.set(at("2026-03-02T00:12:00Z"));
    app.run_job("lottery_cycle").await;
    let frozen = get(&app, "/lottery/results/2026-W09").await;
    assert_eq!(
        (&frozen["draw"]["status"], &frozen["results"], &frozen["total"]),
        (&json!("processing"), &json!([]), &json!(0))
    );
    assert!(frozen["draw"]["winner_user_id"].is_null() && frozen["draw"]["drawn_at"].is_null());
    assert_eq!(frozen["draw"]["merkle_root"].as_str().unwrap().len(), 64);
    // What comes later raises records and no frozen draw.
    sqlx::query("UPDATE weekly_best_diff SET best_difficulty = 9e9 WHERE user_id = 3")
        .execute(&app.db.pool)
        .await
        .unwrap();
    app.clock.set(at("2026-03-02T00:16:59Z"));
    app.run_job("lottery_cycle").await;
    assert_eq!(status().await, [r#"{"status": "processing"}"#]);
    app.clock.set(at("2026-03-02T00:17:00Z"));
    app.run_job("lottery_cycle").await;
    assert_eq!(get(&app, "/lottery/results").await["draw"]["winner_user_id"], 5);

    // Nobody mined since Sunday: an hour after it was first seen to be due, it is frozen anyway.
    let quiet = five().await;
    for (time, expected) in [("00:10:00", "open"), ("01:09:59", "open"), ("01:10:00", "processing")] {
        quiet.clock.set(at(&format!("{MONDAY}T{time}Z")));
        quiet.run_job("lottery_cycle").await;
        let rows = quiet.db.rows("SELECT status FROM lottery_draws WHERE week_iso = '2026-W09'").await;
        assert_eq!(rows, [format!(r#"{{"status": "{expected}"}}"#)], "{time}");
    }
}

#[tokio::test]
async fn example_11_after_a_long_downtime_weeks_are_drawn_in_order_and_once() {
    let app = five().await;
    for (monday, time) in [("2026-03-02", "2026-03-03T00:00:00Z"), ("2026-03-09", "2026-03-10T00:00:00Z")] {
        best(&app, Some(1), FIVE[0].0, monday, (500.0, Some(at(time)), 5)).await;
    }
    watermark(&app, "2026-03-18T12:00:00Z").await;
    app.clock.set(at("2026-03-18T12:00:00Z"));
    for _ in 0..4 {
        // Two replicas at once.
        let (a, b) = (app.cycle(), app.cycle());
        let now = app.clock.now();
        let (a, b) = tokio::join!(a.run(now, Waits::Kept), b.run(now, Waits::Kept));
        for outcome in [a, b] {
            // One of two that write at the same time may be told to try again.
            if let Err(error) = outcome {
                assert!(format!("{error:#}").contains("could not serialize"), "{error:#}");
            }
        }
        app.clock.advance(TimeDelta::minutes(5));
    }
    app.consume().await;
    let weeks =
        app.db.rows("SELECT week_iso, status FROM lottery_draws ORDER BY drawn_at NULLS LAST, id").await;
    let expected = [
        ("2026-W09", "completed"),
        ("2026-W10", "completed"),
        ("2026-W11", "completed"),
        ("2026-W12", "open"),
    ];
    assert_eq!(
        weeks,
        expected.map(|(week, status)| format!(r#"{{"status": "{status}", "week_iso": "{week}"}}"#))
    );
    let chained = "SELECT count(*) FROM lottery_draws a JOIN lottery_draws b ON b.week_start = a.week_start + 7 AND b.previous_seal = a.seal";
    assert_eq!(app.db.number(chained).await, 2);
    assert_eq!(app.db.number("SELECT total_xp FROM user_gamification WHERE user_id = 1").await, 300);
    let told = "SELECT count(*) FROM notifications WHERE subtype = 'lottery_results'";
    assert_eq!(app.db.number(told).await, 1, "of the last week only");
}

#[tokio::test]
async fn example_12_addresses_of_a_user_are_one_entry() {
    let app = App::at(at("2026-03-02T00:10:00Z")).await;
    let user = app.db.user("bc1qnow").await;
    best(&app, Some(user), "bc1qx", "2026-02-23", (50.0, Some(at("2026-02-24T00:00:00Z")), 10)).await;
    best(&app, Some(user), "bc1qy", "2026-02-23", (80.0, Some(at("2026-02-25T00:00:00Z")), 5)).await;
    best(&app, None, "bc1qnobody", "2026-02-23", (9e9, None, 5)).await;
    for (address, out) in [
        ("bc1qtest", "UPDATE users SET is_test = TRUE WHERE id = $1"),
        ("bc1qbanned", "UPDATE users SET is_banned = TRUE WHERE id = $1"),
    ] {
        let user = app.db.user(address).await;
        best(&app, Some(user), address, "2026-02-23", (9e9, None, 5)).await;
        sqlx::query(out).bind(user).execute(&app.db.pool).await.unwrap();
    }
    app.cycle().run(app.clock.now(), Waits::Skipped).await.unwrap();
    let entries =
        app.db.rows("SELECT user_id, btc_address, best_difficulty, total_shares FROM lottery_entries").await;
    assert_eq!(
        entries,
        [format!(
            r#"{{"user_id": {user}, "btc_address": "bc1qy", "total_shares": 15, "best_difficulty": 80}}"#
        )]
    );
}

#[tokio::test]
async fn examples_13_to_15_a_week_in_numbers() {
    let app = App::at(at("2026-02-25T12:00:00Z")).await;
    let person = app.miner(1).await;
    let week = read(&app, person.id, "/games/weekly").await;
    assert_eq!(week, read(&app, person.id, "/games/weekly-data").await);
    assert_eq!(
        (&week["best_difficulty"], &week["weekly_rank"], &week["percentile"]),
        (&json!(0.0), &json!(0), &json!(0.0))
    );
    assert_eq!((&week["best_hash"], &week["best_hash_source"]), (&json!("f".repeat(64)), &json!("none")));
    assert!(week["best_difficulty_time"].is_null() && week["block_data"].is_null());
    assert_eq!(week["daily_best_diffs"].as_object().unwrap().len(), 7);
    assert_eq!((&week["network_difficulty"], &week["block_found"]), (&json!(1e14), &json!(false)));

    let other = app.miner(2).await;
    let ts = (app.clock.now().timestamp() - 5).to_string();
    app.feed(&[
        share(&person.address, "rig1", &ts, 512.0, 4_231_847_293.0, true),
        share(&other.address, "rig1", &ts, 512.0, 5e9, true),
    ])
    .await;
    let week = read(&app, person.id, "/games/weekly").await;
    assert_eq!(
        (&week["weekly_rank"], &week["total_participants"], &week["percentile"]),
        (&json!(2), &json!(2), &json!(0.0))
    );
    assert_eq!(week["best_hash"], format!("000000000000000103d07c4a2f4{}", "0".repeat(37)));
    assert_eq!(
        (&week["daily_best_diffs"]["wed"], &week["total_shares"]),
        (&json!(4_231_847_293.0), &json!(1))
    );
    let slots = read(&app, person.id, "/games/weekly/slots").await;
    assert_eq!((&slots["view"]["matches"], &slots["game_type"]), (&json!(15), &json!("slot_machine")));
    let unknown = app.get("/api/v1/games/weekly/poker", Some(&person.access)).await;
    assert_eq!(unknown.outcome(), (404, "GAME_NOT_FOUND"));
    for bad in ["2026-W10", "2008-W50", "x", "2025-W53"] {
        let path = format!("/api/v1/games/weekly?week={bad}");
        assert_eq!(app.get(&path, Some(&person.access)).await.status, 422, "{bad}");
    }
    let lottery = read(&app, person.id, "/lottery/current").await;
    assert_eq!((&lottery["your_rank"], &lottery["your_diff"]), (&json!(2), &json!(4_231_847_293.0)));
    assert_eq!(
        (&lottery["freeze_at"], &lottery["results_at"]),
        (&json!("2026-03-02T00:10:00Z"), &json!("2026-03-02T00:15:00Z"))
    );
}

#[tokio::test]
async fn the_pools_hash_is_shown_and_drawn_if_it_is_the_shares() {
    let app = App::at(at("2026-02-25T12:00:00Z")).await;
    let person = app.miner(1).await;
    let hash = format!("00000000ffff{}", "0".repeat(52));
    let with_hash = |sdiff: f64, hash: &str| {
        let line = share(&person.address, "rig1", "1772020795.000000", 1.0, sdiff, true);
        line.replacen("\"sdiff\"", &format!("\"hash\":\"{hash}\",\"sdiff\""), 1)
    };
    // A hash of difficulty 1, for a share that claims 3: not its own.
    app.feed(&[with_hash(3.0, &hash)]).await;
    assert_eq!(read(&app, person.id, "/games/weekly").await["best_hash_source"], "derived");
    // In the order of the wire, with a difficulty of 4.
    let of_four = format!("000000003fffc{}", "0".repeat(51));
    let on_the_wire: String = (0..64).step_by(2).rev().map(|digit| &of_four[digit..digit + 2]).collect();
    app.feed(&[with_hash(4.0, &on_the_wire)]).await;
    let week = read(&app, person.id, "/games/weekly").await;
    assert_eq!((&week["best_hash_source"], &week["best_hash"]), (&json!("pool"), &json!(of_four)));

    watermark(&app, "2026-03-02T00:05:00Z").await;
    for time in ["00:10:00", "00:15:00"] {
        app.clock.set(at(&format!("{MONDAY}T{time}Z")));
        app.run_job("lottery_cycle").await;
    }
    let drawn = app.db.rows("SELECT best_hash FROM lottery_results").await;
    assert_eq!(drawn, [format!(r#"{{"best_hash": "{of_four}"}}"#)]);
}

#[tokio::test]
async fn example_19_a_game_counts_once_a_week() {
    let app = drawn().await;
    let token = app.token(1);
    let play = async |body: Value| app.post("/api/v1/games/play", Some(&token), body).await;
    let first = play(json!({ "game_type": "hammer", "metadata": { "score": 85 } })).await.ok();
    let second =
        play(json!({ "game_type": "hammer", "metadata": { "score": 99 }, "shared": true })).await.ok();
    assert_eq!(
        (&first["first_play"], &second["first_play"], &second["plays"]),
        (&json!(true), &json!(false), &json!(2))
    );
    assert_eq!(first["session_id"], second["session_id"]);
    let slots = play(json!({ "game_type": "slots" })).await.ok();
    assert_eq!(slots["session_id"], play(json!({ "game_type": "slot_machine" })).await.ok()["session_id"]);
    assert_eq!(play(json!({ "game_type": "poker" })).await.outcome(), (400, "INVALID_GAME_TYPE"));
    let large = "x".repeat(4097);
    for bad in [
        json!({ "game_type": 5 }),
        json!({}),
        json!({ "game_type": "hammer", "metadata": { "x": large } }),
        json!({ "game_type": "hammer", "metadata": [1] }),
        json!({ "game_type": "hammer", "metadata": { "a": { "b": { "c": { "d": 1 } } } , "e": [[[[1]]]] } }),
        json!({ "game_type": "hammer", "metadata": {}, "result_data": {} }),
        json!({ "game_type": "hammer", "metadata": { "x": "\u{0}" } }),
        json!({ "game_type": "hammer", "more": 1 }),
    ] {
        assert_eq!(play(bad.clone()).await.status, 422, "{bad}");
    }
    for week in ["2026-W11", "2026-W08", "abc"] {
        let answer = play(json!({ "game_type": "hammer", "week_iso": week })).await;
        assert_eq!(answer.outcome(), (409, "WEEK_NOT_PLAYABLE"), "{week}");
    }
    let history = read(&app, 1, "/games/history").await;
    assert_eq!((&history["weeks"][0]["game_played"], &history["total"]), (&json!("none"), &json!(1)));
    assert_eq!(play(json!({ "game_type": "scratch", "week_iso": "2026-W09" })).await.status, 200);
    let history = read(&app, 1, "/games/history").await;
    assert_eq!(history["weeks"][0]["game_played"], "scratch");
    let sessions = read(&app, 1, "/games/sessions?limit=1&game_type=hammer").await;
    assert_eq!(
        (&sessions["data"][0]["metadata"], &sessions["data"][0]["shared"]),
        (&json!({ "score": 85 }), &json!(true))
    );
    let paid = app.db.number("SELECT count(*) FROM xp_ledger WHERE source <> 'competition'").await;
    assert_eq!(paid, 0, "playing pays nothing");

    let other = app.token(2);
    let plays =
        (0..50).map(|_| app.post("/api/v1/games/play", Some(&other), json!({ "game_type": "hammer" })));
    for answer in futures_util::future::join_all(plays).await {
        assert_eq!(answer.status, 200);
    }
    assert_eq!(app.db.number("SELECT plays::BIGINT FROM game_sessions WHERE user_id = 2").await, 50);
}

#[tokio::test]
async fn example_20_a_winner_who_hides_is_anonymous_to_others() {
    let app = five().await;
    sqlx::query("INSERT INTO user_settings (user_id, privacy) VALUES (5, '{\"showOnLeaderboard\": false}')")
        .execute(&app.db.pool)
        .await
        .unwrap();
    let replica = app.serve().await;
    let (mut winner, mut other) = (replica.open(&app.token(5)).await, replica.open(&app.token(1)).await);
    winner.subscribe("dashboard").await;
    other.subscribe("dashboard").await;
    watermark(&app, "2026-03-02T00:05:00Z").await;
    for time in ["00:10:00", "00:15:00"] {
        app.clock.set(at(&format!("{MONDAY}T{time}Z")));
        app.run_job("lottery_cycle").await;
    }
    let (won, lost) = (winner.next_event("lottery_drawn").await, other.next_event("lottery_drawn").await);
    assert_eq!((&won["data"]["winner"], &won["data"]["is_winner"]), (&json!("Anonymous"), &json!(true)));
    assert_eq!((&lost["data"]["winner"], &lost["data"]["is_winner"]), (&json!("Anonymous"), &json!(false)));
    assert!(lost["data"].get("user_id").is_none(), "{lost}");
    let seen = read(&app, 1, "/lottery/results").await;
    assert_eq!(
        (&seen["top_10"][0]["user_id"], &seen["top_10"][0]["user_name"]),
        (&json!(0), &json!("Anonymous"))
    );
    assert!(seen["draw"]["winner_user_id"].is_null());
    let own = read(&app, 5, "/lottery/results").await;
    assert_eq!((&own["your_result"]["user_id"], &own["your_result"]["rank"]), (&json!(5), &json!(1)));
}
