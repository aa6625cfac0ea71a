//! Signing in with a wallet: challenge, signature, and what uses a challenge up (contract `auth-users.md`
//! §2.5, §4.1, §11, §16 item 3). Whose account it opens is in `accounts`, the one-call form in `connect`,
//! and what never reaches a challenge in `refusals`.

pub(super) mod accounts;
mod connect;
mod refusals;

use chrono::TimeDelta;
use serde_json::{Value, json};
use tbg_bitcoin::wallet::Key;
use tbg_bitcoin::{AddressType, Network};
use tbg_tests::app::{Answer, App, keys};
use tbg_tests::at;
use tbg_tests::people::{address_of, wallet};
use tbg_web::auth::TokenKind;

/// The public test key of the contract.
const WIF: &str = "L3VFeEujGtevx9w18HD1fhRbCH67Az2dpCymeRE1SoPK6XQtaN2k";
const EXPIRED: (u16, &str) = (400, "AUTH_CHALLENGE_EXPIRED");
const BAD_SIGNATURE: (u16, &str) = (401, "AUTH_SIGNATURE_INVALID");

/// What the server wants signed.
pub(super) struct Challenge {
    pub(super) nonce: String,
    pub(super) message: String,
}

impl Challenge {
    pub(super) fn of(answer: &Value) -> Self {
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        Self { nonce: text("nonce"), message: text("message") }
    }

    /// The body of `/verify`, signed by a P2WPKH wallet on mainnet.
    pub(super) fn signed_by(&self, key: &Key) -> Value {
        let signature = key.sign_bip322(&self.message, AddressType::P2wpkh, Network::Mainnet).unwrap();
        self.with(&address_of(key), &signature)
    }

    pub(super) fn with(&self, address: &str, signature: &str) -> Value {
        json!({ "btc_address": address, "signature": signature, "nonce": self.nonce })
    }
}

/// A new challenge of an address.
pub(super) async fn challenge(app: &App, address: &str) -> Challenge {
    Challenge::of(&ask_challenge(app, address).await.ok())
}

async fn ask_challenge(app: &App, address: &str) -> Answer {
    app.post("/api/v1/auth/challenge", None, json!({ "btc_address": address })).await
}

pub(super) async fn verify(app: &App, body: Value) -> Answer {
    app.post("/api/v1/auth/verify", None, body).await
}

/// `body` with one more member.
pub(super) fn and(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

/// Topics and payloads of the outbox, in the order in which they were written.
pub(super) async fn events(app: &App) -> Vec<(String, Value)> {
    sqlx::query_as("SELECT topic, payload FROM domain_outbox ORDER BY id")
        .fetch_all(&app.db.pool)
        .await
        .unwrap()
}

/// The audit rows of an action, without their time and id.
pub(super) async fn audit(app: &App, action: &str) -> Vec<Value> {
    sqlx::query_scalar(
        "SELECT jsonb_build_object('user', user_id, 'status', status, 'type', resource_type,
                                   'id', resource_id, 'details', details)
         FROM audit_log WHERE action = $1 ORDER BY timestamp, id",
    )
    .bind(action)
    .fetch_all(&app.db.pool)
    .await
    .unwrap()
}

/// Everything that was audited, as one text.
pub(super) async fn audit_text(app: &App) -> String {
    let sql = "SELECT coalesce(string_agg(to_jsonb(a)::TEXT, ' '), '') FROM audit_log a";
    sqlx::query_scalar(sql).fetch_one(&app.db.pool).await.unwrap()
}

#[tokio::test]
async fn the_text_of_the_contract_is_signed_and_signs_in_once() {
    let app = App::at(at("2026-03-15T14:30:00Z")).await;
    let key = Key::from_wif(WIF).unwrap();
    let address = "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l";
    let issued = ask_challenge(&app, address).await.ok();
    let nonce = issued["nonce"].as_str().unwrap();
    assert!(nonce.len() == 32 && nonce.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{nonce}");
    let text = format!(
        "The Bitcoin Game sign-in\n\nDomain: thebitcoingame.com\nNetwork: mainnet\nAddress: {address}\n\
         Nonce: {nonce}\nTimestamp: 2026-03-15T14:30:00Z"
    );
    assert_eq!(issued, json!({ "nonce": nonce, "message": text, "expires_in": 300 }));
    let signature = key.sign_bip322(&text, AddressType::P2wpkh, Network::Mainnet).unwrap();
    let body = json!({ "btc_address": address, "signature": signature, "nonce": nonce });

    let first = verify(&app, body.clone()).await.ok();
    let second = verify(&app, body).await;

    assert_eq!((&first["token_type"], &first["expires_in"]), (&json!("bearer"), &json!(3600)));
    let user = &first["user"];
    assert_eq!(
        *user,
        json!({
            "id": user["id"], "btc_address": address, "auth_method": "wallet", "email": null,
            "email_verified": false, "display_name": null, "country_code": null, "avatar_url": null,
            "bio": null, "is_verified": true, "is_admin": false, "created_at": "2026-03-15T14:30:00Z",
            "last_login": "2026-03-15T14:30:00Z", "login_count": 1,
        })
    );
    assert_eq!(second.outcome(), EXPIRED);
    assert!(second.json["detail"].as_str().unwrap().contains("expired or not found"));
    assert_eq!(second.header("cache-control"), "no-store");
}

#[tokio::test]
async fn tokens_say_who_signed_in_how_and_when() {
    let app = App::at(at("2026-03-15T14:30:00.9Z")).await;

    let answer = app.connect(&wallet(1), false).await.ok();

    let read = |name: &str, kind| keys().verify_at_any_age(answer[name].as_str().unwrap(), kind).unwrap();
    let access = read("access_token", TokenKind::Access);
    let refresh = read("refresh_token", TokenKind::Refresh);
    let started = at("2026-03-15T14:30:00Z").timestamp();
    assert_eq!(access.sub, answer["user"]["id"].to_string());
    assert_eq!(access.address.as_deref(), Some(address_of(&wallet(1)).as_str()));
    assert_eq!(access.auth_method.as_str(), "wallet");
    assert_eq!((access.iat, access.auth_time, access.exp), (started, started, started + 3600));
    assert_eq!((refresh.iat, refresh.auth_time, refresh.exp), (started, started, started + 604_800));
    assert_eq!((refresh.sid, refresh.sub), (access.sid, access.sub));
    assert_ne!(refresh.jti, access.jti);
    let stored: (uuid::Uuid, uuid::Uuid) =
        sqlx::query_as("SELECT id, family_id FROM refresh_tokens").fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(stored, (refresh.jti, refresh.sid));
}

#[tokio::test]
async fn a_second_challenge_does_not_cancel_the_first() {
    let app = App::new().await;
    let (mine, stranger) = (wallet(1), wallet(2));
    let first = challenge(&app, &address_of(&mine)).await;
    // Somebody who knows the address asks, too, and tries with another key.
    let others = challenge(&app, &address_of(&mine)).await;
    let forged = stranger.sign_bip322(&others.message, AddressType::P2wpkh, Network::Mainnet).unwrap();
    assert_ne!(first.nonce, others.nonce);

    let refused = verify(&app, others.with(&address_of(&mine), &forged)).await;
    let accepted = verify(&app, first.signed_by(&mine)).await;

    assert_eq!(refused.outcome(), BAD_SIGNATURE);
    assert_eq!(accepted.status, 200, "{}", accepted.text);
}

#[tokio::test]
async fn a_challenge_is_good_for_five_minutes() {
    let app = App::at(at("2026-03-15T14:30:00Z")).await;
    let key = wallet(1);
    let (first, second) =
        (challenge(&app, &address_of(&key)).await, challenge(&app, &address_of(&key)).await);

    app.clock.set(at("2026-03-15T14:34:59Z"));
    let in_time = verify(&app, first.signed_by(&key)).await;
    app.clock.set(at("2026-03-15T14:35:01Z"));
    let too_late = verify(&app, second.signed_by(&key)).await;

    assert_eq!(in_time.status, 200, "{}", in_time.text);
    assert_eq!(too_late.outcome(), EXPIRED);
}

#[tokio::test]
async fn a_challenge_creates_nobody_and_tells_nothing_about_the_address() {
    let app = App::new().await;
    app.miner(1).await;
    let shape = |answer: Value| {
        let mut names: Vec<String> = answer.as_object().unwrap().keys().cloned().collect();
        names.sort();
        (names, answer["expires_in"].clone(), answer["message"].as_str().unwrap().len())
    };

    let known = ask_challenge(&app, &address_of(&wallet(1))).await.ok();
    let unknown = ask_challenge(&app, &address_of(&wallet(2))).await.ok();

    assert_eq!(shape(known), shape(unknown));
    assert_eq!(app.db.number("SELECT count(*) FROM users").await, 1);
}

#[tokio::test]
async fn no_more_than_twenty_challenges_wait_and_the_oldest_goes() {
    let app = App::new().await;
    let key = wallet(1);
    let address = address_of(&key);
    let mut challenges = Vec::new();
    for _ in 0..21 {
        challenges.push(challenge(&app, &address).await);
        app.clock.advance(TimeDelta::seconds(1));
    }
    let waiting: i64 = redis::cmd("ZCARD")
        .arg(format!("auth:nonces:{address}"))
        .query_async(&mut app.redis.manager())
        .await
        .unwrap();

    let oldest = verify(&app, challenges[0].signed_by(&key)).await;
    let second = verify(&app, challenges[1].signed_by(&key)).await;
    let newest = verify(&app, challenges[20].signed_by(&key)).await;

    assert_eq!(waiting, 20);
    assert_eq!(oldest.outcome(), EXPIRED);
    assert_eq!((second.status, newest.status), (200, 200));
}

#[tokio::test]
async fn a_bad_signature_uses_its_challenge_up_and_is_audited() {
    let app = App::new().await;
    let (key, other) = (wallet(1), wallet(2));
    let address = address_of(&key);
    let taproot = key.address(AddressType::P2tr, Network::Mainnet).unwrap();
    let mut signatures = Vec::new();
    for name in ["tampered", "other key", "noise", "taproot"] {
        let address = if name == "taproot" { taproot.as_str() } else { address.as_str() };
        let challenge = challenge(&app, address).await;
        let signature = match name {
            "tampered" => {
                let text = format!("{} ", challenge.message);
                key.sign_bip322(&text, AddressType::P2wpkh, Network::Mainnet).unwrap()
            }
            "other key" => {
                other.sign_bip322(&challenge.message, AddressType::P2wpkh, Network::Mainnet).unwrap()
            }
            "noise" => "test".to_owned(),
            // Taproot wallets do not sign the digest of old.
            _ => key.sign_compact(&challenge.message, AddressType::P2tr),
        };

        let refused = verify(&app, challenge.with(address, &signature)).await;
        let again = verify(&app, challenge.signed_by(&key)).await;

        assert_eq!(refused.outcome(), BAD_SIGNATURE, "{name}");
        assert_eq!(refused.header("www-authenticate"), "", "{name}");
        assert_eq!(again.outcome(), EXPIRED, "{name}");
        signatures.push(signature);
    }

    let rows = audit(&app, "auth.failed_login").await;
    let bad = rows.iter().filter(|row| row["details"]["reason"] == "bad_signature").count();
    assert_eq!(bad, 4);
    let expected = json!({
        "user": null, "status": "failure", "type": "user", "id": null,
        "details": { "method": "wallet", "reason": "bad_signature", "address": address },
    });
    assert!(rows.contains(&expected), "{rows:?}");
    assert_eq!(app.audited("auth.failed_login", "failure").await, rows.len() as i64);
    assert_eq!(app.db.number("SELECT count(*) FROM users").await, 0);
    let log = audit_text(&app).await;
    assert!(signatures.iter().filter(|text| text.len() > 10).all(|text| !log.contains(text.as_str())));
}

#[tokio::test]
async fn another_timestamp_is_refused_and_uses_the_challenge_up() {
    let app = App::at(at("2026-03-15T14:30:00Z")).await;
    let key = wallet(1);
    let (first, second) =
        (challenge(&app, &address_of(&key)).await, challenge(&app, &address_of(&key)).await);
    let wrong = and(first.signed_by(&key), "timestamp", json!("2026-03-15T14:30:01Z"));
    let right = and(second.signed_by(&key), "timestamp", json!("2026-03-15T14:30:00Z"));

    let refused = verify(&app, wrong).await;
    let used_up = verify(&app, first.signed_by(&key)).await;
    let accepted = verify(&app, right).await;

    assert_eq!(refused.outcome(), (400, "AUTH_CHALLENGE_MISMATCH"));
    assert_eq!(used_up.outcome(), EXPIRED);
    assert_eq!(accepted.status, 200, "{}", accepted.text);
}

#[tokio::test]
async fn every_address_type_signs_in_with_every_form_of_signature() {
    let app = App::new().await;
    let key = wallet(1);
    let forms = [
        (AddressType::P2pkh, Some(AddressType::P2pkh)),
        (AddressType::P2pkh, None),
        (AddressType::P2sh, Some(AddressType::P2sh)),
        (AddressType::P2sh, Some(AddressType::P2pkh)),
        (AddressType::P2sh, None),
        (AddressType::P2wpkh, Some(AddressType::P2wpkh)),
        (AddressType::P2wpkh, Some(AddressType::P2pkh)),
        (AddressType::P2wpkh, None),
        (AddressType::P2tr, None),
    ];
    for (kind, compact_header) in forms {
        let address = key.address(kind, Network::Mainnet).unwrap();
        let challenge = challenge(&app, address.as_str()).await;
        let signature = match compact_header {
            Some(header) => key.sign_compact(&challenge.message, header),
            None => key.sign_bip322(&challenge.message, kind, Network::Mainnet).unwrap(),
        };

        let answer = verify(&app, challenge.with(address.as_str(), &signature)).await;

        assert_eq!(answer.status, 200, "{kind:?} {compact_header:?}: {}", answer.text);
        assert_eq!(answer.json["user"]["btc_address"], address.as_str());
    }
    let stored = app
        .db
        .rows("SELECT address_type, count(*) AS wallets FROM wallet_credentials GROUP BY 1 ORDER BY 1")
        .await;
    let kinds = ["p2pkh", "p2sh", "p2tr", "p2wpkh"];
    assert_eq!(stored, kinds.map(|kind| format!(r#"{{"wallets": 1, "address_type": "{kind}"}}"#)));
}

#[tokio::test]
async fn an_upper_case_address_is_the_same_wallet() {
    let app = App::new().await;
    let key = wallet(1);
    let upper = format!(" {} ", address_of(&key).to_uppercase());
    let challenge = challenge(&app, &upper).await;
    assert!(challenge.message.contains(&format!("\nAddress: {}\n", address_of(&key))));

    let body = and(challenge.signed_by(&key), "btc_address", json!(upper));
    let user = verify(&app, body).await.ok()["user"].clone();

    assert_eq!(user["btc_address"], address_of(&key));
    assert_eq!(app.miner(1).await.id, user["id"].as_i64().unwrap());
}
