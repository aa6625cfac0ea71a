//! Deletion of an account (contract `auth-users.md` §6.5, §6.6).

use chrono::TimeDelta;
use serde_json::{Value, json};
use tbg_tests::app::{Answer, App};
use tbg_tests::at;
use tbg_tests::people::{Person, wallet};

use super::{change, close_the_log, furnish};
use crate::identity::wallet_sign_in::audit;

const REAUTH: (u16, &str) = (403, "REAUTH_REQUIRED");
const ENDED: (u16, &str) = (401, "AUTH_TOKEN_REVOKED");

async fn delete(app: &App, token: &str) -> Answer {
    app.ask("DELETE", "/api/v1/users/me", Some(token), Some(json!({ "confirm": "DELETE" }))).await
}

/// A deletion that is done.
async fn deleted(app: &App, person: &Person) {
    let answer = delete(app, &person.access).await;
    assert_eq!(
        (answer.status, &answer.json),
        (200, &json!({ "status": "account_deleted" })),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn a_deletion_needs_a_sign_in_of_the_last_quarter_of_an_hour() {
    let app = App::at(at("2026-03-15T14:30:00Z")).await;
    let (first, second) = (app.miner(1).await, app.miner(2).await);

    app.clock.advance(TimeDelta::seconds(900));
    let in_time = delete(&app, &first.access).await;
    app.clock.advance(TimeDelta::seconds(1));
    let too_late = delete(&app, &second.access).await;
    let body = json!({ "refresh_token": second.refresh });
    let refreshed = Person::of(&app.post("/api/v1/auth/refresh", None, body).await.ok());
    let with_new_token = delete(&app, &refreshed.access).await;
    let signed_in = app.miner(2).await;
    let after_sign_in = delete(&app, &signed_in.access).await;

    assert_eq!(in_time.status, 200, "{}", in_time.text);
    assert_eq!([too_late.outcome(), with_new_token.outcome()], [REAUTH; 2], "a refresh is no sign-in");
    assert_eq!(after_sign_in.status, 200, "{}", after_sign_in.text);
    assert_eq!(signed_in.id, second.id);
}

#[tokio::test]
async fn only_the_word_itself_confirms() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let before = app.db.rows("SELECT * FROM users").await;
    for (body, kind) in [
        (json!({}), "missing"),
        (json!({ "confirm": "delete" }), "invalid_enum"),
        (json!({ "confirm": "" }), "invalid_enum"),
        (json!({ "confirm": true }), "type_error"),
        (json!({ "confirm": null }), "type_error"),
    ] {
        let answer = app.ask("DELETE", "/api/v1/users/me", Some(&person.access), Some(body.clone())).await;
        assert_eq!(answer.outcome(), (422, "VALIDATION_ERROR"), "{body}");
        let first = &answer.json["errors"][0];
        assert_eq!((&first["field"], &first["type"]), (&json!("body.confirm"), &json!(kind)), "{body}");
    }
    let without_body = app.ask("DELETE", "/api/v1/users/me", Some(&person.access), None).await;
    assert_eq!(without_body.outcome(), (422, "VALIDATION_ERROR"));
    assert_eq!(app.db.rows("SELECT * FROM users").await, before);
}

#[tokio::test]
async fn a_row_without_a_person_is_left() {
    let app = App::new().await;
    let person = app.register("own@example.com", 1).await;
    furnish(&app, &person, "mine").await;
    change(
        &app,
        &person,
        "/api/v1/users/me",
        json!({ "country_code": "CH", "avatar_url": "https://example.com/a.png" }),
    )
    .await;
    sqlx::query(
        "UPDATE users SET email_verified = TRUE, is_verified = TRUE, is_admin = TRUE, last_seen = now()",
    )
    .execute(&app.db.pool)
    .await
    .unwrap();

    deleted(&app, &person).await;

    let rows = app.db.rows("SELECT * FROM users").await;
    let row: Value = serde_json::from_str(&rows[0]).unwrap();
    assert_eq!((rows.len(), &row["id"]), (1, &json!(person.id)));
    for column in [
        "btc_address",
        "email",
        "password_hash",
        "display_name",
        "display_name_normalized",
        "country_code",
        "avatar_url",
        "bio",
        "last_seen",
        "last_login",
    ] {
        assert_eq!(row[column], Value::Null, "{column}");
    }
    for column in ["email_verified", "is_verified", "is_admin"] {
        assert_eq!(row[column], false, "{column}");
    }
    assert_eq!(row["login_count"], 0);
    assert!(row["deleted_at"].is_string());
}

#[tokio::test]
async fn whatever_belonged_to_the_person_is_deleted() {
    let app = App::new().await;
    let person = app.miner(1).await;
    furnish(&app, &person, "mine").await;
    for sql in [
        "INSERT INTO password_reset_tokens (id, user_id, token_hash, expires_at)
         VALUES (gen_random_uuid(), $1, repeat('ab', 32), now())",
        "INSERT INTO email_verification_tokens (id, user_id, email, token_hash, expires_at)
         VALUES (gen_random_uuid(), $1, 'own@example.com', repeat('ab', 32), now())",
    ] {
        sqlx::query(sql).bind(person.id).execute(&app.db.pool).await.unwrap();
    }
    let rows = "SELECT (SELECT count(*) FROM wallet_credentials) + (SELECT count(*) FROM refresh_tokens)
                     + (SELECT count(*) FROM api_keys) + (SELECT count(*) FROM user_settings)
                     + (SELECT count(*) FROM email_verification_tokens)
                     + (SELECT count(*) FROM password_reset_tokens) + (SELECT count(*) FROM email_outbox)";
    assert_eq!(app.db.number(rows).await, 7);
    let mut redis = app.redis.manager();
    let names = ["user_coinbase", "public:profile"].map(|name| format!("{name}:{}", person.address));
    for name in &names {
        redis::cmd("SET").arg(name).arg("x").query_async::<()>(&mut redis).await.unwrap();
    }

    deleted(&app, &person).await;

    assert_eq!(app.db.number(rows).await, 0);
    let left: i64 = redis::cmd("EXISTS").arg(&names[..]).query_async(&mut redis).await.unwrap();
    assert_eq!(left, 0, "neither the coinbase text nor the cached profile stays in Redis");
    let traces = "SELECT count(*) FROM wallet_address_history WHERE ip_address IS NOT NULL";
    assert_eq!(app.db.number(traces).await, 0);
    let reasons: Vec<String> =
        sqlx::query_scalar("SELECT reason FROM wallet_address_history ORDER BY changed_at, id")
            .fetch_all(&app.db.pool)
            .await
            .unwrap();
    assert_eq!(reasons, ["register", "deleted"]);
}

#[tokio::test]
async fn every_session_and_key_is_dead_at_once() {
    let app = App::new().await;
    let (here, there) = (app.register("own@example.com", 1).await, login(&app).await);
    let there = Person::of(&there.ok());
    let key = app.api_key(&here, &["write"]).await;
    for credential in [&here.access, &there.access, &key] {
        assert_eq!(app.get("/api/v1/users/me", Some(credential)).await.status, 200);
    }

    deleted(&app, &here).await;

    for credential in [&here.access, &there.access, &app.token(here.id)] {
        assert_eq!(app.get("/api/v1/users/me", Some(credential)).await.outcome(), ENDED);
    }
    let by_key = app.get("/api/v1/users/me", Some(&key)).await;
    assert_eq!(by_key.outcome(), (401, "API_KEY_INVALID"));
    for person in [&here, &there] {
        let body = json!({ "refresh_token": person.refresh });
        let refreshed = app.post("/api/v1/auth/refresh", None, body).await;
        assert_eq!(refreshed.outcome(), (401, "AUTH_REFRESH_INVALID"));
        let denied = format!("auth:sid_revoked:{}", person.sid());
        let value: Option<String> =
            redis::cmd("GET").arg(denied).query_async(&mut app.redis.manager()).await.unwrap();
        assert_eq!(value.as_deref(), Some("1"));
    }
    assert_eq!(login(&app).await.outcome(), (401, "AUTH_INVALID_CREDENTIALS"));
    assert_eq!(delete(&app, &here.access).await.outcome(), ENDED);
}

async fn login(app: &App) -> Answer {
    let body = json!({ "email": "own@example.com", "password": "Abcdefg1" });
    app.post("/api/v1/auth/login", None, body).await
}

#[tokio::test]
async fn address_email_and_name_are_free_for_a_new_user() {
    let app = App::new().await;
    let (typist, miner) = (app.register("own@example.com", 1).await, app.miner(2).await);
    change(&app, &miner, "/api/v1/users/me", json!({ "display_name": "Satoshi Hunter" })).await;
    deleted(&app, &typist).await;
    deleted(&app, &miner).await;

    let new_typist = app.register("OWN@example.com", 1).await;
    let answer = app.connect(&wallet(2), false).await.ok();
    let new_miner = Person::of(&answer);
    change(&app, &new_typist, "/api/v1/users/me", json!({ "display_name": "satoshi hunter" })).await;

    assert!(new_typist.id > miner.id && new_miner.id > new_typist.id, "nobody gets an id of before");
    assert_eq!((&new_typist.address, &new_miner.address), (&typist.address, &miner.address));
    let user = &answer["user"];
    assert_eq!((&user["login_count"], &user["display_name"]), (&json!(1), &Value::Null));
    assert_eq!(app.db.number("SELECT count(*) FROM users WHERE deleted_at IS NULL").await, 2);
}

#[tokio::test]
async fn the_audit_log_keeps_what_it_has() {
    let app = App::new().await;
    let person = app.miner(1).await;
    furnish(&app, &person, "mine").await;
    let log = "SELECT * FROM audit_log ORDER BY timestamp, id";
    let before = app.db.rows(log).await;

    deleted(&app, &person).await;

    let after = app.db.rows(log).await;
    assert_eq!(after[..before.len()], before[..]);
    assert_eq!(after.len(), before.len() + 1);
    let id = person.id.to_string();
    let row = json!({ "user": id, "status": "success", "type": "user", "id": id, "details": {} });
    assert_eq!(audit(&app, "user.account_deleted").await, [row]);
}

#[tokio::test]
async fn every_domain_is_told_whom_to_forget() {
    let app = App::new().await;
    let person = app.miner(1).await;

    deleted(&app, &person).await;

    let told: Vec<(String, Option<i64>, Value)> = sqlx::query_as(
        "SELECT consumer, user_id, payload FROM domain_outbox WHERE topic = 'UserDeleted' ORDER BY consumer",
    )
    .fetch_all(&app.db.pool)
    .await
    .unwrap();
    let payload = json!({ "user_id": person.id, "btc_address": person.address });
    let consumers = ["competition", "education", "games", "gamification", "mining", "social"];
    let expected = consumers.map(|name| (name.to_owned(), Some(person.id), payload.clone()));
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_deletion_is_whole_or_not_at_all() {
    let app = App::new().await;
    let person = app.miner(1).await;
    close_the_log(&app).await;

    let refused = delete(&app, &person.access).await;

    assert!(refused.status >= 500, "{}", refused.text);
    let me = app.get("/api/v1/users/me", Some(&person.access)).await.ok();
    assert_eq!(me["btc_address"], person.address.as_str());
    assert_eq!(app.db.number("SELECT count(*) FROM refresh_tokens WHERE NOT is_revoked").await, 1);
    assert_eq!(app.db.number("SELECT count(*) FROM domain_outbox WHERE topic = 'UserDeleted'").await, 0);
}
