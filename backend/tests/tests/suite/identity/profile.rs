//! The own profile (contract `auth-users.md` §6.1, §6.2, §16 item 16). The mining address is in
//! `wallet_change`.

mod wallet_change;

use chrono::TimeDelta;
use serde_json::{Value, json};
use tbg_tests::app::{Answer, App};
use tbg_tests::at;
use tbg_tests::people::{Person, address_of, wallet};

use super::wallet_sign_in::audit;

const TAKEN: (u16, &str) = (409, "DISPLAY_NAME_TAKEN");
const COOLDOWN: (u16, &str) = (429, "COOLDOWN");
const INVALID: (u16, &str) = (422, "VALIDATION_ERROR");

async fn patch(app: &App, token: &str, body: Value) -> Answer {
    app.ask("PATCH", "/api/v1/users/me", Some(token), Some(body)).await
}

/// A change that is accepted.
async fn patched(app: &App, token: &str, body: Value) -> Value {
    patch(app, token, body).await.ok()
}

async fn me(app: &App, person: &Person) -> Value {
    app.get("/api/v1/users/me", Some(&person.access)).await.ok()
}

/// Field and type of the first item of a 422.
fn fault(answer: &Answer) -> (&str, &str) {
    assert_eq!(answer.outcome(), INVALID, "{}", answer.text);
    let first = &answer.json["errors"][0];
    (first["field"].as_str().unwrap(), first["type"].as_str().unwrap())
}

#[tokio::test]
async fn the_own_profile_has_exactly_the_fields_of_the_contract() {
    let app = App::at(at("2026-03-15T14:30:00Z")).await;
    let person = app.miner(1).await;
    sqlx::query(
        "INSERT INTO workers (user_id, worker_name, last_seen, is_online) VALUES
         ($1, 'rig1', '2026-03-15T14:29:00Z', TRUE), ($1, 'rig2', '2026-03-14T14:30:00Z', FALSE),
         ($1, 'old', '2026-03-14T14:29:59Z', FALSE)",
    )
    .bind(person.id)
    .execute(&app.db.pool)
    .await
    .unwrap();

    let answer = app.get("/api/v1/users/me", Some(&person.access)).await;

    assert_eq!(answer.header("cache-control"), "no-store");
    let shown = answer.ok();
    let mut expected = json!({
        "id": person.id, "btc_address": address_of(&wallet(1)), "auth_method": "wallet", "email": null,
        "email_verified": false, "display_name": null, "country_code": null, "avatar_url": null, "bio": null,
        "is_verified": true, "is_admin": false, "created_at": "2026-03-15T14:30:00Z",
        "last_login": "2026-03-15T14:30:00Z", "login_count": 1,
        "progress": {
            "level": 1, "level_title": "Nocoiner", "xp": 0, "xp_to_next": 100, "streak": 0,
            "workers_online": 1, "workers_total": 2,
        },
    });
    assert_eq!(shown, expected);
    let session = app.get("/api/v1/auth/me", Some(&person.access)).await.ok();
    expected.as_object_mut().unwrap().remove("progress");
    assert_eq!(session, expected, "a session is told no progress");
}

#[tokio::test]
async fn a_key_reads_the_profile_and_only_a_session_changes_it() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let key = app.api_key(&person, &["write"]).await;

    let read = app.get("/api/v1/users/me", Some(&key)).await.ok();
    let refused = patch(&app, &key, json!({ "bio": "from a key" })).await;
    let nobody = app.get("/api/v1/users/me", None).await;

    assert_eq!(read, me(&app, &person).await);
    assert_eq!(refused.outcome(), (403, "SESSION_REQUIRED"));
    assert_eq!(nobody.outcome(), (401, "AUTH_REQUIRED"));
}

#[tokio::test]
async fn absent_leaves_a_field_alone_and_null_clears_it() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let whole = json!({
        "display_name": "Satoshi Hunter", "avatar_url": "https://example.com/a.png",
        "bio": "Line one\nline two", "country_code": "CH",
    });

    let set = patched(&app, &person.access, whole.clone()).await;
    let one = patched(&app, &person.access, json!({ "country_code": "SV" })).await;
    let cleared = patched(&app, &person.access, json!({ "bio": null, "avatar_url": null })).await;
    let nameless = patched(&app, &person.access, json!({ "display_name": null, "country_code": null })).await;

    let shown = |user: &Value| {
        json!({
            "display_name": user["display_name"], "avatar_url": user["avatar_url"], "bio": user["bio"],
            "country_code": user["country_code"],
        })
    };
    let mut expected = whole;
    assert_eq!(shown(&set), expected);
    expected["country_code"] = json!("SV");
    assert_eq!(shown(&one), expected);
    expected["bio"] = Value::Null;
    expected["avatar_url"] = Value::Null;
    assert_eq!(shown(&cleared), expected);
    assert!(shown(&nameless).as_object().unwrap().values().all(Value::is_null), "{nameless}");
    assert_eq!(nameless, me(&app, &person).await, "the answer is the whole profile, with progress");
}

#[tokio::test]
async fn an_empty_change_changes_nothing_and_is_not_audited() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let before = app.db.rows("SELECT * FROM users").await;
    app.clock.advance(TimeDelta::seconds(30));

    let answer = patched(&app, &person.access, json!({})).await;

    assert_eq!(answer, me(&app, &person).await);
    assert_eq!(app.db.rows("SELECT * FROM users").await, before);
    assert_eq!(app.audited("user.profile_updated", "success").await, 0);
}

#[tokio::test]
async fn a_change_is_audited_by_the_names_of_its_fields() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let body = json!({ "bio": "a private word", "display_name": "Satoshi Hunter" });

    let answer = patch(&app, &person.access, body).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    let id = person.id.to_string();
    let expected = json!({
        "user": id, "status": "success", "type": "user", "id": id,
        "details": { "fields": ["display_name", "bio"] },
    });
    assert_eq!(audit(&app, "user.profile_updated").await, [expected]);
}

#[tokio::test]
async fn a_change_drops_the_cached_public_profile() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let key = format!("public:profile:{}", person.address);
    let mut redis = app.redis.manager();
    redis::cmd("SET").arg(&key).arg("old").query_async::<()>(&mut redis).await.unwrap();

    patched(&app, &person.access, json!({ "bio": "new" })).await;

    let cached: Option<String> = redis::cmd("GET").arg(&key).query_async(&mut redis).await.unwrap();
    assert_eq!(cached, None);
}

#[tokio::test]
async fn a_name_is_stored_tidied_and_belongs_to_one_person() {
    let app = App::new().await;
    let (first, second) = (app.miner(1).await, app.miner(2).await);

    let tidied = patched(&app, &first.access, json!({ "display_name": "  Satoshi   Hunter " })).await;
    let taken = patch(&app, &second.access, json!({ "display_name": "SATOSHI hunter", "bio": "x" })).await;
    let own = patched(&app, &first.access, json!({ "display_name": "satoshi HUNTER" })).await;

    assert_eq!(tidied["display_name"], "Satoshi Hunter");
    assert_eq!(taken.outcome(), TAKEN);
    assert_eq!(own["display_name"], "satoshi HUNTER", "one's own name in other letters");
    let untouched = me(&app, &second).await;
    assert_eq!((&untouched["display_name"], &untouched["bio"]), (&Value::Null, &Value::Null));
    assert_eq!(app.audited("user.profile_updated", "success").await, 2);

    patched(&app, &first.access, json!({ "display_name": null })).await;
    let free = patched(&app, &second.access, json!({ "display_name": "Satoshi Hunter" })).await;
    assert_eq!(free["display_name"], "Satoshi Hunter");
}

#[tokio::test]
async fn what_is_no_name_is_refused_with_its_reason() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let (at_most, too_long) = ("a".repeat(50), "a".repeat(51));
    for (name, kind) in [
        ("A", "string_too_short"),
        (" A ", "string_too_short"),
        (too_long.as_str(), "string_too_long"),
        ("Satoshi\nHunter", "control_characters"),
        ("-Satoshi", "pattern_mismatch"),
        ("Satoshi.", "pattern_mismatch"),
        ("<b>Satoshi</b>", "pattern_mismatch"),
        ("Admin", "pattern_mismatch"),
        ("TheBitcoinGame", "pattern_mismatch"),
        ("System", "pattern_mismatch"),
    ] {
        let answer = patch(&app, &person.access, json!({ "display_name": name })).await;
        assert_eq!(fault(&answer), ("body.display_name", kind), "{name:?}");
        // The rule may name what the rule is about, never what was sent.
        assert!(name.len() < 3 || !answer.text.contains(name), "{}", answer.text);
    }
    assert_eq!(me(&app, &person).await["display_name"], Value::Null);
    let longest = patched(&app, &person.access, json!({ "display_name": at_most })).await;
    assert_eq!(longest["display_name"], at_most.as_str());
}

#[tokio::test]
async fn of_those_who_take_a_name_at_once_one_gets_it() {
    let app = App::new().await;
    let mut people = Vec::new();
    for number in 1..=4 {
        people.push(app.miner(number).await);
    }
    let wishes = ["Satoshi Hunter", "satoshi hunter", "SATOSHI HUNTER", "Satoshi  Hunter"];

    let asked = people
        .iter()
        .zip(wishes)
        .map(|(person, name)| patch(&app, &person.access, json!({ "display_name": name })));
    let answers = futures_util::future::join_all(asked).await;

    let mut outcomes: Vec<_> = answers.iter().map(Answer::outcome).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, [(200, ""), TAKEN, TAKEN, TAKEN]);
    assert_eq!(app.db.number("SELECT count(display_name) FROM users").await, 1);
}

#[tokio::test]
async fn the_sixth_name_within_a_day_must_wait() {
    let app = App::at(at("2026-03-15T14:30:00Z")).await;
    let person = app.miner(1).await;
    for number in 1..=5 {
        let name = format!("Name {number}");
        patched(&app, &person.access, json!({ "display_name": name })).await;
        app.clock.advance(TimeDelta::minutes(1));
    }

    let sixth = patch(&app, &person.access, json!({ "display_name": "Name 6", "bio": "x" })).await;
    let other_field = patch(&app, &person.access, json!({ "bio": "about me" })).await;
    let same_name = patch(&app, &person.access, json!({ "display_name": "Name 5" })).await;
    app.clock.set(at("2026-03-16T14:29:59Z"));
    let a_second_early = patch(&app, &app.token(person.id), json!({ "display_name": "Name 6" })).await;
    app.clock.set(at("2026-03-16T14:30:00Z"));
    let in_time = patch(&app, &app.token(person.id), json!({ "display_name": "Name 6" })).await;
    let next = patch(&app, &app.token(person.id), json!({ "display_name": "Name 7" })).await;

    assert_eq!(sixth.outcome(), COOLDOWN);
    assert_eq!(sixth.header("retry-after"), "86100");
    assert_eq!((other_field.status, same_name.status), (200, 200), "only a change of name is counted");
    assert_eq!(other_field.json["display_name"], "Name 5");
    assert_eq!(a_second_early.outcome(), COOLDOWN);
    assert_eq!(a_second_early.header("retry-after"), "1");
    assert_eq!(in_time.ok()["display_name"], "Name 6");
    assert_eq!(next.outcome(), COOLDOWN, "a place becomes free one by one");
    assert_eq!(next.header("retry-after"), "60");
}

#[tokio::test]
async fn names_that_were_not_had_are_not_counted() {
    let app = App::new().await;
    let (first, second) = (app.miner(1).await, app.miner(2).await);
    patched(&app, &first.access, json!({ "display_name": "Satoshi" })).await;
    for _ in 0..6 {
        let taken = patch(&app, &second.access, json!({ "display_name": "satoshi" })).await;
        assert_eq!(taken.outcome(), TAKEN);
    }

    for number in 1..=5 {
        let name = format!("Name {number}");
        patched(&app, &second.access, json!({ "display_name": name })).await;
    }
    let sixth = patch(&app, &second.access, json!({ "display_name": "Name 6" })).await;

    assert_eq!(sixth.outcome(), COOLDOWN);
    let firsts = patch(&app, &first.access, json!({ "display_name": "Hal" })).await;
    assert_eq!(firsts.status, 200, "everybody has an allowance of their own");
}

#[tokio::test]
async fn changes_of_name_at_once_do_not_get_past_the_limit() {
    let app = App::new().await;
    let person = app.miner(1).await;

    let asked = (0..8).map(|number| {
        let body = json!({ "display_name": format!("Name {number}") });
        patch(&app, &person.access, body)
    });
    let answers = futures_util::future::join_all(asked).await;

    let done = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| answer.outcome() == COOLDOWN).count();
    assert_eq!((done, refused), (5, 3));
}

#[tokio::test]
async fn a_picture_is_an_https_url_of_bounded_length() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let at_most = format!("https://example.com/{}", "a".repeat(492));
    let too_long = format!("{at_most}a");
    for (url, kind) in [
        ("", "pattern_mismatch"),
        ("/avatars/1.png", "pattern_mismatch"),
        ("//example.com/a.png", "pattern_mismatch"),
        ("http://example.com/a.png", "pattern_mismatch"),
        ("javascript:alert(1)", "pattern_mismatch"),
        ("data:image/png;base64,AA==", "pattern_mismatch"),
        ("https://user@example.com/a.png", "pattern_mismatch"),
        ("https://user:secret@example.com/a.png", "pattern_mismatch"),
        ("https://example.com/a b.png", "pattern_mismatch"),
        ("https://example.com/\u{7f}", "control_characters"),
        (too_long.as_str(), "string_too_long"),
    ] {
        let answer = patch(&app, &person.access, json!({ "avatar_url": url })).await;
        assert_eq!(fault(&answer), ("body.avatar_url", kind), "{url}");
    }
    assert_eq!(me(&app, &person).await["avatar_url"], Value::Null);
    let stored = patched(&app, &person.access, json!({ "avatar_url": at_most })).await;
    assert_eq!(stored["avatar_url"], at_most.as_str());
}

#[tokio::test]
async fn a_country_is_an_assigned_code_in_capital_letters() {
    let app = App::new().await;
    let person = app.miner(1).await;
    for (code, kind) in [
        ("XX", "invalid_enum"),
        ("UK", "invalid_enum"),
        ("ZZ", "invalid_enum"),
        ("ch", "pattern_mismatch"),
        ("CHE", "pattern_mismatch"),
        ("", "pattern_mismatch"),
    ] {
        let answer = patch(&app, &person.access, json!({ "country_code": code })).await;
        assert_eq!(fault(&answer), ("body.country_code", kind), "{code:?}");
    }
    assert_eq!(patched(&app, &person.access, json!({ "country_code": "GB" })).await["country_code"], "GB");
}

#[tokio::test]
async fn nothing_is_written_when_any_field_is_refused() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let before = app.db.rows("SELECT * FROM users").await;
    let long = "a".repeat(281);
    for (body, field, kind) in [
        (json!({ "bio": "x", "is_admin": true }), "body.is_admin", "extra_forbidden"),
        (json!({ "bio": "x", "email": "a@example.com" }), "body.email", "extra_forbidden"),
        (json!({ "bio": "x", "btc_address": "bc1q" }), "body.btc_address", "extra_forbidden"),
        (json!({ "bio": "x", "country_code": 5 }), "body.country_code", "type_error"),
        (json!({ "country_code": "CH", "bio": long }), "body.bio", "string_too_long"),
        (json!({ "country_code": "CH", "bio": "a\tb" }), "body.bio", "control_characters"),
        (json!([]), "body", "type_error"),
    ] {
        let answer = patch(&app, &person.access, body.clone()).await;
        assert_eq!(fault(&answer), (field, kind), "{body}");
    }
    assert_eq!(app.db.rows("SELECT * FROM users").await, before);
    assert_eq!(app.audited("user.profile_updated", "success").await, 0);
}
