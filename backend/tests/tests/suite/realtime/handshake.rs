//! Who gets a socket.

use serde_json::json;
use tbg_core::{Clock as _, UserId};
use tbg_tests::app::{App, claims, new_key, realtime_config, sign};
use tbg_tests::program::Program;
use tbg_tests::socket::{Came, Socket};
use tbg_web::auth::{Keys, TokenKind};

use super::ledger_holds;

/// What opening with each of these paths and headers gives.
async fn outcome(base: &str, path: &str, headers: &[(&'static str, &str)]) -> (u16, String) {
    match Socket::open_with(base, path, headers).await {
        Ok(_) => (101, String::new()),
        Err(refused) => (refused.status, refused.body["code"].as_str().unwrap_or("no code").to_owned()),
    }
}

#[tokio::test]
async fn example_2_only_a_good_access_token_opens_a_socket() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    let now = app.clock.now();
    let claims_of = |kind| tbg_web::auth::Claims { kind, ..claims(person.id, now) };
    let other_key = Keys::new(&new_key(), &[], "thebitcoingame.com", "api.thebitcoingame.com").unwrap();
    let none =
        format!("{}.{}.", "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0", person.access.split('.').nth(1).unwrap());
    let mut expired = claims(person.id, now);
    expired.exp = now.timestamp() - 60;
    let mut audience = claims(person.id, now);
    audience.aud = "elsewhere".to_owned();
    let mut nobody = claims(person.id, now);
    nobody.sub = "0".to_owned();

    for (name, token) in [
        ("no token", String::new()),
        ("nonsense", "abc".to_owned()),
        ("expired", sign(&expired)),
        ("refresh", sign(&claims_of(TokenKind::Refresh))),
        ("alg none", none),
        ("another key", other_key.sign(&claims(person.id, now)).unwrap()),
        ("another audience", sign(&audience)),
        ("no positive subject", sign(&nobody)),
        ("too long", "a".repeat(4097)),
    ] {
        let (status, code) = outcome(&replica.base, &format!("/ws?token={token}"), &[]).await;
        assert_eq!(status, 401, "{name}: {code}");
        assert!(code.starts_with("AUTH_"), "{name}: {code}");
    }
    // Ten failures close the door for the address.
    let mut redis = app.redis.manager();
    redis::cmd("DEL")
        .arg("ratelimit:ws_fail:127.0.0.1")
        .query_async::<()>(&mut redis)
        .await
        .expect("deleted");
    let twice = format!("/ws?token={0}&token={0}", person.access);
    assert_eq!(outcome(&replica.base, &twice, &[]).await.0, 401);
    let bearer = format!("Bearer {}", person.access);
    assert_eq!(outcome(&replica.base, "/ws", &[("authorization", &bearer)]).await.0, 101);
    let key = app.api_key(&person, &["read", "write"]).await;
    assert_eq!(outcome(&replica.base, "/ws", &[("x-api-key", &key)]).await.0, 401);
}

#[tokio::test]
async fn pages_of_other_origins_get_none() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    let path = format!("/ws?token={}", person.access);

    let evil = outcome(&replica.base, &path, &[("origin", "https://evil.example")]).await;
    let ours = outcome(&replica.base, &path, &[("origin", "https://app.thebitcoingame.com")]).await;

    assert_eq!(evil, (403, "ORIGIN_NOT_ALLOWED".to_owned()));
    assert_eq!(ours.0, 101);
}

#[tokio::test]
async fn a_banned_user_and_an_ended_session_get_none() {
    let app = App::new().await;
    let (banned, ended) = (app.miner(1).await, app.miner(2).await);
    let replica = app.serve().await;
    tbg_identity::roles::ban(&app.db.pool, UserId(banned.id), "test", true, app.clock.now()).await.unwrap();
    let ended_all = app.post("/api/v1/auth/logout-all", Some(&ended.access), json!({})).await;
    assert_eq!(ended_all.status, 200);

    let refused = replica.refused(&banned.access).await;
    assert_eq!((refused.status, &refused.body["code"]), (403, &json!("ACCOUNT_BANNED")));
    assert!(refused.body["request_id"].is_string(), "{refused:?}");
    assert_eq!(replica.refused(&ended.access).await.status, 401);
}

#[tokio::test]
async fn example_11_a_sixth_socket_is_refused_on_whatever_replica() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let (a, b) = (app.serve().await, app.serve().await);
    let mut open = Vec::new();
    for replica in [&a, &b, &a, &b, &a] {
        open.push(replica.open(&person.access).await);
    }

    for replica in [&a, &b] {
        let refused = replica.refused(&person.access).await;
        assert_eq!((refused.status, &refused.body["code"]), (429, &json!("WS_TOO_MANY_CONNECTIONS")));
    }
    open.pop().unwrap().close().await;
    ledger_holds(&app, person.id, 4).await;
    drop(a.open(&person.access).await);
}

#[tokio::test]
async fn a_user_connects_five_times_a_minute() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let config = tbg_realtime::RealtimeConfig { connects_per_min: 5, ..realtime_config() };
    let replica = app.serve_with(config).await;

    for _ in 0..5 {
        replica.open(&person.access).await.close().await;
    }
    ledger_holds(&app, person.id, 0).await;
    let refused = replica.refused(&person.access).await;

    assert_eq!((refused.status, &refused.body["code"]), (429, &json!("RATE_LIMITED")));
    assert!(refused.retry_after.is_some_and(|seconds| (1..=60).contains(&seconds.parse::<u32>().unwrap())));
}

#[tokio::test]
async fn ten_failed_handshakes_a_minute_close_the_door_for_the_address() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;

    for _ in 0..10 {
        assert_eq!(replica.refused("abc").await.status, 401);
    }

    let refused = replica.refused(&person.access).await;
    assert_eq!((refused.status, &refused.body["code"]), (429, &json!("RATE_LIMITED")));
}

#[tokio::test]
async fn what_a_closed_door_refuses_is_counted() {
    let app = App::new().await;
    let program = Program::start(&app.db, &app.redis, "api", &[]).await;
    program.wait_for("/health", 200).await;

    for number in 1..=12 {
        let refused = Socket::open(&program.base, "abc").await.err().expect("no socket");
        assert_eq!(refused.status, if number <= 10 { 401 } else { 429 }, "{number}");
    }

    let (_, metrics) = program.get("/metrics").await.unwrap();
    assert!(metrics.contains("tbg_rate_limit_hits_total{tier=\"ws_handshake\"} 2"), "{metrics}");
}

#[tokio::test]
async fn a_full_replica_says_when_to_come_back() {
    let app = App::new().await;
    let (one, two) = (app.miner(1).await, app.miner(2).await);
    let config = tbg_realtime::RealtimeConfig { max_connections: 1, ..realtime_config() };
    let replica = app.serve_with(config).await;
    let _open = replica.open(&one.access).await;

    let refused = replica.refused(&two.access).await;

    assert_eq!((refused.status, refused.retry_after.as_deref()), (503, Some("5")));
    assert_eq!(refused.body["code"], "SERVICE_UNAVAILABLE");
}

#[tokio::test]
async fn where_told_so_a_refusal_is_a_socket_that_closes_at_once() {
    let app = App::new().await;
    let config = tbg_realtime::RealtimeConfig { reject_with_close_code: true, ..realtime_config() };
    let replica = app.serve_with(config).await;

    let mut socket = replica.open("abc").await;

    assert_eq!(socket.next().await, Came::Closed(4001, "authentication failed".to_owned()));
}

#[tokio::test]
async fn example_19_no_token_is_logged() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let program = Program::start(&app.db, &app.redis, "api", &[("TBG_LOG_FILTER", "debug")]).await;
    program.wait_for("/health", 200).await;

    Socket::open(&program.base, &person.access).await.expect("a socket").close().await;
    let signature = person.access.split('.').nth(2).unwrap();
    let _ = Socket::open(&program.base, &person.access.replace('.', "x")).await;

    let log = program.log_text();
    assert!(log.contains("/ws"), "{log}");
    assert!(
        !log.contains("token=") && !log.contains(signature) && !log.contains(&person.access[..20]),
        "{log}"
    );
}
