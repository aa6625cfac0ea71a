//! Connections of a process, and what a lost one costs (contract `production.md` §13).

use std::os::unix::net::UnixDatagram;

use tbg_core::config::Settings;
use tbg_core::redis::{Connections, MAX_CONNECTIONS, dedicated, manager};
use tbg_tests::program::{Program, until};
use tbg_tests::{TestDb, TestRedis, share};

/// One line of `CLIENT LIST` for each connection but the one that asks.
async fn clients(redis: &TestRedis) -> Vec<String> {
    let mut conn = dedicated(&redis.client()).await.unwrap();
    let me: i64 = redis::cmd("CLIENT").arg("ID").query_async(&mut conn).await.unwrap();
    let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut conn).await.unwrap();
    let mine = format!("id={me} ");
    list.lines().filter(|line| !line.starts_with(&mine)).map(str::to_owned).collect()
}

/// Cuts all connections but the one that asks; says how many there were.
async fn cut(redis: &TestRedis) -> usize {
    let mut conn = dedicated(&redis.client()).await.unwrap();
    redis::cmd("CLIENT").arg("KILL").arg("SKIPME").arg("yes").query_async(&mut conn).await.unwrap()
}

fn settings(redis: &TestRedis) -> Settings {
    Settings::from_texts(&[("redis_url", redis.server.url())]).unwrap()
}

#[tokio::test]
async fn a_process_of_all_roles_has_four_connections_to_redis_and_two_that_wait() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    let defaults = [("TBG_DB_MIN_CONNECTIONS", "5"), ("TBG_DB_MAX_CONNECTIONS", "20")];
    let program = Program::start(&db, &redis, "all", &defaults).await;
    program.wait_for("/ready", 200).await;
    program.wait_for_socket().await;
    let pool = UnixDatagram::unbound().unwrap();
    let event = share("bc1q", "w", "1772445600.5", 1.0, 2.0, true);
    pool.send_to(event.as_bytes(), &program.socket).unwrap();

    // The streams' reader waits in XREADGROUP, the sockets' bridge is a subscriber.
    let count = |list: &[String], word: &str| list.iter().filter(|line| line.contains(word)).count();
    let complete = until(async || {
        let list = clients(&redis).await;
        count(&list, "cmd=xreadgroup") == 1 && count(&list, " psub=1 ") == 1 && list.len() >= 5
    })
    .await;

    let list = clients(&redis).await;
    assert!(complete, "{list:#?}");
    assert!(list.len() <= 6 && 6 <= MAX_CONNECTIONS, "{list:#?}");
    let pooled = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'tbg'";
    assert!((5..=22).contains(&db.number(pooled).await), "pool, writer and probe");
}

#[tokio::test]
async fn a_question_that_a_lost_connection_swallowed_is_asked_again_and_a_change_is_not() {
    let redis = TestRedis::new().await;
    let mut conn = manager(&redis.client()).unwrap();
    let set = redis::cmd("SET").arg("key").arg(1).query_async::<()>(&mut conn).await;
    assert!(set.is_ok());

    assert_eq!(cut(&redis).await, 1);
    let read: i64 = redis::cmd("GET").arg("key").query_async(&mut conn).await.unwrap();
    assert_eq!(read, 1);

    assert_eq!(cut(&redis).await, 1);
    let both: (i64, Vec<i64>) = redis::pipe().get("key").mget(&["key"]).query_async(&mut conn).await.unwrap();
    assert_eq!(both, (1, vec![1]));

    assert_eq!(cut(&redis).await, 1);
    redis::cmd("INCR").arg("key").query_async::<i64>(&mut conn).await.unwrap_err();
    let unchanged: i64 = redis::cmd("GET").arg("key").query_async(&mut conn).await.unwrap();
    assert_eq!(unchanged, 1);

    assert_eq!(cut(&redis).await, 1);
    let mixed = redis::pipe().get("key").incr("key", 1).query_async::<(i64, i64)>(&mut conn).await;
    mixed.unwrap_err();
}

#[tokio::test]
async fn a_connection_without_commands_for_30_s_is_tried() {
    let redis = TestRedis::new().await;
    let connections = Connections::new(&settings(&redis)).unwrap();
    let pings = async || clients(&redis).await.iter().filter(|line| line.contains("cmd=ping")).count();

    for _ in 0..5 {
        connections.keep_alive().await;
    }
    assert_eq!(pings().await, 0);

    // Whoever had something to do is known to live.
    let mut busy = connections.live.clone();
    redis::cmd("GET").arg("key").query_async::<Option<i64>>(&mut busy).await.unwrap();
    connections.keep_alive().await;
    assert_eq!(pings().await, 3);

    // A connection that died is made anew before anybody needs it.
    assert_eq!(cut(&redis).await, 4);
    for _ in 0..6 {
        connections.keep_alive().await;
    }
    assert_eq!(pings().await, 4);
}
