//! A week as its miner sees and plays it (contract `games.md` §2.2 to §2.4).

use chrono::TimeDelta;
use serde_json::{Value, json};
use tbg_core::Clock as _;
use tbg_tests::app::App;
use tbg_tests::at;

use super::{MONDAY, draw_on, drawn};
use crate::support::{read, share_at};

#[tokio::test]
async fn examples_13_to_15_a_week_in_numbers() {
    let app = App::at(at("2026-02-25T12:00:00Z")).await;
    let person = app.miner(1).await;
    let week = read(&app, person.id, "/games/weekly").await;
    assert_eq!(week, read(&app, person.id, "/games/weekly-data").await);
    let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].map(|day| (day.to_owned(), json!(0.0)));
    let nothing = json!({
        "week_iso": "2026-W09", "week_start": "2026-02-23T00:00:00Z", "week_end": "2026-03-01T23:59:59Z",
        "status": "open", "best_difficulty": 0.0, "best_difficulty_time": null, "best_hash": "f".repeat(64),
        "best_hash_source": "none", "network_difficulty": 1e14, "progress_ratio": 0.0,
        "daily_best_diffs": days.into_iter().collect::<serde_json::Map<_, _>>(), "total_shares": 0,
        "weekly_rank": 0, "percentile": 0.0, "total_participants": 0, "block_found": false, "block_data": null,
        "user_name": week["user_name"], "played": [], "seed": week["seed"],
    });
    assert_eq!(week, nothing);

    let other = app.miner(2).await;
    let mined = app.clock.now() - TimeDelta::seconds(5);
    app.feed(&[share_at(&person.address, mined, 4_231_847_293.0), share_at(&other.address, mined, 5e9)])
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
    let mut redis = app.redis.manager();
    let known = redis::cmd("SET").arg("network:difficulty").arg("100847293444000").to_owned();
    known.query_async::<()>(&mut redis).await.unwrap();
    let week = read(&app, person.id, "/games/weekly").await;
    let ratio = week["progress_ratio"].as_f64().unwrap();
    assert!((ratio - 4.196_292_382_749_889e-5).abs() < 1e-16, "{week}");
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
        let line = share_at(&person.address, at("2026-02-25T11:59:55Z"), sdiff);
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

    draw_on(&app, MONDAY).await;
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
    // `{"x":"…"}` is eight bytes longer than its text.
    let sized = |bytes: usize| json!({ "game_type": "hammer", "metadata": { "x": "x".repeat(bytes - 8) } });
    assert_eq!(play(sized(4096)).await.status, 200);
    for bad in [
        json!({ "game_type": 5 }),
        json!({}),
        sized(4097),
        json!({ "game_type": "hammer", "metadata": [1] }),
        json!({ "game_type": "hammer", "metadata": { "a": { "b": { "c": { "d": 1 } } } , "e": [[[[1]]]] } }),
        json!({ "game_type": "hammer", "metadata": {}, "result_data": {} }),
        json!({ "game_type": "hammer", "metadata": { "x": "\u{0}" } }),
        json!({ "game_type": "hammer", "more": 1 }),
        json!({ "game_type": "hammer", "week_iso": null }),
        json!({ "game_type": "hammer", "shared": null }),
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
    app.consume().await;
    let paid = app.db.number("SELECT count(*) FROM xp_ledger WHERE source <> 'competition'").await;
    assert_eq!(paid, 0, "playing pays nothing");

    let other = app.token(2);
    let plays =
        (0..50).map(|_| app.post("/api/v1/games/play", Some(&other), json!({ "game_type": "hammer" })));
    let answers = futures_util::future::join_all(plays).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    let first = answers.iter().filter(|answer| answer.json["first_play"] == json!(true));
    assert_eq!(first.count(), 1);
    assert_eq!(app.db.number("SELECT plays::BIGINT FROM game_sessions WHERE user_id = 2").await, 50);
}

/// Without a row of the network's difficulty, a week that is over shows the one of now, as the current week does.
#[tokio::test]
async fn a_drawn_week_knows_the_difficulty_that_only_redis_knows() {
    let app = drawn().await;
    let mut redis = app.redis.manager();
    redis::cmd("SET").arg("network:difficulty").arg("5e13").query_async::<()>(&mut redis).await.unwrap();
    for week in ["2026-W08", "2026-W09", "2026-W10"] {
        let read = read(&app, 1, &format!("/games/weekly?week={week}")).await;
        assert_eq!(read["network_difficulty"], json!(5e13), "{week}");
    }
    app.db
        .change(
            "INSERT INTO network_difficulty (time, block_height, difficulty) VALUES ('2026-02-27Z', 1, 7e13)",
        )
        .await;
    let drawn = read(&app, 1, "/games/weekly?week=2026-W09").await;
    assert_eq!((&drawn["network_difficulty"], &drawn["weekly_rank"]), (&json!(7e13), &json!(4)));
}

#[tokio::test]
async fn a_name_in_a_path_that_is_no_text_is_one_that_nobody_knows() {
    let app = drawn().await;
    for (path, code) in [
        ("/games/weekly/%FF", "GAME_NOT_FOUND"),
        ("/games/weekly-data/%FF", "GAME_NOT_FOUND"),
        ("/lottery/results/%FF", "LOTTERY_DRAW_NOT_FOUND"),
        ("/lottery/proofs/%FF", "LOTTERY_DRAW_NOT_FOUND"),
        ("/lottery/proofs/%FF/file", "LOTTERY_DRAW_NOT_FOUND"),
        ("/lottery/proofs/%FF/me", "LOTTERY_ENTRY_NOT_FOUND"),
    ] {
        let answer = app.get(&format!("/api/v1{path}"), Some(&app.token(1))).await;
        assert_eq!(answer.outcome(), (404, code), "{path}");
    }
}
