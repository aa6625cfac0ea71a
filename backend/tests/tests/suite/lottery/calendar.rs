//! Weeks that a calendar makes difficult: a leap day in the middle, a 53rd week at the end of a year.

use serde_json::{Value, json};
use tbg_tests::app::App;
use tbg_tests::at;
use tbg_tests::people::Person;

use super::{assert_sound, draw_on, get, proofs};
use crate::support::{mine, read};

/// Bests of Monday to Sunday.
fn days(week: &Value) -> [f64; 7] {
    ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
        .map(|day| week["daily_best_diffs"][day].as_f64().unwrap())
}

/// A week as it is shown to a person.
async fn weekly(app: &App, person: &Person, week: &str) -> Value {
    read(app, person.id, &format!("/games/weekly?week={week}")).await
}

/// Best and shares of the person's own proof.
async fn proven(app: &App, person: &Person, week: &str) -> (f64, i64) {
    let proof = proofs::own(app, person.id, week).await;
    (proof["best_difficulty"].as_f64().unwrap(), proof["total_shares"].as_i64().unwrap())
}

#[tokio::test]
async fn a_leap_day_is_the_tuesday_of_its_week() {
    let app = App::at(at("2028-02-27T23:59:00Z")).await;
    let person = app.miner(1).await;
    for (when, best) in [
        ("2028-02-27T23:59:59.999999Z", 700.0),
        ("2028-02-28T00:00:00.000000Z", 10.0),
        ("2028-02-28T23:59:59.999999Z", 20.0),
        ("2028-02-29T00:00:00.000000Z", 30.0),
        ("2028-02-29T23:59:59.999999Z", 60.0),
        ("2028-03-01T00:00:00.000000Z", 50.0),
        ("2028-03-05T23:59:59.999999Z", 40.0),
        ("2028-03-06T00:00:00.000000Z", 900.0),
    ] {
        mine(&app, &person, when, best).await;
    }

    let week = weekly(&app, &person, "2028-02-29").await;
    assert_eq!(
        (&week["week_iso"], &week["week_start"], &week["week_end"]),
        (&json!("2028-W09"), &json!("2028-02-28T00:00:00Z"), &json!("2028-03-05T23:59:59Z"))
    );
    assert_eq!(days(&week), [20.0, 60.0, 50.0, 0.0, 0.0, 0.0, 40.0]);
    assert_eq!(
        (&week["best_difficulty_time"], &week["total_shares"]),
        (&json!("2028-02-29T23:59:59.999999Z"), &json!(6))
    );
    let race = read(&app, person.id, "/games/weekly/horse_race?week=2028-W09").await;
    assert_eq!(race["view"]["winner_day"], "tue");
    for no_day in ["2027-02-29", "2028-02-30"] {
        let path = format!("/api/v1/games/weekly?week={no_day}");
        assert_eq!(app.get(&path, Some(&app.token(person.id))).await.status, 422, "{no_day}");
    }

    draw_on(&app, "2028-03-06").await;
    let draw = get(&app, "/lottery/results/2028-02-29").await["draw"].clone();
    assert_eq!(
        (&draw["week_iso"], &draw["week_start"], &draw["week_end"], &draw["total_shares"]),
        (&json!("2028-W09"), &json!("2028-02-28"), &json!("2028-03-05"), &json!(6))
    );
    assert_eq!(proven(&app, &person, "2028-W09").await, (60.0, 6));
    assert_eq!(days(&weekly(&app, &person, "2028-W09").await), days(&week), "drawn as it was mined");
}

#[tokio::test]
async fn a_year_of_53_weeks_ends_on_the_third_of_january() {
    let app = App::at(at("2026-12-27T23:59:00Z")).await;
    let person = app.miner(1).await;
    for (when, best) in [
        ("2026-12-27T23:59:59.999999Z", 700.0),
        ("2026-12-28T00:00:00.000000Z", 10.0),
        ("2026-12-31T23:59:59.999999Z", 40.0),
        ("2027-01-01T00:00:00.000000Z", 50.0),
        ("2027-01-03T23:59:59.999999Z", 60.0),
    ] {
        mine(&app, &person, when, best).await;
    }

    let week = read(&app, person.id, "/games/weekly").await;
    assert_eq!(
        (&week["week_iso"], &week["week_start"], &week["week_end"]),
        (&json!("2026-W53"), &json!("2026-12-28T00:00:00Z"), &json!("2027-01-03T23:59:59Z"))
    );
    assert_eq!(days(&week), [10.0, 0.0, 0.0, 40.0, 50.0, 0.0, 60.0]);
    let current = read(&app, person.id, "/lottery/current").await;
    assert_eq!(
        (&current["week_iso"], &current["freeze_at"]),
        (&json!("2026-W53"), &json!("2027-01-04T00:10:00Z"))
    );
    let token = app.token(person.id);
    let played = app.post("/api/v1/games/play", Some(&token), json!({ "game_type": "hammer" })).await;
    assert_eq!(played.ok()["week_iso"], "2026-W53");

    mine(&app, &person, "2027-01-04T00:00:00.000000Z", 80.0).await;
    draw_on(&app, "2027-01-04").await;
    mine(&app, &person, "2027-01-10T23:59:59.999999Z", 90.0).await;
    draw_on(&app, "2027-01-11").await;

    let weeks = app
        .db
        .rows("SELECT week_iso, week_end FROM lottery_draws WHERE status = 'completed' ORDER BY week_start")
        .await;
    assert_eq!(
        weeks,
        [("2026-W52", "2026-12-27"), ("2026-W53", "2027-01-03"), ("2027-W01", "2027-01-10")]
            .map(|(week, end)| format!(r#"{{"week_end": "{end}", "week_iso": "{week}"}}"#))
    );
    for day in ["2026-12-28", "2026-12-31", "2027-01-01", "2027-01-03"] {
        let drawn = get(&app, &format!("/lottery/results/{day}")).await;
        assert_eq!(drawn["draw"]["week_iso"], "2026-W53", "{day}");
    }
    assert_eq!(get(&app, "/lottery/results/2027-01-04").await["draw"]["week_iso"], "2027-W01");
    let missing = app.get("/api/v1/lottery/results/2027-W53", None).await;
    assert_eq!(missing.outcome(), (404, "LOTTERY_DRAW_NOT_FOUND"), "2027 has 52 weeks");
    assert_eq!(proven(&app, &person, "2026-W53").await, (60.0, 4));
    assert_eq!(proven(&app, &person, "2027-W01").await, (90.0, 2));

    // The chain goes over the new year, and lists go by it.
    let seals = get(&app, "/lottery/proofs").await["data"].clone();
    let (first, last) = (&seals[0], &seals[1]);
    assert_eq!((&first["week_iso"], &last["week_iso"]), (&json!("2027-W01"), &json!("2026-W53")));
    assert_eq!(first["previous_seal"], last["seal"]);
    let history = read(&app, person.id, "/games/history").await;
    let (first, last) = (&history["weeks"][0], &history["weeks"][1]);
    assert_eq!((&first["week_iso"], &first["game_played"]), (&json!("2027-W01"), &json!("none")));
    assert_eq!((&last["week_iso"], &last["game_played"]), (&json!("2026-W53"), &json!("hammer")));
    let own = read(&app, person.id, "/lottery/stats/me").await;
    assert_eq!((&own["total_weeks_participated"], &own["current_streak"]), (&json!(3), &json!(3)));
    assert_eq!(get(&app, "/lottery/stats").await["most_recent_draw"], "2027-W01");
    assert_sound(&app, 3).await;
}
