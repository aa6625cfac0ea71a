//! Draws of weeks that were mined: what comes out, in which order, and what waits (contract `games.md` §2.5, §2.7,
//! §2.8).

use chrono::TimeDelta;
use serde_json::json;
use tbg_core::Clock as _;
use tbg_games::Waits;
use tbg_tests::app::App;
use tbg_tests::at;

use super::{
    FIVE, MONDAY, SEAL, assert_sound, best, cycle_at, cycle_at_once, drawn, five, get, proofs, status,
    watermark,
};
use crate::support::read;

#[tokio::test]
async fn examples_3_and_5_the_draw_of_the_five() {
    let app = drawn().await;

    assert_sound(&app, 1).await;
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
    assert_eq!(draw["seal"], SEAL);
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
    let feed = app.db.rows("SELECT metadata ->> 'week_iso' AS week FROM activity_feed").await;
    assert_eq!(feed, [r#"{"week": "2026-W09"}"#], "nobody topped the empty week");
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
    cycle_at(&app, "2026-03-02T00:10:00Z").await;
    assert_eq!(status(&app).await, "open");

    watermark(&app, "2026-03-02T00:05:00Z").await;
    cycle_at(&app, "2026-03-02T00:12:00Z").await;
    let frozen = get(&app, "/lottery/results/2026-W09").await;
    assert_eq!(
        (&frozen["draw"]["status"], &frozen["results"], &frozen["total"]),
        (&json!("processing"), &json!([]), &json!(0))
    );
    assert!(frozen["draw"]["winner_user_id"].is_null() && frozen["draw"]["drawn_at"].is_null());
    assert_eq!(frozen["draw"]["merkle_root"].as_str().unwrap().len(), 64);
    // What comes later raises records and no frozen draw.
    app.db.change("UPDATE weekly_best_diff SET best_difficulty = 9e9 WHERE user_id = 3").await;
    cycle_at(&app, "2026-03-02T00:16:59Z").await;
    assert_eq!(status(&app).await, "processing");
    cycle_at(&app, "2026-03-02T00:17:00Z").await;
    assert_eq!(get(&app, "/lottery/results").await["draw"]["winner_user_id"], 5);

    // Nobody mined since Sunday: an hour after it was first seen to be due, it is frozen anyway.
    let quiet = five().await;
    for (time, expected) in [("00:10:00", "open"), ("01:09:59", "open"), ("01:10:00", "processing")] {
        cycle_at(&quiet, &format!("{MONDAY}T{time}Z")).await;
        assert_eq!(status(&quiet).await, expected, "{time}");
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
        cycle_at_once(&app, &[app.clock.now(); 2]).await;
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
