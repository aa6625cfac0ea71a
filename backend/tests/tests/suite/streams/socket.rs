//! The pool's socket: whatever arrives there can be found again (contract `mining.md` §2.1, §3.3).

use tbg_tests::program::Program;
use tbg_tests::{TestDb, TestRedis, now, share};

use crate::support::{Pool, USER, envelope, reaches, ts};

#[tokio::test]
async fn a_datagram_with_duplicate_keys_is_refused_and_the_next_one_processed() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    let program = Program::start(&db, &redis, "ingest", &[]).await;
    program.wait_for_socket().await;
    let pool = Pool::at(&program.socket);
    let injected = r#"{"event":"share_submitted","ts":1,"data":{"user":"x","user":"y"}}"#;

    pool.send(injected).await;
    pool.send(share(USER, "rig1", &ts(now()), 512.0, 4096.5, true)).await;

    reaches(&db, "SELECT count(*) FROM shares", 1).await;
    reaches(&db, "SELECT count(*) FROM ingest_dead_letters", 1).await;
    let letter: (String, String) =
        sqlx::query_as("SELECT reason, payload FROM ingest_dead_letters").fetch_one(&db.pool).await.unwrap();
    assert_eq!(letter, ("malformed_json".to_owned(), injected.to_owned()));
}

#[tokio::test]
async fn a_datagram_of_any_size_and_content_is_processed_or_found_with_its_reason() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    let program = Program::start(&db, &redis, "ingest", &[]).await;
    program.wait_for_socket().await;
    let pool = Pool::at(&program.socket);
    let nested = format!(
        r#"{{"event":"share_submitted","ts":{},"data":{{"user":"x","a":{}1{}}}}}"#,
        ts(now()),
        "[".repeat(500),
        "]".repeat(500)
    );
    let cases: [(Vec<u8>, &str); 10] = [
        (Vec::new(), "malformed_json"),
        (b"x".to_vec(), "malformed_json"),
        (vec![b'x'; 4096], "malformed_json"),
        (vec![b'x'; 4097], "bad_value"),
        (vec![b'x'; 65_536], "bad_value"),
        (b"{\"event\":\"\xff\xfe\"}".to_vec(), "malformed_json"),
        (nested.into_bytes(), "malformed_json"),
        (b"[1,2]".to_vec(), "malformed_json"),
        (b"{\"ts\":1}".to_vec(), "missing_field"),
        (b"{\"event\":\"share_submitted\",\"ts\":\"1\"}".to_vec(), "bad_type"),
    ];

    let mut expected = Vec::new();
    for (datagram, reason) in &cases {
        pool.send(datagram).await;
        expected.push((String::from_utf8_lossy(datagram).into_owned(), (*reason).to_owned()));
    }
    pool.send(share(USER, "rig1", &ts(now()), 512.0, 4096.5, true)).await;

    reaches(&db, "SELECT count(*) FROM shares", 1).await;
    reaches(&db, "SELECT count(*) FROM ingest_dead_letters", 10).await;
    let mut letters: Vec<(String, String)> =
        sqlx::query_as("SELECT payload, reason FROM ingest_dead_letters").fetch_all(&db.pool).await.unwrap();
    letters.sort_unstable();
    expected.sort_unstable();
    let short = |(text, reason): &(String, String)| {
        (text.len(), text.chars().take(60).collect::<String>(), reason.clone())
    };
    assert_eq!(letters.iter().map(short).collect::<Vec<_>>(), expected.iter().map(short).collect::<Vec<_>>());
    assert!(letters == expected, "the payload is kept as it arrived");
}

#[tokio::test]
async fn a_datagram_of_exactly_4096_bytes_is_processed() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    let program = Program::start(&db, &redis, "ingest", &[]).await;
    program.wait_for_socket().await;
    let padded = |pad: usize| {
        let data = format!(r#"{{"user":"{USER}","sdiff":4096.5,"pad":"{}"}}"#, "p".repeat(pad));
        envelope("share_submitted", &ts(now()), &data)
    };
    let datagram = padded(4096 - padded(0).len());
    assert_eq!(datagram.len(), 4096);

    Pool::at(&program.socket).send(datagram).await;

    reaches(&db, "SELECT count(*) FROM shares WHERE share_diff = 4096.5", 1).await;
    assert_eq!(db.number("SELECT count(*) FROM ingest_dead_letters").await, 0);
}
