//! API keys (contract `auth-users.md` §8, §1.6, §11). What a key may do and how often is in `use_of_keys`.

mod use_of_keys;

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use tbg_core::Clock as _;
use tbg_tests::app::{Answer, App, keys, request, send};
use tbg_tests::at;
use tbg_tests::people::Person;

use super::wallet_sign_in::{audit, audit_text};

const PATH: &str = "/api/v1/users/me/api-keys";
const NOT_FOUND: (u16, &str) = (404, "API_KEY_NOT_FOUND");
const INVALID_KEY: (u16, &str) = (401, "API_KEY_INVALID");

async fn create(app: &App, person: &Person, body: Value) -> Answer {
    app.post(PATH, Some(&person.access), body).await
}

/// A key that is given; the whole answer.
async fn created(app: &App, person: &Person, body: Value) -> Value {
    create(app, person, body).await.ok()
}

async fn list(app: &App, person: &Person) -> Vec<Value> {
    app.get(PATH, Some(&person.access)).await.ok().as_array().unwrap().clone()
}

async fn revoke(app: &App, person: &Person, id: &str) -> Answer {
    app.ask("DELETE", &format!("{PATH}/{id}"), Some(&person.access), None).await
}

/// Asks with a key for what every key may see.
async fn look(app: &App, key: &str) -> Answer {
    app.get("/api/v1/users/me", Some(key)).await
}

fn text<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer[name].as_str().unwrap()
}

#[tokio::test]
async fn a_new_key_is_shown_once_and_stored_as_a_hash() {
    let app = App::at(at("2026-03-15T14:30:00Z")).await;
    let person = app.miner(1).await;

    let shown = created(&app, &person, json!({ "name": "Home Assistant" })).await;

    let (key, prefix) = (text(&shown, "key"), text(&shown, "prefix"));
    assert_eq!((key.len(), &key[..4], &key[..12]), (44, "tbg_", prefix));
    assert!(key[4..].bytes().all(|byte| byte.is_ascii_alphanumeric()), "{key}");
    assert_eq!(
        shown,
        json!({
            "id": shown["id"], "key": key, "prefix": prefix, "name": "Home Assistant",
            "permissions": ["read"], "created_at": "2026-03-15T14:30:00Z", "expires_at": null,
        })
    );
    assert!(uuid::Uuid::parse_str(text(&shown, "id")).is_ok());
    let stored: (String, bool) = sqlx::query_as(
        "SELECT key_prefix, key_hash = encode(sha256(convert_to($1, 'UTF8')), 'hex') FROM api_keys",
    )
    .bind(key)
    .fetch_one(&app.db.pool)
    .await
    .unwrap();
    assert_eq!(stored, (prefix.to_owned(), true));
    let rows = app.db.rows("SELECT * FROM api_keys").await.join(" ") + &audit_text(&app).await;
    assert!(!rows.contains(&key[12..]), "the secret is nowhere in the database");
    let expected = json!({
        "user": person.id.to_string(), "status": "success", "type": "api_key", "id": shown["id"],
        "details": { "prefix": prefix, "permissions": ["read"] },
    });
    assert_eq!(audit(&app, "user.api_key_created").await, [expected]);
}

#[tokio::test]
async fn keys_are_listed_newest_first_without_secrets_and_without_revoked_ones() {
    let app = App::at(at("2026-03-15T14:30:00Z")).await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    app.api_key(&other, &["read"]).await;
    let first = created(&app, &person, json!({ "name": "first" })).await;
    app.clock.advance(TimeDelta::seconds(1));
    let second = created(&app, &person, json!({ "name": "second" })).await;
    app.clock.advance(TimeDelta::seconds(1));
    let end = "2026-03-16T16:30:00+02:00";
    let third = json!({ "name": "third", "permissions": ["write"], "expires_at": end });
    let third = created(&app, &person, third).await;
    assert_eq!(revoke(&app, &person, text(&second, "id")).await.status, 200);

    let answer = app.get(PATH, Some(&person.access)).await;

    assert_eq!(answer.header("cache-control"), "no-store");
    let listed = |key: &Value, permissions: Value, created: &str, expires: Value| {
        json!({
            "id": key["id"], "prefix": key["prefix"], "name": key["name"], "permissions": permissions,
            "last_used_at": null, "created_at": created, "expires_at": expires, "is_revoked": false,
        })
    };
    assert_eq!(
        answer.ok(),
        json!([
            listed(&third, json!(["read", "write"]), "2026-03-15T14:30:02Z", json!("2026-03-16T14:30:00Z")),
            listed(&first, json!(["read"]), "2026-03-15T14:30:00Z", Value::Null),
        ])
    );
}

#[tokio::test]
async fn permissions_are_a_subset_without_repetition_and_never_admin() {
    let app = App::new().await;
    let person = app.miner(1).await;
    for (permissions, kind) in [
        (json!([]), "out_of_range"),
        (json!(["read", "read"]), "out_of_range"),
        (json!(["read", "write", "read"]), "out_of_range"),
        (json!("read"), "type_error"),
        (Value::Null, "type_error"),
    ] {
        let answer = create(&app, &person, json!({ "name": "k", "permissions": permissions })).await;
        assert_eq!(answer.outcome(), (422, "VALIDATION_ERROR"), "{permissions}");
        assert_eq!(answer.json["errors"][0]["field"], "body.permissions", "{permissions}");
        assert_eq!(answer.json["errors"][0]["type"], kind, "{permissions}");
    }
    for word in ["admin", "READ", ""] {
        let answer = create(&app, &person, json!({ "name": "k", "permissions": [word] })).await;
        assert_eq!(answer.json["errors"][0]["type"], "invalid_enum", "{word}");
    }
    assert_eq!(list(&app, &person).await, Vec::<Value>::new());

    for permissions in [json!(["write"]), json!(["write", "read"]), json!(["read", "write"])] {
        let key = created(&app, &person, json!({ "name": "k", "permissions": permissions })).await;
        assert_eq!(key["permissions"], json!(["read", "write"]), "write includes read");
    }
}

#[tokio::test]
async fn a_name_has_1_to_128_characters_and_an_end_is_within_366_days() {
    let app = App::at(at("2026-03-15T14:30:00Z")).await;
    let person = app.miner(1).await;
    for (body, field, kind) in [
        (json!({}), "body.name", "missing"),
        (json!({ "name": "" }), "body.name", "string_too_short"),
        (json!({ "name": "a".repeat(129) }), "body.name", "string_too_long"),
        (json!({ "name": "a\nb" }), "body.name", "control_characters"),
        (json!({ "name": "k", "user_id": 1 }), "body.user_id", "extra_forbidden"),
        (json!({ "name": "k", "expires_at": "2026-03-15T14:30:00Z" }), "body.expires_at", "out_of_range"),
        (json!({ "name": "k", "expires_at": "2027-03-16T14:30:01Z" }), "body.expires_at", "out_of_range"),
        (json!({ "name": "k", "expires_at": "2026-04-01T00:00:00" }), "body.expires_at", "type_error"),
        (json!({ "name": "k", "expires_at": 1_800_000_000 }), "body.expires_at", "type_error"),
    ] {
        let answer = create(&app, &person, body.clone()).await;
        assert_eq!(answer.outcome(), (422, "VALIDATION_ERROR"), "{body}");
        let first = &answer.json["errors"][0];
        assert_eq!((&first["field"], &first["type"]), (&json!(field), &json!(kind)), "{body}");
    }
    assert_eq!(app.db.number("SELECT count(*) FROM api_keys").await, 0);
    let longest = json!({ "name": "k".repeat(128), "expires_at": "2027-03-16T14:30:00Z" });
    assert_eq!(created(&app, &person, longest).await["expires_at"], "2027-03-16T14:30:00Z");
}

#[tokio::test]
async fn ten_keys_can_be_active_even_when_more_are_asked_for_at_once() {
    let app = App::new().await;
    let person = app.miner(1).await;

    let asked = (0..12).map(|number| create(&app, &person, json!({ "name": format!("k{number}") })));
    let answers = futures_util::future::join_all(asked).await;

    let given = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| answer.outcome() == (409, "API_KEY_LIMIT")).count();
    assert_eq!((given, refused), (10, 2));
    assert_eq!(list(&app, &person).await.len(), 10);
    assert_eq!(app.audited("user.api_key_created", "success").await, 10);
}

#[tokio::test]
async fn keys_that_work_no_more_make_room() {
    let app = App::new().await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    let soon = app.clock.now() + TimeDelta::minutes(10);
    created(&app, &person, json!({ "name": "short", "expires_at": soon })).await;
    let second = created(&app, &person, json!({ "name": "revoked" })).await;
    for number in 0..8 {
        created(&app, &person, json!({ "name": format!("k{number}") })).await;
    }

    let full = create(&app, &person, json!({ "name": "eleventh" })).await;
    let others = create(&app, &other, json!({ "name": "first" })).await;
    assert_eq!(revoke(&app, &person, text(&second, "id")).await.status, 200);
    let after_revocation = create(&app, &person, json!({ "name": "x" })).await;
    let full_again = create(&app, &person, json!({ "name": "y" })).await;
    app.clock.advance(TimeDelta::minutes(10));
    let after_expiry = create(&app, &person, json!({ "name": "z" })).await;

    assert_eq!([full.outcome(), full_again.outcome()], [(409, "API_KEY_LIMIT"); 2]);
    assert_eq!([others.status, after_revocation.status, after_expiry.status], [200; 3]);
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let shown = created(&app, &person, json!({ "name": "k", "permissions": ["write"] })).await;
    let (key, id) = (text(&shown, "key"), text(&shown, "id"));
    // The row is now in the memory of this replica.
    assert_eq!(look(&app, key).await.status, 200);

    let revoked = revoke(&app, &person, id).await;
    let refused = look(&app, key).await;
    let again = revoke(&app, &person, &id.to_uppercase()).await;

    assert_eq!(revoked.ok(), json!({ "status": "api_key_revoked" }));
    assert_eq!(refused.outcome(), INVALID_KEY);
    assert_eq!(refused.header("www-authenticate"), r#"Bearer realm="tbg", error="invalid_token""#);
    assert_eq!(again.ok(), json!({ "status": "api_key_revoked" }), "revoking again answers the same");
    let expected = json!({
        "user": person.id.to_string(), "status": "success", "type": "api_key", "id": id,
        "details": { "prefix": shown["prefix"], "permissions": ["read", "write"] },
    });
    assert_eq!(audit(&app, "user.api_key_revoked").await, [expected], "once");
    let elsewhere = send(&app.replica(keys()), request("GET", "/api/v1/users/me", Some(key), None)).await;
    assert_eq!(elsewhere.outcome(), INVALID_KEY);
}

#[tokio::test]
async fn a_key_of_another_user_is_as_unknown_as_nonsense() {
    let app = App::new().await;
    let (owner, stranger) = (app.miner(1).await, app.miner(2).await);
    let shown = created(&app, &owner, json!({ "name": "k" })).await;

    let foreign = revoke(&app, &stranger, text(&shown, "id")).await;
    let unknown = revoke(&app, &stranger, "01936000-0000-7000-8000-000000000001").await;
    let nonsense = revoke(&app, &stranger, "1%20OR%20true").await;
    let not_utf8 = revoke(&app, &stranger, "%FF").await;

    let body = |answer: &Answer| {
        let mut json = answer.json.clone();
        json["request_id"] = Value::Null;
        json
    };
    for answer in [&foreign, &unknown, &nonsense, &not_utf8] {
        assert_eq!(answer.outcome(), NOT_FOUND);
        assert_eq!(body(answer), body(&foreign));
    }
    assert_eq!(look(&app, text(&shown, "key")).await.status, 200, "it still works");
    assert_eq!(list(&app, &stranger).await, Vec::<Value>::new());
    assert_eq!(app.audited("user.api_key_revoked", "success").await, 0);
}

#[tokio::test]
async fn a_key_ends_at_its_time_by_the_clock() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let end = app.clock.now() + TimeDelta::minutes(10);
    let shown = created(&app, &person, json!({ "name": "k", "expires_at": end })).await;
    let key = text(&shown, "key");

    app.clock.set(end - TimeDelta::milliseconds(1));
    let before = look(&app, key).await;
    app.clock.set(end);
    let at_the_end = look(&app, key).await;

    assert_eq!(before.status, 200, "{}", before.text);
    assert_eq!(at_the_end.outcome(), INVALID_KEY);
    let listed = list(&app, &person).await;
    let listed_end: chrono::DateTime<Utc> = text(&listed[0], "expires_at").parse().unwrap();
    assert_eq!(listed_end, end, "an expired key is listed until it is revoked");
}
