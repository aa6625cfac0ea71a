//! Forgotten, reset, changed and renewed passwords (contract `auth-users.md` §4, §4.3, §4.5, §5, §13, §15).

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tbg_core::Clock as _;
use tbg_tests::app::{Answer, App};
use tbg_tests::people::Person;

use super::lockout::{
    CHEAP_HASH, EMAIL, INVALID, LOCKED, PASSWORD, WRONG, account, failed_before, locked_before, login,
};
use super::verification::{Post, TOKEN_EXPIRED, TOKEN_INVALID, TOKEN_USED};
use super::wallet_sign_in::{audit, audit_text};

const RESET_PAGE: &str = "/auth/reset-password";
const NEW: &str = "Hijklmn2";
const REVOKED: (u16, &str) = (401, "AUTH_TOKEN_REVOKED");
const INCORRECT: (u16, &str) = (401, "AUTH_PASSWORD_INCORRECT");
const WEAK: (u16, &str) = (400, "WEAK_PASSWORD");
const ATTEMPTS: &str = "SELECT count(*) FROM login_attempts";

async fn forget(app: &App, email: &str) -> Answer {
    app.post("/api/v1/auth/forgot-password", None, json!({ "email": email })).await
}

async fn reset(app: &App, token: &str, password: &str) -> Answer {
    let body = json!({ "token": token, "new_password": password });
    app.post("/api/v1/auth/reset-password", None, body).await
}

async fn change(app: &App, person: &Person, current: &str, new: &str) -> Answer {
    let body = json!({ "current_password": current, "new_password": new });
    app.post("/api/v1/auth/change-password", Some(&person.access), body).await
}

async fn me(app: &App, person: &Person) -> Answer {
    app.get("/api/v1/auth/me", Some(&person.access)).await
}

async fn refresh(app: &App, person: &Person) -> Answer {
    app.post("/api/v1/auth/refresh", None, json!({ "refresh_token": person.refresh })).await
}

/// A token from a mail that [`EMAIL`] has just asked for.
async fn reset_token(post: &Post) -> String {
    assert_eq!(forget(&post.app, EMAIL).await.status, 200);
    post.token(EMAIL, RESET_PAGE).await
}

async fn stored_hash(app: &App) -> String {
    sqlx::query_scalar("SELECT password_hash FROM users").fetch_one(&app.db.pool).await.unwrap()
}

/// The audit row of something that a user did to the own account.
fn done_by(user: i64, details: Value) -> Value {
    let user = user.to_string();
    json!({ "user": user, "status": "success", "type": "user", "id": user, "details": details })
}

#[tokio::test]
async fn a_forgotten_password_is_answered_the_same_for_everybody_and_mailed_to_who_has_one() {
    let app = App::new().await;
    let id = account(&app, EMAIL).await;

    let known = forget(&app, " Miner@Example.com").await;
    let unknown = forget(&app, "nobody@example.com").await;

    assert_eq!((known.status, &known.text), (unknown.status, &unknown.text));
    assert_eq!(known.ok(), json!({ "status": "reset_requested" }));
    let queued = app.db.rows("SELECT user_id, to_address, template, context FROM email_outbox").await;
    let queued: Vec<Value> = queued.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    let mail = json!({
        "user_id": id, "to_address": EMAIL, "template": "password_reset",
        "context": { "requested_from": "0.0.0.0" },
    });
    assert_eq!(queued, [mail]);
    let rows = audit(&app, "auth.password_reset_requested").await;
    assert_eq!(rows.len(), 2, "one for each request");
    assert_eq!(rows[0], done_by(id, json!({ "email_hash": "114e184d0d596a4f" })));
    assert_eq!((&rows[1]["user"], &rows[1]["status"]), (&Value::Null, &json!("failure")));
    assert_eq!(rows[1]["details"]["email_hash"].as_str().unwrap().len(), 16);
    assert!(!audit_text(&app).await.contains('@'));
}

#[tokio::test]
async fn a_reset_sets_the_password_ends_every_session_and_lifts_the_lock() {
    let post = Post::new().await;
    let app = &post.app;
    let first = app.register(EMAIL, 1).await;
    let second = Person::of(&login(app, EMAIL, PASSWORD).await.ok());
    locked_before(app).await;
    assert_eq!(login(app, EMAIL, PASSWORD).await.outcome(), LOCKED);
    let token = reset_token(&post).await;

    let answer = reset(app, &token, NEW).await;

    assert_eq!(answer.ok(), json!({ "status": "password_reset_complete" }));
    for ended in [&first, &second] {
        assert_eq!(me(app, ended).await.outcome(), REVOKED);
        assert_eq!(refresh(app, ended).await.outcome(), (401, "AUTH_REFRESH_INVALID"));
    }
    let ended = "SELECT count(*) FROM refresh_tokens WHERE is_revoked AND revoke_reason = 'password_reset'";
    assert_eq!(app.db.number(ended).await, 2);
    let valid_from: DateTime<Utc> =
        sqlx::query_scalar("SELECT tokens_valid_from FROM users").fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(valid_from, app.clock.now());
    assert_eq!(app.db.number(ATTEMPTS).await, 0, "nothing is held against the e-mail");
    assert_eq!(login(app, EMAIL, PASSWORD).await.outcome(), INVALID, "the old password");
    let back = Person::of(&login(app, EMAIL, NEW).await.ok());
    assert_eq!(me(app, &back).await.status, 200, "a session of the same second is a new one");
    let mails = post.deliver().await;
    let notices: Vec<_> = mails.iter().filter(|mail| mail["template"] == "password_changed").collect();
    assert_eq!((notices.len(), &notices[0]["to"]), (1, &json!(EMAIL)));
    assert_eq!(audit(app, "auth.password_reset").await, [done_by(first.id, json!({}))]);
    let log = audit_text(app).await;
    for secret in ["@", token.as_str(), PASSWORD, NEW, "argon2"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[tokio::test]
async fn a_reset_link_works_once_and_a_weak_password_does_not_use_it_up() {
    let post = Post::new().await;
    let app = &post.app;
    account(app, EMAIL).await;
    let token = reset_token(&post).await;

    for weak in ["abcdefg1", "ABCDEFG1", "Abcdefgh", "Abc1"] {
        assert_eq!(reset(app, &token, weak).await.outcome(), WEAK, "{weak}");
    }
    let too_long = reset(app, &token, &format!("Ab1{}", "c".repeat(126))).await;
    assert_eq!(too_long.outcome(), (422, "VALIDATION_ERROR"));
    assert_eq!(too_long.json["errors"][0]["field"], "body.new_password");
    assert_eq!(stored_hash(app).await, CHEAP_HASH);
    assert_eq!(reset(app, &token, NEW).await.status, 200);
    let set = stored_hash(app).await;
    assert!(set.starts_with("$argon2id$v=19$m=65536,t=2,p=1$"), "{set}");
    assert_eq!(reset(app, &token, PASSWORD).await.outcome(), TOKEN_USED);
    assert_eq!(reset(app, &token, "weak").await.outcome(), WEAK, "the password is looked at first");

    assert_eq!(stored_hash(app).await, set);
    assert_eq!(post.queued("password_changed").await, 1);
    let rows = audit(app, "auth.password_reset").await;
    assert_eq!((&rows[0]["status"], &rows[1]["status"]), (&json!("success"), &json!("failure")));
    assert_eq!((rows.len(), &rows[1]["details"]), (2, &json!({ "reason": "used" })));
}

#[tokio::test]
async fn a_reset_link_works_for_an_hour() {
    let post = Post::new().await;
    let app = &post.app;
    account(app, EMAIL).await;
    let token = reset_token(&post).await;
    let issued = app.clock.now();

    app.clock.set(issued + TimeDelta::minutes(60));
    let late = reset(app, &token, NEW).await;
    app.clock.set(issued + TimeDelta::minutes(60) - TimeDelta::seconds(1));
    let in_time = reset(app, &token, NEW).await;

    assert_eq!(late.outcome(), TOKEN_EXPIRED);
    assert_eq!(in_time.status, 200, "{}", in_time.text);
    assert_eq!(audit(app, "auth.password_reset").await[0]["details"], json!({ "reason": "expired" }));
}

#[tokio::test]
async fn only_the_newest_reset_link_works_and_no_other_kind_of_link() {
    let post = Post::new().await;
    let app = &post.app;
    app.register(EMAIL, 1).await;
    let welcome = post.token(EMAIL, "/auth/verify-email").await;
    let (first, second) = (reset_token(&post).await, reset_token(&post).await);
    let verify = app.post("/api/v1/auth/verify-email", None, json!({ "token": second })).await;

    assert_eq!(verify.outcome(), TOKEN_INVALID);
    assert_eq!(reset(app, &welcome, NEW).await.outcome(), TOKEN_INVALID);
    assert_eq!(reset(app, &"t".repeat(64), NEW).await.outcome(), TOKEN_INVALID);
    assert_eq!(reset(app, &first, NEW).await.outcome(), TOKEN_USED);
    assert_eq!(reset(app, &second, NEW).await.status, 200);
    assert_eq!(app.audited("auth.password_reset", "success").await, 1);
}

#[tokio::test]
async fn of_two_resets_with_one_link_one_succeeds() {
    let post = Post::new().await;
    let app = &post.app;
    account(app, EMAIL).await;
    let token = reset_token(&post).await;

    let (one, other) = tokio::join!(reset(app, &token, NEW), reset(app, &token, PASSWORD));

    let (won, lost) = if one.status == 200 { (&one, &other) } else { (&other, &one) };
    assert_eq!((won.status, lost.outcome()), (200, TOKEN_USED));
    assert_eq!(app.audited("auth.password_reset", "success").await, 1);
    assert_eq!(post.queued("password_changed").await, 1);
}

#[tokio::test]
async fn a_change_ends_every_session_but_the_callers() {
    let post = Post::new().await;
    let app = &post.app;
    let own = app.register(EMAIL, 1).await;
    let other = Person::of(&login(app, EMAIL, PASSWORD).await.ok());
    failed_before(app, 3).await;

    let answer = change(app, &own, PASSWORD, NEW).await;

    assert_eq!(answer.ok(), json!({ "status": "password_changed" }));
    assert_eq!(me(app, &other).await.outcome(), REVOKED);
    assert_eq!(refresh(app, &other).await.outcome(), (401, "AUTH_REFRESH_INVALID"));
    assert_eq!(me(app, &own).await.status, 200);
    assert_eq!(refresh(app, &own).await.status, 200);
    let ended = "SELECT count(*) FROM refresh_tokens WHERE revoke_reason = 'password_change'";
    assert_eq!(app.db.number(ended).await, 1);
    let denied: i64 = redis::cmd("EXISTS")
        .arg(format!("auth:sid_revoked:{}", other.sid()))
        .query_async(&mut app.redis.manager())
        .await
        .unwrap();
    assert_eq!(denied, 1);
    assert_eq!(app.db.number(ATTEMPTS).await, 0);
    assert_eq!(login(app, EMAIL, PASSWORD).await.outcome(), INVALID, "the old password");
    assert_eq!(login(app, EMAIL, NEW).await.status, 200);
    let mails = post.deliver().await;
    assert_eq!(mails.iter().filter(|mail| mail["template"] == "password_changed").count(), 1);
    assert_eq!(audit(app, "auth.password_changed").await, [done_by(own.id, json!({}))]);
    let log = audit_text(app).await;
    for secret in ["@", PASSWORD, NEW, "argon2"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[tokio::test]
async fn a_wrong_current_password_counts_like_a_failed_sign_in() {
    let app = App::new().await;
    let person = app.register(EMAIL, 1).await;
    failed_before(&app, 9).await;

    let wrong = change(&app, &person, WRONG, NEW).await;

    assert_eq!(wrong.outcome(), INCORRECT);
    assert_eq!(wrong.header("www-authenticate"), "", "the access token is not at fault");
    let locked = change(&app, &person, PASSWORD, NEW).await;
    assert_eq!((locked.outcome(), locked.header("retry-after")), (LOCKED, "900"));
    assert_eq!(login(&app, EMAIL, PASSWORD).await.outcome(), LOCKED);
    assert_eq!(me(&app, &person).await.status, 200, "the session goes on");

    app.clock.advance(TimeDelta::seconds(900));
    assert_eq!(login(&app, EMAIL, PASSWORD).await.status, 200, "nothing was changed");
    let failures = audit(&app, "auth.failed_login").await;
    let reasons: Vec<&Value> = failures.iter().map(|row| &row["details"]["reason"]).collect();
    assert_eq!(reasons, ["bad_password", "locked", "locked"]);
    assert_eq!(app.audited("auth.account_locked", "denied").await, 1);
    assert!(audit(&app, "auth.password_changed").await.is_empty());
    assert!(!audit_text(&app).await.contains('@'));
}

#[tokio::test]
async fn what_is_no_change_is_refused_before_the_current_password_is_checked() {
    let app = App::new().await;
    let (miner, person) = (app.miner(2).await, app.register(EMAIL, 1).await);

    for new in ["abcdefg1", "ABCDEFG1", "Abcdefgh", "Abc1"] {
        assert_eq!(change(&app, &person, WRONG, new).await.outcome(), WEAK, "{new}");
    }
    let without_email = change(&app, &miner, PASSWORD, NEW).await;
    assert_eq!(without_email.outcome(), (400, "EMAIL_ACCOUNT_REQUIRED"));
    assert!(without_email.json["detail"].as_str().unwrap().contains("email"), "{}", without_email.text);
    for field in ["current_password", "new_password"] {
        let mut body = json!({ "current_password": PASSWORD, "new_password": NEW });
        body[field] = json!("A1".repeat(65));
        let answer = app.post("/api/v1/auth/change-password", Some(&person.access), body).await;
        assert_eq!(answer.outcome(), (422, "VALIDATION_ERROR"));
        assert_eq!(answer.json["errors"][0]["field"], format!("body.{field}"));
    }
    let body = json!({ "current_password": PASSWORD, "new_password": NEW });
    let nobody = app.post("/api/v1/auth/change-password", None, body).await;
    assert_eq!(nobody.outcome(), (401, "AUTH_REQUIRED"));

    assert_eq!(app.db.number(ATTEMPTS).await, 0);
    assert!(audit(&app, "auth.failed_login").await.is_empty());
}

#[tokio::test]
async fn a_hash_of_other_parameters_is_renewed_by_a_sign_in() {
    let app = App::new().await;
    account(&app, EMAIL).await;

    assert_eq!(login(&app, EMAIL, WRONG).await.outcome(), INVALID);
    assert_eq!(stored_hash(&app).await, CHEAP_HASH, "only the right password renews");
    assert_eq!(login(&app, EMAIL, PASSWORD).await.status, 200);
    let renewed = stored_hash(&app).await;
    assert!(renewed.starts_with("$argon2id$v=19$m=65536,t=2,p=1$"), "{renewed}");
    assert_eq!(login(&app, EMAIL, PASSWORD).await.status, 200, "it is the same password");
    assert_eq!(stored_hash(&app).await, renewed, "today's parameters stay");
}
