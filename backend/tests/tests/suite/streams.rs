//! From Redis Streams into the database: what is written by hand arrives, what is malformed is kept with
//! its reason, everything is acknowledged (contract `mining.md` §2.4, §3.2).

mod failures;
mod socket;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamRangeReply;
use redis::{Value, cmd};
use tbg_core::SystemClock;
use tbg_engine::BatchReport;
use tbg_engine::source::GROUP;
use tbg_engine::source::streams::ReadLimits;
use tbg_engine::writer::Writer;
use tbg_tests::program::until;
use tbg_tests::{TestDb, TestRedis, engine, now};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{USER, reaches, ts};

const SHARES: &str = "mining:share_submitted";

/// A writer in this process.
struct Ingest {
    reports: UnboundedReceiver<BatchReport>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Ingest {
    fn start(db: &TestDb, redis: &TestRedis) -> Self {
        let (sender, reports) = mpsc::unbounded_channel();
        let client = redis.client();
        let writer = Writer {
            database: db.options.clone(),
            manager: tbg_core::redis::manager(&client).unwrap(),
            redis: client,
            engine: Arc::new(engine()),
            clock: Arc::new(SystemClock),
            consumer: "living".to_owned(),
            limits: ReadLimits { count: 500, reads: 8, collect: Duration::from_millis(100) },
            after_commit: Arc::new([]),
            on_batch: Some(sender),
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(writer.run(stop.clone()));
        Self { reports, stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn connect(redis: &TestRedis) -> MultiplexedConnection {
    tbg_core::redis::dedicated(&redis.client()).await.unwrap()
}

/// Adds an entry; returns its id.
async fn xadd(redis: &mut MultiplexedConnection, stream: &str, fields: &[(&str, &str)]) -> String {
    let mut command = cmd("XADD");
    command.arg(stream).arg("*");
    for (name, value) in fields {
        command.arg(*name).arg(*value);
    }
    command.query_async(redis).await.unwrap()
}

/// Entries of a stream that were delivered and not acknowledged.
async fn pending(redis: &mut MultiplexedConnection, stream: &str) -> i64 {
    let reply: Vec<Value> = cmd("XPENDING").arg(stream).arg(GROUP).query_async(redis).await.unwrap();
    match reply.first() {
        Some(Value::Int(count)) => *count,
        other => panic!("XPENDING answered {other:?}"),
    }
}

async fn wait_until_acknowledged(redis: &mut MultiplexedConnection, stream: &str) {
    assert!(until(async || pending(redis, stream).await == 0).await, "{stream} stays pending");
}

fn share_data(sdiff: f64) -> String {
    format!(r#"{{"user":"{USER}","worker":"{USER}.rig1","diff":512.0,"sdiff":{sdiff},"accepted":true}}"#)
}

#[tokio::test]
async fn entries_with_data_and_flat_entries_become_rows_and_are_acknowledged() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    let mut conn = connect(&redis).await;
    let ingest = Ingest::start(&db, &redis);
    let (time, data) = (ts(now()), share_data(4096.5));
    let (worker, seconds) = (format!("{USER}_rig2"), now().timestamp().to_string());
    let (time, data, worker, seconds) = (time.as_str(), data.as_str(), worker.as_str(), seconds.as_str());

    let envelope = [("event", "share_submitted"), ("ts", time), ("source", "hosted"), ("data", data)];
    xadd(&mut conn, SHARES, &envelope).await;
    let flat = [
        ("user", USER),
        ("worker", worker),
        ("diff", "512"),
        ("sdiff", "777.5"),
        ("accepted", "1"),
        ("timestamp", seconds),
    ];
    xadd(&mut conn, SHARES, &flat).await;
    let rates = [("user", USER), ("worker", worker), ("hashrate_1m", "19.1M"), ("hashrate_1d", "3.5k")];
    xadd(&mut conn, "mining:hashrate_update", &rates).await;

    reaches(&db, "SELECT count(*) FROM mining_events", 3).await;
    let shares: Vec<(String, f64, f64, bool)> = sqlx::query_as(
        "SELECT worker_name, difficulty, share_diff, is_valid FROM shares ORDER BY worker_name",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    let text = str::to_owned;
    assert_eq!(shares, [(text("rig1"), 512.0, 4096.5, true), (text("rig2"), 512.0, 777.5, true)]);
    let rates = "SELECT count(*) FROM mining_events WHERE (payload ->> 'hashrate_1m')::FLOAT8 = 19100000
                 AND (payload ->> 'hashrate_1d')::FLOAT8 = 3500 AND (payload ->> 'hashrate_5m')::FLOAT8 = 0";
    assert_eq!(db.number(rates).await, 1);
    for stream in [SHARES, "mining:hashrate_update"] {
        wait_until_acknowledged(&mut conn, stream).await;
    }
    ingest.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_becomes_a_dead_letter_with_its_reason_and_is_acknowledged() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    let mut conn = connect(&redis).await;
    let (time, future) = (ts(now()), ts(now() + TimeDelta::seconds(3600)));
    let good = share_data(100.0);
    let (time, future, good) = (time.as_str(), future.as_str(), good.as_str());
    let cases: [(&[(&str, &str)], &str); 7] = [
        (&[("ts", time), ("data", "{not json")], "malformed_json"),
        (&[("ts", time), ("data", r#"{"user":"x","user":"y"}"#)], "malformed_json"),
        (&[("ts", time), ("data", r#"{"user":"x","sdiff":"7"}"#)], "bad_type"),
        (&[("ts", time), ("data", r#"{"user":"x","sdiff":-7}"#)], "bad_value"),
        (&[("timestamp", time), ("user", "x"), ("diff", "abc")], "bad_type"),
        (&[("ts", future), ("data", good)], "future_ts"),
        (&[("ts", "1000.0"), ("data", good)], "too_old"),
    ];
    let mut expected = BTreeMap::new();
    for (fields, reason) in cases {
        expected.insert(xadd(&mut conn, SHARES, fields).await, reason.to_owned());
    }
    xadd(&mut conn, SHARES, &[("ts", time), ("data", good)]).await;

    let ingest = Ingest::start(&db, &redis);

    reaches(&db, "SELECT count(*) FROM shares", 1).await;
    reaches(&db, "SELECT count(*) FROM ingest_dead_letters", 7).await;
    let letters: Vec<(String, String)> = sqlx::query_as(
        "SELECT stream_id, reason FROM ingest_dead_letters
         WHERE stream = 'mining:share_submitted' AND event_type = 'share_submitted' AND deliveries = 1",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert_eq!(letters.into_iter().collect::<BTreeMap<_, _>>(), expected);
    wait_until_acknowledged(&mut conn, SHARES).await;
    let queue: StreamRangeReply =
        cmd("XRANGE").arg("mining:dlq").arg("-").arg("+").query_async(&mut conn).await.unwrap();
    let told: BTreeMap<String, String> = queue
        .ids
        .iter()
        .map(|entry| (entry.get::<String>("id").unwrap(), entry.get::<String>("reason").unwrap()))
        .collect();
    assert_eq!(told, expected);
    let mut names: Vec<&str> = queue.ids[0].map.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["data", "deliveries", "event", "id", "reason", "stream", "ts"]);
    ingest.stop().await;
}

#[tokio::test]
async fn a_best_that_is_read_before_its_share_still_belongs_to_the_share() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    db.user(USER).await;
    let mut conn = connect(&redis).await;
    let started = now();
    let (earlier, later) = (ts(started), ts(started + TimeDelta::microseconds(1)));
    let best = format!(r#"{{"user":"{USER}","worker":"{USER}.late","new_best":4096.5}}"#);
    let (best, share) = (best.as_str(), share_data(4096.5));
    let ingest = Ingest::start(&db, &redis);

    xadd(&mut conn, "mining:share_best_diff", &[("ts", later.as_str()), ("data", best)]).await;
    reaches(&db, "SELECT count(*) FROM personal_bests WHERE worker_name = 'late'", 3).await;
    xadd(&mut conn, SHARES, &[("ts", earlier.as_str()), ("data", share.as_str())]).await;

    reaches(&db, "SELECT count(*) FROM personal_bests WHERE worker_name = 'rig1'", 3).await;
    assert_eq!(db.number("SELECT count(*) FROM personal_bests").await, 3);
    ingest.stop().await;
}
