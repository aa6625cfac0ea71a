//! What must happen once happens once, however many ask at the same moment (contract `auth-users.md` §3,
//! §4.1, §16 items 3, 6 and 7). The long run is the binary `races`.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tbg_tests::app::{Answer, App, request, send};
use tbg_tests::people::{address_of, wallet};
use tokio::task::JoinSet;

use super::wallet_sign_in::{and, audit, challenge, events};

const ROUNDS: usize = 20;
const PARALLEL: usize = 20;
const VERIFY: &str = "/api/v1/auth/verify";

fn post(path: &str, body: &Value) -> Request<Body> {
    request("POST", path, None, Some(body.clone()))
}

/// Sends all requests at the same moment.
async fn at_once(router: &Router, requests: Vec<Request<Body>>) -> Vec<Answer> {
    let mut tasks = JoinSet::new();
    for request in requests {
        let router = router.clone();
        tasks.spawn(async move { send(&router, request).await });
    }
    tasks.join_all().await
}

/// How many were let through; all others must have been refused like this.
fn winners(answers: &[Answer], refusal: (u16, &str)) -> usize {
    let (won, lost): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.status == 200);
    for answer in lost {
        assert_eq!(answer.outcome(), refusal, "{}", answer.text);
    }
    won.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_parallel_refreshes_of_one_token_exactly_one_wins() {
    let app = App::new().await;
    for round in 0..ROUNDS {
        let person = app.miner(1).await;
        let body = json!({ "refresh_token": person.refresh });
        let requests = (0..PARALLEL).map(|_| post("/api/v1/auth/refresh", &body)).collect();

        let answers = at_once(&app.router, requests).await;

        assert_eq!(winners(&answers, (401, "AUTH_REFRESH_REUSED")), 1, "round {round}");
        let live = app.db.number("SELECT count(*) FROM refresh_tokens WHERE NOT is_revoked").await;
        assert_eq!(live, 0, "the others were reuse, which ends the winner's session too");
    }
    assert_eq!(app.audited("auth.token_refresh", "success").await, ROUNDS as i64);
    let lost = (ROUNDS * (PARALLEL - 1)) as i64;
    assert_eq!(app.audited("auth.token_reuse_detected", "denied").await, lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_parallel_proofs_of_one_challenge_exactly_one_signs_in() {
    let app = App::new().await;
    let key = wallet(1);
    for round in 0..ROUNDS {
        let body = challenge(&app, &address_of(&key)).await.signed_by(&key);
        let requests = (0..PARALLEL).map(|_| post(VERIFY, &body)).collect();

        let answers = at_once(&app.router, requests).await;

        assert_eq!(winners(&answers, (400, "AUTH_CHALLENGE_EXPIRED")), 1, "round {round}");
    }
    assert_eq!(app.db.number("SELECT login_count::BIGINT FROM users").await, ROUNDS as i64);
    assert_eq!(app.audited("auth.login", "success").await, ROUNDS as i64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_parallel_connects_without_a_nonce_exactly_one_signs_in() {
    let app = App::new().await;
    let key = wallet(1);
    let mut body = challenge(&app, &address_of(&key)).await.signed_by(&key);
    body.as_object_mut().unwrap().remove("nonce");
    let requests = (0..PARALLEL).map(|_| post("/api/v1/auth/connect", &body)).collect();

    let answers = at_once(&app.router, requests).await;

    assert_eq!(winners(&answers, (401, "AUTH_SIGNATURE_INVALID")), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_first_sign_ins_of_one_wallet_create_one_user() {
    let app = App::new().await;
    let key = wallet(1);
    let mut requests = Vec::new();
    for _ in 0..10 {
        requests.push(post(VERIFY, &challenge(&app, &address_of(&key)).await.signed_by(&key)));
    }

    let answers = at_once(&app.router, requests).await;

    assert_eq!(winners(&answers, (0, "")), 10);
    let first = &answers[0].json["user"]["id"];
    assert!(answers.iter().all(|answer| answer.json["user"]["id"] == *first));
    assert_eq!(app.db.number("SELECT count(*) FROM users").await, 1);
    assert_eq!(app.db.number("SELECT login_count::BIGINT FROM users").await, 10);
    assert_eq!(app.db.number("SELECT count(*) FROM wallet_credentials").await, 1);
    assert_eq!(app.db.number("SELECT count(*) FROM wallet_address_history").await, 1);
    let topics: Vec<String> = events(&app).await.into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(topics, ["UserRegistered", "AddressProven"]);
    let logins = audit(&app, "auth.login").await;
    assert_eq!(logins.iter().filter(|row| row["details"]["new_user"] == true).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_adoptions_of_an_imported_row_keep_one_user() {
    let app = App::new().await;
    let key = wallet(1);
    let imported = app.db.user(&address_of(&key)).await;
    let mut requests = Vec::new();
    for _ in 0..10 {
        requests.push(post(VERIFY, &challenge(&app, &address_of(&key)).await.signed_by(&key)));
    }

    let answers = at_once(&app.router, requests).await;

    assert_eq!(winners(&answers, (0, "")), 10);
    assert!(answers.iter().all(|answer| answer.json["user"]["id"] == imported));
    assert_eq!(app.db.number("SELECT count(*) FROM users").await, 1);
    assert_eq!(events(&app).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_claims_of_one_wallet_take_it_over_once() {
    let app = App::new().await;
    let typist = app.register("a@example.com", 1).await;
    let key = wallet(1);
    let mut requests = Vec::new();
    for _ in 0..10 {
        let body = challenge(&app, &address_of(&key)).await.signed_by(&key);
        requests.push(post(VERIFY, &and(body, "claim", json!(true))));
    }

    let answers = at_once(&app.router, requests).await;

    assert_eq!(winners(&answers, (0, "")), 10);
    let owner = &answers[0].json["user"]["id"];
    assert_ne!(*owner, typist.id);
    assert!(answers.iter().all(|answer| answer.json["user"]["id"] == *owner));
    assert_eq!(app.db.number("SELECT count(*) FROM users").await, 2);
    assert_eq!(app.db.number("SELECT count(*) FROM users WHERE btc_address IS NULL").await, 1);
    assert_eq!(app.audited("user.wallet_claimed", "success").await, 1);
    assert_eq!(app.audited("auth.login", "success").await, 10);
    let notices = events(&app).await.into_iter().filter(|(topic, _)| topic == "Notify").count();
    assert_eq!(notices, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_parallel_links_of_one_wallet_to_two_accounts_one_gets_it() {
    let app = App::new().await;
    let (one, two) = (app.miner(1).await, app.miner(2).await);
    let key = wallet(3);
    let mut requests = Vec::new();
    for person in [&one, &two] {
        let body = json!({ "btc_address": address_of(&key) });
        let path = "/api/v1/auth/link-wallet/challenge";
        let issued = app.post(path, Some(&person.access), body).await.ok();
        let signed = super::wallet_sign_in::Challenge::of(&issued).signed_by(&key);
        let path = "/api/v1/auth/link-wallet/verify";
        requests.push(request("POST", path, Some(&person.access), Some(signed)));
    }

    let answers = at_once(&app.router, requests).await;

    assert_eq!(winners(&answers, (409, "WALLET_IN_USE")), 1);
    assert_eq!(app.db.number("SELECT count(*) FROM wallet_credentials").await, 3);
}
