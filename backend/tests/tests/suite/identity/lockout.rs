//! Wrong passwords: what they are answered, and how they lock an e-mail, known or not (contract
//! `auth-users.md` §4.3, §13, §16 item 10).

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tbg_core::{Clock as _, UserId};
use tbg_tests::app::{Answer, App, request, send};
use tbg_tests::at;
use tokio::task::JoinSet;

use super::wallet_sign_in::{audit, audit_text};

pub(super) const EMAIL: &str = "miner@example.com";
/// SHA-256 of [`EMAIL`], from the contract.
const EMAIL_HASH: &str = "114e184d0d596a4f81aae2a113eeaa84e65edb582d88677bae82cc6345313416";
/// An e-mail that has no account.
const NOBODY: &str = "nobody@example.com";
pub(super) const PASSWORD: &str = "Abcdefg1";
pub(super) const WRONG: &str = "Abcdefg2";
/// [`PASSWORD`] under parameters of long ago: checking it costs next to nothing.
pub(super) const CHEAP_HASH: &str =
    "$argon2id$v=19$m=16,t=1,p=1$AAECAwQFBgcICQoLDA0ODw$ksxcqSmk+3w1uY4RpWK9+NxkHpgv27QzNRKUoanI1Yk";

pub(super) const INVALID: (u16, &str) = (401, "AUTH_INVALID_CREDENTIALS");
pub(super) const LOCKED: (u16, &str) = (429, "ACCOUNT_LOCKED");
const LOGIN: &str = "/api/v1/auth/login";
const START: &str = "2026-03-15T14:30:00Z";

/// An account with an e-mail and [`PASSWORD`], under its cheap hash.
pub(super) async fn account(app: &App, email: &str) -> i64 {
    sqlx::query_scalar(
        "INSERT INTO users (auth_method, email, password_hash) VALUES ('email', $1, $2) RETURNING id",
    )
    .bind(email)
    .bind(CHEAP_HASH)
    .fetch_one(&app.db.pool)
    .await
    .unwrap()
}

/// Gives every account its cheap hash back, which a sign-in has renewed.
async fn make_cheap(app: &App) {
    sqlx::query("UPDATE users SET password_hash = $1").bind(CHEAP_HASH).execute(&app.db.pool).await.unwrap();
}

pub(super) async fn login(app: &App, email: &str, password: &str) -> Answer {
    app.post(LOGIN, None, json!({ "email": email, "password": password })).await
}

/// As if [`EMAIL`] had failed so often just now.
pub(super) async fn failed_before(app: &App, count: i32) {
    sqlx::query(
        "INSERT INTO login_attempts (email_hash, failed_count, window_started_at, updated_at)
         VALUES ($1, $2, $3, $3)",
    )
    .bind(EMAIL_HASH)
    .bind(count)
    .bind(app.clock.now())
    .execute(&app.db.pool)
    .await
    .unwrap();
}

/// As if [`EMAIL`] had been locked just now.
pub(super) async fn locked_before(app: &App) {
    failed_before(app, 0).await;
    sqlx::query("UPDATE login_attempts SET locked_until = $1")
        .bind(app.clock.now() + TimeDelta::seconds(900))
        .execute(&app.db.pool)
        .await
        .unwrap();
}

/// Failures, start of the window and end of the lock, for each e-mail.
async fn attempts(app: &App) -> Vec<(i32, DateTime<Utc>, Option<DateTime<Utc>>)> {
    sqlx::query_as("SELECT failed_count, window_started_at, locked_until FROM login_attempts")
        .fetch_all(&app.db.pool)
        .await
        .unwrap()
}

/// All that an answer tells.
fn told(answer: &Answer) -> (u16, Value, &str) {
    let mut body = answer.json.clone();
    body["request_id"] = Value::Null;
    (answer.status, body, answer.header("retry-after"))
}

fn short_hash() -> &'static str {
    &EMAIL_HASH[..16]
}

/// Acceptance example 10.
#[tokio::test]
async fn ten_failures_lock_an_email_for_fifteen_minutes_whether_or_not_it_has_an_account() {
    let app = App::at(at(START)).await;
    account(&app, EMAIL).await;
    for second in 0..10 {
        let (known, unknown) = tokio::join!(login(&app, EMAIL, WRONG), login(&app, NOBODY, WRONG));
        assert_eq!(known.outcome(), INVALID, "t={second}");
        assert_eq!(told(&known), told(&unknown), "t={second}");
        assert_eq!(known.header("www-authenticate"), "", "no access token is at fault");
        app.clock.advance(TimeDelta::seconds(1));
    }

    let (known, unknown) = tokio::join!(login(&app, EMAIL, PASSWORD), login(&app, NOBODY, PASSWORD));

    assert_eq!(known.outcome(), LOCKED);
    assert_eq!(known.header("retry-after"), "899");
    assert!(known.json["detail"].as_str().unwrap().contains("locked"), "{}", known.text);
    assert_eq!(told(&known), told(&unknown));

    app.clock.set(at(START) + TimeDelta::seconds(910));
    assert_eq!(login(&app, EMAIL, PASSWORD).await.status, 200);
    assert_eq!(login(&app, NOBODY, PASSWORD).await.outcome(), INVALID);
}

#[tokio::test]
async fn a_success_takes_all_failures_back() {
    let app = App::at(at(START)).await;
    account(&app, EMAIL).await;
    for round in 0..2 {
        for failure in 0..9 {
            assert_eq!(login(&app, EMAIL, WRONG).await.outcome(), INVALID, "{round} {failure}");
        }
        assert_eq!(login(&app, EMAIL, PASSWORD).await.status, 200, "{round}");
        assert!(attempts(&app).await.is_empty());
        make_cheap(&app).await;
    }
}

#[tokio::test]
async fn the_window_opens_at_the_first_failure_and_closes_after_900_seconds() {
    let app = App::at(at(START)).await;
    account(&app, EMAIL).await;
    assert_eq!(login(&app, EMAIL, WRONG).await.outcome(), INVALID);
    let reopened = at(START) + TimeDelta::seconds(901);
    for second in 0..9 {
        app.clock.set(reopened + TimeDelta::seconds(second));
        assert_eq!(login(&app, EMAIL, WRONG).await.outcome(), INVALID, "t={}", 901 + second);
    }

    assert_eq!(attempts(&app).await, [(9, reopened, None)]);
    assert_eq!(login(&app, EMAIL, PASSWORD).await.status, 200);
}

#[tokio::test]
async fn a_lock_counts_nothing_and_ends_when_it_said() {
    let app = App::at(at(START)).await;
    account(&app, EMAIL).await;
    locked_before(&app).await;
    let before = attempts(&app).await;
    for (milliseconds, left) in [(0, "900"), (1_000, "899"), (1_500, "899"), (899_001, "1"), (899_999, "1")] {
        app.clock.set(at(START) + TimeDelta::milliseconds(milliseconds));
        for password in [PASSWORD, WRONG] {
            let answer = login(&app, EMAIL, password).await;
            assert_eq!((answer.outcome(), answer.header("retry-after")), (LOCKED, left), "{milliseconds} ms");
        }
    }
    assert_eq!(attempts(&app).await, before);

    app.clock.set(at(START) + TimeDelta::seconds(900));
    assert_eq!(login(&app, EMAIL, WRONG).await.outcome(), INVALID);
    assert_eq!(attempts(&app).await, [(1, at(START) + TimeDelta::seconds(900), None)], "it starts anew");
}

#[tokio::test]
async fn a_lock_is_one_of_an_email_in_all_its_spellings_and_of_no_other() {
    let app = App::new().await;
    account(&app, EMAIL).await;
    account(&app, "other@example.com").await;
    failed_before(&app, 9).await;

    assert_eq!(login(&app, "Miner@Example.COM", WRONG).await.outcome(), INVALID);

    for spelling in [EMAIL, " MINER@example.com "] {
        assert_eq!(login(&app, spelling, PASSWORD).await.outcome(), LOCKED, "{spelling}");
    }
    assert_eq!(login(&app, "other@example.com", PASSWORD).await.status, 200, "no lock on the client");
    let known = "SELECT count(*) FROM login_attempts WHERE email_hash <>
                 '114e184d0d596a4f81aae2a113eeaa84e65edb582d88677bae82cc6345313416'";
    assert_eq!(app.db.number(known).await, 0, "one row, and it holds no address");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_parallel_attempts_no_more_than_ten_are_checked() {
    let app = App::new().await;
    account(&app, EMAIL).await;
    failed_before(&app, 6).await;
    let mut tasks = JoinSet::new();
    for _ in 0..12 {
        let (router, body) = (app.router.clone(), json!({ "email": EMAIL, "password": WRONG }));
        tasks.spawn(async move { send(&router, request("POST", LOGIN, None, Some(body))).await });
    }

    let answers = tasks.join_all().await;

    let how_many = |outcome: (u16, &str)| answers.iter().filter(|answer| answer.outcome() == outcome).count();
    assert_eq!((how_many(INVALID), how_many(LOCKED)), (4, 8));
    assert_eq!(app.audited("auth.account_locked", "denied").await, 1);
}

#[tokio::test]
async fn each_failure_is_audited_once_and_without_the_email() {
    let app = App::new().await;
    account(&app, EMAIL).await;
    failed_before(&app, 9).await;

    assert_eq!(login(&app, EMAIL, WRONG).await.outcome(), INVALID);
    assert_eq!(login(&app, EMAIL, PASSWORD).await.outcome(), LOCKED);
    assert_eq!(login(&app, NOBODY, WRONG).await.outcome(), INVALID);

    let failures = audit(&app, "auth.failed_login").await;
    let seen: Vec<Value> = failures
        .iter()
        .map(|row| json!([row["type"], row["status"], row["details"]["method"], row["details"]["reason"]]))
        .collect();
    let expected = [
        json!(["user", "failure", "email", "bad_password"]),
        json!(["user", "denied", "email", "locked"]),
        json!(["user", "failure", "email", "unknown_email"]),
    ];
    assert_eq!(seen, expected);
    let locks = audit(&app, "auth.account_locked").await;
    assert_eq!((locks.len(), &locks[0]["status"]), (1, &json!("denied")));
    for row in [&failures[0], &failures[1], &locks[0]] {
        assert_eq!(row["details"]["email_hash"], short_hash());
    }
    assert_eq!(failures[2]["details"]["email_hash"].as_str().unwrap().len(), 16);
    let log = audit_text(&app).await;
    for secret in ["@", EMAIL_HASH, PASSWORD, WRONG] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[tokio::test]
async fn a_ban_is_told_only_to_who_knows_the_password() {
    let app = App::new().await;
    let id = account(&app, EMAIL).await;
    tbg_identity::roles::ban(&app.db.pool, UserId(id), "test", true, app.clock.now()).await.unwrap().unwrap();

    let (wrong, unknown) = tokio::join!(login(&app, EMAIL, WRONG), login(&app, NOBODY, WRONG));
    assert_eq!(wrong.outcome(), INVALID);
    assert_eq!(told(&wrong), told(&unknown));
    assert_eq!(login(&app, EMAIL, PASSWORD).await.outcome(), (403, "ACCOUNT_BANNED"));

    let denied: Vec<Value> = audit(&app, "auth.failed_login").await;
    let denied: Vec<&Value> = denied.iter().filter(|row| row["status"] == "denied").collect();
    let expected = json!({
        "user": id.to_string(), "status": "denied", "type": "user", "id": id.to_string(),
        "details": { "method": "email", "reason": "banned" },
    });
    assert_eq!(denied, [&expected]);
    assert_eq!(app.db.number("SELECT count(*) FROM refresh_tokens").await, 0);
    assert_eq!(app.db.number("SELECT login_count::BIGINT FROM users").await, 0);
    assert_eq!(attempts(&app).await.len(), 1, "the right password took its failures back");
}
