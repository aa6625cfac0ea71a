//! Every read while something is away: what can be answered is answered, the rest says 503, nothing says 500.

use serde_json::json;
use tbg_core::Clock as _;
use tbg_tests::app::App;
use tbg_tests::people::Person;
use tbg_tests::share;

use crate::budgets::reads;

async fn with_a_miner() -> (App, Person) {
    let app = App::new().await;
    let person = app.miner(1).await;
    feed(&app, &person, 5).await;
    app.run_job("workers_flush").await;
    (app, person)
}

async fn feed(app: &App, person: &Person, seconds_ago: i64) {
    let ts = (app.clock.now().timestamp() - seconds_ago).to_string();
    app.feed(&[share(&person.address, "rig1", &ts, 1024.0, 4096.5 + seconds_ago as f64, true)]).await;
}

/// Status of every read.
async fn statuses(app: &App, person: &Person) -> Vec<(String, u16)> {
    let mut statuses = Vec::new();
    for path in reads(app).await {
        statuses.push((path.clone(), app.get(&path, Some(&person.access)).await.status));
    }
    statuses
}

fn assert_answered(statuses: &[(String, u16)]) {
    for (path, status) in statuses {
        assert!(matches!(status, 200 | 404), "{path}: {status}");
    }
}

#[tokio::test]
async fn without_a_database_reads_say_503_and_never_500() {
    let (app, person) = with_a_miner().await;
    app.db.pool.close().await;

    let statuses = statuses(&app, &person).await;

    let away = statuses.iter().filter(|(_, status)| *status == 503).count();
    assert!(away > statuses.len() / 2, "{statuses:?}");
    for (path, status) in statuses {
        assert!(matches!(status, 200 | 404 | 503), "{path}: {status}");
    }
}

#[tokio::test]
async fn a_redis_that_forgot_everything_is_refilled_by_the_next_share() {
    let (app, person) = with_a_miner().await;
    let mut redis = app.redis.manager();
    redis::cmd("FLUSHALL").query_async::<()>(&mut redis).await.expect("flushed");

    assert_answered(&statuses(&app, &person).await);
    let workers = app.get("/api/v1/mining/workers", Some(&person.access)).await.ok();
    assert_eq!(workers["workers"][0]["name"], "rig1", "the table knows it: {workers}");
    feed(&app, &person, 1).await;

    let workers = app.get("/api/v1/mining/workers", Some(&person.access)).await.ok();
    assert_eq!((&workers["online_count"], &workers["workers"][0]["status"]), (&json!(1), &json!("online")));
}

#[tokio::test]
async fn a_full_redis_keeps_nobody_from_reading_and_loses_no_share() {
    let (app, person) = with_a_miner().await;
    let mut redis = app.redis.manager();
    let mut limit = async |bytes: u64| {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("maxmemory").arg(bytes).query_async::<()>(&mut redis).await.expect("set");
    };
    limit(1).await;

    feed(&app, &person, 2).await;
    assert_answered(&statuses(&app, &person).await);
    assert_eq!(app.db.number("SELECT count(*) FROM shares").await, 2);
    limit(0).await;
    feed(&app, &person, 1).await;

    let stats = app.get("/api/v1/mining/stats", Some(&person.access)).await.ok();
    assert_eq!((&stats["accepted_today"], &stats["workers_online"]), (&json!(3), &json!(1)), "{stats}");
}
