//! Confirming an e-mail, for the account and for notices, with a link from a real mail (contract
//! `auth-users.md` §4, §5, §11, §13). What the hourly job forgets is in `clean_up`.

mod clean_up;

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::{Value, json};
use tbg_core::Clock as _;
use tbg_core::config::Secret;
use tbg_core::random::SystemEntropy;
use tbg_identity::mail::{MailConfig, MailProvider, Mailer};
use tbg_tests::app::{Answer, App};
use tbg_tests::now;
use tbg_tests::people::Person;
use tempfile::TempDir;

use super::lockout::EMAIL;
use super::wallet_sign_in::{audit, audit_text};

const VERIFY_PAGE: &str = "/auth/verify-email";
const ALERTS: &str = "alerts@example.com";
pub(super) const TOKEN_INVALID: (u16, &str) = (400, "TOKEN_INVALID");
pub(super) const TOKEN_EXPIRED: (u16, &str) = (400, "TOKEN_EXPIRED");
pub(super) const TOKEN_USED: (u16, &str) = (400, "TOKEN_USED");

/// The API with a worker that writes mail into a folder.
pub(super) struct Post {
    pub(super) app: App,
    mailer: Mailer,
    folder: TempDir,
}

impl Post {
    /// Its time is a little ahead of the database's, so that what is queued now is due.
    pub(super) async fn new() -> Self {
        let app = App::at(now() + TimeDelta::minutes(1)).await;
        let folder = tempfile::tempdir().unwrap();
        let config = MailConfig {
            provider: MailProvider::Log,
            from_address: "noreply@game.test".to_owned(),
            from_name: "The Bitcoin Game".to_owned(),
            support_email: "support@game.test".to_owned(),
            frontend_base_url: "https://game.test".to_owned(),
            smtp_host: String::new(),
            smtp_port: 0,
            smtp_username: None,
            smtp_password: Secret::default(),
            smtp_tls: false,
            resend_api_key: Secret::default(),
            ses_region: String::new(),
            ses_access_key: Secret::default(),
            ses_secret_key: Secret::default(),
            capture_dir: Some(folder.path().to_owned()),
            rate_per_hour: 5,
            verification_ttl: TimeDelta::hours(24),
            reset_ttl: TimeDelta::minutes(60),
            production: false,
        };
        let clock = Arc::new(app.clock.clone());
        let mailer =
            Mailer::new(app.db.pool.clone(), app.redis.manager(), clock, Arc::new(SystemEntropy), config)
                .unwrap();
        Self { app, mailer, folder }
    }

    /// Sends all mail that is due; the mails of the test so far, oldest first.
    pub(super) async fn deliver(&self) -> Vec<Value> {
        while self.mailer.run_once().await.unwrap() > 0 {}
        let mut files: Vec<_> =
            std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
    }

    /// The token in the newest mail to `to`, which leads to `page`.
    pub(super) async fn token(&self, to: &str, page: &str) -> String {
        let mails = self.deliver().await;
        let newest = mails.iter().rfind(|mail| mail["to"] == to).expect("a mail");
        let link = newest["link"].as_str().expect("a link");
        link.strip_prefix(&format!("https://game.test{page}?token=")).expect("a link to the page").to_owned()
    }

    /// How many mails of a kind were queued.
    pub(super) async fn queued(&self, template: &str) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM email_outbox WHERE template = $1")
            .bind(template)
            .fetch_one(&self.app.db.pool)
            .await
            .unwrap()
    }
}

async fn verify(app: &App, token: &str) -> Answer {
    app.post("/api/v1/auth/verify-email", None, json!({ "token": token })).await
}

async fn resend(app: &App, person: &Person) -> Answer {
    app.ask("POST", "/api/v1/auth/resend-verification", Some(&person.access), None).await
}

/// Whether the account's e-mail is confirmed, as its owner sees it.
async fn is_verified(app: &App, person: &Person) -> Value {
    app.get("/api/v1/auth/me", Some(&person.access)).await.ok()["email_verified"].clone()
}

/// Sets the address for notices.
async fn want_notices_at(app: &App, person: &Person, email: &str) {
    let body = json!({ "notifications": { "email": email } });
    let answer = app.ask("PATCH", "/api/v1/users/me/settings", Some(&person.access), Some(body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// The address for notices and whether it is proven.
async fn notices(app: &App, person: &Person) -> (Value, Value) {
    let settings = app.get("/api/v1/users/me/settings", Some(&person.access)).await.ok();
    let notifications = &settings["notifications"];
    (notifications["email"].clone(), notifications["emailVerified"].clone())
}

fn reasons(rows: &[Value]) -> Vec<(&str, &str)> {
    let failed = rows.iter().filter(|row| row["status"] == "failure");
    failed.map(|row| (row["type"].as_str().unwrap(), row["details"]["reason"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn the_link_of_the_welcome_mail_confirms_the_email_once() {
    let post = Post::new().await;
    let app = &post.app;
    let person = app.register(EMAIL, 1).await;
    assert_eq!(is_verified(app, &person).await, false);
    let token = post.token(EMAIL, VERIFY_PAGE).await;

    let first = verify(app, &token).await;
    let second = verify(app, &token).await;

    assert_eq!(first.ok(), json!({ "status": "email_verified" }));
    assert_eq!(second.outcome(), TOKEN_USED);
    assert!(second.json["detail"].as_str().unwrap().contains("used"), "{}", second.text);
    assert_eq!(is_verified(app, &person).await, true);
    let rows = audit(app, "auth.email_verified").await;
    let success = json!({
        "user": person.id.to_string(), "status": "success", "type": "user", "id": person.id.to_string(),
        "details": { "purpose": "account" },
    });
    assert_eq!(rows[0], success);
    assert_eq!((rows.len(), reasons(&rows)), (2, vec![("user", "used")]));
    let log = audit_text(app).await;
    assert!(!log.contains('@') && !log.contains(&token), "{log}");
}

#[tokio::test]
async fn a_link_works_for_24_hours() {
    let post = Post::new().await;
    let app = &post.app;
    app.register(EMAIL, 1).await;
    let token = post.token(EMAIL, VERIFY_PAGE).await;
    let issued = app.clock.now();

    app.clock.set(issued + TimeDelta::hours(24));
    let late = verify(app, &token).await;
    app.clock.set(issued + TimeDelta::hours(24) - TimeDelta::seconds(1));
    let in_time = verify(app, &token).await;

    assert_eq!(late.outcome(), TOKEN_EXPIRED);
    assert!(late.json["detail"].as_str().unwrap().contains("expired"), "{}", late.text);
    assert_eq!(in_time.status, 200, "what came too late used nothing up");
    assert_eq!(reasons(&audit(app, "auth.email_verified").await), [("user", "expired")]);
}

#[tokio::test]
async fn a_token_that_nobody_was_sent_confirms_nothing() {
    let app = App::new().await;

    let answer = verify(&app, &"t".repeat(64)).await;

    assert_eq!(answer.outcome(), TOKEN_INVALID);
    assert!(answer.json["detail"].as_str().unwrap().contains("invalid"), "{}", answer.text);
    assert_eq!(reasons(&audit(&app, "auth.email_verified").await), [("user", "invalid")]);
}

#[tokio::test]
async fn a_link_counts_only_for_the_email_that_it_was_sent_to() {
    let post = Post::new().await;
    let app = &post.app;
    let person = app.register(EMAIL, 1).await;
    let token = post.token(EMAIL, VERIFY_PAGE).await;
    sqlx::query("UPDATE users SET email = 'new@example.com'").execute(&app.db.pool).await.unwrap();

    let answer = verify(app, &token).await;

    assert_eq!(answer.outcome(), TOKEN_INVALID);
    assert_eq!(is_verified(app, &person).await, false);
    assert_eq!(app.audited("auth.email_verified", "failure").await, 1);
}

#[tokio::test]
async fn an_address_for_notices_is_confirmed_on_its_own() {
    let post = Post::new().await;
    let app = &post.app;
    let person = app.register(EMAIL, 1).await;
    want_notices_at(app, &person, "Alerts@Example.com").await;
    assert_eq!(notices(app, &person).await, (json!(ALERTS), json!(false)));
    let token = post.token(ALERTS, VERIFY_PAGE).await;

    let answer = verify(app, &token).await;

    assert_eq!(answer.ok(), json!({ "status": "email_verified" }));
    assert_eq!(notices(app, &person).await, (json!(ALERTS), json!(true)));
    assert_eq!(is_verified(app, &person).await, false, "that is another address");
    assert_eq!(audit(app, "auth.email_verified").await[0]["details"], json!({ "purpose": "notification" }));
    // The link of the account's own e-mail still works: only links of one purpose replace each other.
    let own = post.token(EMAIL, VERIFY_PAGE).await;
    assert_eq!(verify(app, &own).await.status, 200);
    assert_eq!(is_verified(app, &person).await, true);
}

#[tokio::test]
async fn another_address_for_notices_voids_the_link_to_the_first() {
    let post = Post::new().await;
    let app = &post.app;
    let person = app.miner(1).await;
    want_notices_at(app, &person, ALERTS).await;
    let first = post.token(ALERTS, VERIFY_PAGE).await;
    want_notices_at(app, &person, "new@example.com").await;

    // The mail to the second address is not even sent yet.
    assert_eq!(verify(app, &first).await.outcome(), TOKEN_INVALID);
    assert_eq!(notices(app, &person).await, (json!("new@example.com"), json!(false)));

    let second = post.token("new@example.com", VERIFY_PAGE).await;
    assert_eq!(verify(app, &second).await.status, 200);
    assert_eq!(notices(app, &person).await, (json!("new@example.com"), json!(true)));
    // A proof is one of its address only.
    want_notices_at(app, &person, ALERTS).await;
    assert_eq!(notices(app, &person).await, (json!(ALERTS), json!(false)));
}

#[tokio::test]
async fn a_link_is_sent_again_every_five_minutes_at_most_and_replaces_the_earlier_one() {
    let post = Post::new().await;
    let app = &post.app;
    let person = app.register(EMAIL, 1).await;
    let welcome = post.token(EMAIL, VERIFY_PAGE).await;

    let sent = resend(app, &person).await;
    let too_soon = resend(app, &person).await;

    assert_eq!(sent.ok(), json!({ "status": "verification_email_sent" }));
    assert_eq!(too_soon.outcome(), (429, "COOLDOWN"));
    let wait: i64 = too_soon.header("retry-after").parse().unwrap();
    assert!((290..=300).contains(&wait), "{wait}");
    let key = format!("auth:resend:{}", person.id);
    let mut redis = app.redis.manager();
    let left: i64 = redis::cmd("TTL").arg(&key).query_async(&mut redis).await.unwrap();
    assert!((290..=300).contains(&left), "{left}");
    assert_eq!(post.queued("verify_email").await, 1);
    let audited = json!({
        "user": person.id.to_string(), "status": "success", "type": "user", "id": person.id.to_string(),
        "details": {},
    });
    assert_eq!(audit(app, "auth.verification_resent").await, [audited]);

    let again = post.token(EMAIL, VERIFY_PAGE).await;
    assert_eq!(verify(app, &welcome).await.outcome(), TOKEN_USED);
    // The five minutes are those of Redis.
    redis::cmd("DEL").arg(&key).query_async::<()>(&mut redis).await.unwrap();
    assert_eq!(resend(app, &person).await.status, 200);
    assert_eq!(verify(app, &again).await.status, 200, "the next link is not sent yet");
}

#[tokio::test]
async fn there_is_nothing_to_send_again_without_an_email_or_once_it_is_confirmed() {
    let post = Post::new().await;
    let app = &post.app;
    let (miner, person) = (app.miner(2).await, app.register(EMAIL, 1).await);
    let token = post.token(EMAIL, VERIFY_PAGE).await;
    assert_eq!(verify(app, &token).await.status, 200);

    let without_email = resend(app, &miner).await;
    let confirmed = resend(app, &person).await;

    assert_eq!(without_email.outcome(), (400, "EMAIL_ACCOUNT_REQUIRED"));
    assert!(without_email.json["detail"].as_str().unwrap().contains("email"), "{}", without_email.text);
    assert_eq!(confirmed.outcome(), (400, "EMAIL_ALREADY_VERIFIED"));
    assert_eq!(post.queued("verify_email").await, 0);
    for person in [&miner, &person] {
        let key = format!("auth:resend:{}", person.id);
        let started: bool =
            redis::cmd("EXISTS").arg(key).query_async(&mut app.redis.manager()).await.unwrap();
        assert!(!started, "a refusal starts no cooldown");
    }
    let anybody = app.ask("POST", "/api/v1/auth/resend-verification", None, None).await;
    assert_eq!(anybody.outcome(), (401, "AUTH_REQUIRED"));
}
