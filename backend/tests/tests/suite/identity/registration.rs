//! Registering and signing in by e-mail: what is checked in which order, what is answered and what is written
//! (contract `auth-users.md` §1.1, §1.2, §4, §4.3, §4.4, §16 items 11 and 12).

use std::collections::BTreeSet;

use axum::body::Body;
use chrono::TimeDelta;
use serde_json::{Value, json};
use tbg_tests::app::{Answer, App, request, send};
use tbg_tests::at;
use tbg_tests::people::{Person, address_of, wallet};
use tokio::task::JoinSet;

use super::lockout::{account, login};
use super::wallet_sign_in::accounts::type_in;
use super::wallet_sign_in::{and, audit, audit_text, events};

const REGISTER: &str = "/api/v1/auth/register";
const WEAK_PASSWORD: (u16, &str) = (400, "WEAK_PASSWORD");
const WALLET_IN_USE: (u16, &str) = (409, "WALLET_IN_USE");
/// How many rows there are of all that a registration writes.
const WRITTEN: &str = "SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM wallet_address_history)
     + (SELECT count(*) FROM domain_outbox) + (SELECT count(*) FROM email_outbox)
     + (SELECT count(*) FROM refresh_tokens) + (SELECT count(*) FROM audit_log)";

async fn register(app: &App, body: Value) -> Answer {
    app.post(REGISTER, None, body).await
}

/// A registration that nothing is wrong with.
fn form(email: &str, number: u64) -> Value {
    json!({ "email": email, "password": "Abcdefg1", "btc_address": address_of(&wallet(number)) })
}

fn without(mut body: Value, name: &str) -> Value {
    body.as_object_mut().unwrap().remove(name);
    body
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Rows of a query, as JSON.
async fn rows(app: &App, sql: &'static str) -> Vec<Value> {
    app.db.rows(sql).await.iter().map(|row| serde_json::from_str(row).unwrap()).collect()
}

/// Asserts a 422 about one field.
fn assert_refused(answer: &Answer, field: &str, kind: &str) {
    assert_eq!(answer.outcome(), (422, "VALIDATION_ERROR"), "{field} {kind}");
    let errors = answer.json["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{field} {kind}");
    assert_eq!(keys(&errors[0]), BTreeSet::from(["field", "message", "type"]));
    assert_eq!((&errors[0]["field"], &errors[0]["type"]), (&json!(field), &json!(kind)), "{field} {kind}");
    assert!(answer.json["detail"].is_string());
    assert!(!answer.text.contains("Abcdefg"), "a refused value is not repeated: {}", answer.text);
}

#[tokio::test]
async fn a_registration_answers_tokens_and_the_user_and_nothing_else() {
    let app = App::at(at("2026-03-15T14:30:00Z")).await;
    let body = json!({
        "email": " CasE@Example.COM ",
        "password": "Abcdefg1",
        "btc_address": "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
        "display_name": "  Satoshi   Hunter ",
        "country_code": "AT",
    });

    let answer = register(&app, body).await;

    assert_eq!(answer.header("cache-control"), "no-store");
    let answer = answer.ok();
    let all = BTreeSet::from(["access_token", "expires_in", "refresh_token", "token_type", "user"]);
    assert_eq!(keys(&answer), all);
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("bearer"), &json!(3600)));
    let person = Person::of(&answer);
    let user = json!({
        "id": person.id,
        "btc_address": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "auth_method": "email",
        "email": "case@example.com",
        "email_verified": false,
        "display_name": "Satoshi Hunter",
        "country_code": "AT",
        "avatar_url": null,
        "bio": null,
        "is_verified": false,
        "is_admin": false,
        "created_at": "2026-03-15T14:30:00Z",
        "last_login": "2026-03-15T14:30:00Z",
        "login_count": 1,
    });
    assert_eq!(answer["user"], user);
    assert_eq!(app.get("/api/v1/auth/me", Some(&person.access)).await.ok(), user);
}

#[tokio::test]
async fn a_registration_is_written_down_whole() {
    let app = App::new().await;

    let person = app.register("a@example.com", 1).await;

    let mail = json!({
        "user_id": person.id, "to_address": "a@example.com", "template": "welcome", "status": "pending",
        "context": { "purpose": "account", "display_name": null },
    });
    let outbox = rows(&app, "SELECT user_id, to_address, template, status, context FROM email_outbox").await;
    assert_eq!(outbox, [mail]);
    let history = json!({
        "user_id": person.id, "old_address": null, "new_address": person.address, "reason": "register",
    });
    let sql = "SELECT user_id, old_address, new_address, reason FROM wallet_address_history";
    assert_eq!(rows(&app, sql).await, [history]);
    let registered = ("UserRegistered".to_owned(), json!({ "user_id": person.id, "country_code": null }));
    assert_eq!(events(&app).await, [registered], "an address that was only typed in is not proven");
    let audited = json!({
        "user": person.id.to_string(), "status": "success", "type": "session", "id": person.sid(),
        "details": { "method": "email", "new_user": true },
    });
    assert_eq!(audit(&app, "auth.register").await, [audited]);
    assert!(audit(&app, "auth.login").await.is_empty());
    assert_eq!(app.db.number("SELECT count(*) FROM wallet_credentials").await, 0);
    let hashed = "SELECT count(*) FROM users WHERE password_hash LIKE '$argon2id$v=19$m=65536,t=2,p=1$%'";
    assert_eq!(app.db.number(hashed).await, 1);
    let log = audit_text(&app).await;
    assert!(!log.contains('@') && !log.contains("argon2"), "{log}");
}

#[tokio::test]
async fn a_sign_in_answers_like_a_registration_and_is_counted() {
    let app = App::at(at("2026-03-15T14:30:00Z")).await;
    let registered = register(&app, form("a@example.com", 1)).await.ok();
    app.clock.advance(TimeDelta::minutes(1));

    let answer = login(&app, " A@Example.com ", "Abcdefg1").await;

    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(!answer.text.contains("argon2") && !answer.text.contains("password"), "{}", answer.text);
    let answer = answer.ok();
    assert_eq!(keys(&answer), keys(&registered));
    let mut user = registered["user"].clone();
    user["login_count"] = json!(2);
    user["last_login"] = json!("2026-03-15T14:31:00Z");
    assert_eq!(answer["user"], user);
    let person = Person::of(&answer);
    assert_ne!(person.sid(), Person::of(&registered).sid(), "a sign-in is a session of its own");
    let audited = json!({
        "user": person.id.to_string(), "status": "success", "type": "session", "id": person.sid(),
        "details": { "method": "email", "new_user": false },
    });
    assert_eq!(audit(&app, "auth.login").await, [audited]);
    assert!(!audit_text(&app).await.contains('@'));
}

/// Acceptance example 12, and the same for wallets and names.
#[tokio::test]
async fn what_another_account_has_is_refused_and_nothing_is_written() {
    let app = App::new().await;
    // Wallet 1 signs this miner in, address 2 is where the shares come from.
    let miner = app.miner(1).await;
    type_in(&app, &miner, 2).await;
    let first = and(form("CasE@Example.COM", 3), "display_name", json!("Satoshi Hunter"));
    assert_eq!(register(&app, first).await.status, 200);
    let before = app.db.number(WRITTEN).await;

    let refused = [
        (form("case@example.com", 4), (409, "EMAIL_IN_USE")),
        (form("b@example.com", 3), WALLET_IN_USE),
        (form("b@example.com", 2), WALLET_IN_USE),
        (form("b@example.com", 1), WALLET_IN_USE),
        (
            and(form("b@example.com", 4), "display_name", json!("SATOSHI  hunter")),
            (409, "DISPLAY_NAME_TAKEN"),
        ),
    ];
    for (body, outcome) in refused {
        let answer = register(&app, body).await;
        assert_eq!(answer.outcome(), outcome);
        let detail = answer.json["detail"].as_str().unwrap();
        assert!(!detail.contains("example.com") && !detail.contains("bc1"), "{detail}");
    }

    assert_eq!(app.db.number(WRITTEN).await, before);
}

#[tokio::test]
async fn of_parallel_registrations_of_one_email_one_succeeds() {
    let app = App::new().await;
    let mut tasks = JoinSet::new();
    for number in 1..=4 {
        let (router, body) = (app.router.clone(), form("a@example.com", number));
        tasks.spawn(async move { send(&router, request("POST", REGISTER, None, Some(body))).await });
    }

    let answers = tasks.join_all().await;

    let lost: Vec<_> = answers.iter().filter(|answer| answer.status != 200).map(Answer::outcome).collect();
    assert_eq!(lost, [(409, "EMAIL_IN_USE"); 3]);
    assert_eq!(app.db.number("SELECT count(*) FROM users").await, 1);
}

#[tokio::test]
async fn the_form_is_checked_first_then_the_password_then_the_address_then_who_has_it() {
    let app = App::new().await;
    account(&app, "taken@example.com").await;
    let before = app.db.number(WRITTEN).await;
    let ask = async |email: &str, password: &str, address: &str| {
        register(&app, json!({ "email": email, "password": password, "btc_address": address })).await
    };
    let (bad, elsewhere) =
        ("bc1p5cyxnuxmeuwuvkwfem96lqzszee2457nxwprkfw", "tb1q9vza2e8x573nczrlzms0wvx3gsqjx7vaxwd45v");

    assert_refused(&ask("nobody", "weak", bad).await, "body.email", "pattern_mismatch");
    assert_eq!(ask("taken@example.com", "weak", bad).await.outcome(), WEAK_PASSWORD);
    for (address, code) in
        [(bad, "ADDRESS_INVALID"), (elsewhere, "ADDRESS_WRONG_NETWORK"), ("x", "ADDRESS_INVALID")]
    {
        let answer = ask("taken@example.com", "Abcdefg1", address).await;
        assert_eq!(answer.outcome(), (400, code), "{address}");
        assert!(answer.json["detail"].as_str().unwrap().contains("address"), "{}", answer.text);
    }

    assert_eq!(app.db.number(WRITTEN).await, before);
}

/// Acceptance example 11.
#[tokio::test]
async fn a_password_has_8_to_128_characters_of_both_cases_and_a_digit() {
    let app = App::new().await;
    let with = |password: &str, number: u64| {
        and(form(&format!("a{number}@example.com"), number), "password", json!(password))
    };
    for weak in ["abcdefg1", "ABCDEFG1", "Abcdefgh", "Abc1", "Abcdef1", "        ", "aB1"] {
        let answer = register(&app, with(weak, 1)).await;
        assert_eq!(answer.outcome(), WEAK_PASSWORD, "{weak}");
        assert!(answer.json["detail"].as_str().unwrap().contains("password"), "{}", answer.text);
    }
    // Characters count, not bytes.
    let longest = format!("Äb1{}", "ü".repeat(125));
    assert_refused(
        &register(&app, with(&format!("{longest}ü"), 1)).await,
        "body.password",
        "string_too_long",
    );

    for (number, strong) in (1..).zip(["Abcdefg1", longest.as_str()]) {
        assert_eq!(register(&app, with(strong, number)).await.status, 200, "{strong}");
    }
    assert_eq!(login(&app, "a2@example.com", &longest).await.status, 200);
}

#[tokio::test]
async fn every_field_of_a_registration_is_held_to_its_form() {
    let app = App::new().await;
    let refused = [
        ("email", Value::Null, "type_error"),
        ("email", json!(5), "type_error"),
        ("email", json!(["a@example.com"]), "type_error"),
        ("email", json!("miner"), "pattern_mismatch"),
        ("email", json!("miner@example"), "pattern_mismatch"),
        ("email", json!("mïner@example.com"), "pattern_mismatch"),
        ("email", json!("a\u{7f}@example.com"), "control_characters"),
        ("email", json!("a@example.com\n"), "control_characters"),
        ("email", json!(format!("a@{}.com", "b".repeat(249))), "string_too_long"),
        ("password", Value::Null, "type_error"),
        ("password", json!(12_345_678), "type_error"),
        ("password", json!(""), "string_too_short"),
        ("password", json!("Abcdefg1\n"), "control_characters"),
        ("password", json!("Abcdefg1\0"), "control_characters"),
        ("btc_address", Value::Null, "type_error"),
        ("btc_address", json!(true), "type_error"),
        ("btc_address", json!(""), "string_too_short"),
        ("btc_address", json!("b".repeat(91)), "string_too_long"),
        ("btc_address", json!("bc1q\t"), "control_characters"),
        ("display_name", json!(7), "type_error"),
        ("display_name", json!("A"), "string_too_short"),
        ("display_name", json!("A".repeat(51)), "string_too_long"),
        ("display_name", json!("The.Bitcoin.Game"), "pattern_mismatch"),
        ("display_name", json!("a\tb"), "control_characters"),
        ("country_code", json!("at"), "pattern_mismatch"),
        ("country_code", json!("ZZ"), "invalid_enum"),
        ("country_code", json!(43), "type_error"),
        ("is_admin", json!(true), "extra_forbidden"),
    ];
    for (name, value, kind) in refused {
        let answer = register(&app, and(form("a@example.com", 1), name, value)).await;
        assert_refused(&answer, &format!("body.{name}"), kind);
    }
    for name in ["email", "password", "btc_address"] {
        let answer = register(&app, without(form("a@example.com", 1), name)).await;
        assert_refused(&answer, &format!("body.{name}"), "missing");
    }
    let twice = r#"{"email":"a@example.com","password":"Abcdefg1","password":"Abcdefg2","btc_address":"x"}"#;
    let twice = request("POST", REGISTER, None, None).map(|_| Body::from(twice));
    assert_refused(&send(&app.router, twice).await, "body.password", "extra_forbidden");

    assert_eq!(app.db.number(WRITTEN).await, 0);
    // What may be absent may be null.
    let nulls = and(and(form("a@example.com", 1), "display_name", Value::Null), "country_code", Value::Null);
    assert_eq!(register(&app, nulls).await.status, 200);
}

#[tokio::test]
async fn the_other_endpoints_of_email_are_as_strict() {
    let app = App::new().await;
    let token = "t".repeat(64);
    let forms = [
        ("login", json!({ "email": "a@example.com", "password": "Abcdefg1" })),
        ("forgot-password", json!({ "email": "a@example.com" })),
        ("verify-email", json!({ "token": token })),
        ("reset-password", json!({ "token": token, "new_password": "Abcdefg1" })),
    ];
    for (path, body) in &forms {
        let path = format!("/api/v1/auth/{path}");
        let extra = and(body.clone(), "remember_me", json!(true));
        assert_refused(&app.post(&path, None, extra).await, "body.remember_me", "extra_forbidden");
        for name in keys(body) {
            let field = format!("body.{name}");
            assert_refused(&app.post(&path, None, without(body.clone(), name)).await, &field, "missing");
            for (value, kind) in [(Value::Null, "type_error"), (json!("a\u{1f}"), "control_characters")] {
                assert_refused(&app.post(&path, None, and(body.clone(), name, value)).await, &field, kind);
            }
        }
    }
    for (path, body) in &forms[2..] {
        let path = format!("/api/v1/auth/{path}");
        for (length, kind) in [(31, "string_too_short"), (129, "string_too_long")] {
            let body = and(body.clone(), "token", json!("t".repeat(length)));
            assert_refused(&app.post(&path, None, body).await, "body.token", kind);
        }
    }
    assert_eq!(app.db.number(WRITTEN).await, 0);
    assert_eq!(app.db.number("SELECT count(*) FROM login_attempts").await, 0, "a bad form is no attempt");
}

#[tokio::test]
async fn a_form_that_is_sent_twice_is_told_about_the_email() {
    let app = App::new().await;
    let body = json!({
        "email": "twice@example.com",
        "password": "Abcdefg1",
        "btc_address": "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
    });
    let _ = app.post("/api/v1/auth/register", None, body.clone()).await.ok();

    let again = app.post("/api/v1/auth/register", None, body).await;

    assert_eq!(again.outcome(), (409, "EMAIL_IN_USE"));
}
