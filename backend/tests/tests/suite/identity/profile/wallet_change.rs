//! Another mining address (contract `auth-users.md` §6.3, §6.6, §16 item 19).

use serde_json::{Value, json};
use tbg_bitcoin::{AddressType, Network};
use tbg_tests::app::{Answer, App};
use tbg_tests::people::{Person, address_of, wallet};

use crate::identity::wallet_sign_in::{audit, events};

const IN_USE: (u16, &str) = (409, "WALLET_IN_USE");

async fn change(app: &App, person: &Person, address: &str) -> Answer {
    let body = json!({ "btc_address": address });
    app.ask("PATCH", "/api/v1/users/me/wallet", Some(&person.access), Some(body)).await
}

/// A change that is accepted.
async fn changed(app: &App, person: &Person, address: &str) -> Value {
    change(app, person, address).await.ok()
}

async fn me(app: &App, person: &Person) -> Value {
    app.get("/api/v1/users/me", Some(&person.access)).await.ok()
}

/// Links a wallet to the account of a person; with `replace` it is mined to from now on.
async fn link(app: &App, person: &Person, number: u64, replace: bool) {
    let address = address_of(&wallet(number));
    let token = Some(person.access.as_str());
    let path = "/api/v1/auth/link-wallet/challenge";
    let challenge = app.post(path, token, json!({ "btc_address": address })).await.ok();
    let message = challenge["message"].as_str().unwrap();
    let signature = wallet(number).sign_bip322(message, AddressType::P2wpkh, Network::Mainnet).unwrap();
    let body = json!({
        "btc_address": address, "signature": signature, "nonce": challenge["nonce"], "replace": replace,
    });
    let linked = app.post("/api/v1/auth/link-wallet/verify", token, body).await;
    assert_eq!(linked.status, 200, "{}", linked.text);
}

/// Changes of address by a person, oldest first: old, new, reason.
async fn history(app: &App, person: &Person) -> Vec<(Option<String>, Option<String>, String)> {
    sqlx::query_as(
        "SELECT old_address, new_address, reason FROM wallet_address_history
         WHERE user_id = $1 ORDER BY changed_at, id",
    )
    .bind(person.id)
    .fetch_all(&app.db.pool)
    .await
    .unwrap()
}

async fn coinbase(app: &App, address: &str) -> Option<String> {
    let key = format!("user_coinbase:{address}");
    redis::cmd("GET").arg(key).query_async(&mut app.redis.manager()).await.unwrap()
}

#[tokio::test]
async fn a_wallet_user_mines_to_another_address_and_signs_in_as_before() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let (old, new) = (person.address.clone(), address_of(&wallet(2)));
    // Shares of the new address from before it was anybody's.
    sqlx::query("INSERT INTO hourly_shares (bucket, btc_address, total, accepted) VALUES (now(), $1, 9, 9)")
        .bind(&new)
        .execute(&app.db.pool)
        .await
        .unwrap();
    let events_before = events(&app).await.len();

    let answer = changed(&app, &person, &new).await;

    let warning = answer["warning"].as_str().unwrap();
    assert!(warning.contains("reconnect"), "{warning}");
    assert_eq!(
        answer,
        json!({ "btc_address": new, "previous_address": old, "address_type": "p2wpkh", "warning": warning })
    );
    let shown = me(&app, &person).await;
    assert_eq!((&shown["btc_address"], &shown["is_verified"]), (&json!(new), &json!(false)));
    let registered = (None, Some(old.clone()), "register".to_owned());
    let updated = (Some(old.clone()), Some(new.clone()), "update".to_owned());
    assert_eq!(history(&app, &person).await, [registered, updated]);
    assert_eq!(events(&app).await.len(), events_before, "nothing was proven");
    let expected = json!({
        "user": person.id.to_string(), "status": "success", "type": "wallet", "id": new,
        "details": { "old": old, "new": new },
    });
    assert_eq!(audit(&app, "user.wallet_updated").await, [expected]);
    let shares = app.db.number("SELECT count(*) FROM hourly_shares WHERE user_id IS NOT NULL").await;
    assert_eq!(shares, 0, "its past stays nobody's");
    let again = Person::of(&app.connect(&wallet(1), false).await.ok());
    assert_eq!((again.id, again.address), (person.id, new));
}

#[tokio::test]
async fn an_address_of_any_type_is_stored_in_its_normal_form() {
    let app = App::new().await;
    let person = app.miner(1).await;
    for (given, stored, kind) in [
        ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "p2pkh"),
        ("3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", "p2sh"),
        (
            " BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4 ",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            "p2wpkh",
        ),
        (
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
            "p2tr",
        ),
    ] {
        let answer = changed(&app, &person, given).await;
        assert_eq!((&answer["btc_address"], &answer["address_type"]), (&json!(stored), &json!(kind)));
        assert_eq!(me(&app, &person).await["btc_address"], stored);
    }
}

#[tokio::test]
async fn what_cannot_be_mined_to_is_refused_and_changes_nothing() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let before = app.db.rows("SELECT * FROM users").await;
    let (upper, too_long) = (person.address.to_uppercase(), "x".repeat(91));
    for (address, outcome) in [
        ("bc1qtest", (400, "ADDRESS_INVALID")),
        ("bc1p5cyxnuxmeuwuvkwfem96lqzszee2457nxwprkfw", (400, "ADDRESS_INVALID")),
        ("tb1q9vza2e8x573nczrlzms0wvx3gsqjx7vaxwd45v", (400, "ADDRESS_WRONG_NETWORK")),
        (person.address.as_str(), (400, "ADDRESS_UNCHANGED")),
        (upper.as_str(), (400, "ADDRESS_UNCHANGED")),
        ("", (422, "VALIDATION_ERROR")),
        (too_long.as_str(), (422, "VALIDATION_ERROR")),
    ] {
        assert_eq!(change(&app, &person, address).await.outcome(), outcome, "{address}");
    }
    assert_eq!(app.db.rows("SELECT * FROM users").await, before);
    assert_eq!(history(&app, &person).await.len(), 1);
    assert_eq!(app.audited("user.wallet_updated", "success").await, 0);
}

#[tokio::test]
async fn an_address_of_somebody_else_is_refused_even_if_it_only_signs_in() {
    let app = App::new().await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    let typist = app.register("a@example.com", 3).await;
    // The other now mines elsewhere; the first wallet only signs in.
    assert_eq!(change(&app, &other, &address_of(&wallet(4))).await.status, 200);

    let current = change(&app, &person, &address_of(&wallet(4))).await;
    let typed_in = change(&app, &person, &typist.address).await;
    let credential = change(&app, &person, &address_of(&wallet(2))).await;

    assert_eq!([current.outcome(), typed_in.outcome(), credential.outcome()], [IN_USE; 3]);
    assert_eq!(me(&app, &person).await["btc_address"], person.address.as_str());
    assert_eq!(app.audited("user.wallet_updated", "success").await, 1);
}

#[tokio::test]
async fn of_those_who_take_an_address_at_once_one_gets_it() {
    let app = App::new().await;
    let mut people = Vec::new();
    for number in 1..=4 {
        people.push(app.miner(number).await);
    }
    let address = address_of(&wallet(9));

    let asked = people.iter().map(|person| change(&app, person, &address));
    let answers = futures_util::future::join_all(asked).await;

    let mut outcomes: Vec<_> = answers.iter().map(Answer::outcome).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, [(200, ""), IN_USE, IN_USE, IN_USE]);
}

#[tokio::test]
async fn an_address_counts_as_proven_if_its_wallet_is_linked() {
    let app = App::new().await;
    let person = app.miner(1).await;
    link(&app, &person, 2, false).await;
    let linked = address_of(&wallet(2));
    let events_before = events(&app).await.len();

    changed(&app, &person, &linked).await;
    let at_linked = me(&app, &person).await;
    changed(&app, &person, &address_of(&wallet(3))).await;
    let at_typed = me(&app, &person).await;
    changed(&app, &person, &person.address).await;
    let at_home = me(&app, &person).await;

    let verified = [&at_linked, &at_typed, &at_home].map(|user| user["is_verified"] == true);
    assert_eq!(verified, [true, false, true]);
    let proven =
        |address: &str| ("AddressProven".to_owned(), json!({ "user_id": person.id, "btc_address": address }));
    let written = events(&app).await.split_off(events_before);
    assert_eq!(written, [proven(&linked), proven(&person.address)]);
}

/// Gives a person a coinbase text, and both addresses a cached profile.
async fn dress(app: &App, person: &Person, new: &str) {
    let settings = json!({ "mining": { "coinbaseSignature": "/TheBitcoinGame:SatoshiHunter/" } });
    let set = app.ask("PATCH", "/api/v1/users/me/settings", Some(&person.access), Some(settings)).await;
    assert_eq!(set.status, 200, "{}", set.text);
    for address in [person.address.as_str(), new] {
        let key = format!("public:profile:{address}");
        redis::cmd("SET").arg(key).arg("old").query_async::<()>(&mut app.redis.manager()).await.unwrap();
    }
}

/// Whether the text has gone from the old address to the new one, and no cached profile is left.
async fn has_moved(app: &App, person: &Person, new: &str) -> bool {
    let cached: i64 = redis::cmd("EXISTS")
        .arg(format!("public:profile:{}", person.address))
        .arg(format!("public:profile:{new}"))
        .query_async(&mut app.redis.manager())
        .await
        .unwrap();
    let (old, new) = (coinbase(app, &person.address).await, coinbase(app, new).await);
    old.is_none() && new.as_deref() == Some("SatoshiHunter") && cached == 0
}

#[tokio::test]
async fn a_coinbase_text_goes_with_its_user() {
    let app = App::new().await;
    let (typing, linking) = (app.miner(1).await, app.miner(2).await);
    let (typed, linked) = (address_of(&wallet(3)), address_of(&wallet(4)));
    dress(&app, &typing, &typed).await;
    dress(&app, &linking, &linked).await;

    changed(&app, &typing, &typed).await;
    link(&app, &linking, 4, true).await;

    assert!(has_moved(&app, &typing, &typed).await);
    assert!(has_moved(&app, &linking, &linked).await, "a linked wallet that replaces the address");
}

#[tokio::test]
async fn without_a_coinbase_text_there_is_none_at_the_new_address() {
    let app = App::new().await;
    let person = app.miner(1).await;

    changed(&app, &person, &address_of(&wallet(2))).await;

    assert_eq!(coinbase(&app, &address_of(&wallet(2))).await, None);
}

#[tokio::test]
async fn only_a_session_changes_the_address() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let key = app.api_key(&person, &["write"]).await;
    let body = json!({ "btc_address": address_of(&wallet(2)) });

    let by_key = app.ask("PATCH", "/api/v1/users/me/wallet", Some(&key), Some(body)).await;

    assert_eq!(by_key.outcome(), (403, "SESSION_REQUIRED"));
}
