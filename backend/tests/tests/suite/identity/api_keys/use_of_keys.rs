//! What a key may do, and how often (contract `auth-users.md` §1.3, §1.6, §16 item 17).

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use chrono::TimeDelta;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tbg_core::Clock as _;
use tbg_core::config::Environment;
use tbg_core::random::SystemEntropy;
use tbg_tests::app::{Answer, App, GENEROUS, request, send};
use tbg_tests::at;
use tbg_web::auth::Class;
use tbg_web::limit::{Limiter, Limits};
use tbg_web::{Caller, MaybeCaller, Origins, ProbeParts, Routes, WebParts, WebState};
use tokio_util::sync::CancellationToken;

use super::{INVALID_KEY, list, look};

const PERMISSION: (u16, &str) = (403, "API_KEY_PERMISSION");
const SESSION: (u16, &str) = (403, "SESSION_REQUIRED");
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// Routes of the classes that admit keys, with every method; identity has none that a key may write to.
fn probe(app: &App) -> Router {
    async fn user(caller: Caller) -> String {
        caller.user_id.to_string()
    }
    async fn optional(MaybeCaller(caller): MaybeCaller) -> String {
        caller.map_or_else(String::new, |caller| caller.user_id.to_string())
    }
    let users = get(user).post(user).put(user).patch(user).delete(user);
    let optionals = get(optional).post(optional);
    let routes = Routes::new().hidden(Class::User, "/probe/user", users).hidden(
        Class::Optional,
        "/probe/optional",
        optionals,
    );
    let redis = app.redis.manager();
    let state = WebState::new(WebParts {
        probes: ProbeParts {
            pool: app.db.pool.clone(),
            redis: redis.clone(),
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            version: "1.2.3",
            environment: "test",
        },
        docs_enabled: false,
        authenticator: Arc::clone(&app.auth),
        limiter: Limiter::new(redis, Arc::new(app.clock.clone()), Arc::new(SystemEntropy)),
        limits: GENEROUS,
        origins: Origins::of(Environment::Test, None),
        trusted_proxies: Arc::default(),
    });
    tbg_web::router(state, routes)
}

/// A key in the right form that nobody was given.
fn made_up(number: u32) -> String {
    format!("tbg_{number:040}")
}

#[tokio::test]
async fn a_key_may_do_what_the_method_needs() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let (reads, writes) = (app.api_key(&person, &["read"]).await, app.api_key(&person, &["write"]).await);
    let probe = probe(&app);
    let mut answers = Vec::new();
    for method in METHODS {
        for key in [&reads, &writes] {
            answers.push(send(&probe, request(method, "/probe/user", Some(key), None)).await);
        }
    }
    let optional = [
        send(&probe, request("GET", "/probe/optional", Some(&reads), None)).await,
        send(&probe, request("POST", "/probe/optional", Some(&reads), None)).await,
        send(&probe, request("POST", "/probe/optional", Some(&writes), None)).await,
    ];

    let reading: Vec<_> = answers.iter().step_by(2).map(|answer| answer.status).collect();
    let writing: Vec<_> = answers.iter().skip(1).step_by(2).map(|answer| answer.status).collect();
    assert_eq!(reading, [200, 200, 403, 403, 403, 403]);
    assert_eq!(writing, [200; 6], "write includes read");
    assert_eq!(answers[4].outcome(), PERMISSION);
    assert_eq!(answers[0].text, person.id.to_string(), "a key stands for its owner");
    assert_eq!(optional.each_ref().map(Answer::outcome), [(200, ""), PERMISSION, (200, "")]);
}

#[tokio::test]
async fn a_key_is_no_session() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let key = app.api_key(&person, &["read", "write"]).await;
    for (method, path) in [
        ("GET", "/api/v1/users/me/api-keys"),
        ("POST", "/api/v1/users/me/api-keys"),
        ("DELETE", "/api/v1/users/me/api-keys/01936000-0000-7000-8000-000000000001"),
        ("PATCH", "/api/v1/users/me"),
        ("DELETE", "/api/v1/users/me"),
        ("GET", "/api/v1/users/me/export"),
        ("PATCH", "/api/v1/users/me/settings"),
        ("PATCH", "/api/v1/users/me/wallet"),
        ("GET", "/api/v1/auth/me"),
        ("POST", "/api/v1/auth/logout-all"),
    ] {
        let answer = app.ask(method, path, Some(&key), Some(json!({ "name": "k" }))).await;
        assert_eq!(answer.outcome(), SESSION, "{method} {path}");
    }
    assert_eq!(app.db.number("SELECT count(*) FROM api_keys").await, 1);
}

#[tokio::test]
async fn not_even_an_admins_key_opens_an_admin_route() {
    let app = App::new().await;
    let admin = app.admin(1).await;
    let key = app.api_key(&admin, &["write"]).await;

    let by_session = app.get("/api/v1/admin/stats", Some(&admin.access)).await;
    let by_key = app.get("/api/v1/admin/stats", Some(&key)).await;

    assert_eq!(by_session.status, 200, "{}", by_session.text);
    assert_eq!(by_key.outcome(), (403, "ADMIN_REQUIRED"));
    assert_eq!(app.audited("admin.access_denied", "denied").await, 1);
}

#[tokio::test]
async fn what_is_not_a_key_is_refused_and_a_key_wins_over_a_token() {
    let app = App::new().await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    let key = app.api_key(&person, &["read"]).await;
    let mut flipped = key.clone();
    let last = if flipped.pop() == Some('0') { '1' } else { '0' };
    flipped.push(last);
    let (shorter, longer) = (&key[..43], format!("{key}0"));
    let starred = format!("{}*", &key[..43]);
    for wrong in [flipped.as_str(), shorter, longer.as_str(), starred.as_str(), made_up(1).as_str(), "tbg_"] {
        let answer = look(&app, wrong).await;
        assert_eq!(answer.outcome(), INVALID_KEY, "{wrong}");
        assert!(!answer.text.contains(wrong) || wrong == "tbg_", "a refusal does not repeat the key");
    }
    let both = |key: &str, token: &str| {
        let mut both = request("GET", "/api/v1/users/me", Some(key), None);
        both.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        both
    };

    let good_key = send(&app.router, both(&key, &other.access)).await;
    let bad_key = send(&app.router, both(&made_up(1), &person.access)).await;

    assert_eq!(good_key.ok()["id"], person.id);
    assert_eq!(bad_key.outcome(), INVALID_KEY);
}

#[tokio::test]
async fn a_key_has_600_requests_a_minute_of_its_own() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let (key, spare) = (app.api_key(&person, &["read"]).await, app.api_key(&person, &["read"]).await);
    let strict = app.limited_replica(Limits::default());
    let ask = |key: &str| request("GET", "/version", Some(key), None);

    let first = send(&strict, ask(&key)).await;
    for _ in 0..599 {
        assert_eq!(send(&strict, ask(&key)).await.status, 200);
    }
    let beyond = send(&strict, ask(&key)).await;
    let others = send(&strict, ask(&spare)).await;

    assert_eq!((first.header("x-ratelimit-limit"), first.header("x-ratelimit-remaining")), ("600", "599"));
    assert!(first.header("x-ratelimit-reset").parse::<i64>().is_ok());
    assert_eq!(beyond.outcome(), (429, "RATE_LIMITED"));
    let wait: u64 = beyond.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(beyond.header("x-ratelimit-remaining"), "0");
    assert_eq!((others.status, others.header("x-ratelimit-remaining")), (200, "599"), "each key by itself");
    let buckets: Vec<String> =
        redis::cmd("KEYS").arg("ratelimit:api_key:*").query_async(&mut app.redis.manager()).await.unwrap();
    let listed = list(&app, &person).await;
    assert_eq!(buckets.len(), listed.len());
    for key in &listed {
        let bucket = format!("ratelimit:api_key:{}", key["id"].as_str().unwrap());
        assert!(buckets.contains(&bucket), "a bucket has the id of its key, never the secret");
    }
}

#[tokio::test]
async fn made_up_keys_share_the_allowance_of_their_address() {
    let app = App::new().await;
    let strict = app.limited_replica(Limits::default());
    let mut answers = Vec::new();
    for number in 0..31 {
        answers.push(send(&strict, request("GET", "/api/v1/users/me", Some(&made_up(number)), None)).await);
    }
    let mut elsewhere = request("GET", "/api/v1/users/me", Some(&made_up(99)), None);
    elsewhere.headers_mut().insert("x-forwarded-for", "203.0.113.7".parse().unwrap());
    let elsewhere = send(&strict, elsewhere).await;

    let (guesses, beyond) = answers.split_at(30);
    assert!(guesses.iter().all(|answer| answer.outcome() == INVALID_KEY));
    assert_eq!(guesses[0].header("x-ratelimit-limit"), "30");
    assert_eq!(guesses[29].header("x-ratelimit-remaining"), "0");
    assert_eq!(beyond[0].outcome(), (429, "RATE_LIMITED"));
    assert_eq!(elsewhere.outcome(), INVALID_KEY, "another address has its own");
}

#[tokio::test]
async fn the_last_use_is_noted_by_the_minute() {
    let app = App::at(at("2026-03-15T14:30:00Z")).await;
    let person = app.miner(1).await;
    let key = app.api_key(&person, &["read"]).await;
    let written = || async {
        let stopped = CancellationToken::new();
        stopped.cancel();
        app.auth.write_seen(stopped).await;
    };

    let unused = list(&app, &person).await[0]["last_used_at"].clone();
    assert_eq!(look(&app, &key).await.status, 200);
    written().await;
    let first = list(&app, &person).await[0]["last_used_at"].clone();
    app.clock.advance(TimeDelta::seconds(30));
    assert_eq!(look(&app, &key).await.status, 200);
    written().await;
    let second = list(&app, &person).await[0]["last_used_at"].clone();

    assert_eq!(unused, Value::Null);
    assert_eq!([first, second], [json!("2026-03-15T14:30:00Z"), json!("2026-03-15T14:30:00Z")]);
    assert_eq!(app.clock.now(), at("2026-03-15T14:30:30Z"));
}
