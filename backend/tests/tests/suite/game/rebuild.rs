//! `tbg rebuild --domain gamification`: the same rows from ledger, awards, calendar and blocks (contract §6).

use std::time::Duration;

use serde_json::json;
use tbg_core::Clock as _;
use tbg_tests::app::App;
use tbg_tests::at;
use tbg_tests::people::Person;

use super::{block, report};
use crate::support::{mine, mine_late};

/// All that a rebuild answers for.
async fn rows(app: &App) -> Vec<String> {
    let mut rows = app
        .db
        .rows(
            "SELECT user_id, total_xp, level, level_title, badges_earned, current_streak, longest_streak,
                    streak_start_date, last_active_week, freezes, total_shares, best_difficulty,
                    best_difficulty_week, blocks_found, first_share_day, xp_entries
             FROM user_gamification ORDER BY user_id",
        )
        .await;
    rows.extend(app.db.rows("SELECT * FROM streak_calendar ORDER BY user_id, week_iso").await);
    rows.extend(app.db.rows("SELECT badge_id, total_earned FROM badge_stats ORDER BY badge_id").await);
    rows.extend(app.db.rows("SELECT user_id, new_level FROM level_celebrations ORDER BY id").await);
    rows
}

/// Weeks with a gap, a late share, records, blocks, events of others, a correction.
async fn play(app: &App, person: &Person) {
    for (day, difficulty) in [
        ("2026-03-02", 5.0),
        ("2026-03-09", 2e6),
        ("2026-03-16", 1.0),
        ("2026-03-23", 3e6),
        ("2026-04-06", 3e6),
        ("2026-04-20", 7.0),
    ] {
        mine(app, person, &format!("{day}T12:00:00Z"), difficulty).await;
    }
    mine_late(app, person, "2026-04-15T12:00:00Z", 1.0).await;
    for minute in 1..=3 {
        let when = format!("2026-04-20T12:0{minute}:00Z");
        app.clock.set(at(&when));
        let hash = format!("{}{minute}", person.id % 10);
        app.feed(&[block(&person.address, &when, 900_000 + minute, &hash)]).await;
    }
    let payload = json!({ "lesson_id": "l", "title": "T", "completed_at": app.clock.now() });
    report(app, "LessonCompleted", Some(person.id), payload).await;
    report(app, "CoopCreated", Some(person.id), json!({ "coop_id": 1, "name": "C" })).await;
    let payload = json!({ "amount": -100, "reference": person.id.to_string(), "reason": "T" });
    report(app, "XpAdjusted", Some(person.id), payload).await;
}

#[tokio::test]
async fn what_is_lost_or_changed_comes_back_as_it_was() {
    let app = App::at(at("2026-03-02T12:00:00Z")).await;
    let (lost, changed, _idle) = (app.miner(1).await, app.miner(2).await, app.miner(3).await);
    play(&app, &lost).await;
    play(&app, &changed).await;
    let before = rows(&app).await;
    assert_eq!(tbg_gamification::check(&app.db.pool, None).await.unwrap(), 0);
    assert_eq!(rows(&app).await, before, "what is right stays");

    sqlx::query("DELETE FROM user_gamification WHERE user_id = $1")
        .bind(lost.id)
        .execute(&app.db.pool)
        .await
        .unwrap();
    let by_hand = "UPDATE user_gamification SET total_xp = 7, level = 9, level_title = 'x', badges_earned = 1,
        current_streak = 3, longest_streak = 70, streak_start_date = '2020-01-06', last_active_week = '2026-W02',
        freezes = 2, total_shares = 1, best_difficulty = 9e99, best_difficulty_week = '2026-W15', blocks_found = 77,
        first_share_day = '2020-01-06', xp_entries = 0";
    app.db.change(by_hand).await;
    app.db.change("UPDATE streak_calendar SET is_frozen = NOT is_frozen WHERE NOT is_active").await;
    app.db.change("UPDATE badge_stats SET total_earned = 99").await;
    assert_ne!(rows(&app).await, before);

    assert!(tbg_gamification::check(&app.db.pool, None).await.unwrap() > 0);
    tbg_gamification::keep_statistics(&app.db.pool, app.clock.now()).await.unwrap();

    assert_eq!(rows(&app).await, before);
    assert_eq!(tbg_gamification::check(&app.db.pool, None).await.unwrap(), 0, "once is enough");
    assert_eq!(
        app.db.number("SELECT count(*) FROM user_gamification").await,
        2,
        "who never played has no row"
    );
}

#[tokio::test]
async fn frozen_weeks_without_a_row_come_back() {
    let app = App::at(at("2026-03-02T12:00:00Z")).await;
    let person = app.miner(1).await;
    play(&app, &person).await;
    let before = rows(&app).await;
    app.db.change("DELETE FROM streak_calendar WHERE NOT is_active").await;

    assert_eq!(tbg_gamification::check(&app.db.pool, None).await.unwrap(), 1);

    assert_eq!(rows(&app).await, before);
}

#[tokio::test]
async fn a_check_of_what_is_right_waits_for_nobody() {
    let app = App::at(at("2026-03-02T12:00:00Z")).await;
    let person = app.miner(1).await;
    mine(&app, &person, "2026-03-02T12:00:00Z", 5.0).await;
    let mut batch = app.db.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM user_gamification FOR UPDATE").fetch_all(&mut *batch).await.unwrap();

    let check = tokio::time::timeout(Duration::from_secs(10), tbg_gamification::check(&app.db.pool, None));

    assert_eq!(check.await.expect("no lock is waited for").unwrap(), 0);
}
