//! Clearing caches: all of them, nothing else, one at a time (contract `production.md` §20 example 13).

use std::time::Duration;

use futures_util::StreamExt as _;
use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::json;
use tbg_operations::Scope;
use tbg_web::ErrorCode;

use super::{LOCK, LOOKS, Office, exists};

async fn set(conn: &mut MultiplexedConnection, key: &str) {
    cmd("SET").arg(key).arg("x").query_async::<()>(conn).await.unwrap();
}

/// Sets many keys at once.
async fn set_all(conn: &mut MultiplexedConnection, keys: impl Iterator<Item = String>) {
    let mut pipe = redis::pipe();
    for key in keys {
        pipe.cmd("SET").arg(key).arg("x").ignore();
    }
    pipe.query_async::<()>(conn).await.unwrap();
}

#[tokio::test]
async fn caches_go_and_nothing_else() {
    let office = Office::new().await;
    let mut conn = office.connect().await;
    for key in ["mining:stats:1", "public:profile:7", "admin:stats", "auth:sid_revoked:x"] {
        set(&mut conn, key).await;
    }
    let stream = "mining:share_submitted";
    cmd("XADD").arg(stream).arg("*").arg("k").arg("v").query_async::<()>(&mut conn).await.unwrap();

    let done = office.clear(Scope::All).await.unwrap();

    assert_eq!(
        (&done["status"], &done["scope"], &done["deleted_keys"]),
        (&json!("cleared"), &json!("all"), &json!(3))
    );
    assert_eq!(done["patterns"].as_array().unwrap().len(), 8);
    assert!(done["duration_ms"].is_u64() && done.as_object().unwrap().len() == 5, "{done}");
    assert!(exists(&mut conn, stream).await && exists(&mut conn, "auth:sid_revoked:x").await);
    let left: i64 = cmd("DBSIZE").query_async(&mut conn).await.unwrap();
    assert_eq!(left, 2, "the lock is gone too");
    assert_eq!(office.details_of("admin.cache_cleared").await, [json!({ "deleted_keys": 3 })]);
    let resource = "SELECT count(*) FROM audit_log WHERE resource_type = 'cache' AND resource_id = 'all'";
    assert_eq!((office.db.number(resource).await, office.db.number(LOOKS).await), (1, 1));
}

#[tokio::test]
async fn a_scope_is_cleared_to_its_last_key_and_every_replica_is_told() {
    let office = Office::new().await;
    let mut conn = office.connect().await;
    set_all(&mut conn, (0..1_200).map(|number| format!("leaderboard:{number}"))).await;
    set_all(&mut conn, (0..1_200).map(|number| format!("ratelimit:auth:{number}"))).await;
    set_all(&mut conn, ["lottery:live:1", "my:leaderboard:1", "leaderboards"].map(str::to_owned).into_iter())
        .await;
    let mut replica = office.redis.client().get_async_pubsub().await.unwrap();
    replica.subscribe("cache:cleared").await.unwrap();

    let done = office.clear(Scope::Competition).await.unwrap();
    let again = office.clear(Scope::Competition).await.unwrap();

    assert_eq!((&done["deleted_keys"], &done["patterns"]), (&json!(1_200), &json!(["leaderboard:*"])));
    assert_eq!(again["deleted_keys"], 0);
    let left: i64 = cmd("DBSIZE").query_async(&mut conn).await.unwrap();
    assert_eq!(left, 1_203);
    let told =
        tokio::time::timeout(Duration::from_secs(5), replica.on_message().next()).await.unwrap().unwrap();
    assert_eq!(told.get_payload::<String>().unwrap(), r#"{"scope":"competition"}"#);
}

#[tokio::test]
async fn caches_are_cleared_by_one_at_a_time() {
    let office = Office::new().await;
    let mut conn = office.connect().await;
    set(&mut conn, "leaderboard:1").await;
    cmd("SET").arg(LOCK).arg("another").arg("EX").arg(60).query_async::<()>(&mut conn).await.unwrap();

    let refused = office.clear(Scope::All).await.unwrap_err();

    assert_eq!(refused.code(), ErrorCode::CacheClearRunning);
    let holder: String = cmd("GET").arg(LOCK).query_async(&mut conn).await.unwrap();
    assert_eq!(holder, "another");
    assert!(exists(&mut conn, "leaderboard:1").await);
    assert_eq!(office.db.number(LOOKS).await, 0);

    cmd("DEL").arg(LOCK).query_async::<()>(&mut conn).await.unwrap();
    assert_eq!(office.clear(Scope::All).await.unwrap()["deleted_keys"], 1);
}

#[tokio::test]
async fn without_redis_no_cache_is_cleared() {
    let mut office = Office::new().await;
    office.redis.server.kill().await.unwrap();

    let refused = office.clear(Scope::All).await.unwrap_err();

    assert_eq!(refused.code(), ErrorCode::ServiceUnavailable);
    assert_eq!(office.db.number(LOOKS).await, 0);
}
