//! Looking people up by address (contract `auth-users.md` §6.4, §16 item 18).

use serde_json::{Value, json};
use tbg_core::{Clock as _, UserId};
use tbg_tests::app::{Answer, App, request, send};
use tbg_tests::at;
use tbg_tests::people::{Person, address_of, wallet};

/// What is asked about an address: the user, and the user's numbers.
const LOOKUPS: [&str; 2] = ["", "/stats"];

async fn look_up(app: &App, address: &str, what: &str) -> Answer {
    app.get(&format!("/api/v1/users/{address}{what}"), None).await
}

/// Status and body without the id of the request: all that a stranger can compare.
fn seen(answer: &Answer) -> (u16, Value) {
    let mut body = answer.json.clone();
    if let Some(id) = body.get_mut("request_id") {
        *id = Value::Null;
    }
    (answer.status, body)
}

/// What everybody gets who asks for nobody.
fn nobody() -> (u16, Value) {
    (404, json!({ "detail": "User not found", "code": "USER_NOT_FOUND", "request_id": null }))
}

async fn set_privacy(app: &App, person: &Person, privacy: Value) {
    let body = Some(json!({ "privacy": privacy }));
    let answer = app.ask("PATCH", "/api/v1/users/me/settings", Some(&person.access), body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

async fn ban(app: &App, person: &Person, banned: bool) {
    let (user, now) = (UserId(person.id), app.clock.now());
    tbg_identity::roles::ban(&app.db.pool, user, "test", banned, now).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_public_user_has_exactly_the_fields_of_the_contract() {
    let app = App::at(at("2026-03-15T14:30:00Z")).await;
    let person = app.miner(1).await;
    let typist = app.register("secret@example.com", 2).await;
    let body = json!({
        "display_name": "Satoshi Hunter", "country_code": "CH", "avatar_url": "https://example.com/a.png",
        "bio": "Hello",
    });
    let set = app.ask("PATCH", "/api/v1/users/me", Some(&person.access), Some(body)).await;
    assert_eq!(set.status, 200, "{}", set.text);

    let shown = look_up(&app, &person.address, "").await.ok();
    let bare = look_up(&app, &typist.address, "").await.ok();

    assert_eq!(
        shown,
        json!({
            "btc_address": person.address, "display_name": "Satoshi Hunter", "country_code": "CH",
            "avatar_url": "https://example.com/a.png", "bio": "Hello", "is_verified": true,
            "created_at": "2026-03-15T14:30:00Z",
        })
    );
    assert_eq!(
        bare,
        json!({
            "btc_address": typist.address, "display_name": null, "country_code": null, "avatar_url": null,
            "bio": null, "is_verified": false, "created_at": "2026-03-15T14:30:00Z",
        })
    );
}

#[tokio::test]
async fn public_numbers_are_those_of_the_game_and_the_streak_is_live() {
    let app = App::at(at("2026-03-15T14:30:00Z")).await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    for sql in [
        "INSERT INTO user_gamification (user_id, best_difficulty, total_shares, blocks_found, current_streak,
             longest_streak, streak_start_date, last_active_week, freezes)
         VALUES ($1, 4096.5, 13, 1, 5, 5, '2026-01-26', '2026-W09', 1)",
        "INSERT INTO user_badges (user_id, badge_id, period_key, earned_at) VALUES
         ($1, 8, '2026-W10', now()), ($1, 8, '2026-W09', now()), ($1, 1, '', now())",
    ] {
        sqlx::query(sql).bind(person.id).execute(&app.db.pool).await.unwrap();
    }

    let shown = look_up(&app, &person.address, "/stats").await.ok();
    let none = look_up(&app, &other.address, "/stats").await.ok();
    app.clock.set(at("2026-03-16T00:00:00Z"));
    let later = look_up(&app, &person.address, "/stats").await.ok();

    assert_eq!(
        shown,
        json!({
            "best_difficulty": 4096.5, "total_shares": 13, "blocks_found": 1, "current_streak": 5,
            "badges": ["first_share", "weekly_diff_champion"],
        })
    );
    assert_eq!(later["current_streak"], 0, "one freeze bridges one week");
    assert_eq!(
        none,
        json!({
            "best_difficulty": 0.0, "total_shares": 0, "blocks_found": 0, "current_streak": 0, "badges": [],
        })
    );
}

#[tokio::test]
async fn nobody_can_tell_hidden_banned_deleted_unknown_and_malformed_apart() {
    let app = App::new().await;
    let (hidden, banned, deleted) = (app.miner(1).await, app.miner(2).await, app.miner(3).await);
    set_privacy(&app, &hidden, json!({ "publicProfile": false })).await;
    ban(&app, &banned, true).await;
    let confirm = Some(json!({ "confirm": "DELETE" }));
    let gone = app.ask("DELETE", "/api/v1/users/me", Some(&deleted.access), confirm).await;
    assert_eq!(gone.status, 200, "{}", gone.text);
    let (unknown, endless) = (address_of(&wallet(9)), "1".repeat(2000));

    for address in [
        hidden.address.as_str(),
        banned.address.as_str(),
        deleted.address.as_str(),
        unknown.as_str(),
        "tb1q9vza2e8x573nczrlzms0wvx3gsqjx7vaxwd45v",
        "bc1qtest",
        "nobody",
        "1",
        "null",
        "%27%20OR%201=1",
        "%00",
        "%FF%FE",
        endless.as_str(),
    ] {
        for what in LOOKUPS {
            assert_eq!(seen(&look_up(&app, address, what).await), nobody(), "{address}{what}");
        }
    }
}

#[tokio::test]
async fn who_shows_up_again_is_seen_again() {
    let app = App::new().await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    set_privacy(&app, &person, json!({ "publicProfile": false })).await;
    ban(&app, &other, true).await;
    for what in LOOKUPS {
        assert_eq!(seen(&look_up(&app, &person.address, what).await), nobody());
        assert_eq!(seen(&look_up(&app, &other.address, what).await), nobody());
    }

    set_privacy(&app, &person, json!({ "publicProfile": true })).await;
    ban(&app, &other, false).await;

    for what in LOOKUPS {
        assert_eq!(look_up(&app, &person.address, what).await.status, 200);
        assert_eq!(look_up(&app, &other.address, what).await.status, 200);
    }
}

#[tokio::test]
async fn an_empty_or_partial_section_of_settings_hides_nobody() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let country = json!({ "country_code": "CH", "sound": { "volume": 1 } });
    let set = app.ask("PATCH", "/api/v1/users/me/settings", Some(&person.access), Some(country)).await;
    assert_eq!(set.status, 200, "{}", set.text);

    let with_empty = look_up(&app, &person.address, "").await.ok();
    set_privacy(&app, &person, json!({ "showOnLeaderboard": false })).await;
    let with_partial = look_up(&app, &person.address, "").await.ok();

    assert_eq!(with_empty["country_code"], "CH");
    assert_eq!(with_partial, with_empty);
}

#[tokio::test]
async fn a_hidden_country_is_null_and_the_rest_is_shown() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let body = json!({ "country_code": "CH", "display_name": "Satoshi Hunter" });
    let set = app.ask("PATCH", "/api/v1/users/me", Some(&person.access), Some(body)).await;
    assert_eq!(set.status, 200, "{}", set.text);
    let mut expected = look_up(&app, &person.address, "").await.ok();
    assert_eq!(expected["country_code"], "CH");

    set_privacy(&app, &person, json!({ "showCountryFlag": false })).await;
    let shown = look_up(&app, &person.address, "").await.ok();

    expected["country_code"] = Value::Null;
    assert_eq!(shown, expected);
    let own = app.get("/api/v1/users/me", Some(&person.access)).await.ok();
    assert_eq!(own["country_code"], "CH", "its owner sees it");
}

#[tokio::test]
async fn an_address_is_looked_up_in_its_normal_form() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let upper = person.address.to_uppercase();
    let mixed = format!("{}{}", &person.address[..20], &upper[20..]);

    for what in LOOKUPS {
        let lower = look_up(&app, &person.address, what).await;
        let same = look_up(&app, &upper, what).await;
        let spaced = look_up(&app, &format!("%20{upper}%20"), what).await;

        assert_eq!(lower.status, 200, "{}", lower.text);
        assert_eq!([seen(&same), seen(&spaced)], [seen(&lower), seen(&lower)]);
        assert_eq!(seen(&look_up(&app, &mixed, what).await), nobody(), "mixed case is no bech32");
    }
}

#[tokio::test]
async fn lookups_need_no_credential_and_look_at_none() {
    let app = App::new().await;
    let person = app.miner(1).await;
    set_privacy(&app, &person, json!({ "publicProfile": false })).await;
    let other = app.miner(2).await;

    for what in LOOKUPS {
        let path = format!("/api/v1/users/{}{what}", other.address);
        let bad_token = send(&app.router, request("GET", &path, Some("nonsense"), None)).await;
        let bad_key = send(&app.router, request("GET", &path, Some("tbg_nonsense"), None)).await;
        let own = format!("/api/v1/users/{}{what}", person.address);
        let by_owner = app.get(&own, Some(&person.access)).await;

        assert_eq!([bad_token.status, bad_key.status], [200; 2]);
        assert_eq!(seen(&by_owner), nobody(), "not even its owner sees a hidden profile here");
    }
}

#[tokio::test]
async fn me_is_never_taken_for_an_address() {
    let app = App::new().await;

    let me = app.get("/api/v1/users/me", None).await;
    let settings = app.get("/api/v1/users/me/settings", None).await;

    assert_eq!([me.outcome(), settings.outcome()], [(401, "AUTH_REQUIRED"); 2]);
}

#[tokio::test]
async fn an_address_that_moved_on_shows_nobody() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let new = address_of(&wallet(2));
    let body = Some(json!({ "btc_address": new }));
    let moved = app.ask("PATCH", "/api/v1/users/me/wallet", Some(&person.access), body).await;
    assert_eq!(moved.status, 200, "{}", moved.text);

    let old = look_up(&app, &person.address, "").await;
    let shown = look_up(&app, &new, "").await.ok();

    assert_eq!(seen(&old), nobody());
    assert_eq!((&shown["btc_address"], &shown["is_verified"]), (&json!(new), &json!(false)));
}
