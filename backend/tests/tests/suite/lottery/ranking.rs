//! The live ranking of a week: whole or made anew, and without Redis.

use serde_json::{Value, json};
use tbg_core::{Clock as _, UserId};
use tbg_tests::app::App;
use tbg_tests::at;
use tbg_tests::people::Person;

use crate::support::{mine_late, read};

const JUST_NOW: &str = "2026-02-25T11:59:55Z";

/// Two who mined: the second is ahead.
async fn two() -> (App, Person, Person) {
    let app = App::at(at("2026-02-25T12:00:00Z")).await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    mine_late(&app, &person, JUST_NOW, 4e9).await;
    mine_late(&app, &other, JUST_NOW, 5e9).await;
    (app, person, other)
}

/// Rank and participants as the week shows them; the lottery says the same.
async fn standing(app: &App, person: &Person) -> (Value, Value) {
    let week = read(app, person.id, "/games/weekly").await;
    let lottery = read(app, person.id, "/lottery/current").await;
    assert_eq!(week["weekly_rank"], lottery["your_rank"]);
    assert_eq!(week["total_participants"], lottery["total_participants"]);
    (week["weekly_rank"].clone(), week["total_participants"].clone())
}

/// Redis starts again with nothing.
async fn forget_all(app: &App) {
    let mut redis = app.redis.manager();
    redis::cmd("FLUSHALL").query_async::<()>(&mut redis).await.unwrap();
}

#[tokio::test]
async fn a_ranking_that_redis_forgot_is_made_by_whoever_misses_it() {
    let (app, person, other) = two().await;
    forget_all(&app).await;
    assert_eq!(standing(&app, &person).await, (json!(2), json!(2)));

    // Who mines first after the loss is not the only one; nor does somebody without shares see nobody.
    forget_all(&app).await;
    mine_late(&app, &other, JUST_NOW, 6e9).await;
    assert_eq!(standing(&app, &other).await, (json!(1), json!(2)));
    forget_all(&app).await;
    let guest = app.miner(3).await;
    assert_eq!(standing(&app, &guest).await, (json!(0), json!(2)));
}

#[tokio::test]
async fn without_redis_ranks_come_from_a_copy() {
    let (mut app, person, other) = two().await;
    let guest = app.miner(3).await;
    app.redis.server.kill().await.unwrap();
    assert_eq!(standing(&app, &person).await, (json!(2), json!(2)));
    assert_eq!(standing(&app, &other).await, (json!(1), json!(2)));
    assert_eq!(standing(&app, &guest).await, (json!(0), json!(2)));
}

#[tokio::test]
async fn where_redis_takes_nothing_ranks_come_from_a_copy_that_is_not_made_for_each_question() {
    let (app, person, other) = two().await;
    forget_all(&app).await;
    let mut redis = app.redis.manager();
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg(&["maxmemory", "1", "maxmemory-policy", "noeviction"]);
    set.query_async::<()>(&mut redis).await.unwrap();
    assert_eq!(standing(&app, &person).await, (json!(2), json!(2)));
    app.db.change("DELETE FROM weekly_best_diff WHERE best_difficulty = 4e9").await;
    assert_eq!(standing(&app, &other).await, (json!(1), json!(2)));
}

#[tokio::test]
async fn who_is_banned_leaves_the_ranking_with_the_next_run_of_its_job() {
    let (app, person, other) = two().await;
    let now = app.clock.now();
    tbg_identity::roles::ban(&app.db.pool, UserId(other.id), "test", true, now).await.unwrap();
    app.run_job("lottery_ranking").await;
    assert_eq!(standing(&app, &person).await, (json!(1), json!(1)));
}
