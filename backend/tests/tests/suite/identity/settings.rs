//! Settings (contract `auth-users.md` §7, §16 items 14 and 15). Where notices go by mail is in `mail`.

mod mail;

use serde_json::{Value, json};
use tbg_tests::app::{Answer, App};
use tbg_tests::people::{Person, address_of, wallet};

use super::wallet_sign_in::{audit, events};

const INVALID: (u16, &str) = (422, "VALIDATION_ERROR");

async fn patch(app: &App, person: &Person, body: Value) -> Answer {
    app.ask("PATCH", "/api/v1/users/me/settings", Some(&person.access), Some(body)).await
}

/// A change that is accepted; gives all settings.
async fn patched(app: &App, person: &Person, body: Value) -> Value {
    patch(app, person, body).await.ok()
}

async fn settings(app: &App, person: &Person) -> Value {
    app.get("/api/v1/users/me/settings", Some(&person.access)).await.ok()
}

/// The table of the contract.
fn defaults() -> Value {
    json!({
        "notifications": {
            "personalBest": true, "badgeEarned": true, "worldCupMatch": true, "lotteryResults": true,
            "blockFoundAny": false, "leaderboardChange": false, "coopActivity": false,
            "educationRecommendation": false, "inApp": true, "browserPush": false,
            "emailNotifications": false, "email": "", "emailVerified": false,
        },
        "privacy": {
            "publicProfile": true, "showOnLeaderboard": true, "showCountryFlag": true,
            "showInCoopRankings": true,
        },
        "mining": { "coinbaseSignature": "", "difficultyPreference": "auto" },
        "sound": { "mode": "subtle", "gameSounds": true, "volume": 80 },
        "display": { "mode": "full", "reducedMotion": false, "compactMode": false, "timezone": "UTC" },
    })
}

/// The defaults with other values at `section/key`.
fn defaults_but(changes: &[(&str, Value)]) -> Value {
    let mut settings = defaults();
    for (path, value) in changes {
        *settings.pointer_mut(&format!("/{path}")).unwrap() = value.clone();
    }
    settings
}

async fn coinbase(app: &App, address: &str) -> Option<String> {
    let key = format!("user_coinbase:{address}");
    redis::cmd("GET").arg(key).query_async(&mut app.redis.manager()).await.unwrap()
}

#[tokio::test]
async fn a_new_user_has_the_defaults_and_no_row() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let key = app.api_key(&person, &["read"]).await;

    let answer = app.get("/api/v1/users/me/settings", Some(&person.access)).await;
    let by_key = app.get("/api/v1/users/me/settings", Some(&key)).await.ok();
    let after_nothing = patched(&app, &person, json!({})).await;

    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.ok(), defaults());
    assert_eq!([&by_key, &after_nothing], [&defaults(); 2]);
    assert_eq!(app.db.number("SELECT count(*) FROM user_settings").await, 0);
    assert_eq!(app.audited("user.settings_updated", "success").await, 0);
}

#[tokio::test]
async fn a_change_leaves_every_other_key_alone() {
    let app = App::new().await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);

    let louder = patched(&app, &person, json!({ "sound": { "volume": 30 } })).await;
    let zone = json!({ "display": { "timezone": "Europe/Zurich" }, "sound": { "gameSounds": false } });
    let zoned = patched(&app, &person, zone).await;

    assert_eq!(louder, defaults_but(&[("sound/volume", json!(30))]));
    let expected = defaults_but(&[
        ("sound/volume", json!(30)),
        ("sound/gameSounds", json!(false)),
        ("display/timezone", json!("Europe/Zurich")),
    ]);
    assert_eq!(zoned, expected);
    assert_eq!(settings(&app, &person).await, expected);
    assert_eq!(settings(&app, &other).await, defaults());
    let stored: Value = sqlx::query_scalar("SELECT sound || display || privacy || mining FROM user_settings")
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    let overrides = json!({ "volume": 30, "gameSounds": false, "timezone": "Europe/Zurich" });
    assert_eq!(stored, overrides, "only what was changed is stored");
}

#[tokio::test]
async fn every_key_can_be_set() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let mut wanted = json!({
        "notifications": {
            "personalBest": false, "badgeEarned": false, "worldCupMatch": false, "lotteryResults": false,
            "blockFoundAny": true, "leaderboardChange": true, "coopActivity": true,
            "educationRecommendation": true, "inApp": false, "browserPush": true,
            "emailNotifications": true, "email": "notices@example.com",
        },
        "privacy": {
            "publicProfile": false, "showOnLeaderboard": false, "showCountryFlag": false,
            "showInCoopRankings": false,
        },
        "mining": { "coinbaseSignature": "/TheBitcoinGame:_.:!#-9/", "difficultyPreference": "high" },
        "sound": { "mode": "full", "gameSounds": false, "volume": 0 },
        "display": {
            "mode": "simple", "reducedMotion": true, "compactMode": true,
            "timezone": "America/Argentina/Buenos_Aires",
        },
    });

    let answer = patched(&app, &person, wanted.clone()).await;

    wanted["notifications"]["emailVerified"] = json!(false);
    assert_eq!(answer, wanted);
    assert_eq!(settings(&app, &person).await, wanted);
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_and_nothing_is_changed() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let inner = |text: &str| json!({ "mining": { "coinbaseSignature": format!("/TheBitcoinGame:{text}/") } });
    for (body, field) in [
        (json!({ "sound": { "volume": 101 } }), "body.sound.volume"),
        (json!({ "sound": { "volume": -1 } }), "body.sound.volume"),
        (json!({ "sound": { "volume": "30" } }), "body.sound.volume"),
        (json!({ "sound": { "volume": 30.0 } }), "body.sound.volume"),
        (json!({ "sound": { "volume": null } }), "body.sound.volume"),
        (json!({ "sound": { "x": 1 } }), "body.sound.x"),
        (json!({ "sound": { "mode": "loud" } }), "body.sound.mode"),
        (json!({ "sound": null }), "body.sound"),
        (json!({ "sound": "off" }), "body.sound"),
        (json!({ "sound_mode": "loud" }), "body.sound_mode"),
        (json!({ "sound_mode": null }), "body.sound_mode"),
        (json!({ "unknown": {} }), "body.unknown"),
        (json!({ "privacy": { "publicProfile": 0 } }), "body.privacy.publicProfile"),
        (json!({ "privacy": { "public_profile": true } }), "body.privacy.public_profile"),
        (json!({ "notifications": { "emailVerified": true } }), "body.notifications.emailVerified"),
        (json!({ "notifications": { "email": "nobody" } }), "body.notifications.email"),
        (json!({ "notifications": { "email": null } }), "body.notifications.email"),
        (json!({ "notification_preferences": null }), "body.notification_preferences"),
        (inner("1234567890123456"), "body.mining.coinbaseSignature"),
        (inner(""), "body.mining.coinbaseSignature"),
        (inner("a b"), "body.mining.coinbaseSignature"),
        (inner("a/b"), "body.mining.coinbaseSignature"),
        (inner("Hit-ler"), "body.mining.coinbaseSignature"),
        (json!({ "mining": { "coinbaseSignature": "SatoshiHunter" } }), "body.mining.coinbaseSignature"),
        (json!({ "mining": { "difficultyPreference": "max" } }), "body.mining.difficultyPreference"),
        (json!({ "display": { "timezone": "Moon/Base" } }), "body.display.timezone"),
        (json!({ "display": { "mode": "subtle" } }), "body.display.mode"),
        (json!({ "display_name": "A" }), "body.display_name"),
        (json!({ "display_name": null }), "body.display_name"),
        (json!({ "country_code": "XX" }), "body.country_code"),
        (json!({ "bio": "not here" }), "body.bio"),
    ] {
        // A good part beside the bad one is not written either.
        let mut mixed = body.clone();
        mixed["country_code"] = body.get("country_code").cloned().unwrap_or_else(|| json!("CH"));
        for body in [body, mixed] {
            let answer = patch(&app, &person, body.clone()).await;
            assert_eq!(answer.outcome(), INVALID, "{body}");
            assert_eq!(answer.json["errors"][0]["field"], field, "{body}");
        }
    }
    assert_eq!(settings(&app, &person).await, defaults());
    assert_eq!(app.db.number("SELECT count(country_code) FROM users").await, 0);
    assert_eq!(app.db.number("SELECT count(*) FROM user_settings").await, 0);
    assert_eq!(app.audited("user.settings_updated", "success").await, 0);
}

#[tokio::test]
async fn a_refusal_that_needs_the_account_writes_nothing_either() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let typist = app.register("a@example.com", 2).await;
    assert_eq!(patch(&app, &person, json!({ "display_name": "Satoshi" })).await.status, 200);
    let good = json!({ "sound": { "volume": 1 }, "privacy": { "publicProfile": false } });
    let with = |key: &str, value: Value| {
        let mut body = good.clone();
        body[key] = value;
        body
    };

    let taken = patch(&app, &typist, with("display_name", json!("SATOSHI"))).await;
    let signed = json!({ "coinbaseSignature": "/TheBitcoinGame:Me/" });
    let unproven = patch(&app, &typist, with("mining", signed)).await;
    let nowhere = patch(&app, &typist, with("notifications", json!({ "emailNotifications": true }))).await;

    assert_eq!(taken.outcome(), (409, "DISPLAY_NAME_TAKEN"));
    assert_eq!(unproven.outcome(), (409, "WALLET_UNVERIFIED"));
    assert_eq!(nowhere.outcome(), INVALID);
    assert_eq!(settings(&app, &typist).await, defaults());
    assert_eq!(coinbase(&app, &typist.address).await, None);
    assert!(!events(&app).await.iter().any(|(topic, _)| topic == "PrivacyChanged"));
    assert_eq!(app.audited("user.settings_updated", "success").await, 0);
}

#[tokio::test]
async fn an_alias_stands_for_its_key_and_must_not_contradict_it() {
    let app = App::new().await;
    let person = app.miner(1).await;

    let off = patched(&app, &person, json!({ "sound_mode": "off" })).await;
    let agreeing = json!({ "sound_mode": "full", "sound": { "mode": "full", "volume": 1 } });
    let both = patched(&app, &person, agreeing).await;
    let contradicting = json!({ "sound_mode": "off", "sound": { "mode": "full" } });
    let contradiction = patch(&app, &person, contradicting).await;
    let quiet = patched(&app, &person, json!({ "notification_preferences": { "inApp": false } })).await;
    let twice = json!({ "notification_preferences": { "inApp": true }, "notifications": { "inApp": true } });
    let twice = patch(&app, &person, twice).await;

    assert_eq!(off, defaults_but(&[("sound/mode", json!("off"))]));
    assert_eq!(both["sound"], json!({ "mode": "full", "gameSounds": true, "volume": 1 }));
    assert_eq!(quiet["notifications"]["inApp"], false);
    assert_eq!([contradiction.outcome(), twice.outcome()], [INVALID; 2]);
    assert_eq!(settings(&app, &person).await, quiet);
}

#[tokio::test]
async fn ten_changes_of_different_keys_at_once_are_all_kept() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let changes = [
        ("sound/mode", json!("off")),
        ("sound/gameSounds", json!(false)),
        ("sound/volume", json!(7)),
        ("display/mode", json!("simple")),
        ("display/reducedMotion", json!(true)),
        ("display/compactMode", json!(true)),
        ("privacy/showCountryFlag", json!(false)),
        ("notifications/personalBest", json!(false)),
        ("notifications/badgeEarned", json!(false)),
        ("notifications/inApp", json!(false)),
    ];

    let asked = changes.iter().map(|(path, value)| {
        let (section, key) = path.split_once('/').unwrap();
        patch(&app, &person, json!({ section: { key: value } }))
    });
    let answers = futures_util::future::join_all(asked).await;

    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(settings(&app, &person).await, defaults_but(&changes));
    assert_eq!(app.audited("user.settings_updated", "success").await, 10);
}

#[tokio::test]
async fn a_coinbase_signature_reaches_the_pool_as_its_inner_text() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let signature = "/TheBitcoinGame:SatoshiHunter/";
    let set = |text: &str| json!({ "mining": { "coinbaseSignature": text } });

    let signed = patched(&app, &person, set(signature)).await;
    let told = coinbase(&app, &person.address).await;
    patched(&app, &person, json!({ "mining": { "difficultyPreference": "low" } })).await;
    let still_told = coinbase(&app, &person.address).await;
    let too_long = patch(&app, &person, set("/TheBitcoinGame:1234567890123456/")).await;
    let kept = coinbase(&app, &person.address).await;
    let cleared = patched(&app, &person, set("")).await;

    assert_eq!(signed["mining"]["coinbaseSignature"], signature);
    let told = [&told, &still_told, &kept].map(Option::as_deref);
    assert_eq!(told, [Some("SatoshiHunter"); 3]);
    assert_eq!(too_long.outcome(), INVALID);
    assert_eq!(cleared["mining"]["coinbaseSignature"], "");
    assert_eq!(coinbase(&app, &person.address).await, None);
}

#[tokio::test]
async fn only_a_proven_address_gets_a_coinbase_signature() {
    let app = App::new().await;
    let typist = app.register("a@example.com", 1).await;
    let mover = app.miner(2).await;
    let body = json!({ "btc_address": address_of(&wallet(3)) });
    let moved = app.ask("PATCH", "/api/v1/users/me/wallet", Some(&mover.access), Some(body)).await;
    assert_eq!(moved.status, 200, "{}", moved.text);
    let set = json!({ "mining": { "coinbaseSignature": "/TheBitcoinGame:Me/" } });

    for person in [&typist, &mover] {
        let refused = patch(&app, person, set.clone()).await;
        let cleared = patch(&app, person, json!({ "mining": { "coinbaseSignature": "" } })).await;

        assert_eq!(refused.outcome(), (409, "WALLET_UNVERIFIED"));
        assert_eq!(cleared.status, 200, "an empty text needs no proof");
    }
    for number in 1..=3 {
        assert_eq!(coinbase(&app, &address_of(&wallet(number))).await, None);
    }
}

#[tokio::test]
async fn a_change_of_privacy_is_announced_to_those_who_show_people() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let mut redis = app.redis.manager();
    let cached = format!("public:profile:{}", person.address);
    redis::cmd("SET").arg(&cached).arg("old").query_async::<()>(&mut redis).await.unwrap();

    patched(&app, &person, json!({ "sound": { "volume": 1 } })).await;
    let before: Vec<_> = privacy_events(&app).await;
    patched(&app, &person, json!({ "privacy": { "publicProfile": false, "showCountryFlag": false } })).await;
    let once = privacy_events(&app).await;
    patched(&app, &person, json!({ "privacy": { "publicProfile": true } })).await;
    let twice = privacy_events(&app).await;

    assert!(before.is_empty());
    let payload = json!({ "user_id": person.id });
    let announced = [("competition".to_owned(), payload.clone()), ("social".to_owned(), payload)];
    assert_eq!(once, announced);
    assert_eq!(twice.len(), 4, "each change is a fact of its own");
    let left: i64 = redis::cmd("EXISTS").arg(&cached).query_async(&mut redis).await.unwrap();
    assert_eq!(left, 0);
}

/// Consumers and payloads of `PrivacyChanged`, in the order in which they were written.
async fn privacy_events(app: &App) -> Vec<(String, Value)> {
    sqlx::query_as("SELECT consumer, payload FROM domain_outbox WHERE topic = 'PrivacyChanged' ORDER BY id")
        .fetch_all(&app.db.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_change_is_audited_by_the_names_of_its_keys() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let body = json!({
        "privacy": { "publicProfile": false }, "sound_mode": "off", "country_code": "CH",
        "notification_preferences": { "email": "secret@example.com" },
    });

    patched(&app, &person, body).await;

    let id = person.id.to_string();
    let keys = json!({ "keys": ["notifications.email", "privacy.publicProfile", "sound.mode"] });
    let expected = json!({ "user": id, "status": "success", "type": "settings", "id": id, "details": keys });
    assert_eq!(audit(&app, "user.settings_updated").await, [expected]);
    let profile = audit(&app, "user.profile_updated").await;
    assert_eq!(profile.len(), 1);
    assert_eq!(profile[0]["details"], json!({ "fields": ["country_code"] }));
}

#[tokio::test]
async fn name_and_country_are_those_of_the_profile_with_the_same_limit() {
    let app = App::new().await;
    let person = app.miner(1).await;
    for number in 1..=5 {
        let name = format!("  Name   {number} ");
        patched(&app, &person, json!({ "display_name": name, "country_code": "SV" })).await;
    }

    let sixth = patch(&app, &person, json!({ "display_name": "Name 6", "sound": { "volume": 1 } })).await;
    let in_profile = json!({ "display_name": "Name 6" });
    let elsewhere = app.ask("PATCH", "/api/v1/users/me", Some(&person.access), Some(in_profile)).await;

    assert_eq!([sixth.outcome(), elsewhere.outcome()], [(429, "COOLDOWN"); 2]);
    let me = app.get("/api/v1/users/me", Some(&person.access)).await.ok();
    assert_eq!((&me["display_name"], &me["country_code"]), (&json!("Name 5"), &json!("SV")));
    assert_eq!(settings(&app, &person).await, defaults(), "the volume waits, too");
}

#[tokio::test]
async fn only_a_session_changes_settings() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let key = app.api_key(&person, &["write"]).await;

    let body = json!({ "sound": { "volume": 1 } });
    let refused = app.ask("PATCH", "/api/v1/users/me/settings", Some(&key), Some(body)).await;

    assert_eq!(refused.outcome(), (403, "SESSION_REQUIRED"));
}
