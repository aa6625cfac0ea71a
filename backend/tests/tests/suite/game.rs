//! The game from the outside: shares and events of other domains go in, answers and pushes come out (contract
//! `gamification.md`; the numbers in names are its acceptance examples).

mod batches;
mod calendar;
mod counters;
mod events;
mod jobs;
mod mining;
mod operators;
mod reads;
mod rebuild;

use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::Value;
use tbg_core::Clock as _;
use tbg_tests::app::App;
use tbg_tests::at;
use tbg_tests::people::Person;

use crate::support::{envelope, read, ts};

/// An event of another domain, consumed.
async fn report(app: &App, topic: &str, user: Option<i64>, payload: Value) {
    emit(app, topic, user, payload).await;
    app.consume().await;
}

/// An event of another domain, as its outbox row.
async fn emit(app: &App, topic: &str, user: Option<i64>, payload: Value) {
    sqlx::query(
        "INSERT INTO domain_outbox (topic, event_key, consumer, user_id, payload, created_at)
         VALUES ($1, $2, 'gamification', $3, $4, $5)",
    )
    .bind(topic)
    .bind(format!("{topic}:{}", uuid::Uuid::new_v4()))
    .bind(user)
    .bind(payload)
    .bind(app.clock.now())
    .execute(&app.db.pool)
    .await
    .expect("reported");
}

/// A report of a block by somebody.
fn block(user: &str, when: &str, height: u32, hash: &str) -> String {
    let data = format!(
        r#"{{"user":"{user}","worker":"{user}.rig1","height":{height},"hash":"{}"}}"#,
        hash.repeat(32)
    );
    envelope("block_found", &ts(at(when)), &data)
}

/// What a counter of the game shows, its name without the beginning that all have; 0 if it was never raised.
fn counted(shown: &PrometheusHandle, series: &str) -> u64 {
    let start = format!("tbg_gamification_{series} ");
    let text = shown.render();
    text.lines().find_map(|line| line.strip_prefix(&start)).map_or(0, |value| value.parse().expect("a count"))
}

/// The sum of a person's experience.
async fn xp(app: &App, person: &Person) -> i64 {
    read(app, person.id, "/users/me/xp").await["total_xp"].as_i64().expect("a sum")
}

/// What holds at every commit.
async fn assert_sound(app: &App) {
    let wrong = "SELECT count(*) FROM user_gamification g
        WHERE total_xp <> (SELECT coalesce(sum(amount), 0) FROM xp_ledger l WHERE l.user_id = g.user_id)
           OR xp_entries <> (SELECT count(*) FROM xp_ledger l WHERE l.user_id = g.user_id)
           OR badges_earned <> (SELECT count(DISTINCT badge_id) FROM user_badges b WHERE b.user_id = g.user_id)";
    assert_eq!(app.db.number(wrong).await, 0);
    assert_eq!(tbg_gamification::check(&app.db.pool, None).await.unwrap(), 0, "nothing to repair");
}
