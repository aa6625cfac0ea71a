//! Probes: what balancers, containers and operators are told, and when (contract `production.md` §1 row 20, §9, §15;
//! `auth-users.md` §1.7).

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tbg_tests::program::Program;
use tbg_tests::wire::Wire;
use tbg_tests::{TestDb, TestRedis};

use crate::support::tbg;

/// A probe is right so soon after a change.
const RIGHT_AFTER: Duration = Duration::from_secs(2);
/// For a machine on which hundreds of tests run.
const SLACK: Duration = Duration::from_millis(500);

async fn json_of(program: &Program, path: &str) -> (u16, Value) {
    let (status, body) = program.get(path).await.unwrap();
    (status, serde_json::from_str(&body).expect(&body))
}

#[tokio::test]
async fn the_probes_answer_exactly_what_the_contract_says() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let program = Program::start(&db, &redis, "api", &[]).await;
    program.wait_for("/health", 200).await;

    let health = json_of(&program, "/health").await;
    let ready = json_of(&program, "/ready").await;
    let version = json_of(&program, "/version").await;

    assert_eq!(health, (200, json!({"status": "healthy"})));
    assert_eq!(ready, (200, json!({"status": "ready", "checks": {"database": "ok", "redis": "ok"}})));
    assert_eq!(version, (200, json!({"version": env!("CARGO_PKG_VERSION"), "environment": "test"})));
}

#[tokio::test]
async fn health_is_degraded_while_redis_is_away_and_good_again_afterwards() {
    let (db, mut redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let program = Program::start(&db, &redis, "api", &[]).await;
    program.wait_for("/health", 200).await;

    redis.server.kill().await.unwrap();
    program.wait_for("/health", 503).await;
    let health = json_of(&program, "/health").await;
    let ready = json_of(&program, "/ready").await;
    redis.server.restart().await.unwrap();
    program.wait_for("/health", 200).await;
    program.wait_for("/ready", 200).await;

    let checks = json!({"database": "healthy", "redis": "unhealthy"});
    assert_eq!(health, (503, json!({"status": "degraded", "checks": checks})));
    let checks = json!({"database": "ok", "redis": "error"});
    assert_eq!(ready, (503, json!({"status": "degraded", "checks": checks})));
}

#[tokio::test]
async fn health_is_degraded_while_the_database_is_silent_and_good_again_afterwards() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let wire = Wire::to(db.socket()).await;
    let url = db.url_at(wire.address);
    let program = Program::start(&db, &redis, "api", &[("TBG_DATABASE_URL", &url)]).await;
    program.wait_for("/health", 200).await;

    wire.flow(false);
    let cut = Instant::now();
    program.wait_for("/health", 503).await;
    let noticed = cut.elapsed();
    let (health, ready) = (json_of(&program, "/health").await, json_of(&program, "/ready").await);
    wire.flow(true);
    let mended = Instant::now();
    program.wait_for("/health", 200).await;
    let good_after = mended.elapsed();
    program.wait_for("/ready", 200).await;

    let checks = json!({"database": "unhealthy", "redis": "healthy"});
    assert_eq!(health, (503, json!({"status": "degraded", "checks": checks})));
    let checks = json!({"database": "error", "redis": "ok"});
    assert_eq!(ready, (503, json!({"status": "degraded", "checks": checks})));
    assert!(noticed < RIGHT_AFTER + SLACK, "{noticed:?}");
    assert!(good_after < RIGHT_AFTER + SLACK, "{good_after:?}");
}

#[tokio::test]
async fn a_container_is_ready_at_its_first_200_and_from_then_on_alive_at_any_answer() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let away = [("TBG_DATABASE_URL", "postgres://tbg@127.0.0.1:1/tbg"), ("TBG_SHUTDOWN_DRAIN_SECONDS", "1")];
    let (good, bad) =
        tokio::join!(Program::start(&db, &redis, "api", &[]), Program::start(&db, &redis, "ingest", &away));
    good.wait_for("/health", 200).await;
    bad.wait_for("/health", 503).await;
    let marker = good.dir().join("ready").display().to_string();
    let check = async |program: &Program| {
        let listen = program.base.replace("http://", "");
        let ran = tbg(&["healthcheck", "--once-ready", &marker], &[("TBG_HTTP_LISTEN", &listen)]).await;
        (ran.code, ran.out.trim().to_owned())
    };

    assert_eq!(check(&bad).await, (Some(1), "503".to_owned()));
    assert_eq!(check(&good).await, (Some(0), "200".to_owned()));
    assert_eq!(check(&bad).await, (Some(0), "503".to_owned()));
    drop(bad);
    let nobody = tbg(&["healthcheck", "--once-ready", &marker], &[("TBG_HTTP_LISTEN", "127.0.0.1:1")]).await;
    assert_eq!(nobody.code, Some(1));
}
