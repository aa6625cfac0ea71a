//! Whose account a proven wallet opens (contract `auth-users.md` §4.1, §6.6, §16 item 6).

use serde_json::{Value, json};
use tbg_tests::app::App;
use tbg_tests::people::{Person, address_of, wallet};

use super::{audit, audit_text, events};

const UNLINKED: (u16, &str) = (409, "WALLET_UNLINKED");

/// Sign-in of the wallet with that number.
async fn sign_in(app: &App, number: u64) -> Value {
    app.connect(&wallet(number), false).await.ok()
}

async fn me(app: &App, person: &Person) -> Value {
    app.get("/api/v1/users/me", Some(&person.access)).await.ok()
}

/// Changes the mining address of a person to that of another wallet, without a proof.
pub(in crate::identity) async fn type_in(app: &App, person: &Person, number: u64) {
    let body = json!({ "btc_address": address_of(&wallet(number)) });
    let answer = app.ask("PATCH", "/api/v1/users/me/wallet", Some(&person.access), Some(body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn a_wallet_that_nobody_knows_gets_an_account() {
    let app = App::new().await;
    let address = address_of(&wallet(1));

    let answer = sign_in(&app, 1).await;

    let person = Person::of(&answer);
    let id = person.id;
    assert_eq!(answer["user"]["auth_method"], "wallet");
    assert_eq!(answer["user"]["is_verified"], true);
    let wallets = app
        .db
        .rows("SELECT user_id, btc_address, address_type, revoked_at, last_used_at FROM wallet_credentials")
        .await;
    let stored: Vec<Value> = wallets.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    let expected = json!({
        "user_id": id, "btc_address": address, "address_type": "p2wpkh", "revoked_at": null, "last_used_at": null,
    });
    assert_eq!(stored, [expected]);
    let history: Vec<(i64, Option<String>, Option<String>, String)> =
        sqlx::query_as("SELECT user_id, old_address, new_address, reason FROM wallet_address_history")
            .fetch_all(&app.db.pool)
            .await
            .unwrap();
    assert_eq!(history, [(id, None, Some(address.clone()), "register".to_owned())]);
    assert_eq!(
        events(&app).await,
        [
            ("UserRegistered".to_owned(), json!({ "user_id": id, "country_code": null })),
            ("AddressProven".to_owned(), json!({ "user_id": id, "btc_address": address })),
        ]
    );
    let login = json!({
        "user": id.to_string(), "status": "success", "type": "session", "id": person.sid(),
        "details": { "method": "wallet", "new_user": true },
    });
    assert_eq!(audit(&app, "auth.login").await, [login]);
    assert_eq!(app.db.number("SELECT count(*) FROM audit_log").await, 1);
    let log = audit_text(&app).await;
    assert!(!log.contains(&person.access) && !log.contains(&person.refresh));
}

#[tokio::test]
async fn the_same_wallet_comes_back_to_the_same_account() {
    let app = App::new().await;
    let first = sign_in(&app, 1).await;
    app.clock.advance(chrono::TimeDelta::seconds(10));

    let second = sign_in(&app, 1).await;

    assert_eq!(second["user"]["id"], first["user"]["id"]);
    assert_eq!((&first["user"]["login_count"], &second["user"]["login_count"]), (&json!(1), &json!(2)));
    assert_ne!(first["user"]["last_login"], second["user"]["last_login"]);
    assert_eq!(first["user"]["created_at"], second["user"]["created_at"]);
    let (one, two) = (Person::of(&first), Person::of(&second));
    assert_ne!(one.sid(), two.sid());
    assert_eq!(me(&app, &one).await["id"], me(&app, &two).await["id"]);
    let used = "SELECT count(*) FROM wallet_credentials WHERE last_used_at IS NOT NULL";
    assert_eq!(app.db.number(used).await, 1);
    assert_eq!(events(&app).await.len(), 2, "the second sign-in is no event");
    let logins = audit(&app, "auth.login").await;
    let new: Vec<&Value> = logins.iter().map(|row| &row["details"]["new_user"]).collect();
    assert_eq!(new, [&json!(true), &json!(false)]);
}

#[tokio::test]
async fn an_imported_row_is_adopted_by_the_wallet_that_proves_it() {
    let app = App::new().await;
    let address = address_of(&wallet(1));
    let imported = app.db.user(&address).await;

    let first = sign_in(&app, 1).await;
    let second = sign_in(&app, 1).await;

    for (answer, count) in [(&first, 1), (&second, 2)] {
        let user = &answer["user"];
        assert_eq!(user["id"], imported);
        assert_eq!((&user["is_verified"], &user["login_count"]), (&json!(true), &json!(count)));
        assert_eq!(user["auth_method"], "wallet");
    }
    let proven = json!({ "user_id": imported, "btc_address": address });
    assert_eq!(events(&app).await, [("AddressProven".to_owned(), proven)]);
    assert_eq!(app.db.number("SELECT count(*) FROM users").await, 1);
    assert_eq!(app.db.number("SELECT count(*) FROM wallet_credentials").await, 1);
}

#[tokio::test]
async fn an_address_that_was_only_typed_in_opens_no_account_but_can_be_claimed() {
    let app = App::new().await;
    let address = address_of(&wallet(1));
    let typist = app.register("a@example.com", 1).await;

    let refused = app.connect(&wallet(1), false).await;
    let untouched = me(&app, &typist).await;
    let claimed = app.connect(&wallet(1), true).await.ok();
    let login = json!({ "email": "a@example.com", "password": "Abcdefg1" });
    let login = app.post("/api/v1/auth/login", None, login).await.ok();

    assert_eq!(refused.outcome(), UNLINKED);
    assert_eq!((&untouched["btc_address"], &untouched["is_verified"]), (&json!(address), &json!(false)));
    let owner = claimed["user"]["id"].as_i64().unwrap();
    assert_ne!(owner, typist.id);
    assert_eq!(claimed["user"]["btc_address"], address);
    assert_eq!((&claimed["user"]["is_verified"], &claimed["user"]["login_count"]), (&json!(true), &json!(1)));
    assert_eq!(login["user"]["id"], typist.id);
    assert_eq!(login["user"]["btc_address"], Value::Null);
    assert_eq!(login["user"]["is_verified"], false);
    // From now on the wallet opens its own account without a claim.
    assert_eq!(sign_in(&app, 1).await["user"]["id"], owner);
}

#[tokio::test]
async fn a_claim_is_written_down_and_its_victim_is_told() {
    let app = App::new().await;
    let address = address_of(&wallet(2));
    let typist = app.miner(1).await;
    type_in(&app, &typist, 2).await;
    let before = events(&app).await.len();

    let refused = app.connect(&wallet(2), false).await;
    let owner = Person::of(&app.connect(&wallet(2), true).await.ok());

    assert_eq!(refused.outcome(), UNLINKED);
    let history: Vec<(i64, Option<String>, Option<String>)> = sqlx::query_as(
        "SELECT user_id, old_address, new_address FROM wallet_address_history WHERE reason = 'claimed'",
    )
    .fetch_all(&app.db.pool)
    .await
    .unwrap();
    assert_eq!(history, [(typist.id, Some(address.clone()), None)]);
    let events = events(&app).await.split_off(before);
    let topics: Vec<&str> = events.iter().map(|(topic, _)| topic.as_str()).collect();
    assert_eq!(topics, ["Notify", "UserRegistered", "AddressProven"]);
    let notice = &events[0].1;
    assert_eq!(notice["user_id"], typist.id);
    assert_eq!((&notice["type"], &notice["subtype"]), (&json!("system"), &json!("wallet_reclaimed")));
    assert_eq!(events[2].1, json!({ "user_id": owner.id, "btc_address": address }));
    let claims = audit(&app, "user.wallet_claimed").await;
    assert_eq!(claims.len(), 1);
    let claim = &claims[0];
    assert_eq!((&claim["status"], &claim["type"]), (&json!("success"), &json!("wallet")));
    assert_eq!(claim["id"], address);
    assert!(claim["details"].get("old").is_some() && claim["details"].get("new").is_some(), "{claim}");
    assert_eq!(app.audited("auth.login", "success").await, 2);
    // The one who had typed it in still signs in with the own wallet, without an address.
    let back = sign_in(&app, 1).await;
    assert_eq!(back["user"]["id"], typist.id);
    assert_eq!(back["user"]["btc_address"], Value::Null);
}

#[tokio::test]
async fn a_claim_without_need_changes_nothing() {
    let app = App::new().await;
    let imported = app.db.user(&address_of(&wallet(2))).await;

    let new = app.connect(&wallet(1), true).await.ok();
    let again = app.connect(&wallet(1), true).await.ok();
    let adopted = app.connect(&wallet(2), true).await.ok();

    assert_eq!(new["user"]["id"], again["user"]["id"]);
    assert_eq!(adopted["user"]["id"], imported);
    assert!(audit(&app, "user.wallet_claimed").await.is_empty());
    assert_eq!(app.db.number("SELECT count(*) FROM users").await, 2);
}

#[tokio::test]
async fn an_imported_row_that_is_banned_is_not_adopted() {
    let app = App::new().await;
    app.db.user(&address_of(&wallet(1))).await;
    sqlx::query("UPDATE users SET is_banned = TRUE").execute(&app.db.pool).await.unwrap();

    let refused = app.connect(&wallet(1), false).await;

    assert_eq!(refused.outcome(), (403, "ACCOUNT_BANNED"));
    assert_eq!(app.db.number("SELECT count(*) FROM wallet_credentials").await, 0);
    assert_eq!(app.db.number("SELECT count(*) FROM refresh_tokens").await, 0);
    assert_eq!(
        app.db.number("SELECT count(*) FROM users WHERE login_count = 0 AND NOT is_verified").await,
        1
    );
    assert!(events(&app).await.is_empty());
    assert_eq!(app.audited("auth.failed_login", "denied").await, 1);
}
