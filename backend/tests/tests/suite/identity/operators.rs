//! What operators do to users, and whom admin routes turn away (contract `auth-users.md` §9, §13).

use chrono::TimeDelta;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tbg_bitcoin::Network;
use tbg_core::{Clock as _, UserId};
use tbg_identity::roles::{self, RoleChange};
use tbg_tests::app::{App, keys, request, send};
use tbg_tests::people::{Person, address_of, wallet};

use super::wallet_sign_in::{audit, events};

const BANNED: (u16, &str) = (403, "ACCOUNT_BANNED");
const NOT_ADMIN: (u16, &str) = (403, "ADMIN_REQUIRED");
const STATS: &str = "/api/v1/admin/stats";

async fn grant(app: &App, person: &Person, granted: bool) -> RoleChange {
    let user = UserId(person.id);
    let change = roles::grant_admin(&app.db.pool, user, granted, app.clock.now()).await.unwrap().unwrap();
    publish(app, &change).await;
    change
}

async fn ban(app: &App, person: &Person, reason: &str, banned: bool) -> RoleChange {
    let user = UserId(person.id);
    let change = roles::ban(&app.db.pool, user, reason, banned, app.clock.now()).await.unwrap().unwrap();
    publish(app, &change).await;
    change
}

/// As the command does it; the state in the memory of the replica, which is a second old at most, goes too.
async fn publish(app: &App, change: &RoleChange) {
    roles::publish(&mut app.redis.manager(), change).await.unwrap();
    app.auth.forget_user(change.user).await;
}

async fn flag(app: &App, sql: &'static str, person: &Person) -> bool {
    sqlx::query_scalar(sql).bind(person.id).fetch_one(&app.db.pool).await.unwrap()
}

/// Events of a topic about a user: consumers are not told apart.
async fn events_of(app: &App, topic: &str) -> Vec<Value> {
    events(app).await.into_iter().filter(|(name, _)| name == topic).map(|(_, payload)| payload).collect()
}

/// How many of these keys are in Redis.
async fn existing(app: &App, names: &[&str]) -> i64 {
    redis::cmd("EXISTS").arg(names).query_async(&mut app.redis.manager()).await.unwrap()
}

async fn find(app: &App, text: &str) -> Option<UserId> {
    roles::find_user(&app.db.pool, text, Network::Mainnet).await.unwrap()
}

#[tokio::test]
async fn an_operator_gives_and_takes_the_admin_flag() {
    let app = App::new().await;
    let person = app.miner(1).await;

    let before = app.get(STATS, Some(&person.access)).await;
    let granted = grant(&app, &person, true).await;
    let during = app.get(STATS, Some(&person.access)).await;
    let me = app.get("/api/v1/users/me", Some(&person.access)).await.ok();
    let again = grant(&app, &person, true).await;
    let taken = grant(&app, &person, false).await;
    let after = app.get(STATS, Some(&person.access)).await;

    assert_eq!([before.outcome(), after.outcome()], [NOT_ADMIN; 2]);
    assert_eq!((during.status, &me["is_admin"]), (200, &json!(true)));
    assert_eq!([granted.changed, again.changed, taken.changed], [true, false, true]);
    let id = person.id.to_string();
    let row =
        json!({ "user": null, "status": "success", "type": "user", "id": id, "details": { "by": "cli" } });
    assert_eq!(
        audit(&app, "admin.role_granted").await,
        std::slice::from_ref(&row),
        "what was so before is no row"
    );
    assert_eq!(audit(&app, "admin.role_revoked").await, [row]);
}

#[tokio::test]
async fn a_ban_ends_every_session_and_is_announced() {
    let app = App::new().await;
    let (first, second) = (app.miner(1).await, app.miner(1).await);
    let bystander = app.miner(2).await;
    let key = app.api_key(&first, &["write"]).await;
    app.clock.advance(TimeDelta::seconds(10));
    let reason = "x".repeat(250);

    let change = ban(&app, &first, &reason, true).await;
    let again = ban(&app, &first, "another reason", true).await;

    let mut sids = [first.sid(), second.sid()];
    sids.sort_unstable();
    assert_eq!((change.changed, change.ended_sessions.as_slice()), (true, sids.as_slice()));
    let told_again = (again.changed, again.ended_sessions.as_slice());
    assert_eq!(told_again, (false, sids.as_slice()), "Redis may have been away the first time");
    assert!(flag(&app, "SELECT is_banned FROM users WHERE id = $1", &first).await);
    let live = "SELECT NOT EXISTS (SELECT 1 FROM refresh_tokens WHERE user_id = $1
                                   AND (NOT is_revoked OR revoke_reason <> 'banned'))";
    assert!(flag(&app, live, &first).await);
    assert!(!flag(&app, live, &bystander).await);
    let row = json!({
        "user": null, "status": "success", "type": "user", "id": first.id.to_string(),
        "details": { "reason": &reason[..200], "by": "cli" },
    });
    assert_eq!(audit(&app, "admin.user_banned").await, [row]);
    assert_eq!(events_of(&app, "UserBanned").await, vec![json!({ "user_id": first.id }); 2]);

    for person in [&first, &second] {
        let ended = app.get("/api/v1/users/me", Some(&person.access)).await;
        assert!(matches!(ended.status, 401 | 403), "{}", ended.text);
    }
    let new_token = app.get("/api/v1/users/me", Some(&app.token(first.id))).await;
    let by_key = app.get("/api/v1/users/me", Some(&key)).await;
    let by_wallet = app.connect(&wallet(1), false).await;
    assert_eq!([new_token.outcome(), by_key.outcome(), by_wallet.outcome()], [BANNED; 3]);
    let others = app.get("/api/v1/users/me", Some(&bystander.access)).await;
    assert_eq!(others.status, 200, "{}", others.text);
}

#[tokio::test]
async fn lifting_a_ban_lets_people_in_but_brings_no_session_back() {
    let app = App::new().await;
    let person = app.miner(1).await;
    app.clock.advance(TimeDelta::seconds(10));
    ban(&app, &person, "spam", true).await;
    app.clock.advance(TimeDelta::seconds(10));

    let change = ban(&app, &person, "a mistake", false).await;
    let again = ban(&app, &person, "a mistake", false).await;

    assert_eq!([change.changed, again.changed], [true, false]);
    let old = app.get("/api/v1/users/me", Some(&person.access)).await;
    assert_eq!(old.outcome(), (401, "AUTH_TOKEN_REVOKED"));
    assert_eq!(app.connect(&wallet(1), false).await.ok()["user"]["id"], person.id);
    let rows = audit(&app, "admin.user_unbanned").await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["details"], json!({ "reason": "a mistake", "by": "cli" }));
    let told = vec![json!({ "user_id": person.id }); 2];
    assert_eq!(events_of(&app, "PrivacyChanged").await, told, "who shows people shows this one again");
}

#[tokio::test]
async fn running_servers_are_told() {
    let app = App::new().await;
    let person = app.miner(1).await;
    assert_eq!(app.get("/api/v1/users/me", Some(&person.access)).await.status, 200);
    let mut redis = app.redis.manager();
    let state = format!("auth:user_state:{}", person.id);
    let profile = format!("public:profile:{}", person.address);
    redis::cmd("SET").arg(&profile).arg("old").query_async::<()>(&mut redis).await.unwrap();
    assert_eq!(existing(&app, &[&state, &profile]).await, 2);
    let mut channel = app.redis.client().get_async_pubsub().await.unwrap();
    channel.subscribe("auth:revoked").await.unwrap();
    let (user, now) = (UserId(person.id), app.clock.now());
    let change = roles::ban(&app.db.pool, user, "test", true, now).await.unwrap().unwrap();

    roles::publish(&mut redis, &change).await.unwrap();

    assert_eq!(existing(&app, &[&state, &profile]).await, 0);
    let denied = format!("auth:sid_revoked:{}", person.sid());
    let (value, ttl): (String, i64) =
        redis::pipe().cmd("GET").arg(&denied).cmd("TTL").arg(&denied).query_async(&mut redis).await.unwrap();
    assert_eq!(value, "1");
    assert!((3600..=3660).contains(&ttl), "{ttl}");
    let message: String = channel.on_message().next().await.unwrap().get_payload().unwrap();
    let message: Value = serde_json::from_str(&message).unwrap();
    assert_eq!(message, json!({ "user_id": person.id, "sid": person.sid() }));
    // A replica that has not seen this user yet asks Redis and the database.
    let elsewhere = request("GET", "/api/v1/users/me", Some(&app.token(person.id)), None);
    assert_eq!(send(&app.replica(keys()), elsewhere).await.outcome(), BANNED);
}

#[tokio::test]
async fn nobody_can_be_changed_who_is_not_there() {
    let app = App::new().await;
    let deleted = app.miner(1).await;
    let confirm = Some(json!({ "confirm": "DELETE" }));
    let gone = app.ask("DELETE", "/api/v1/users/me", Some(&deleted.access), confirm).await;
    assert_eq!(gone.status, 200, "{}", gone.text);
    let before = app.db.number("SELECT count(*) FROM audit_log").await;
    let now = app.clock.now();

    for user in [UserId(deleted.id), UserId(999_999)] {
        assert_eq!(roles::grant_admin(&app.db.pool, user, true, now).await.unwrap(), None);
        assert_eq!(roles::ban(&app.db.pool, user, "test", true, now).await.unwrap(), None);
    }

    assert_eq!(app.db.number("SELECT count(*) FROM users WHERE is_admin OR is_banned").await, 0);
    assert_eq!(app.db.number("SELECT count(*) FROM audit_log").await, before);
}

#[tokio::test]
async fn a_user_is_found_by_id_or_address() {
    let app = App::new().await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);

    assert_eq!(find(&app, &person.id.to_string()).await, Some(UserId(person.id)));
    assert_eq!(find(&app, &other.address).await, Some(UserId(other.id)));
    assert_eq!(find(&app, &other.address.to_uppercase()).await, Some(UserId(other.id)));
    for text in ["", "0", "-1", "1 OR 1=1", "nobody", address_of(&wallet(3)).as_str()] {
        assert_eq!(find(&app, text).await, None, "{text}");
    }
}

#[tokio::test]
async fn admin_routes_turn_others_away_and_note_it() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let routes = [("GET", STATS), ("GET", "/api/v1/admin/audit"), ("POST", "/api/v1/admin/cache/clear")];

    for (method, path) in routes {
        let anonymous = app.ask(method, path, None, None).await;
        let user = app.ask(method, path, Some(&person.access), Some(json!({}))).await;

        assert_eq!(anonymous.outcome(), (401, "AUTH_REQUIRED"), "{path}");
        assert_eq!(user.outcome(), NOT_ADMIN, "{path}");
    }

    let rows = audit(&app, "admin.access_denied").await;
    let expected = routes.map(|(method, path)| {
        json!({
            "user": person.id.to_string(), "status": "denied", "type": "route", "id": path,
            "details": { "method": method },
        })
    });
    assert_eq!(rows, expected, "one row for each refusal of somebody known");
}

#[tokio::test]
async fn an_address_that_was_only_typed_in_is_nobodys_name() {
    let app = App::new().await;
    let typed = app.register("typed@example.com", 7).await;
    let address = address_of(&wallet(7));

    assert_eq!(find(&app, &address).await, None);
    assert_eq!(find(&app, &typed.id.to_string()).await, Some(UserId(typed.id)));
}
