//! Shares at the edge of a week and after its freeze (contract `games.md` §2.5, example 9).

use serde_json::json;
use tbg_tests::app::App;
use tbg_tests::at;
use tbg_tests::people::Person;

use super::{cycle_at, frozen, get, proofs, status};
use crate::support::{mine, mine_late, read};

const LAST_INSTANT: &str = "2026-03-01T23:59:59.999999Z";
const FIRST_INSTANT: &str = "2026-03-02T00:00:00.000000Z";

/// A share of an instant, committed at another.
async fn commit(app: &App, person: &Person, committed: &str, when: &str, best: f64) {
    app.clock.set(at(committed));
    mine_late(app, person, when, best).await;
}

/// Best and shares that a week shows.
async fn week(app: &App, person: &Person, week: &str) -> (f64, i64) {
    let shown = read(app, person.id, &format!("/games/weekly?week={week}")).await;
    (shown["best_difficulty"].as_f64().unwrap(), shown["total_shares"].as_i64().unwrap())
}

/// Two who mined on Sunday evening, the second ahead.
async fn two() -> (App, Person, Person) {
    let app = App::at(at("2026-03-01T23:00:00Z")).await;
    let (one, two) = (app.miner(1).await, app.miner(2).await);
    mine(&app, &one, "2026-03-01T23:00:00Z", 1000.0).await;
    mine(&app, &two, "2026-03-01T23:00:00Z", 2000.0).await;
    (app, one, two)
}

#[tokio::test]
async fn example_9_the_last_microsecond_of_a_week_counts_until_the_freeze() {
    let (app, one, two) = two().await;
    commit(&app, &one, "2026-03-02T00:09:00Z", LAST_INSTANT, 3000.0).await;
    commit(&app, &two, "2026-03-02T00:09:30Z", FIRST_INSTANT, 9000.0).await;
    commit(&app, &two, "2026-03-02T00:10:00Z", "2026-03-02T00:09:59Z", 10.0).await;

    cycle_at(&app, "2026-03-02T00:10:30Z").await;
    let entries = app
        .db
        .rows(
            "SELECT user_id, best_difficulty, total_shares, best_time FROM lottery_entries ORDER BY user_id",
        )
        .await;
    assert_eq!(
        entries,
        [
            r#"{"user_id": 1, "best_time": "2026-03-01T23:59:59.999999+00:00", "total_shares": 2, "best_difficulty": 3000}"#,
            r#"{"user_id": 2, "best_time": "2026-03-01T23:00:00+00:00", "total_shares": 1, "best_difficulty": 2000}"#,
        ]
    );
    cycle_at(&app, "2026-03-02T00:15:30Z").await;

    let drawn = get(&app, "/lottery/results/2026-W09").await;
    assert_eq!((&drawn["draw"]["winner_user_id"], &drawn["draw"]["total_shares"]), (&json!(1), &json!(3)));
    assert_eq!(week(&app, &two, "2026-W10").await, (9000.0, 2), "Monday belongs to the next week");
    let monday = read(&app, two.id, "/games/weekly").await;
    assert_eq!(
        (&monday["best_difficulty_time"], &monday["daily_best_diffs"]["mon"]),
        (&json!("2026-03-02T00:00:00Z"), &json!(9000.0))
    );
}

#[tokio::test]
async fn example_9_a_share_that_comes_after_the_freeze_raises_bests_and_no_draw() {
    let (app, one, two) = two().await;
    let third = app.miner(3).await;
    commit(&app, &two, "2026-03-02T00:10:00Z", "2026-03-02T00:09:59Z", 10.0).await;
    cycle_at(&app, "2026-03-02T00:10:30Z").await;
    assert_eq!(status(&app).await, "processing");
    let before = frozen(&app).await;

    // Of one who has an entry, and of one who has none.
    commit(&app, &one, "2026-03-02T00:11:00Z", LAST_INSTANT, 8000.0).await;
    commit(&app, &third, "2026-03-02T00:11:30Z", LAST_INSTANT, 7000.0).await;
    assert_eq!(frozen(&app).await, before);
    assert_eq!(week(&app, &one, "2026-W09").await, (8000.0, 2), "until the draw the week is as it is mined");
    cycle_at(&app, "2026-03-02T00:15:30Z").await;
    commit(&app, &one, "2026-03-02T00:20:00Z", "2026-03-01T23:59:58Z", 8500.0).await;
    app.consume().await;

    assert_eq!(frozen(&app).await, before);
    let bests = app.db.rows("SELECT user_id, best_difficulty, total_shares FROM weekly_best_diff WHERE week_start = '2026-02-23' ORDER BY user_id").await;
    assert_eq!(
        bests,
        [(1, 3, 8500), (2, 1, 2000), (3, 1, 7000)].map(|(user, shares, best)| format!(
            r#"{{"user_id": {user}, "total_shares": {shares}, "best_difficulty": {best}}}"#
        ))
    );
    let records =
        "SELECT count(*) FROM personal_bests WHERE user_id IN (1, 3) AND best_difficulty IN (8500, 7000)
        AND (timeframe = 'alltime' OR (timeframe = 'week' AND period_key = '2026-W09'))";
    assert_eq!(app.db.number(records).await, 4);

    let drawn = get(&app, "/lottery/results/2026-W09").await;
    let order: Vec<i64> =
        drawn["results"].as_array().unwrap().iter().map(|entry| entry["user_id"].as_i64().unwrap()).collect();
    assert_eq!(order, [2, 1]);
    assert_eq!(week(&app, &one, "2026-W09").await, (1000.0, 1), "a drawn week shows what was drawn");
    assert_eq!(proofs::own(&app, one.id, "2026-W09").await["best_difficulty"], 1000.0);
    let none = app.get("/api/v1/lottery/proofs/2026-W09/me", Some(&app.token(third.id))).await;
    assert_eq!(none.outcome(), (404, "LOTTERY_ENTRY_NOT_FOUND"));
    let prizes = "SELECT count(*) FROM xp_ledger WHERE source = 'competition'";
    assert_eq!(app.db.number(prizes).await, 2);
}
