//! The access matrix, generated from the router: every route × everybody who may ask (contract
//! `auth-users.md` §1.6, `production.md` §2.1 A01).
//!
//! The document is made from the routes, and each carries its class; so a route that is added later is in
//! the matrix without a line here. What a class means is written down once, in [`expected`].

use serde_json::Value;
use tbg_core::{Clock as _, UserId};
use tbg_tests::app::{App, claims, new_key, sign};
use tbg_web::auth::Keys;

/// What the gate says when it does not let a request pass.
const REFUSALS: [&str; 9] = [
    "AUTH_REQUIRED",
    "AUTH_TOKEN_INVALID",
    "AUTH_TOKEN_EXPIRED",
    "AUTH_TOKEN_REVOKED",
    "API_KEY_INVALID",
    "ACCOUNT_BANNED",
    "ADMIN_REQUIRED",
    "SESSION_REQUIRED",
    "API_KEY_PERMISSION",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Actor {
    Anonymous,
    Expired,
    WrongSignature,
    EndedSession,
    Deleted,
    User,
    OtherUser,
    Admin,
    Banned,
    ReadKey,
    WriteKey,
    UnknownKey,
    KeyOfBanned,
}

use Actor::*;

const ACTORS: [Actor; 13] = [
    Anonymous,
    Expired,
    WrongSignature,
    EndedSession,
    Deleted,
    User,
    OtherUser,
    Admin,
    Banned,
    ReadKey,
    WriteKey,
    UnknownKey,
    KeyOfBanned,
];

/// The rule: which refusal an actor gets on a route of `class`; none if the request passes.
fn expected(class: &str, actor: Actor, method: &str) -> Option<&'static str> {
    let reads = method == "GET";
    match (class, actor) {
        ("none", _) | ("optional", Anonymous) => None,
        (_, Anonymous) => Some("AUTH_REQUIRED"),
        (_, Expired) => Some("AUTH_TOKEN_EXPIRED"),
        (_, WrongSignature) => Some("AUTH_TOKEN_INVALID"),
        (_, EndedSession | Deleted) => Some("AUTH_TOKEN_REVOKED"),
        (_, UnknownKey) => Some("API_KEY_INVALID"),
        (_, Banned | KeyOfBanned) => Some("ACCOUNT_BANNED"),
        (_, Admin) => None,
        ("admin", _) => Some("ADMIN_REQUIRED"),
        ("session", ReadKey | WriteKey) => Some("SESSION_REQUIRED"),
        (_, ReadKey) if !reads => Some("API_KEY_PERMISSION"),
        (_, User | OtherUser | ReadKey | WriteKey) => None,
    }
}

/// Everybody, ready to ask.
struct Cast {
    app: App,
    user: i64,
    other: i64,
    admin: i64,
    banned: i64,
    deleted: i64,
    read_key: String,
    write_key: String,
    banned_key: String,
}

impl Cast {
    async fn new() -> Self {
        let app = App::new().await;
        let (user, other, banned, deleted) =
            (app.miner(1).await, app.miner(2).await, app.miner(3).await, app.miner(4).await);
        let admin = app.admin(5).await;
        let read_key = app.api_key(&user, &["read"]).await;
        let write_key = app.api_key(&user, &["write"]).await;
        let banned_key = app.api_key(&banned, &["write"]).await;
        tbg_identity::roles::ban(&app.db.pool, UserId(banned.id), "test", true, app.clock.now())
            .await
            .unwrap();
        let confirm = serde_json::json!({ "confirm": "DELETE" });
        let gone = app.ask("DELETE", "/api/v1/users/me", Some(&deleted.access), Some(confirm)).await;
        assert_eq!(gone.status, 200, "{}", gone.text);
        app.auth.forget_user(UserId(banned.id)).await;
        Self {
            user: user.id,
            other: other.id,
            admin: admin.id,
            banned: banned.id,
            deleted: deleted.id,
            read_key,
            write_key,
            banned_key,
            app,
        }
    }

    /// A credential of the actor, fresh for each request: some routes end the session they are asked with.
    async fn credential(&self, actor: Actor) -> Option<String> {
        let now = self.app.clock.now();
        Some(match actor {
            Anonymous => return None,
            Expired => sign(&claims(self.user, now - chrono::TimeDelta::hours(2))),
            WrongSignature => {
                let claims = claims(self.user, now);
                Keys::new(&new_key(), &[], &claims.iss, &claims.aud).unwrap().sign(&claims).unwrap()
            }
            EndedSession => {
                let claims = claims(self.user, now);
                self.app.auth.revoke_sessions(UserId(self.user), &[claims.sid]).await;
                sign(&claims)
            }
            Deleted => self.app.token(self.deleted),
            User => self.app.token(self.user),
            OtherUser => self.app.token(self.other),
            Admin => self.app.token(self.admin),
            Banned => self.app.token(self.banned),
            ReadKey => self.read_key.clone(),
            WriteKey => self.write_key.clone(),
            UnknownKey => format!("tbg_{}", "0".repeat(40)),
            KeyOfBanned => self.banned_key.clone(),
        })
    }
}

/// Method, path template and class of every documented route.
fn routes(document: &Value) -> Vec<(String, String, String)> {
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let class = operation["x-auth-class"].as_str().unwrap_or("NO CLASS");
            routes.push((method.to_uppercase(), path.clone(), class.to_owned()));
        }
    }
    routes
}

#[tokio::test]
async fn every_route_admits_exactly_whom_its_class_names() {
    let cast = Cast::new().await;
    let document = cast.app.get("/openapi.json", None).await.ok();
    let routes = routes(&document);
    let mut wrong = Vec::new();
    let mut cells = 0;

    for (method, template, class) in &routes {
        assert_ne!(class, "NO CLASS", "{method} {template}");
        let path = template
            .replace("{address}", "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l")
            .replace("{name}", "rig1")
            .replace("{height}", "840000")
            .replace("{slug}", "first_share")
            .replace("{celebration_id}", "1")
            .replace("{week}", "2026-W08")
            .replace("{game}", "hammer")
            .replace("{id}", "01936000-0000-7000-8000-000000000001");
        assert!(!path.contains('{'), "give {template} a value for the matrix");
        for actor in ACTORS {
            let credential = cast.credential(actor).await;
            let answer = cast.app.ask(method, &path, credential.as_deref(), None).await;
            let refusal = Some(answer.code()).filter(|code| REFUSALS.contains(code));
            let expected = expected(class, actor, method);
            if refusal != expected || answer.status >= 500 {
                wrong.push(format!(
                    "{method} {path} ({class}) as {actor:?}: {:?} instead of {expected:?}",
                    answer.outcome()
                ));
            }
            cells += 1;
        }
    }

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(cells, routes.len() * ACTORS.len());
    println!("{} routes x {} actors = {cells} cells", routes.len(), ACTORS.len());
}

#[tokio::test]
async fn the_routes_and_their_classes_are_those_of_the_contract() {
    let app = App::new().await;
    let document = app.get("/openapi.json", None).await.ok();
    let mut lines: Vec<String> = routes(&document)
        .into_iter()
        .map(|(method, path, class)| format!("{path} {method} {class}"))
        .collect();
    lines.sort();
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn a_refused_admin_request_is_audited_once() {
    let cast = Cast::new().await;
    let credential = cast.credential(User).await;

    let answer = cast.app.get("/api/v1/admin/audit", credential.as_deref()).await;

    assert_eq!(answer.outcome(), (403, "ADMIN_REQUIRED"));
    assert_eq!(cast.app.audited("admin.access_denied", "denied").await, 1);
}
