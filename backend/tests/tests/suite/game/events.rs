//! Events of other domains become the game.

use serde_json::{Value, json};
use tbg_core::Clock as _;
use tbg_tests::app::App;
use tbg_tests::at;
use tbg_tests::program::until;

use super::{assert_sound, emit, report, xp};
use crate::support::{mine_late, read};

#[tokio::test]
async fn examples_14_to_16_events_of_other_domains_count_once() {
    let app = App::at(at("2026-03-02T12:00:00Z")).await;
    let people = [app.miner(1).await, app.miner(2).await, app.miner(3).await];
    let results: Vec<Value> = [1, 11, 101]
        .iter()
        .zip([100, 50, 10])
        .zip(&people)
        .map(
            |((rank, xp), person)| json!({ "user_id": person.id, "rank": rank, "percentile": 0.0, "xp": xp }),
        )
        .collect();
    let drawn = json!({ "draw_id": 1, "week_iso": "2026-W09", "results": results });
    for _ in 0..2 {
        report(&app, "LotteryDrawn", None, drawn.clone()).await;
    }
    let mut sums = Vec::new();
    for person in &people {
        sums.push(xp(&app, person).await);
    }
    assert_eq!(sums, [100, 50, 10]);

    for week in ["2026-W09", "2026-W11", "2026-W11"] {
        let closed =
            json!({ "week_iso": week, "champion_user_id": people[0].id, "best_difficulty": 1234567.8 });
        report(&app, "LeaderboardWeekClosed", None, closed).await;
    }
    assert_eq!(xp(&app, &people[0]).await, 700);
    let earned = read(&app, people[0].id, "/users/me/badges").await;
    assert_eq!(earned["total_earned"], 1);
    assert_eq!(
        earned["earned"][0]["metadata"],
        json!({ "week": "2026-W09", "difficulty": "1,234,567", "timesEarned": "2", "lastEarned": "2026-03-02" })
    );
    let badge = app.get("/api/v1/badges/weekly_diff_champion", None).await.ok();
    assert_eq!(badge["total_earned"], 1);

    let done = app.clock.now();
    for _ in 0..2 {
        for lesson in 1..=5 {
            let payload = json!({ "user_id": people[1].id, "lesson_id": format!("l{lesson}"), "title": "T", "completed_at": done });
            report(&app, "LessonCompleted", Some(people[1].id), payload).await;
        }
        let payload = json!({ "user_id": people[1].id, "track_id": "t", "title": "T", "completed_at": done });
        report(&app, "TrackCompleted", Some(people[1].id), payload).await;
    }
    assert_eq!(xp(&app, &people[1]).await, 50 + 325);
    assert_sound(&app).await;
}

#[tokio::test]
async fn example_19_a_batch_and_an_event_at_once_lose_nothing() {
    let app = App::at(at("2026-03-02T12:00:10Z")).await;
    let person = app.miner(1).await;
    report(
        &app,
        "XpAdjusted",
        Some(person.id),
        json!({ "amount": 590, "reference": "r", "reason": "a test" }),
    )
    .await;
    let done = app.clock.now();
    let lesson = json!({ "user_id": person.id, "lesson_id": "l", "title": "T", "completed_at": done });

    tokio::join!(
        mine_late(&app, &person, "2026-03-02T12:00:00Z", 1.0),
        report(&app, "LessonCompleted", Some(person.id), lesson),
    );

    assert_eq!(xp(&app, &person).await, 665);
    let levels = "SELECT count(*) FROM level_celebrations WHERE old_level = 2 AND new_level = 3";
    assert_eq!(app.db.number(levels).await, 1);
    assert_sound(&app).await;
}

#[tokio::test]
async fn a_week_has_one_champion_whoever_is_reported_later() {
    let app = App::new().await;
    let (one, two) = (app.miner(1).await, app.miner(2).await);
    for champion in [&one, &two] {
        let closed =
            json!({ "week_iso": "2026-W09", "champion_user_id": champion.id, "best_difficulty": 5.0 });
        report(&app, "LeaderboardWeekClosed", None, closed).await;
    }
    assert_eq!((xp(&app, &one).await, xp(&app, &two).await), (300, 0));
    assert_sound(&app).await;
}

#[tokio::test]
async fn a_deleted_account_leaves_no_game() {
    let app = App::at(at("2026-02-25T14:00:05Z")).await;
    let person = app.miner(1).await;
    mine_late(&app, &person, "2026-02-25T14:00:00Z", 2e6).await;
    let rows = "SELECT (SELECT count(*) FROM xp_ledger) AS xp, (SELECT count(*) FROM user_badges) AS badges,
        (SELECT count(*) FROM user_gamification) AS state, (SELECT count(*) FROM streak_calendar) AS weeks,
        (SELECT count(*) FROM level_celebrations) AS levels,
        (SELECT count(*) FROM streak_celebrations) AS milestones";
    let played = r#"{"xp": 2, "state": 1, "weeks": 1, "badges": 2, "levels": 1, "milestones": 1}"#;
    assert_eq!(app.db.rows(rows).await, [played]);

    report(&app, "UserDeleted", Some(person.id), json!({ "user_id": person.id, "btc_address": null })).await;

    let nothing = r#"{"xp": 0, "state": 0, "weeks": 0, "badges": 0, "levels": 0, "milestones": 0}"#;
    assert_eq!(app.db.rows(rows).await, [nothing]);
}

#[tokio::test]
async fn a_batch_that_still_knows_a_deleted_user_leaves_nothing_of_them() {
    let app = App::at(at("2026-02-25T14:00:05Z")).await;
    let person = app.miner(1).await;
    mine_late(&app, &person, "2026-02-25T14:00:00Z", 2e6).await;
    app.consume().await;
    // A batch that has begun: it holds its turn, and its rows are not seen yet.
    let mut batch = app.db.pool.begin().await.unwrap();
    tbg_engine::engine::take_turn(&mut batch).await.unwrap();
    sqlx::query(
        "INSERT INTO xp_ledger (user_id, amount, source, source_id, description, idempotency_key, created_at)
         VALUES ($1, 50, 'share', 'daily-2026-02-26', 'Daily share submitted', 'daily_share', now())",
    )
    .bind(person.id)
    .execute(&mut *batch)
    .await
    .unwrap();
    emit(&app, "UserDeleted", Some(person.id), json!({ "user_id": person.id, "btc_address": null })).await;

    let commit = async {
        let waiting = "SELECT (SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'
                                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
            + (SELECT count(*) FROM domain_outbox WHERE topic = 'UserDeleted' AND done_at IS NOT NULL)";
        assert!(until(async || app.db.number(waiting).await > 0).await, "the deletion waits for its turn");
        batch.commit().await.unwrap();
    };
    tokio::join!(app.consume(), commit);

    assert_eq!(app.db.number("SELECT count(*) FROM xp_ledger").await, 0);
}

#[tokio::test]
async fn an_event_that_the_game_does_not_know_waits_and_blocks_nobody() {
    let app = App::at(at("2026-03-02T12:00:00Z")).await;
    let person = app.miner(1).await;
    emit(&app, "MoonReached", Some(person.id), json!({})).await;
    let lesson =
        json!({ "user_id": person.id, "lesson_id": "l", "title": "T", "completed_at": app.clock.now() });

    report(&app, "LessonCompleted", Some(person.id), lesson).await;

    assert_eq!(xp(&app, &person).await, 25);
    let open = "SELECT count(*) FROM domain_outbox WHERE topic = 'MoonReached' AND done_at IS NULL";
    assert_eq!(app.db.number(open).await, 1);
}
