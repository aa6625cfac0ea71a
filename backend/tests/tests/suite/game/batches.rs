//! Where a sequence is cut into batches, and in what order they come, must not matter (example 21).

use serde_json::json;
use tbg_core::UserId;
use tbg_tests::app::App;
use tbg_tests::at;
use tbg_tests::people::Person;

use super::{assert_sound, block, xp};
use crate::support::{envelope, mine, read, share_at, ts};

/// A best of a person without its share.
fn best(person: &Person, when: &str, difficulty: f64) -> String {
    let data = format!(r#"{{"user":"{}","new_best":{difficulty}}}"#, person.address);
    envelope("share_best_diff", &ts(at(when)), &data)
}

/// A correction by an operator, consumed.
async fn adjust(app: &App, person: &Person, amount: i32, reference: &str) {
    let done =
        tbg_gamification::adjust_xp(&app.db.pool, UserId(person.id), amount, reference, "a test").await;
    assert!(done.unwrap(), "{reference}");
    app.consume().await;
}

#[tokio::test]
async fn a_week_that_is_frozen_later_keeps_its_best() {
    let mut calendars = Vec::new();
    for at_once in [true, false] {
        let app = App::at(at("2026-04-06T12:00:05Z")).await;
        let person = app.miner(1).await;
        let mondays = ["2026-03-02", "2026-03-09", "2026-03-16", "2026-03-23"];
        let share_on = |day: &str| share_at(&person.address, at(&format!("{day}T12:00:00Z")), 1.0);
        let mut lines: Vec<String> = mondays.into_iter().map(share_on).collect();
        lines.push(best(&person, "2026-03-30T12:00:00Z", 5e6));
        lines.push(share_on("2026-04-06"));
        if at_once {
            app.feed(&lines).await;
        } else {
            for line in lines {
                app.feed(&[line]).await;
            }
        }
        assert_sound(&app).await;
        let rows =
            "SELECT week_iso, share_count, best_diff, is_frozen FROM streak_calendar ORDER BY week_iso";
        calendars.push(app.db.rows(rows).await);
    }
    assert_eq!(calendars[0], calendars[1]);
    assert!(calendars[0][4].contains("5000000") && calendars[0][4].contains("true"), "{}", calendars[0][4]);
}

#[tokio::test]
async fn a_record_that_was_paid_is_not_paid_again_when_an_earlier_one_comes_late() {
    let app = App::at(at("2026-02-25T14:00:05Z")).await;
    let person = app.miner(1).await;
    mine(&app, &person, "2026-02-25T14:00:00Z", 2e6).await;
    mine(&app, &person, "2026-03-02T12:00:00Z", 3e6).await;
    let paid = "SELECT count(*) FROM xp_ledger WHERE source = 'personal_best'";
    assert_eq!(app.db.number(paid).await, 1);
    // Another 50 would be a level.
    let missing = 585 - xp(&app, &person).await;
    adjust(&app, &person, i32::try_from(missing).unwrap(), "r").await;

    // In one batch the best moves to the week before, and from there to the week that was paid.
    app.feed(&[
        share_at(&person.address, at("2026-02-25T15:00:00Z"), 4e6),
        share_at(&person.address, at("2026-03-02T13:00:00Z"), 5e6),
    ])
    .await;

    assert_eq!((xp(&app, &person).await, app.db.number(paid).await), (585, 1));
    let told = "SELECT (SELECT count(*) FROM level_celebrations WHERE new_level = 3)
        + (SELECT count(*) FROM domain_outbox WHERE event_key LIKE 'Notify:%:level_up:3')";
    assert_eq!(app.db.number(told).await, 0, "no level was reached");
    assert_sound(&app).await;
}

#[tokio::test]
async fn a_day_whose_block_was_paid_is_not_paid_again_when_the_finder_is_known_late() {
    let app = App::at(at("2026-02-25T14:00:05Z")).await;
    let person = app.miner(1).await;
    app.feed(&[block(&person.address, "2026-02-25T10:00:00Z", 900_000, "aa")]).await;
    app.feed(&[block(&person.address, "2026-02-25T11:00:00Z", 900_010, "bb")]).await;
    app.feed(&[block("pool", "2026-02-25T12:00:00Z", 900_020, "cc")]).await;
    assert_eq!(xp(&app, &person).await, 1_000);
    adjust(&app, &person, 200, "r").await;

    app.clock.set(at("2026-03-02T12:00:05Z"));
    app.feed(&[block(&person.address, "2026-03-02T12:00:00Z", 900_020, "cc")]).await;

    assert_eq!(xp(&app, &person).await, 1_200);
    let state = read(&app, person.id, "/users/me/gamification").await;
    assert_eq!(state["stats"]["blocks_found"], json!(3));
    assert_eq!(app.db.number("SELECT count(*) FROM level_celebrations WHERE new_level = 4").await, 0);
    assert_sound(&app).await;
}

#[tokio::test]
async fn a_level_that_was_taken_away_is_reached_again_in_silence() {
    let app = App::at(at("2026-02-25T14:00:05Z")).await;
    let person = app.miner(1).await;
    let told = "SELECT count(*) FROM domain_outbox WHERE event_key LIKE 'Notify:%:level_up:%'";
    adjust(&app, &person, 650, "up").await;
    assert_eq!(app.db.number(told).await, 2);
    adjust(&app, &person, -650, "down").await;
    // What remembers that it was told goes after a week.
    app.db.change("DELETE FROM domain_outbox").await;
    app.db.change("DELETE FROM notifications").await;

    mine(&app, &person, "2026-02-25T14:00:00Z", 2e6).await;
    adjust(&app, &person, 650, "up-again").await;

    assert_eq!(xp(&app, &person).await, 750);
    assert_eq!(app.db.number(told).await, 0);
    assert_eq!(app.db.number("SELECT count(*) FROM level_celebrations").await, 2);
}
