//! What a phone that slept gets back.

use serde_json::json;
use tbg_core::UserId;
use tbg_core::live::{KEPT_ENTRIES, LiveEvent, LiveMessage};
use tbg_tests::app::App;
use tbg_tests::people::Person;

async fn badge(app: &App, person: &Person, slug: &str) {
    let message =
        LiveMessage::personal(LiveEvent::BadgeEarned, UserId(person.id), json!({ "badge_slug": slug }));
    app.bus.publish(&[message]).await;
}

#[tokio::test]
async fn what_was_missed_comes_in_order_and_once() {
    let app = App::new().await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    let replica = app.serve().await;
    let mut socket = replica.open(&person.access).await;
    socket.subscribe("gamification").await;
    socket.send(json!({ "action": "resume" })).await;
    let start = socket.next().await.json();
    assert_eq!(
        (&start["type"], &start["delivered"], &start["complete"]),
        (&json!("resumed"), &json!(0), &json!(true))
    );
    badge(&app, &person, "seen").await;
    assert_eq!(socket.next().await.json()["data"]["badge_slug"], "seen");
    let cursor = socket.next().await.json();
    assert_eq!(cursor["type"], "cursor");
    socket.cut();

    badge(&app, &person, "missed 1").await;
    badge(&app, &other, "another's").await;
    badge(&app, &person, "missed 2").await;
    let mut socket = replica.open(&person.access).await;
    socket.subscribe("gamification").await;
    badge(&app, &person, "live").await;
    assert_eq!(socket.next().await.json()["data"]["badge_slug"], "live");
    socket.send(json!({ "action": "resume", "since": cursor["cursor"] })).await;

    let (first, second) = (socket.next().await.json(), socket.next().await.json());
    assert_eq!(
        (&first["data"]["badge_slug"], &second["data"]["badge_slug"]),
        (&json!("missed 1"), &json!("missed 2"))
    );
    let resumed = socket.next().await.json();
    assert_eq!(
        (&resumed["type"], &resumed["delivered"], &resumed["complete"]),
        (&json!("resumed"), &json!(2), &json!(true))
    );
    assert!(socket.until_pong().await.is_empty(), "what came live does not come again");
}

#[tokio::test]
async fn only_subscribed_channels_and_notifications_come_back() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    let mut socket = replica.open(&person.access).await;
    socket.send(json!({ "action": "resume" })).await;
    let cursor = socket.next().await.json()["cursor"].clone();
    socket.cut();
    badge(&app, &person, "not subscribed").await;
    let notice = LiveMessage::personal(LiveEvent::Notification, UserId(person.id), json!({ "id": "1" }));
    app.bus.publish(&[notice]).await;

    let mut socket = replica.open(&person.access).await;
    socket.send(json!({ "action": "resume", "since": cursor })).await;

    assert_eq!(
        socket.next().await.json()["data"],
        json!({ "type": "notification", "payload": { "id": "1" } })
    );
    assert_eq!(socket.next().await.json()["delivered"], 1);
}

#[tokio::test]
async fn a_stream_that_forgot_says_so() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    badge(&app, &person, "first").await;
    let mut socket = replica.open(&person.access).await;
    socket.subscribe("gamification").await;
    socket.send(json!({ "action": "resume" })).await;
    let cursor = socket.next().await.json()["cursor"].clone();
    socket.cut();
    for number in 0..=KEPT_ENTRIES {
        badge(&app, &person, &number.to_string()).await;
    }

    let mut socket = replica.open(&person.access).await;
    socket.subscribe("gamification").await;
    socket.send(json!({ "action": "resume", "since": cursor })).await;

    let mut delivered = 0;
    let resumed = loop {
        let message = socket.next().await.json();
        if message["type"] == "resumed" {
            break message;
        }
        if message["channel"] == "gamification" {
            delivered += 1;
        }
    };
    assert_eq!(resumed["complete"], false, "{resumed}");
    assert_eq!(resumed["delivered"], delivered);
    assert_eq!(delivered, KEPT_ENTRIES);
}

#[tokio::test]
async fn old_clients_do_not_notice() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    let mut socket = replica.open(&person.access).await;
    socket.subscribe("gamification").await;

    badge(&app, &person, "a").await;

    let message = json!({ "channel": "gamification", "data": { "type": "badge_earned", "badge_slug": "a" } });
    assert_eq!(socket.until_pong().await, [message]);
}

#[tokio::test]
async fn each_is_published_once_whatever_redis_knows_or_keeps() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    let mut socket = replica.open(&person.access).await;
    socket.subscribe("gamification").await;
    let personal = |event, data| LiveMessage::personal(event, UserId(person.id), data);
    let both = [
        personal(LiveEvent::XpGained, json!({ "amount": 5 })),
        personal(LiveEvent::BadgeEarned, json!({ "badge_slug": "a" })),
    ];
    let types = |messages: Vec<serde_json::Value>| -> Vec<String> {
        messages.iter().map(|message| message["data"]["type"].as_str().unwrap().to_owned()).collect()
    };

    // This Redis is new and knows no script.
    app.bus.publish(&both).await;
    assert_eq!(types(socket.until_pong().await), ["xp_gained", "badge_earned"]);

    // A full one refuses what is to be kept: who publishes tells its own sockets that.
    let mut local = app.bus.local();
    let mut limit = redis::cmd("CONFIG");
    limit.arg("SET").arg("maxmemory").arg(1).query_async::<()>(&mut app.redis.manager()).await.unwrap();
    app.bus.publish(&both).await;
    assert_eq!(types(socket.until_pong().await), ["xp_gained"]);
    assert_eq!(local.try_recv().unwrap().event, LiveEvent::BadgeEarned);
    assert!(local.try_recv().is_err());
}
