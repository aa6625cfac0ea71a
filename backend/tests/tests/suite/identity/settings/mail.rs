//! Where notices go by mail (contract `auth-users.md` §7, §5).

use serde_json::{Value, json};
use tbg_tests::app::App;
use tbg_tests::people::Person;

use super::{INVALID, patch, patched, settings};

/// Sets some keys of `notifications`; gives the section.
async fn notifications(app: &App, person: &Person, keys: Value) -> Value {
    patched(app, person, json!({ "notifications": keys })).await["notifications"].take()
}

/// Mails that wait with a link to verify an address, oldest first: recipient, user, context.
async fn queued(app: &App) -> Vec<(String, Option<i64>, Value)> {
    sqlx::query_as(
        "SELECT to_address, user_id, context FROM email_outbox
         WHERE template = 'verify_email' AND status = 'pending' ORDER BY created_at, id",
    )
    .fetch_all(&app.db.pool)
    .await
    .unwrap()
}

/// As if the link in the mail had been opened.
async fn prove_notification_email(app: &App) {
    sqlx::query("UPDATE user_settings SET notification_email_verified_at = now()")
        .execute(&app.db.pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_new_address_for_notices_must_be_proven_by_a_mail() {
    let app = App::new().await;
    let person = app.miner(1).await;

    let set = notifications(&app, &person, json!({ "email": "Notices@Example.com" })).await;
    let again = notifications(&app, &person, json!({ "email": "notices@example.com" })).await;

    assert_eq!((&set["email"], &set["emailVerified"]), (&json!("notices@example.com"), &json!(false)));
    assert_eq!(again, set);
    let mail = ("notices@example.com".to_owned(), Some(person.id), json!({ "purpose": "notification" }));
    assert_eq!(queued(&app).await, [mail], "the same address again needs no second mail");
    let tokens = app.db.number("SELECT count(*) FROM email_verification_tokens").await;
    assert_eq!(tokens, 0, "a token is made when the mail is sent");
}

#[tokio::test]
async fn a_proven_address_stays_proven_until_it_changes() {
    let app = App::new().await;
    let person = app.miner(1).await;
    notifications(&app, &person, json!({ "email": "notices@example.com" })).await;
    prove_notification_email(&app).await;

    let proven = settings(&app, &person).await["notifications"].take();
    let beside = notifications(&app, &person, json!({ "inApp": false })).await;
    let same = notifications(&app, &person, json!({ "email": "NOTICES@example.com" })).await;
    let other = notifications(&app, &person, json!({ "email": "other@example.com" })).await;
    let back = notifications(&app, &person, json!({ "email": "notices@example.com" })).await;

    let verified = [&proven, &beside, &same, &other, &back].map(|section| section["emailVerified"] == true);
    assert_eq!(verified, [true, true, true, false, false]);
    let recipients: Vec<String> = queued(&app).await.into_iter().map(|(to, ..)| to).collect();
    assert_eq!(recipients, ["notices@example.com", "other@example.com", "notices@example.com"]);
}

#[tokio::test]
async fn an_address_that_was_cleared_is_proven_no_more() {
    let app = App::new().await;
    let person = app.miner(1).await;
    notifications(&app, &person, json!({ "email": "notices@example.com" })).await;
    prove_notification_email(&app).await;

    let cleared = notifications(&app, &person, json!({ "email": "" })).await;

    assert_eq!((&cleared["email"], &cleared["emailVerified"]), (&json!(""), &json!(false)));
    assert_eq!(queued(&app).await.len(), 1, "nobody is written to about no address");
    let left = app.db.number("SELECT count(notification_email_verified_at) FROM user_settings").await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn the_accounts_own_verified_address_needs_no_second_proof() {
    let app = App::new().await;
    let person = app.register("own@example.com", 1).await;
    let unverified = notifications(&app, &person, json!({ "email": "own@example.com" })).await;
    let mails = queued(&app).await.len();
    notifications(&app, &person, json!({ "email": "" })).await;
    sqlx::query("UPDATE users SET email_verified = TRUE").execute(&app.db.pool).await.unwrap();

    let verified = notifications(&app, &person, json!({ "email": "Own@Example.com" })).await;

    assert_eq!((unverified["emailVerified"] == true, mails), (false, 1));
    assert_eq!((&verified["email"], &verified["emailVerified"]), (&json!("own@example.com"), &json!(true)));
    assert_eq!(queued(&app).await.len(), 1);
}

#[tokio::test]
async fn notices_by_mail_need_an_address() {
    let app = App::new().await;
    let (miner, typist) = (app.miner(1).await, app.register("own@example.com", 2).await);
    let on = json!({ "notifications": { "emailNotifications": true } });

    let without_any = patch(&app, &miner, on.clone()).await;
    let unverified = patch(&app, &typist, on.clone()).await;
    let together = json!({ "notifications": { "emailNotifications": true, "email": "notices@example.com" } });
    let together = patch(&app, &miner, together).await;
    let taken_away = patch(&app, &miner, json!({ "notifications": { "email": "" } })).await;
    sqlx::query("UPDATE users SET email_verified = TRUE WHERE email IS NOT NULL")
        .execute(&app.db.pool)
        .await
        .unwrap();
    let verified = patch(&app, &typist, on).await;

    assert_eq!([without_any.outcome(), unverified.outcome(), taken_away.outcome()], [INVALID; 3]);
    assert_eq!(without_any.json["errors"][0]["field"], "body.notifications.email");
    assert_eq!((together.status, verified.status), (200, 200));
    let kept = settings(&app, &miner).await["notifications"].take();
    assert_eq!((&kept["email"], &kept["emailNotifications"]), (&json!("notices@example.com"), &json!(true)));
}
