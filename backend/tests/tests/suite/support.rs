//! What several modules of the suite need.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _};
use tbg_core::Clock as _;
use tbg_core::told::{self, Told};
use tbg_engine::PoolEvent;
use tbg_engine::decode::decode_text;
use tbg_tests::app::App;
use tbg_tests::people::Person;
use tbg_tests::program::{binary, until};
use tbg_tests::{TestDb, TestRedis, at, server, share};
use tokio::process::Command;

/// The miner of most tests.
pub const USER: &str = "bc1qexample";

/// A database without any table.
pub async fn empty_database() -> TestDb {
    let name = format!("e_{}", uuid::Uuid::new_v4().simple());
    let mut admin = server().database("postgres").connect().await.unwrap();
    // sql-audit: allow(S1, S2) a name made of hex digits
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
    let options = server().database(&name).options([("timezone", "UTC")]);
    let pool = PgPoolOptions::new().max_connections(5).connect_with(options.clone()).await.unwrap();
    TestDb { options, pool }
}

/// A user with a public name who holds [`USER`].
pub async fn named_user(db: &TestDb, name: &str) -> i64 {
    sqlx::query_scalar(
        "INSERT INTO users (btc_address, display_name, display_name_normalized)
         VALUES ($1, $2, lower($2)) RETURNING id",
    )
    .bind(USER)
    .bind(name)
    .fetch_one(&db.pool)
    .await
    .unwrap()
}

/// Unix seconds with six decimals, as the pool writes them.
pub fn ts(instant: DateTime<Utc>) -> String {
    format!("{}.{:06}", instant.timestamp(), instant.timestamp_subsec_micros())
}

/// An accepted share to an address at an instant.
pub fn share_at(address: &str, when: DateTime<Utc>, difficulty: f64) -> String {
    share(address, "rig1", &ts(when), 1.0, difficulty, true)
}

/// A share of a person at an instant, and its batch is processed then.
pub async fn mine(app: &App, person: &Person, when: &str, difficulty: f64) {
    app.clock.set(at(when));
    mine_late(app, person, when, difficulty).await;
}

/// A share of a person at an instant, processed at the app's time.
pub async fn mine_late(app: &App, person: &Person, when: &str, difficulty: f64) {
    app.feed(&[share_at(&person.address, at(when), difficulty)]).await;
}

/// What a user reads under `/api/v1`. Weeks pass in tests: the token is made at the app's time.
pub async fn read(app: &App, user: i64, path: &str) -> Value {
    app.get(&format!("/api/v1{path}"), Some(&app.token(user))).await.ok()
}

/// An envelope A of any event.
pub fn envelope(event: &str, ts: &str, data: &str) -> String {
    format!(r#"{{"event":"{event}","ts":{ts},"data":{data}}}"#)
}

/// The events of envelopes.
pub fn decoded(lines: &[String]) -> Vec<PoolEvent> {
    lines.iter().map(|line| decode_text(line).expect(line)).collect()
}

/// All rows that ingest may write, exactly.
pub async fn everything(db: &TestDb) -> Vec<String> {
    let mut rows = Vec::new();
    for sql in [
        "SELECT * FROM hourly_shares ORDER BY btc_address, bucket",
        "SELECT * FROM user_daily_stats ORDER BY user_id, day",
        "SELECT * FROM weekly_best_diff ORDER BY id",
        "SELECT * FROM personal_bests ORDER BY id",
        "SELECT * FROM blocks ORDER BY id",
        "SELECT * FROM block_celebrations ORDER BY id",
        "SELECT * FROM activity_feed ORDER BY id",
        "SELECT * FROM domain_outbox ORDER BY id",
        "SELECT * FROM network_difficulty ORDER BY block_height",
        "SELECT * FROM shares ORDER BY id",
        "SELECT * FROM mining_events ORDER BY ts, event_key",
        "SELECT * FROM ingest_ledger ORDER BY ts, event_key",
        "SELECT * FROM ingest_dead_letters ORDER BY id",
    ] {
        rows.extend(db.rows(sql).await);
    }
    rows
}

/// Waits until a number in the database is `expected`.
pub async fn reaches(db: &TestDb, sql: &'static str, expected: i64) {
    let mut last = 0;
    let reached = until(async || {
        last = db.number(sql).await;
        last == expected
    })
    .await;
    assert!(reached, "{sql}: {last} instead of {expected}");
}

/// The pool's side of the socket.
pub struct Pool(UnixDatagram);

impl Pool {
    /// Connects to the receiver at `path`.
    pub fn at(path: &Path) -> Self {
        let socket = UnixDatagram::unbound().unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(path).unwrap();
        Self(socket)
    }

    /// Sends a datagram; a full queue is tried again, where the pool would drop the event.
    pub async fn send(&self, datagram: impl AsRef<[u8]>) {
        let datagram = datagram.as_ref();
        let sent = until(async || match self.0.send(datagram) {
            Ok(length) => length == datagram.len(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("the receiver does not take datagrams: {error}"),
        })
        .await;
        assert!(sent, "the socket stays full");
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs a command of the real program to its end.
pub async fn tbg(args: &[&str], settings: &[(&str, &str)]) -> Ran {
    let output = Command::new(binary())
        .args(args)
        .env("TBG_ENVIRONMENT", "test")
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The same on a database and a Redis.
pub async fn tbg_on(db: &TestDb, redis: &TestRedis, args: &[&str], settings: &[(&str, &str)]) -> Ran {
    let (url, redis_url) = (db.url(), redis.server.url());
    let places = [("TBG_DATABASE_URL", url.as_str()), ("TBG_REDIS_URL", redis_url.as_str())];
    tbg(args, &[&places[..], settings].concat()).await
}

/// An ingest process says how far behind it is, in seconds.
pub async fn ingest_lags(app: &App, seconds: f64) {
    let told =
        Told { ingest_lag_seconds: Some(seconds), ingest_committed_at: None, ..Told::now(app.clock.now()) };
    told::tell(&mut app.redis.manager(), "ingest-1", &told).await.unwrap();
}
