//! What breaks while events arrive: nothing is lost and nothing counts twice.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use redis::{Value, cmd};
use sqlx::{ConnectOptions as _, PgConnection};
use tbg_core::outbox::DomainEvent;
use tbg_engine::source::GROUP;
use tbg_engine::source::streams;
use tbg_engine::{Batch, Engine, Reaction, Reactor};
use tbg_local::Durability;
use tbg_tests::program::{PATIENCE, Program, until};
use tbg_tests::{Game, TestDb, TestRedis, now, server, share};

use super::{Ingest, SHARES, connect, pending, share_data, wait_until_acknowledged, xadd};
use crate::support::{Pool, USER, decoded, envelope, reaches, ts};

/// A reactor with a mistake.
struct Broken;

#[async_trait]
impl Reactor for Broken {
    type State = ();
    type Changes = ();

    fn name(&self) -> &'static str {
        "broken"
    }

    async fn load(&self, _conn: &mut PgConnection, _batch: &Batch) -> Result<(), sqlx::Error> {
        Ok(())
    }

    fn react(&self, _state: (), _batch: &Batch, _events_so_far: &[DomainEvent]) -> Reaction<()> {
        panic!("on purpose")
    }

    async fn store(&self, _conn: &mut PgConnection, _changes: ()) -> Result<(), sqlx::Error> {
        Ok(())
    }
}

/// Shares that no rule takes for copies of each other.
async fn send_shares(pool: &Pool, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let sdiff = 1000.0 + f64::from(number);
        pool.send(share(USER, "rig1", &ts(now()), 512.0, sdiff, true)).await;
    }
}

#[tokio::test]
async fn an_entry_whose_writer_died_before_acknowledging_is_claimed_and_is_a_duplicate() {
    let (mut game, redis) = (Game::new().await, TestRedis::new().await);
    let mut conn = connect(&redis).await;
    let (time, data) = (ts(now()), share_data(4096.5));
    xadd(&mut conn, SHARES, &[("ts", time.as_str()), ("data", data.as_str())]).await;
    let group = ["CREATE", SHARES, GROUP, "0"];
    cmd("XGROUP").arg(&group).query_async::<()>(&mut conn).await.unwrap();
    let read = ["GROUP", GROUP, "dead", "STREAMS", SHARES, ">"];
    cmd("XREADGROUP").arg(&read).query_async::<Value>(&mut conn).await.unwrap();
    game.apply(&[envelope("share_submitted", &time, &data)]).await;
    assert_eq!(pending(&mut conn, SHARES).await, 1);

    let mut ingest = Ingest::start(&game.db, &redis);
    let report = tokio::time::timeout(PATIENCE, ingest.reports.recv()).await.unwrap().unwrap();

    assert_eq!((report.events, report.applied), (1, 0));
    wait_until_acknowledged(&mut conn, SHARES).await;
    assert_eq!(game.db.number("SELECT count(*) FROM shares").await, 1);
    assert_eq!(game.db.number("SELECT total FROM hourly_shares").await, 1);
    ingest.stop().await;
    game.close().await;
}

#[tokio::test]
async fn a_standby_takes_over_within_ten_seconds_when_the_writer_is_killed() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    let mut active = Program::start(&db, &redis, "ingest", &[]).await;
    assert!(until(async || active.log_text().contains("this process is the active writer")).await);
    let standby = Program::start(&db, &redis, "ingest", &[]).await;
    assert!(until(async || standby.log_text().contains("standing by")).await);
    standby.wait_for_socket().await;
    let pool = Pool::at(&standby.socket);
    send_shares(&pool, 0..10).await;
    reaches(&db, "SELECT count(*) FROM shares", 10).await;
    assert!(!standby.log_text().contains("this process is the active writer"));

    let killed = Instant::now();
    active.kill().await;
    send_shares(&pool, 10..20).await;

    reaches(&db, "SELECT count(*) FROM shares", 20).await;
    assert!(killed.elapsed() <= Duration::from_secs(10), "took {:?}", killed.elapsed());
    assert!(standby.log_text().contains("this process is the active writer"));
}

#[tokio::test]
async fn consumer_groups_are_made_again_when_redis_was_flushed() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    let program = Program::start(&db, &redis, "ingest", &[]).await;
    program.wait_for_socket().await;
    let pool = Pool::at(&program.socket);
    send_shares(&pool, 0..5).await;
    reaches(&db, "SELECT count(*) FROM shares", 5).await;
    let mut conn = connect(&redis).await;
    wait_until_acknowledged(&mut conn, SHARES).await;

    cmd("FLUSHALL").query_async::<()>(&mut conn).await.unwrap();
    send_shares(&pool, 5..10).await;

    reaches(&db, "SELECT count(*) FROM shares", 10).await;
    wait_until_acknowledged(&mut conn, SHARES).await;
}

#[tokio::test]
async fn no_datagram_is_lost_while_redis_is_away() {
    let (db, mut redis) = (TestDb::new().await, TestRedis::with(Durability::Production).await);
    let program = Program::start(&db, &redis, "ingest", &[]).await;
    program.wait_for_socket().await;
    let pool = Pool::at(&program.socket);

    send_shares(&pool, 0..200).await;
    redis.server.kill().await.unwrap();
    send_shares(&pool, 200..400).await;
    let spool = program.dir().join("spool");
    let spooled = until(async || std::fs::read_dir(&spool).is_ok_and(|mut files| files.next().is_some()));
    assert!(spooled.await, "nothing was spooled; log:\n{}", program.log_text());
    redis.server.restart().await.unwrap();
    send_shares(&pool, 400..600).await;

    reaches(&db, "SELECT count(*) FROM shares", 600).await;
    assert_eq!(db.number("SELECT sum(total)::BIGINT FROM hourly_shares").await, 600);
    assert_eq!(db.number("SELECT count(*) FROM ingest_dead_letters").await, 0);
    let emptied = until(async || std::fs::read_dir(&spool).is_ok_and(|mut files| files.next().is_none()));
    assert!(emptied.await, "the spool was not emptied");
    // Redis' own count of unread entries is wrong after a restart from the append-only file.
    let client = redis.client();
    let mut conn = client.get_multiplexed_async_connection().await.unwrap();
    let read = until(async || streams::backlog(&mut conn).await.is_ok_and(|backlog| backlog.total == 0));
    assert!(read.await, "everything was read, but the backlog is not zero");
}

#[tokio::test]
async fn nothing_is_lost_when_the_database_drops_its_connections() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    let program = Program::start(&db, &redis, "ingest", &[]).await;
    program.wait_for_socket().await;
    let pool = Pool::at(&program.socket);
    let mut admin = server().database("postgres").connect().await.unwrap();
    send_shares(&pool, 0..100).await;
    reaches(&db, "SELECT count(*) FROM shares", 100).await;

    for round in 1..=3 {
        // The writer pauses after a loss: each round waits until it is connected again.
        let mut terminated = 0;
        let hit = until(async || {
            let backends = sqlx::query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = $1 AND application_name = 'tbg' AND pid <> pg_backend_pid()",
            )
            .bind(db.options.get_database())
            .fetch_all(&mut admin)
            .await
            .unwrap();
            terminated += backends.len();
            terminated > 0
        });
        assert!(hit.await, "the writer did not connect again");
        send_shares(&pool, round * 100..(round + 1) * 100).await;
    }

    reaches(&db, "SELECT count(*) FROM shares", 400).await;
    assert_eq!(db.number("SELECT sum(total)::BIGINT FROM hourly_shares").await, 400);
    assert_eq!(db.number("SELECT count(*) FROM ingest_dead_letters").await, 0);
}

#[tokio::test]
async fn beside_an_external_collector_only_derived_rows_are_written() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    db.user(USER).await;
    let program = Program::start(&db, &redis, "ingest", &[("TBG_INGEST_MODE", "streams")]).await;
    let mut conn = connect(&redis).await;
    let (time, counted) = (ts(now()), share_data(4096.5));
    let block = format!(r#"{{"user":"{USER}","height":900}}"#);

    xadd(&mut conn, SHARES, &[("ts", time.as_str()), ("data", counted.as_str())]).await;
    xadd(&mut conn, "mining:block_found", &[("ts", time.as_str()), ("data", block.as_str())]).await;

    reaches(&db, "SELECT count(*) FROM blocks", 1).await;
    reaches(&db, "SELECT count(*) FROM personal_bests", 3).await;
    assert_eq!(db.number("SELECT total FROM hourly_shares").await, 1);
    assert_eq!(db.number("SELECT count(*) FROM ingest_ledger").await, 2);
    assert_eq!(db.number("SELECT count(*) FROM mining_events").await, 0);
    assert_eq!(db.number("SELECT count(*) FROM shares").await, 0);
    assert!(!program.socket.exists(), "the collector has the socket");
}

#[tokio::test]
async fn a_reactor_that_panics_is_an_answer_and_leaves_nothing_behind() {
    let db = TestDb::new().await;
    let mut conn = db.connect().await;
    let events = decoded(&[share(USER, "rig1", &ts(now()), 512.0, 1000.0, true)]);

    let outcome = Engine::new().with(Broken).apply_guarded(&mut conn, events, &[], now()).await.unwrap();

    assert!(outcome.is_none());
    drop(conn);
    assert_eq!(db.number("SELECT count(*) FROM ingest_ledger").await, 0);
}
