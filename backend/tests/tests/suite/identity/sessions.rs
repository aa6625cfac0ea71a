//! Sessions: carried on by refreshes, ended by their owners, by time and by theft (contract `auth-users.md`
//! §3, §4, §16 item 7). Bans, deletions, keys and a Redis that is away are in `circumstances`.

mod circumstances;
mod endings;

use chrono::TimeDelta;
use serde_json::{Value, json};
use tbg_tests::app::{Answer, App, keys, sign};
use tbg_tests::at;
use tbg_tests::people::{Person, address_of, wallet};
use tbg_web::auth::{Claims, TokenKind};

use super::wallet_sign_in::accounts::type_in;
use super::wallet_sign_in::{audit, audit_text};

const INVALID: (u16, &str) = (401, "AUTH_REFRESH_INVALID");
const REUSED: (u16, &str) = (401, "AUTH_REFRESH_REUSED");
const REVOKED: (u16, &str) = (401, "AUTH_TOKEN_REVOKED");

async fn refresh(app: &App, token: &str) -> Answer {
    app.post("/api/v1/auth/refresh", None, json!({ "refresh_token": token })).await
}

/// The same session with new tokens.
async fn renewed(app: &App, person: &Person) -> Person {
    Person::of(&refresh(app, &person.refresh).await.ok())
}

async fn logout(app: &App, token: &str) -> Answer {
    app.post("/api/v1/auth/logout", None, json!({ "refresh_token": token })).await
}

async fn me(app: &App, person: &Person) -> Answer {
    app.get("/api/v1/auth/me", Some(&person.access)).await
}

fn claims_of(token: &str, kind: TokenKind) -> Claims {
    keys().verify_at_any_age(token, kind).unwrap()
}

fn reasons(rows: &[Value]) -> Vec<&str> {
    rows.iter().filter_map(|row| row["details"]["reason"].as_str()).collect()
}

#[tokio::test]
async fn a_refresh_gives_new_tokens_of_the_same_session() {
    let app = App::new().await;
    let first = app.miner(1).await;
    app.clock.advance(TimeDelta::minutes(30));

    let answer = refresh(&app, &first.refresh).await.ok();

    let second = Person::of(&answer);
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("bearer"), &json!(3600)));
    assert_eq!((second.id, second.sid()), (first.id, first.sid()));
    assert_eq!(answer["user"]["login_count"], 1, "a refresh is no sign-in");
    assert_ne!((&second.access, &second.refresh), (&first.access, &first.refresh));
    for (old, new, kind) in [
        (&first.access, &second.access, TokenKind::Access),
        (&first.refresh, &second.refresh, TokenKind::Refresh),
    ] {
        let (old, new) = (claims_of(old, kind), claims_of(new, kind));
        assert_eq!((new.auth_time, new.auth_method, new.sid), (old.auth_time, old.auth_method, old.sid));
        assert_eq!((new.iat, new.exp), (old.iat + 1800, old.exp + 1800));
        assert_ne!(new.jti, old.jti);
    }
    assert_eq!(me(&app, &first).await.status, 200, "the old access token lives its hour");
    assert_eq!(me(&app, &second).await.status, 200);
    let rotated: (String, uuid::Uuid) =
        sqlx::query_as("SELECT revoke_reason, replaced_by FROM refresh_tokens WHERE is_revoked")
            .fetch_one(&app.db.pool)
            .await
            .unwrap();
    assert_eq!(rotated, ("rotated".to_owned(), claims_of(&second.refresh, TokenKind::Refresh).jti));
    let expected = json!({
        "user": first.id.to_string(), "status": "success", "type": "session", "id": first.sid(), "details": {},
    });
    assert_eq!(audit(&app, "auth.token_refresh").await, [expected]);
}

#[tokio::test]
async fn a_refresh_token_that_comes_back_ends_every_session_of_its_user() {
    let app = App::new().await;
    let (first, device, other) = (app.miner(1).await, app.miner(1).await, app.miner(2).await);
    let second = renewed(&app, &first).await;

    let stolen = refresh(&app, &first.refresh).await;

    assert_eq!(stolen.outcome(), REUSED);
    assert_eq!(stolen.header("www-authenticate"), "");
    assert_eq!(refresh(&app, &second.refresh).await.outcome(), INVALID);
    assert_eq!(refresh(&app, &device.refresh).await.outcome(), INVALID);
    for ended in [&first, &second, &device] {
        let answer = me(&app, ended).await;
        assert_eq!(answer.outcome(), REVOKED);
        assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="tbg", error="invalid_token""#);
    }
    assert_eq!(me(&app, &other).await.status, 200, "others go on");
    let live = "SELECT count(DISTINCT user_id) FROM refresh_tokens WHERE NOT is_revoked";
    assert_eq!(app.db.number(live).await, 1);
    let detected = json!({
        "user": first.id.to_string(), "status": "denied", "type": "session", "id": first.sid(), "details": {},
    });
    assert_eq!(audit(&app, "auth.token_reuse_detected").await, [detected]);
    assert_eq!(app.audited("auth.token_refresh", "success").await, 1);
    let refreshes = audit(&app, "auth.token_refresh").await;
    assert_eq!(reasons(&refreshes), ["reused", "ended", "ended"]);
    let log = audit_text(&app).await;
    assert!(!log.contains(&first.refresh) && !log.contains(&second.refresh));
    // The person signs in again at once.
    let back = app.miner(1).await;
    assert_eq!(me(&app, &back).await.status, 200);
    assert_eq!(renewed(&app, &back).await.id, first.id);
}

#[tokio::test]
async fn reuse_voids_access_tokens_even_where_the_denylist_was_lost() {
    let app = App::new().await;
    let first = app.miner(1).await;
    app.clock.advance(TimeDelta::seconds(2));
    let second = renewed(&app, &first).await;
    app.clock.advance(TimeDelta::seconds(2));
    assert_eq!(refresh(&app, &first.refresh).await.outcome(), REUSED);
    redis::cmd("FLUSHALL").query_async::<()>(&mut app.redis.manager()).await.unwrap();
    let other_replica = app.replica(keys());

    let request = tbg_tests::app::request("GET", "/api/v1/auth/me", Some(&second.access), None);
    let answer = tbg_tests::app::send(&other_replica, request).await;

    assert_eq!(answer.outcome(), REVOKED);
}

#[tokio::test]
async fn a_signed_out_token_that_comes_back_ends_nothing_else() {
    let app = App::new().await;
    let (here, elsewhere) = (app.miner(1).await, app.miner(1).await);
    assert_eq!(logout(&app, &here.refresh).await.ok(), json!({ "status": "logged_out" }));

    let again = refresh(&app, &here.refresh).await;

    assert_eq!(again.outcome(), INVALID);
    assert_eq!(me(&app, &here).await.outcome(), REVOKED);
    assert_eq!(me(&app, &elsewhere).await.status, 200);
    assert_eq!(renewed(&app, &elsewhere).await.id, here.id);
    assert!(audit(&app, "auth.token_reuse_detected").await.is_empty());
}

#[tokio::test]
async fn a_refresh_reads_address_and_user_again() {
    let app = App::new().await;
    let before = app.miner(1).await;
    let moved_to = address_of(&wallet(2));
    type_in(&app, &before, 2).await;

    let answer = refresh(&app, &before.refresh).await.ok();

    assert_eq!(answer["user"]["btc_address"], moved_to);
    assert_eq!(answer["user"]["is_verified"], false);
    let after = Person::of(&answer);
    assert_eq!(claims_of(&before.access, TokenKind::Access).address, Some(before.address));
    assert_eq!(claims_of(&after.access, TokenKind::Access).address.as_ref(), Some(&moved_to));
    assert_eq!(claims_of(&after.refresh, TokenKind::Refresh).address, Some(moved_to));
}

#[tokio::test]
async fn a_session_slides_seven_days_at_a_time_and_ends_after_thirty() {
    let start = at("2026-03-15T14:30:00Z");
    let app = App::at(start).await;
    let mut person = app.miner(1).await;
    let end = (start + TimeDelta::days(30)).timestamp();
    for day in [6, 12, 18, 24, 29] {
        app.clock.set(start + TimeDelta::days(day));
        person = renewed(&app, &person).await;
        let refresh = claims_of(&person.refresh, TokenKind::Refresh);
        let slid = (start + TimeDelta::days(day + 7)).timestamp();
        assert_eq!(refresh.exp, slid.min(end), "day {day}");
        assert_eq!(refresh.auth_time, start.timestamp());
    }

    app.clock.set(start + TimeDelta::days(30) - TimeDelta::seconds(1));
    let last = renewed(&app, &person).await;
    app.clock.set(start + TimeDelta::days(30));
    let over = refresh(&app, &last.refresh).await;

    assert_eq!(claims_of(&last.refresh, TokenKind::Refresh).exp, end);
    assert_eq!(over.outcome(), INVALID);
    let stored =
        "SELECT count(*) FROM refresh_tokens WHERE expires_at > session_started_at + INTERVAL '30 days'";
    assert_eq!(app.db.number(stored).await, 0);
}

#[tokio::test]
async fn an_expired_refresh_token_is_refused_and_alarms_nobody() {
    let app = App::new().await;
    let (first, device) = (app.miner(1).await, app.miner(1).await);
    app.clock.advance(TimeDelta::days(6));
    let device = renewed(&app, &device).await;
    // Within the seconds that a token's age may be off, the row decides.
    app.clock.advance(TimeDelta::days(1) + TimeDelta::seconds(2));
    let just_over = refresh(&app, &first.refresh).await;
    app.clock.advance(TimeDelta::seconds(4));
    let over = refresh(&app, &first.refresh).await;

    assert_eq!((just_over.outcome(), over.outcome()), (INVALID, INVALID));
    assert_eq!(renewed(&app, &device).await.id, first.id);
    assert!(audit(&app, "auth.token_reuse_detected").await.is_empty());
    assert_eq!(app.audited("auth.token_refresh", "failure").await, 2);
}

#[tokio::test]
async fn what_is_no_refresh_token_of_ours_is_refused_without_effect() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let claims = claims_of(&person.refresh, TokenKind::Refresh);
    let tampered = {
        let mut text = person.refresh.clone();
        let middle = text.find('.').unwrap() + 10;
        let other = if text.as_bytes()[middle] == b'A' { "B" } else { "A" };
        text.replace_range(middle..=middle, other);
        text
    };
    let other_text = sign(&Claims { exp: claims.exp + 1, ..claims.clone() });
    let unknown_id = sign(&Claims { jti: uuid::Uuid::now_v7(), ..claims.clone() });
    let other_user = sign(&Claims { sub: (person.id + 1).to_string(), ..claims });
    for (name, token) in [
        ("garbage", "abc"),
        ("an access token", person.access.as_str()),
        ("tampered", tampered.as_str()),
        ("another hash under a known id", other_text.as_str()),
        ("an unknown id", unknown_id.as_str()),
        ("somebody else's", other_user.as_str()),
    ] {
        let answer = refresh(&app, token).await;

        assert_eq!(answer.outcome(), INVALID, "{name}");
        assert_eq!(answer.header("www-authenticate"), "", "{name}");
    }
    assert_eq!(app.audited("auth.token_refresh", "failure").await, 6);

    for body in [json!({}), json!({ "refresh_token": "" }), json!({ "refresh_token": "a".repeat(4097) })] {
        let answer = app.post("/api/v1/auth/refresh", None, body).await;
        assert_eq!(answer.outcome(), (422, "VALIDATION_ERROR"));
    }
    let again = app.post("/api/v1/auth/refresh", None, json!({ "refresh_token": person.refresh })).await;
    assert_eq!(again.status, 200, "{}", again.text);
}
