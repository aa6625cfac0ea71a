//! Sessions of banned and deleted users, under new keys, and without Redis (contract `auth-users.md` §3,
//! §4, §11, §15, §16 item 9).

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use axum::Router;
use serde_json::{Value, json};
use tbg_core::{Clock as _, UserId};
use tbg_tests::app::{AUDIENCE, Answer, App, ISSUER, SIGNING_KEY, new_key, request, send};
use tbg_tests::people::{Person, address_of, wallet};
use tbg_web::auth::Keys;

use super::super::wallet_sign_in::{challenge, verify};
use super::{INVALID, audit, logout, me, reasons, refresh, renewed};

const BANNED: (u16, &str) = (403, "ACCOUNT_BANNED");
const AWAY: (u16, &str) = (503, "SERVICE_UNAVAILABLE");

async fn ban(app: &App, person: &Person, banned: bool) {
    let (user, now) = (UserId(person.id), app.clock.now());
    let change = tbg_identity::roles::ban(&app.db.pool, user, "test", banned, now).await.unwrap().unwrap();
    tbg_identity::roles::publish(&mut app.redis.manager(), &change).await.unwrap();
}

async fn login(app: &App, email: &str, password: &str) -> Answer {
    app.post("/api/v1/auth/login", None, json!({ "email": email, "password": password })).await
}

#[tokio::test]
async fn a_banned_user_gets_no_tokens_on_any_way() {
    let app = App::new().await;
    let miner = app.miner(1).await;
    let typist = app.register("a@example.com", 2).await;
    ban(&app, &miner, true).await;
    ban(&app, &typist, true).await;

    let by_wallet = app.connect(&wallet(1), false).await;
    let by_refresh = refresh(&app, &miner.refresh).await;
    let by_email = login(&app, "a@example.com", "Abcdefg1").await;
    let wrong_password = login(&app, "a@example.com", "Abcdefg2").await;

    assert_eq!(by_wallet.outcome(), BANNED);
    assert_eq!(by_refresh.outcome(), BANNED);
    assert_eq!(by_email.outcome(), BANNED);
    assert_eq!(
        wrong_password.outcome(),
        (401, "AUTH_INVALID_CREDENTIALS"),
        "the ban is told to its owner only"
    );
    assert_eq!(app.db.number("SELECT count(*) FROM refresh_tokens WHERE NOT is_revoked").await, 0);
    assert_eq!(app.db.number("SELECT max(login_count)::BIGINT FROM users").await, 1);
    let failures = audit(&app, "auth.failed_login").await;
    let denied: Vec<&Value> = failures.iter().filter(|row| row["status"] == "denied").collect();
    let expected = |person: &Person, method: &str| {
        json!({
            "user": person.id.to_string(), "status": "denied", "type": "user", "id": person.id.to_string(),
            "details": { "method": method, "reason": "banned" },
        })
    };
    assert_eq!(denied, [&expected(&miner, "wallet"), &expected(&typist, "email")]);
    assert_eq!(reasons(&audit(&app, "auth.token_refresh").await), ["banned"]);
}

#[tokio::test]
async fn a_ban_that_ended_no_session_yet_ends_it_at_the_next_refresh() {
    let app = App::new().await;
    let person = app.miner(1).await;
    sqlx::query("UPDATE users SET is_banned = TRUE").execute(&app.db.pool).await.unwrap();

    assert_eq!(refresh(&app, &person.refresh).await.outcome(), BANNED);

    let ended = app.db.rows("SELECT is_revoked, revoke_reason FROM refresh_tokens").await;
    assert_eq!(ended, [r#"{"is_revoked": true, "revoke_reason": "banned"}"#]);
}

#[tokio::test]
async fn after_a_ban_people_sign_in_again_and_old_tokens_stay_void() {
    let app = App::new().await;
    let before = app.miner(1).await;
    ban(&app, &before, true).await;
    ban(&app, &before, false).await;

    let old = refresh(&app, &before.refresh).await;
    let after = app.miner(1).await;

    assert_eq!(old.outcome(), INVALID);
    assert_eq!(after.id, before.id);
    assert_eq!(renewed(&app, &after).await.id, before.id);
}

#[tokio::test]
async fn a_deleted_users_tokens_are_void_and_the_wallet_starts_anew() {
    let app = App::new().await;
    let (person, device) = (app.miner(1).await, app.miner(1).await);
    let confirm = json!({ "confirm": "DELETE" });
    let gone = app.ask("DELETE", "/api/v1/users/me", Some(&person.access), Some(confirm)).await;
    assert_eq!(gone.ok(), json!({ "status": "account_deleted" }));

    for old in [&person, &device] {
        assert_eq!(me(&app, old).await.outcome(), (401, "AUTH_TOKEN_REVOKED"));
        assert_eq!(refresh(&app, &old.refresh).await.outcome(), INVALID);
        assert_eq!(logout(&app, &old.refresh).await.status, 200);
    }
    let new = app.connect(&wallet(1), false).await.ok();
    assert_ne!(new["user"]["id"], person.id);
    assert_eq!(new["user"]["login_count"], 1);
    assert!(audit(&app, "auth.logout").await.is_empty());
}

#[tokio::test]
async fn a_deleted_user_cannot_sign_in_by_email() {
    let app = App::new().await;
    let person = app.register("a@example.com", 1).await;
    let confirm = json!({ "confirm": "DELETE" });
    let gone = app.ask("DELETE", "/api/v1/users/me", Some(&person.access), Some(confirm)).await;
    assert_eq!(gone.status, 200, "{}", gone.text);

    let answer = login(&app, "a@example.com", "Abcdefg1").await;

    assert_eq!(answer.outcome(), (401, "AUTH_INVALID_CREDENTIALS"));
}

/// The public half of a private key, in PEM.
fn public_pem(private_pem: &str) -> String {
    let private = pem::parse(private_pem).unwrap();
    let pair = KeyPair::from_pkcs8(private.contents()).unwrap();
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    pem::encode(&pem::Pem::new("PUBLIC KEY", der.as_ref()))
}

async fn me_at(router: &Router, token: &str) -> Answer {
    send(router, request("GET", "/api/v1/auth/me", Some(token), None)).await
}

async fn refresh_at(router: &Router, token: &str) -> Answer {
    let body = json!({ "refresh_token": token });
    send(router, request("POST", "/api/v1/auth/refresh", None, Some(body))).await
}

async fn key_ids(router: &Router) -> Vec<String> {
    let answer = send(router, request("GET", "/.well-known/jwks.json", None, None)).await;
    assert_eq!(answer.header("cache-control"), "public, max-age=300");
    let keys = answer.ok()["keys"].as_array().unwrap().clone();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_old_key_verifies_until_it_is_removed() {
    let app = App::new().await;
    let (person, late) = (app.miner(1).await, app.miner(1).await);
    let new = new_key();
    let keys = |old: &[String]| Keys::new(&new, old, ISSUER, AUDIENCE).unwrap();
    let rotated = app.replica(keys(&[public_pem(&SIGNING_KEY)]));
    let removed = app.replica(keys(&[]));

    let old_token = me_at(&rotated, &person.access).await;
    let refreshed = refresh_at(&rotated, &person.refresh).await.ok();
    let new_token = refreshed["access_token"].as_str().unwrap();
    let after_removal = me_at(&removed, &person.access).await;

    assert_eq!(old_token.status, 200, "{}", old_token.text);
    assert_eq!(me_at(&rotated, new_token).await.status, 200);
    assert_eq!(me_at(&removed, new_token).await.status, 200, "the refresh signed with the new key");
    assert_eq!(app.get("/api/v1/auth/me", Some(new_token)).await.outcome(), (401, "AUTH_TOKEN_INVALID"));
    assert_eq!(after_removal.outcome(), (401, "AUTH_TOKEN_INVALID"));
    assert_eq!(refresh_at(&removed, &late.refresh).await.outcome(), INVALID);
    let (before, during, after) =
        (key_ids(&app.router).await, key_ids(&rotated).await, key_ids(&removed).await);
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_eq!(during, [after[0].clone(), before[0].clone()], "the signing key comes first");
}

#[tokio::test]
async fn without_redis_tokens_and_emails_work_and_wallets_wait() {
    let mut app = App::new().await;
    let person = app.register("a@example.com", 1).await;
    let key = wallet(2);
    let issued = challenge(&app, &address_of(&key)).await;
    app.redis.server.kill().await.unwrap();

    let by_token = app.get("/api/v1/users/me", Some(&person.access)).await;
    let asked = app.post("/api/v1/auth/challenge", None, json!({ "btc_address": address_of(&key) })).await;
    let verified = verify(&app, issued.signed_by(&key)).await;
    let connected = app.post("/api/v1/auth/connect", None, issued.signed_by(&key)).await;
    let by_email = login(&app, "a@example.com", "Abcdefg1").await;
    let refreshed = refresh(&app, &person.refresh).await;

    assert_eq!(by_token.status, 200, "{}", by_token.text);
    for answer in [&asked, &verified, &connected] {
        assert_eq!(answer.outcome(), AWAY);
        assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    }
    assert_eq!(by_email.status, 200, "{}", by_email.text);
    assert_eq!(Person::of(&by_email.json).id, person.id);
    assert_eq!(refreshed.status, 200, "{}", refreshed.text);
    assert_eq!(logout(&app, refreshed.json["refresh_token"].as_str().unwrap()).await.status, 200);
}

#[tokio::test]
async fn without_redis_reuse_still_voids_older_access_tokens() {
    let mut app = App::new().await;
    let first = app.miner(1).await;
    app.redis.server.kill().await.unwrap();
    let second = renewed(&app, &first).await;
    app.clock.advance(chrono::TimeDelta::seconds(1));

    assert_eq!(refresh(&app, &first.refresh).await.outcome(), (401, "AUTH_REFRESH_REUSED"));

    assert_eq!(me(&app, &second).await.outcome(), (401, "AUTH_TOKEN_REVOKED"));
    assert_eq!(app.db.number("SELECT count(*) FROM refresh_tokens WHERE NOT is_revoked").await, 0);
}
