//! Every read while something is away: what can be answered is answered, the rest says 503, nothing says 500.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tbg_core::Clock as _;
use tbg_tests::app::App;
use tbg_tests::people::Person;
use tbg_tests::program::{Program, until};
use tbg_tests::wire::Wire;
use tbg_tests::{TestDb, TestRedis, share};

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

/// Contract `production.md` §2.3, row 4.
#[tokio::test]
async fn a_network_that_swallows_packets_is_a_503_within_five_seconds_and_heals() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let wire = Wire::to(db.socket()).await;
    let url = db.url_at(wire.address);
    let program = Program::start(&db, &redis, "api", &[("TBG_DATABASE_URL", &url)]).await;
    program.wait_for("/health", 200).await;
    // A read of one row, over connections that are open already.
    let read = async || {
        let started = Instant::now();
        let answer = reqwest::get(format!("{}/api/v1/lottery/stats", program.base)).await.unwrap();
        let retry =
            answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let told = answer.headers().contains_key("x-ratelimit-remaining");
        (answer.status().as_u16(), retry, started.elapsed(), told)
    };
    assert_eq!(read().await.0, 200);

    wire.flow(false);
    let (status, retry, took, told) = read().await;
    wire.flow(true);

    assert_eq!(status, 503);
    assert!(retry.is_some_and(|seconds| seconds <= 5), "{retry:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(told, "it was counted, and says so");
    program.wait_for("/api/v1/lottery/stats", 200).await;
}

#[tokio::test]
async fn jobs_that_start_while_the_database_is_away_measure_everything_once_it_is_back() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let wire = Wire::to(db.socket()).await;
    wire.flow(false);
    let url = db.url_at(wire.address);
    let program = Program::start(&db, &redis, "jobs", &[("TBG_DATABASE_URL", &url)]).await;
    let shows = async |sign: &str| program.get("/metrics").await.is_ok_and(|(_, text)| text.contains(sign));
    assert!(until(async || shows("tbg_dependency_up{dependency=\"database\"} 0").await).await);
    assert!(!shows("tbg_outbox_depth").await && !shows("tbg_audit_verify_ok").await);

    wire.flow(true);

    for sign in ["dependency_up{dependency=\"database\"} 1", "tbg_outbox_depth 0", "tbg_audit_verify_ok 1"] {
        assert!(until(async || shows(sign).await).await, "{sign}; log:\n{}", program.log_text());
    }
}

#[tokio::test]
async fn a_pool_that_is_used_up_is_no_database_that_is_down() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let program = Program::start(&db, &redis, "api", &[("TBG_DB_MAX_CONNECTIONS", "1")]).await;
    program.wait_for("/health", 200).await;
    let shows = async |sign: &str| program.get("/metrics").await.is_ok_and(|(_, text)| text.contains(sign));

    let mut holder = db.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE lottery_draws IN ACCESS EXCLUSIVE MODE").execute(&mut *holder).await.unwrap();
    // One waits with the only connection, others for it; who has waited long enough asks again.
    let path = format!("{}/api/v1/lottery/stats", program.base);
    let reader = tokio::spawn(async move {
        loop {
            let reads = (0..4).map(|_| reqwest::get(&path));
            futures_util::future::join_all(reads).await;
        }
    });

    assert!(until(async || shows("tbg_db_pool_free 0").await).await, "nobody holds the only connection");
    // Two probes of 5 s and the 2 s that one may take, and well before the requests give their place back after 30 s.
    // A slow machine may miss one probe, a probe that needs the pool misses all.
    let mut up = 0;
    for _ in 0..24 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        up += u32::from(shows("tbg_dependency_up{dependency=\"database\"} 1").await);
    }
    assert!(
        up > 8 && shows("tbg_db_pool_free 0").await,
        "a busy pool is taken for a fault: up {up} of 24 times"
    );
    reader.abort();
    holder.rollback().await.unwrap();
    program.wait_for("/api/v1/lottery/stats", 200).await;
}

/// A process that neither answers nor ends, until this goes.
struct Frozen(String);

impl Frozen {
    async fn redis(app: &App) -> Self {
        let mut info = redis::cmd("INFO");
        let info: redis::InfoDict =
            info.arg("server").query_async(&mut app.redis.manager()).await.expect("an answer");
        let pid: u32 = info.get("process_id").expect("its process");
        let frozen = Self(pid.to_string());
        frozen.signal("-STOP");
        frozen
    }

    fn signal(&self, signal: &str) {
        let _ = Command::new("kill").args([signal, &self.0]).stderr(Stdio::null()).status();
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

/// All reads of a person at once: each with its status and its time.
async fn at_once(program: &Program, person: &Person, paths: &[String]) -> Vec<(String, u16, Duration)> {
    let client = reqwest::Client::new();
    let asked = paths.iter().map(async |path| {
        let started = Instant::now();
        let request = client.get(format!("{}{path}", program.base)).bearer_auth(&person.access);
        let status = request.send().await.expect("an answer").status().as_u16();
        (path.clone(), status, started.elapsed())
    });
    futures_util::future::join_all(asked).await
}

fn assert_none_hangs(reads: &[(String, u16, Duration)]) {
    for (path, status, took) in reads {
        assert!(matches!(status, 200 | 404 | 503), "{path}: {status}");
        assert!(*took < Duration::from_secs(3), "{path}: {took:?}");
    }
}

#[tokio::test]
async fn a_redis_that_falls_silent_dies_and_comes_back_hangs_no_read() {
    let (mut app, person) = with_a_miner().await;
    let paths = reads(&app).await;
    let settings = [("TBG_DASHBOARD_CACHE_TTL_SECONDS", "1")];
    let program = Program::start(&app.db, &app.redis, "api", &settings).await;
    program.wait_for("/health", 200).await;
    assert_none_hangs(&at_once(&program, &person, &paths).await);

    let silent = Frozen::redis(&app).await;
    for _ in 0..4 {
        assert_none_hangs(&at_once(&program, &person, &paths).await);
        // Some rounds find that it was silent a moment ago, some find out.
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    app.redis.server.kill().await.expect("killed");
    drop(silent);
    assert_none_hangs(&at_once(&program, &person, &paths).await);

    let (restarted, rounds) = tokio::join!(app.redis.server.restart(), async {
        let mut rounds = Vec::new();
        for _ in 0..10 {
            rounds.extend(at_once(&program, &person, &paths).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        rounds
    });
    restarted.expect("restarted");
    assert_none_hangs(&rounds);
    program.wait_for("/health", 200).await;
    let all_answer = async || {
        let answers = at_once(&program, &person, &paths).await;
        assert_none_hangs(&answers);
        answers.iter().all(|(_, status, _)| matches!(status, 200 | 404))
    };
    assert!(until(all_answer).await);
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
