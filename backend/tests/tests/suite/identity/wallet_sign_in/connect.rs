//! The one-call form (contract `auth-users.md` §4.2, §16 item 4).

use serde_json::{Value, json};
use tbg_tests::app::{Answer, App, request, send};
use tbg_tests::people::{address_of, wallet};
use tbg_web::limit::Limits;

use super::accounts::type_in;
use super::{BAD_SIGNATURE, EXPIRED, and, audit, challenge, verify};

const PATH: &str = "/api/v1/auth/connect";

async fn connect(app: &App, body: Value) -> Answer {
    app.post(PATH, None, body).await
}

fn without_nonce(mut body: Value) -> Value {
    body.as_object_mut().unwrap().remove("nonce");
    body
}

#[tokio::test]
async fn five_bad_proofs_a_minute_are_refused_and_the_rest_must_wait() {
    let app = App::new().await;
    let production = app.limited_replica(Limits::default());
    let body = json!({ "btc_address": "bc1qtest", "signature": "test" });
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(send(&production, request("POST", PATH, None, Some(body.clone()))).await);
    }

    let (refused, limited) = answers.split_at(5);
    for answer in refused {
        assert_eq!(answer.outcome(), BAD_SIGNATURE);
        assert_eq!(answer.header("x-ratelimit-limit"), "5");
    }
    for answer in limited {
        assert_eq!(answer.outcome(), (429, "RATE_LIMITED"));
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
    assert_eq!(app.audited("auth.failed_login", "failure").await, 5);
}

#[tokio::test]
async fn a_body_without_a_signature_is_not_a_failed_proof() {
    let app = App::new().await;

    let answer = connect(&app, json!({ "btc_address": "bc1qtest" })).await;

    assert_eq!(answer.outcome(), (422, "VALIDATION_ERROR"));
    let error = &answer.json["errors"][0];
    assert_eq!((&error["field"], &error["type"]), (&json!("body.signature"), &json!("missing")));
    assert_eq!(answer.json["errors"].as_array().unwrap().len(), 1);
    assert!(audit(&app, "auth.failed_login").await.is_empty());
}

#[tokio::test]
async fn every_failure_of_a_proof_is_the_same_401() {
    let app = App::new().await;
    let key = wallet(1);
    let waiting = challenge(&app, &address_of(&key)).await;
    let good = waiting.signed_by(&key);
    let other = challenge(&app, &address_of(&wallet(2))).await.signed_by(&wallet(2));
    let signed = good["signature"].as_str().unwrap();
    let p2wsh = "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3";
    let mut details = Vec::new();
    for body in [
        json!({ "btc_address": "bc1qtest", "signature": "test" }),
        json!({ "btc_address": "bc1qtest1234", "signature": "test_sig" }),
        json!({ "btc_address": "tb1q9vza2e8x573nczrlzms0wvx3gsqjx7vaxwd45v", "signature": signed }),
        json!({ "btc_address": p2wsh, "signature": signed }),
        json!({ "btc_address": address_of(&wallet(3)), "signature": signed }),
        json!({ "btc_address": address_of(&key), "signature": "test" }),
        json!({ "btc_address": address_of(&key), "signature": other["signature"] }),
        and(good.clone(), "nonce", json!("0".repeat(32))),
    ] {
        let answer = connect(&app, body).await;

        assert_eq!(answer.outcome(), BAD_SIGNATURE, "{}", answer.text);
        assert_eq!(answer.header("www-authenticate"), "");
        details.push(answer.json["detail"].clone());
    }

    details.dedup();
    assert_eq!(details.len(), 1, "{details:?}");
    assert_eq!(app.audited("auth.failed_login", "failure").await, 8);
    // None of them used the waiting challenge up.
    assert_eq!(connect(&app, good).await.status, 200);
}

#[tokio::test]
async fn without_a_nonce_the_challenge_that_was_signed_is_found_and_only_that_one_is_used_up() {
    let app = App::new().await;
    let key = wallet(1);
    let address = address_of(&key);
    let older = challenge(&app, &address).await;
    app.clock.advance(chrono::TimeDelta::seconds(1));
    let newer = challenge(&app, &address).await;
    let body = without_nonce(older.signed_by(&key));

    let signed_in = connect(&app, body.clone()).await.ok();
    let again = connect(&app, body).await;
    let rest = verify(&app, newer.signed_by(&key)).await;

    assert_eq!(signed_in["user"]["btc_address"], address);
    assert_eq!((&signed_in["token_type"], &signed_in["expires_in"]), (&json!("bearer"), &json!(3600)));
    assert_eq!(again.outcome(), BAD_SIGNATURE);
    assert_eq!(rest.status, 200, "{}", rest.text);
    assert_eq!(app.audited("auth.login", "success").await, 2);
}

#[tokio::test]
async fn a_nonce_selects_the_challenge_and_uses_it_up() {
    let app = App::new().await;
    let key = wallet(1);
    let address = address_of(&key);
    let (first, second) = (challenge(&app, &address).await, challenge(&app, &address).await);
    let mixed = and(first.signed_by(&key), "nonce", json!(second.nonce));

    let refused = connect(&app, mixed).await;
    let used_up = verify(&app, second.signed_by(&key)).await;
    let accepted = connect(&app, first.signed_by(&key)).await;

    assert_eq!(refused.outcome(), BAD_SIGNATURE);
    assert_eq!(used_up.outcome(), EXPIRED);
    assert_eq!(accepted.status, 200, "{}", accepted.text);
}

#[tokio::test]
async fn an_expired_challenge_proves_nothing() {
    let app = App::new().await;
    let key = wallet(1);
    let body = without_nonce(challenge(&app, &address_of(&key)).await.signed_by(&key));
    app.clock.advance(chrono::TimeDelta::seconds(302));

    assert_eq!(connect(&app, body).await.outcome(), BAD_SIGNATURE);
}

#[tokio::test]
async fn what_follows_the_proof_is_that_of_verify() {
    let app = App::new().await;
    let typist = app.miner(1).await;
    type_in(&app, &typist, 2).await;
    let signed = async || {
        let key = wallet(2);
        without_nonce(challenge(&app, &address_of(&key)).await.signed_by(&key))
    };

    let unlinked = connect(&app, signed().await).await;
    let claimed = connect(&app, and(signed().await, "claim", json!(true))).await.ok();
    sqlx::query("UPDATE users SET is_banned = TRUE").execute(&app.db.pool).await.unwrap();
    let banned = connect(&app, signed().await).await;

    assert_eq!(unlinked.outcome(), (409, "WALLET_UNLINKED"));
    assert_ne!(claimed["user"]["id"], typist.id);
    assert_eq!(banned.outcome(), (403, "ACCOUNT_BANNED"));
}
