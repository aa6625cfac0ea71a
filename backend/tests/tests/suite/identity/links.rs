//! Adding wallets to an account (contract `auth-users.md` §2.5, §4, §6.6).

use chrono::TimeDelta;
use serde_json::{Value, json};
use tbg_tests::app::{Answer, App};
use tbg_tests::at;
use tbg_tests::people::{Person, address_of, wallet};

use super::wallet_sign_in::accounts::type_in;
use super::wallet_sign_in::{Challenge, and, audit, audit_text, challenge, events, verify};

const EXPIRED: (u16, &str) = (400, "AUTH_CHALLENGE_EXPIRED");
const IN_USE: (u16, &str) = (409, "WALLET_IN_USE");

async fn ask(app: &App, person: &Person, address: &str) -> Answer {
    let body = json!({ "btc_address": address });
    app.post("/api/v1/auth/link-wallet/challenge", Some(&person.access), body).await
}

async fn prove(app: &App, person: &Person, body: Value) -> Answer {
    app.post("/api/v1/auth/link-wallet/verify", Some(&person.access), body).await
}

/// A signed challenge for the wallet with that number.
async fn signed(app: &App, person: &Person, number: u64) -> Value {
    let key = wallet(number);
    Challenge::of(&ask(app, person, &address_of(&key)).await.ok()).signed_by(&key)
}

async fn link(app: &App, person: &Person, number: u64) -> Answer {
    prove(app, person, signed(app, person, number).await).await
}

async fn me(app: &App, person: &Person) -> Value {
    app.get("/api/v1/users/me", Some(&person.access)).await.ok()
}

/// Addresses before and after, and the reason, of a person's changes but the first.
async fn changes(app: &App, person: &Person) -> Vec<(Option<String>, Option<String>, String)> {
    sqlx::query_as(
        "SELECT old_address, new_address, reason FROM wallet_address_history
         WHERE user_id = $1 AND reason <> 'register' ORDER BY changed_at, id",
    )
    .bind(person.id)
    .fetch_all(&app.db.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn the_text_of_a_link_names_the_account() {
    let app = App::at(at("2026-03-15T14:30:00Z")).await;
    let person = app.miner(1).await;
    let address = address_of(&wallet(2));

    let issued = ask(&app, &person, &address).await.ok();

    let nonce = issued["nonce"].as_str().unwrap();
    let text = format!(
        "The Bitcoin Game link-wallet\n\nDomain: thebitcoingame.com\nNetwork: mainnet\nAddress: {address}\n\
         Nonce: {nonce}\nTimestamp: 2026-03-15T14:30:00Z\nAccount: {}",
        person.id
    );
    assert_eq!(issued, json!({ "nonce": nonce, "message": text, "expires_in": 300 }));
    assert!(text.len() < 240);
}

#[tokio::test]
async fn a_linked_wallet_signs_into_the_account_and_leaves_its_address_alone() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let linked = address_of(&wallet(2));
    let before = events(&app).await.len();
    let body = signed(&app, &person, 2).await;

    let answer = prove(&app, &person, body.clone()).await.ok();

    let expected = json!({
        "status": "wallet_linked", "btc_address": linked, "address_type": "p2wpkh", "auth_method": "wallet",
    });
    assert_eq!(answer, expected);
    assert_eq!(prove(&app, &person, body.clone()).await.outcome(), EXPIRED, "a challenge works once");
    let by_linked = app.connect(&wallet(2), false).await.ok();
    assert_eq!(by_linked["user"]["id"], person.id);
    assert_eq!(by_linked["user"]["btc_address"], person.address);
    assert_eq!(by_linked["user"]["login_count"], 2);
    assert_eq!(changes(&app, &person).await, [(None, Some(linked.clone()), "link".to_owned())]);
    assert_eq!(events(&app).await.len(), before, "the current address was proven before");
    let expected = json!({
        "user": person.id.to_string(), "status": "success", "type": "wallet", "id": linked,
        "details": { "old": null, "new": linked },
    });
    assert_eq!(audit(&app, "user.wallet_linked").await, [expected]);
    let log = audit_text(&app).await;
    assert!(!log.contains(body["signature"].as_str().unwrap()) && !log.contains(&person.access));
}

#[tokio::test]
async fn replace_makes_the_linked_wallet_the_mining_address() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let new = address_of(&wallet(2));
    let before = events(&app).await.len();
    let body = and(signed(&app, &person, 2).await, "replace", json!(true));

    let answer = prove(&app, &person, body).await.ok();

    assert_eq!(answer["btc_address"], new);
    let user = me(&app, &person).await;
    assert_eq!((&user["btc_address"], &user["is_verified"]), (&json!(new), &json!(true)));
    let history = (Some(person.address.clone()), Some(new.clone()), "link".to_owned());
    assert_eq!(changes(&app, &person).await, [history]);
    let proven = json!({ "user_id": person.id, "btc_address": new });
    assert_eq!(events(&app).await.split_off(before), [("AddressProven".to_owned(), proven)]);
    let rows = audit(&app, "user.wallet_linked").await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["details"], json!({ "old": person.address, "new": new }));
    for number in [1, 2] {
        assert_eq!(app.connect(&wallet(number), false).await.ok()["user"]["id"], person.id);
    }
}

#[tokio::test]
async fn an_email_user_who_proves_the_own_address_signs_in_both_ways() {
    let app = App::new().await;
    let person = app.register("a@example.com", 1).await;
    let before = events(&app).await.len();

    let answer = link(&app, &person, 1).await.ok();

    assert_eq!(answer["auth_method"], "both");
    let user = me(&app, &person).await;
    assert_eq!((&user["auth_method"], &user["is_verified"]), (&json!("both"), &json!(true)));
    assert_eq!(user["email"], "a@example.com");
    let proven = json!({ "user_id": person.id, "btc_address": person.address });
    assert_eq!(events(&app).await.split_off(before), [("AddressProven".to_owned(), proven)]);
    let by_wallet = app.connect(&wallet(1), false).await.ok();
    assert_eq!(by_wallet["user"]["id"], person.id);
    assert_eq!(by_wallet["user"]["auth_method"], "both");
    let body = json!({ "email": "a@example.com", "password": "Abcdefg1" });
    let by_email = app.post("/api/v1/auth/login", None, body).await.ok();
    assert_eq!(by_email["user"]["id"], person.id);
    assert_eq!(by_email["user"]["login_count"], 3);
}

#[tokio::test]
async fn a_wallet_becomes_the_address_of_an_account_that_has_none() {
    let app = App::new().await;
    let person = app.miner(1).await;
    type_in(&app, &person, 2).await;
    assert_eq!(app.connect(&wallet(2), true).await.status, 200, "the owner claims it");
    assert_eq!(me(&app, &person).await["btc_address"], Value::Null);
    let before = events(&app).await.len();

    let answer = link(&app, &person, 3).await.ok();

    assert_eq!(answer["btc_address"], address_of(&wallet(3)));
    let user = me(&app, &person).await;
    assert_eq!((&user["btc_address"], &user["is_verified"]), (&answer["btc_address"], &json!(true)));
    let topics: Vec<String> =
        events(&app).await.split_off(before).into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(topics, ["AddressProven"]);
}

#[tokio::test]
async fn a_wallet_that_signs_somebody_else_in_cannot_be_linked() {
    let app = App::new().await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);

    let asked = ask(&app, &person, &other.address).await;
    // Wallet 3 signs up by itself between challenge and proof.
    let late = signed(&app, &person, 3).await;
    let third = app.miner(3).await;
    let proved = prove(&app, &person, late).await;

    assert_eq!(asked.outcome(), IN_USE);
    assert_eq!(proved.outcome(), IN_USE);
    assert_eq!(app.connect(&wallet(3), false).await.ok()["user"]["id"], third.id);
    assert!(changes(&app, &person).await.is_empty());
    assert!(audit(&app, "user.wallet_linked").await.is_empty());
}

#[tokio::test]
async fn an_address_that_another_account_names_does_not_become_the_mining_address() {
    let app = App::new().await;
    let (person, typist) = (app.miner(1).await, app.miner(2).await);
    type_in(&app, &typist, 3).await;
    let body = and(signed(&app, &person, 3).await, "replace", json!(true));

    let refused = prove(&app, &person, body).await;

    assert_eq!(refused.outcome(), IN_USE);
    assert_eq!(me(&app, &person).await["btc_address"], person.address);
    assert_eq!(app.db.number("SELECT count(*) FROM wallet_credentials").await, 2, "nothing is left of it");
    assert!(audit(&app, "user.wallet_linked").await.is_empty());
}

#[tokio::test]
async fn five_wallets_sign_into_an_account_and_no_more() {
    let app = App::new().await;
    let person = app.miner(1).await;
    for number in 2..=5 {
        assert_eq!(link(&app, &person, number).await.status, 200, "wallet {number}");
    }

    let sixth = link(&app, &person, 6).await;
    let fifth_again = link(&app, &person, 5).await;

    assert_eq!(sixth.outcome(), (409, "WALLET_LIMIT"));
    assert_eq!(fifth_again.status, 200, "{}", fifth_again.text);
    assert_eq!(app.db.number("SELECT count(*) FROM wallet_credentials").await, 5);
    assert_ne!(app.connect(&wallet(6), false).await.ok()["user"]["id"], person.id);
}

#[tokio::test]
async fn a_challenge_counts_only_for_its_purpose_and_its_account() {
    let app = App::new().await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    let key = wallet(3);
    let for_link = signed(&app, &person, 3).await;
    let for_sign_in = challenge(&app, &address_of(&key)).await.signed_by(&key);

    assert_eq!(verify(&app, for_link.clone()).await.outcome(), EXPIRED);
    assert_eq!(prove(&app, &person, for_sign_in.clone()).await.outcome(), EXPIRED);
    assert_eq!(prove(&app, &other, for_link.clone()).await.outcome(), EXPIRED);
    let connected = app.post("/api/v1/auth/connect", None, for_link.clone()).await;
    assert_eq!(connected.outcome(), (401, "AUTH_SIGNATURE_INVALID"));

    // None of these attempts took a challenge that was somebody else's.
    assert_eq!(prove(&app, &person, for_link).await.status, 200);
    let signed_in = verify(&app, for_sign_in).await.ok();
    assert_eq!(signed_in["user"]["id"], person.id);
}

#[tokio::test]
async fn a_failed_proof_uses_its_challenge_up_and_links_nothing() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let good = async || signed(&app, &person, 2).await;
    let (forged, mistimed, late) = (good().await, good().await, good().await);
    let other = signed(&app, &person, 3).await;

    let bad_signature =
        prove(&app, &person, and(forged.clone(), "signature", other["signature"].clone())).await;
    let again = prove(&app, &person, forged).await;
    let timestamp = and(mistimed.clone(), "timestamp", json!("2026-01-01T00:00:00Z"));
    let mismatch = prove(&app, &person, timestamp).await;
    let used_up = prove(&app, &person, mistimed).await;
    app.clock.advance(TimeDelta::seconds(302));
    let expired = prove(&app, &person, late).await;

    assert_eq!(bad_signature.outcome(), (401, "AUTH_SIGNATURE_INVALID"));
    assert_eq!(bad_signature.header("www-authenticate"), "");
    assert_eq!(mismatch.outcome(), (400, "AUTH_CHALLENGE_MISMATCH"));
    for answer in [again, used_up, expired] {
        assert_eq!(answer.outcome(), EXPIRED);
    }
    assert_eq!(app.db.number("SELECT count(*) FROM wallet_credentials").await, 1);
    assert!(audit(&app, "user.wallet_linked").await.is_empty());
}

#[tokio::test]
async fn an_address_that_cannot_sign_here_cannot_be_linked() {
    let app = App::new().await;
    let person = app.miner(1).await;
    for (address, code) in [
        ("bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3", "ADDRESS_NOT_SIGNABLE"),
        ("tb1q9vza2e8x573nczrlzms0wvx3gsqjx7vaxwd45v", "ADDRESS_WRONG_NETWORK"),
        ("bc1qtest", "ADDRESS_INVALID"),
    ] {
        assert_eq!(ask(&app, &person, address).await.outcome(), (400, code));
    }
    let anonymous = app.post("/api/v1/auth/link-wallet/challenge", None, json!({ "btc_address": "x" })).await;
    assert_eq!(anonymous.outcome(), (401, "AUTH_REQUIRED"));
}
