//! Controls of the application security standards that no domain's own tests prove (contract `production.md` §18).
//! `tests/standards.toml` says which test proves which row.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tbg_tests::app::{App, claims, sign};
use tbg_tests::people::{address_of, wallet};
use tbg_tests::program::{Program, until};
use tbg_tests::{TestDb, TestRedis, now};
use tokio::net::TcpListener;

/// Paths of documented reads that are not for administrators, with parameters filled in.
fn documented_reads(document: &Value) -> Vec<String> {
    let paths = document["paths"].as_object().expect("paths");
    let reads = paths.iter().filter(|(_, item)| item.get("get").is_some());
    reads
        .filter(|(_, item)| item["get"]["x-auth-class"] != "admin")
        .map(|(path, _)| {
            path.replace("{name}", "rig1")
                .replace("{height}", "1")
                .replace("{slug}", "first_share")
                .replace("{week}", "2026-W08")
                .replace("{game}", "hammer")
                .replace("{address}", &address_of(&wallet(1)))
        })
        .inspect(|path| assert!(!path.contains('{'), "give {path} a value"))
        .collect()
}

/// V3.5.3: a page that makes a browser follow a link changes nothing, so GET must not.
#[tokio::test]
async fn a_get_changes_nothing_in_the_database() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let user = db.user(&address_of(&wallet(1))).await;
    let name = db.options.get_database().expect("a name").to_owned();
    // sql-audit: allow(S1) a name made of hex digits
    db.execute(format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    let program = Program::start(&db, &redis, "api", &[]).await;
    program.wait_for("/health", 200).await;
    let token = sign(&claims(user, now()));
    let client = Client::new();
    let document: Value =
        client.get(format!("{}/openapi.json", program.base)).send().await.unwrap().json().await.unwrap();

    let mut wrong = Vec::new();
    let mut asked = 0;
    // The export is recorded in the audit log, as the contract wants.
    for path in documented_reads(&document).iter().filter(|path| !path.ends_with("/export")) {
        let answer = client.get(format!("{}{path}", program.base)).bearer_auth(&token).send().await.unwrap();
        asked += 1;
        if answer.status().as_u16() >= 500 {
            wrong.push(format!("{path}: {} {}", answer.status(), answer.text().await.unwrap()));
        }
    }

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(asked > 60, "{asked}");
    // A write that nobody waits for fails as well, and says so only there.
    assert!(!program.log_text().contains("read-only"), "{}", program.log_text());
    let change = client.patch(format!("{}/api/v1/users/me", program.base)).bearer_auth(&token);
    let refused = change.json(&json!({ "bio": "x" })).send().await.unwrap();
    assert!(
        refused.status().as_u16() >= 500,
        "a change is refused, so the database is read-only: {refused:?}"
    );
}

/// V4.1.1, and no cookies: nothing that a browser would send along by itself.
#[tokio::test]
async fn every_answer_names_its_type_and_sets_no_cookie() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let document = app.get("/openapi.json", None).await.ok();
    let mut paths = documented_reads(&document);
    paths.extend(["/docs/", "/metrics", "/nowhere"].map(str::to_owned));
    for path in paths {
        for token in [None, Some(person.access.as_str())] {
            let answer = app.get(&path, token).await;
            let expected = match path.as_str() {
                "/docs/" => "text/html; charset=utf-8",
                "/metrics" => "text/plain; version=0.0.4; charset=utf-8",
                _ => "application/json",
            };
            assert_eq!(answer.header("content-type").to_lowercase(), expected, "{path}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
            assert!(!answer.headers.contains_key("set-cookie"), "{path}");
        }
    }
}

/// V14.3.2: whoever was let in is told things that no cache may keep.
#[tokio::test]
async fn answers_about_a_person_are_not_stored() {
    let app = App::new().await;
    let admin = app.admin(1).await;
    let document = app.get("/openapi.json", None).await.ok();
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        let class = item["get"]["x-auth-class"].as_str().unwrap_or_default();
        if path.contains('{') || !["user", "session", "admin"].contains(&class) {
            continue;
        }
        let answer = app.get(path, Some(&admin.access)).await;
        assert!(
            answer.header("cache-control").contains("no-store"),
            "{path}: {}",
            answer.header("cache-control")
        );
        asked += 1;
    }
    assert!(asked > 40, "{asked}");
}

/// V16.3.4, V16.5.1: a fault is told to the log with its cause, and to the client without.
#[tokio::test]
async fn a_fault_is_logged_once_with_its_cause_and_answered_without_it() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let program = Program::start(&db, &redis, "api", &[("TBG_LOG_FILTER", "info")]).await;
    program.wait_for("/health", 200).await;
    db.change("ALTER TABLE lottery_draws RENAME TO lottery_draws_elsewhere").await;

    let answer = reqwest::get(format!("{}/api/v1/lottery/stats", program.base)).await.unwrap();

    assert_eq!(answer.status().as_u16(), 500);
    let body: Value = answer.json().await.unwrap();
    assert_eq!((&body["code"], &body["detail"]), (&json!("INTERNAL"), &json!("Internal server error")));
    let id = body["request_id"].as_str().unwrap().to_owned();
    let lines = || -> Vec<String> {
        program
            .log_text()
            .lines()
            .filter(|line| line.contains(&id) && line.contains("ERROR"))
            .map(str::to_owned)
            .collect()
    };
    assert!(until(async || !lines().is_empty()).await, "no line; log:\n{}", program.log_text());
    assert_eq!(lines().len(), 1, "{:#?}", lines());
    assert!(lines()[0].contains("lottery_draws"), "{:?}", lines());
}

/// V16.3.3, V16.5.3: a denial whose record cannot be written stays one, and is told.
#[tokio::test]
async fn a_denial_that_cannot_be_recorded_stays_a_denial_and_is_counted() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let user = db.user(&address_of(&wallet(1))).await;
    let program = Program::start(&db, &redis, "api", &[("TBG_LOG_FILTER", "info")]).await;
    program.wait_for("/health", 200).await;
    db.change(
        "CREATE TRIGGER closed BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION tbg_refuse_change()",
    )
    .await;

    let stats = Client::new().get(format!("{}/api/v1/admin/stats", program.base));
    let answer = stats.bearer_auth(sign(&claims(user, now()))).send().await.unwrap();

    assert_eq!(answer.status().as_u16(), 403);
    let counted =
        async || program.get("/metrics").await.unwrap().1.contains("tbg_audit_write_failures_total 1");
    assert!(until(counted).await, "it is not counted");
    let said = async || program.log_text().contains("audit");
    assert!(until(said).await, "nothing in the log:\n{}", program.log_text());
}

/// V1.3.6, API7: an address that a user gives is shown to others and asked by nobody here.
#[tokio::test]
async fn no_address_that_a_user_gives_is_asked() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/a.png", trap.local_addr().unwrap());

    let change = json!({ "avatar_url": url });
    let changed = app.ask("PATCH", "/api/v1/users/me", Some(&person.access), Some(change)).await.ok();
    for path in [
        "/api/v1/users/me".to_owned(),
        format!("/api/v1/users/{}", person.address),
        "/api/v1/users/me/export".to_owned(),
    ] {
        assert_eq!(app.get(&path, Some(&person.access)).await.status, 200, "{path}");
    }
    app.consume().await;

    assert!(changed.to_string().contains(&url), "it is kept: {changed}");
    let visitor = tokio::time::timeout(Duration::from_millis(500), trap.accept()).await;
    assert!(visitor.is_err(), "somebody asked for it");
}

/// V11.5.1: secrets of two programs on databases that are alike have nothing in common.
#[tokio::test]
async fn secrets_are_not_predictable() {
    let mut nonces = HashSet::new();
    for _ in 0..2 {
        let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
        let program = Program::start(&db, &redis, "api", &[]).await;
        program.wait_for("/health", 200).await;
        for _ in 0..3 {
            let request =
                Client::new().request(Method::POST, format!("{}/api/v1/auth/challenge", program.base));
            let answer =
                request.json(&json!({ "btc_address": address_of(&wallet(1)) })).send().await.unwrap();
            let challenge: Value = answer.json().await.unwrap();
            let nonce = challenge["nonce"].as_str().unwrap().to_owned();
            assert!(nonce.len() == 32 && nonce.bytes().all(|digit| digit.is_ascii_hexdigit()), "{nonce}");
            assert!(nonces.insert(nonce), "a nonce came again");
        }
    }
}
