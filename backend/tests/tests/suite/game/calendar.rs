//! Streaks and days where a calendar makes them difficult: a leap day, a 53rd week (contract §3.3, example 11).

use serde_json::{Value, json};
use tbg_tests::app::App;
use tbg_tests::at;
use tbg_tests::people::Person;

use super::assert_sound;
use crate::support::{ingest_lags, mine, mine_late, read};

/// Weeks of the calendar, newest first: name, shares, days with shares, whether a freeze bridges it.
async fn weeks(app: &App, person: &Person) -> Vec<(String, i64, i64, bool)> {
    let calendar = read(app, person.id, "/users/me/streak/calendar").await;
    let week = |week: &Value| {
        (
            week["week_iso"].as_str().unwrap().to_owned(),
            week["share_count"].as_i64().unwrap(),
            week["days_active"].as_i64().unwrap(),
            week["is_frozen"].as_bool().unwrap(),
        )
    };
    calendar["weeks"].as_array().unwrap().iter().map(week).collect()
}

/// What [`weeks`] says of one week.
fn week(name: &str, shares: i64, days: i64, is_frozen: bool) -> (String, i64, i64, bool) {
    (name.to_owned(), shares, days, is_frozen)
}

/// Keys of what was paid for days, weeks and records.
async fn paid(app: &App) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT idempotency_key FROM xp_ledger WHERE source <> 'badge' ORDER BY created_at, id",
    )
    .fetch_all(&app.db.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_streak_goes_over_a_leap_day_which_is_a_day_of_its_own() {
    let app = App::at(at("2028-02-22T12:00:00Z")).await;
    let person = app.miner(1).await;
    // Each less than the one before: no records, and no two that are taken for one.
    for (when, difficulty) in [
        ("2028-02-22T12:00:00Z", 9.0),
        ("2028-02-28T23:59:59Z", 8.0),
        ("2028-02-29T00:00:00Z", 7.0),
        ("2028-02-29T23:59:59Z", 6.0),
    ] {
        mine(&app, &person, when, difficulty).await;
    }
    let leap_day = read(&app, person.id, "/users/me/streak").await;
    assert_eq!(
        (&leap_day["current_streak"], &leap_day["last_active_week"], &leap_day["days_active_this_week"]),
        (&json!(2), &json!("2028-W09"), &json!(2))
    );
    assert_eq!(leap_day["expires_at"], "2028-03-13T00:00:00Z");

    for (when, difficulty) in [("2028-03-01T00:00:00Z", 5.0), ("2028-03-06T00:00:00Z", 4.0)] {
        mine(&app, &person, when, difficulty).await;
    }
    let streak = read(&app, person.id, "/users/me/streak").await;
    assert_eq!(
        (&streak["current_streak"], &streak["streak_start_date"], &streak["expires_at"]),
        (&json!(3), &json!("2028-02-21"), &json!("2028-03-20T00:00:00Z"))
    );
    assert_eq!(
        weeks(&app, &person).await,
        [week("2028-W10", 1, 1, false), week("2028-W09", 4, 3, false), week("2028-W08", 1, 1, false)]
    );
    assert_eq!(
        paid(&app).await,
        [
            "daily_share:1:2028-02-28",
            "streak:1:2028-W09",
            "daily_share:1:2028-02-29",
            "daily_share:1:2028-03-01",
            "daily_share:1:2028-03-06",
            "streak:1:2028-W10",
        ]
    );
    assert_sound(&app).await;
}

#[tokio::test]
async fn example_11_a_streak_goes_over_the_53rd_week_into_the_new_year() {
    let app = App::at(at("2026-12-27T12:00:00Z")).await;
    let person = app.miner(1).await;
    for (when, difficulty) in [
        ("2026-12-27T23:59:59Z", 2e6),
        ("2026-12-31T12:00:00Z", 3e6),
        ("2027-01-01T00:00:00Z", 4e6),
        ("2027-01-03T23:59:59Z", 1.0),
    ] {
        mine(&app, &person, when, difficulty).await;
    }
    let old_year = read(&app, person.id, "/users/me/streak").await;
    assert_eq!(
        (&old_year["current_streak"], &old_year["last_active_week"], &old_year["days_active_this_week"]),
        (&json!(2), &json!("2026-W53"), &json!(3))
    );
    assert_eq!(old_year["expires_at"], "2027-01-11T00:00:00Z");

    mine(&app, &person, "2027-01-04T00:00:00Z", 5e6).await;
    let new_year = read(&app, person.id, "/users/me/streak").await;
    assert_eq!(
        (&new_year["current_streak"], &new_year["last_active_week"], &new_year["expires_at"]),
        (&json!(3), &json!("2027-W01"), &json!("2027-01-18T00:00:00Z"))
    );
    assert_eq!(
        weeks(&app, &person).await,
        [week("2027-W01", 1, 1, false), week("2026-W53", 3, 3, false), week("2026-W52", 1, 1, false)]
    );
    // The first record of each week, also of the week that is less as a number and later as a text.
    let records: Vec<String> =
        paid(&app).await.into_iter().filter(|key| !key.starts_with("daily_share")).collect();
    assert_eq!(
        records,
        ["personal_best:1:2026-W53", "streak:1:2026-W53", "personal_best:1:2027-W01", "streak:1:2027-W01",]
    );
    assert_sound(&app).await;
}

#[tokio::test]
async fn a_freeze_bridges_the_53rd_week_until_a_late_share_fills_it() {
    let app = App::at(at("2026-11-30T12:00:00Z")).await;
    let person = app.miner(1).await;
    for monday in ["2026-11-30", "2026-12-07", "2026-12-14", "2026-12-21"] {
        mine(&app, &person, &format!("{monday}T12:00:00Z"), 1.0).await;
    }
    app.clock.set(at("2027-01-03T18:00:30Z"));
    app.run_job("streak_warning").await;
    app.clock.set(at("2027-01-04T00:15:30Z"));
    ingest_lags(&app, 0.0).await;
    app.run_job("streak_week_close").await;
    app.consume().await;
    let told = app
        .db
        .rows("SELECT subtype, dedupe_key FROM notifications WHERE subtype IN ('streak_warning', 'streak_broken', 'streak_frozen') ORDER BY id")
        .await;
    assert_eq!(
        told,
        ["streak_warning", "streak_frozen"]
            .map(|kind| format!(r#"{{"subtype": "{kind}", "dedupe_key": "{kind}:2026-W53"}}"#))
    );

    mine(&app, &person, "2027-01-05T12:00:00Z", 1.0).await;
    let bridged = read(&app, person.id, "/users/me/streak").await;
    assert_eq!((&bridged["current_streak"], &bridged["freezes_available"]), (&json!(5), &json!(0)));
    assert_eq!(
        weeks(&app, &person).await[..3],
        [week("2027-W01", 1, 1, false), week("2026-W53", 0, 0, true), week("2026-W52", 1, 1, false)]
    );

    mine_late(&app, &person, "2027-01-02T12:00:00Z", 1.0).await;
    let filled = read(&app, person.id, "/users/me/streak").await;
    assert_eq!((&filled["current_streak"], &filled["freezes_available"]), (&json!(6), &json!(1)));
    assert_eq!(weeks(&app, &person).await[1], week("2026-W53", 1, 1, false));
    let both =
        "SELECT count(*) FROM xp_ledger WHERE idempotency_key IN ('streak:1:2026-W53', 'streak:1:2027-W01')";
    assert_eq!(app.db.number(both).await, 2);
    assert_sound(&app).await;
}
