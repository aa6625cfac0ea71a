//! What is read: lists, pages, statistics, acknowledgements.

use chrono::{DateTime, Utc};
use serde_json::json;
use tbg_core::Clock as _;
use tbg_tests::app::App;
use tbg_tests::at;

use super::emit;
use crate::support::{mine_late, read};

#[tokio::test]
async fn example_17_percentages_are_of_those_who_count() {
    let app = App::new().await;
    app.run_job("badge_stats").await;
    let empty = app.get("/api/v1/badges/first_share", None).await.ok();
    assert_eq!((&empty["percentage"], &empty["total_earned"]), (&json!(0.0), &json!(0)));
    // sql-audit: allow(S2) statements that are written in the test
    sqlx::raw_sql(
        "INSERT INTO users (btc_address, is_test, is_banned)
             SELECT 'a' || n, n > 4914, n = 4913 FROM generate_series(1, 4920) n;
         INSERT INTO user_badges (user_id, badge_id, earned_at) SELECT id, 1, now() FROM users WHERE id <= 4821;
         INSERT INTO user_badges (user_id, badge_id, earned_at) SELECT id, 4, now() FROM users WHERE id <= 15;
         UPDATE users SET deleted_at = now() WHERE btc_address = 'a4914'",
    )
    .execute(&app.db.pool)
    .await
    .unwrap();

    app.run_job("badge_stats").await;

    let first = app.get("/api/v1/badges/first_share", None).await.ok();
    let block = app.get("/api/v1/badges/block_finder", None).await.ok();
    assert_eq!((&first["percentage"], &block["percentage"]), (&json!(98.15), &json!(0.31)));
    assert_eq!(first["recent_earners"].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn example_18_pages_of_the_ledger() {
    let app = App::new().await;
    let person = app.miner(1).await;
    for lesson in 0..51 {
        let done: DateTime<Utc> = app.clock.now();
        let payload =
            json!({ "user_id": person.id, "lesson_id": lesson, "title": "T", "completed_at": done });
        emit(&app, "LessonCompleted", Some(person.id), payload).await;
    }
    app.consume().await;
    for (page, entries) in [(1, 50), (2, 1), (3, 0)] {
        let answer = read(&app, person.id, &format!("/users/me/xp/history?page={page}&per_page=50")).await;
        assert_eq!(answer["entries"].as_array().unwrap().len(), entries);
        assert_eq!((&answer["total"], &answer["page"]), (&json!(51), &json!(page)));
    }
    for bad in ["per_page=0", "per_page=101", "page=0", "page=1001", "page=x"] {
        let path = format!("/api/v1/users/me/xp/history?{bad}");
        assert_eq!(app.get(&path, Some(&person.access)).await.status, 422, "{bad}");
    }
}

#[tokio::test]
async fn example_20_lists_and_acknowledgements() {
    let app = App::at(at("2026-02-25T14:00:05Z")).await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    mine_late(&app, &person, "2026-02-25T14:00:00Z", 1_500_000.0).await;

    let badges = app.get("/api/v1/badges", None).await.ok();
    assert_eq!(badges, app.get("/api/v1/gamification/badges", None).await.ok());
    let slugs: Vec<&str> =
        badges["badges"].as_array().unwrap().iter().map(|badge| badge["slug"].as_str().unwrap()).collect();
    assert_eq!((slugs.len(), slugs[0], slugs[19]), (20, "first_share", "coop_block"));
    for bad in ["nope", "FIRST_SHARE", "%00", "%FF%FE"] {
        for path in ["badges", "gamification/badges"] {
            let answer = app.get(&format!("/api/v1/{path}/{bad}"), None).await;
            assert_eq!(answer.outcome(), (404, "BADGE_NOT_FOUND"), "{bad}");
        }
    }
    assert_eq!(app.get("/api/v1/levels", None).await.ok()["levels"].as_array().unwrap().len(), 15);
    assert_eq!(app.get("/api/v1/users/me/xp", None).await.status, 401);

    for kind in ["level-ups", "streak-milestones"] {
        let pending = read(&app, person.id, &format!("/users/me/{kind}/pending")).await;
        let id = pending["celebrations"][0]["celebration_id"].as_i64().unwrap();
        let path = format!("/api/v1/users/me/{kind}/{id}/ack");
        let strangers = app.ask("POST", &path, Some(&other.access), None).await;
        assert_eq!(strangers.outcome(), (404, "CELEBRATION_NOT_FOUND"));
        let (a, b) = tokio::join!(
            app.ask("POST", &path, Some(&person.access), None),
            app.post(&path, Some(&person.access), json!({})),
        );
        let mut statuses = [a.status, b.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 404], "two devices, one acknowledgement");
        let left = read(&app, person.id, &format!("/users/me/{kind}/pending")).await;
        assert_eq!(left["celebrations"], json!([]));
        let nonsense = format!("/api/v1/users/me/{kind}/x/ack");
        assert_eq!(app.post(&nonsense, Some(&person.access), json!({})).await.status, 422);
    }
}
