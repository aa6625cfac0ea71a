//! What is said on a socket.

use std::time::Duration;

use serde_json::json;
use tbg_tests::app::{App, realtime_config};
use tbg_tests::socket::Came;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn examples_1_3_and_4_questions_and_answers() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    let mut socket = replica.open(&person.access).await;
    let invalid = |name: &str| json!({ "type": "error", "message": format!("Invalid channel: {name}"), "code": "invalid_channel" });
    let unknown = |verb: &str| json!({ "type": "error", "message": format!("Unknown action: {verb}"), "code": "unknown_action" });
    let no_json = json!({ "type": "error", "message": "Invalid JSON", "code": "invalid_json" });

    for (question, answer) in [
        (r#"{"action":"ping"}"#, json!({ "type": "pong" })),
        (r#"{"type":"ping"}"#, json!({ "type": "pong" })),
        (r#"{"action":"ping","more":[1,{"x":2}]}"#, json!({ "type": "pong" })),
        (
            r#"{"action":"subscribe","channel":"mining"}"#,
            json!({ "type": "subscribed", "channel": "mining" }),
        ),
        (
            r#"{"action":"subscribe","channel":"mining"}"#,
            json!({ "type": "subscribed", "channel": "mining" }),
        ),
        (
            r#"{"action":"subscribe","channels":["mining","dashboard"]}"#,
            json!({ "type": "subscribed", "channels": ["mining", "dashboard"] }),
        ),
        (r#"{"action":"subscribe","channels":["mining","x"]}"#, invalid("x")),
        (r#"{"action":"subscribe","channel":"nonexistent"}"#, invalid("nonexistent")),
        (r#"{"action":"subscribe","channel":""}"#, invalid("")),
        (
            r#"{"action":"unsubscribe","channel":"mining"}"#,
            json!({ "type": "unsubscribed", "channel": "mining" }),
        ),
        (
            r#"{"action":"unsubscribe","channel":"mining"}"#,
            json!({ "type": "unsubscribed", "channel": "mining" }),
        ),
        ("not json {{{", no_json.clone()),
        ("[1]", no_json.clone()),
        (r#""x""#, no_json),
        (r#"{"action":"explode"}"#, unknown("explode")),
        ("{}", unknown("")),
    ] {
        socket.send_text(question).await;
        assert_eq!(socket.next().await.json(), answer, "{question}");
    }
    socket.send_text(r#"{"type":"pong"}"#).await;
    assert!(socket.until_pong().await.is_empty(), "an answer to a ping is not answered");
}

#[tokio::test]
async fn shapes_that_make_no_sense_are_errors_not_ends() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    let mut socket = replica.open(&person.access).await;
    let deep = format!("{{\"action\":\"ping\",\"x\":{}1{}}}", "[".repeat(9), "]".repeat(9));

    for question in [
        r#"{"action":5}"#,
        r#"{"action":null}"#,
        r#"{"action":"subscribe"}"#,
        r#"{"action":"subscribe","channel":5}"#,
        r#"{"action":"subscribe","channels":[]}"#,
        r#"{"action":"subscribe","channels":"mining"}"#,
        r#"{"action":"subscribe","channels":["mining",5]}"#,
        r#"{"action":"mark_read"}"#,
        r#"{"action":"mark_read","id":"x"}"#,
        r#"{"action":"mark_read","id":"99"}"#,
        r#"{"action":"resume","since":"x"}"#,
        deep.as_str(),
    ] {
        socket.send_text(question).await;
        let answer = socket.next().await.json();
        assert_eq!(answer["type"], "error", "{question}: {answer}");
        assert!(answer["code"].is_string() && answer["message"].is_string(), "{question}: {answer}");
    }
    assert!(socket.until_pong().await.is_empty());
}

#[tokio::test]
async fn an_unknown_name_is_echoed_short_and_clean() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    let mut socket = replica.open(&person.access).await;

    socket.send(json!({ "action": "subscribe", "channel": format!("a\n\u{7}{}", "b".repeat(100)) })).await;

    let message = socket.next().await.json()["message"].as_str().unwrap().to_owned();
    assert_eq!(message, format!("Invalid channel: a{}", "b".repeat(63)));
}

#[tokio::test]
async fn example_10_sixty_messages_a_minute() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    let mut socket = replica.open(&person.access).await;

    for _ in 0..61 {
        socket.send_text(r#"{"action":"ping"}"#).await;
    }

    for _ in 0..60 {
        assert_eq!(socket.next().await.json(), json!({ "type": "pong" }));
    }
    let refused = socket.next().await.json();
    assert_eq!(
        (&refused["code"], &refused["message"]),
        (&json!("rate_limited"), &json!("Rate limit exceeded"))
    );
    assert!((59..=60).contains(&refused["retry_after"].as_i64().unwrap()), "{refused}");

    for _ in 0..59 {
        socket.send_text(r#"{"action":"ping"}"#).await;
    }
    let closed = loop {
        match socket.next().await {
            Came::Json(message) => assert_eq!(message["code"], "rate_limited"),
            other => break other,
        }
    };
    assert_eq!(closed, Came::Closed(4029, "rate limit exceeded".to_owned()));
}

#[tokio::test]
async fn example_14_frames_that_are_too_large_or_no_text_end_the_socket() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    let fits = format!(r#"{{"action":"ping","x":"{}"}}"#, "x".repeat(4096 - 24));
    assert_eq!(fits.len(), 4096);
    let mut socket = replica.open(&person.access).await;
    socket.send_text(fits.clone()).await;
    assert_eq!(socket.next().await.json(), json!({ "type": "pong" }));
    socket.send_text(format!("{fits} ")).await;
    assert_eq!(socket.next().await, Came::Closed(1009, "message too large".to_owned()));

    let mut socket = replica.open(&person.access).await;
    socket.send_raw(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(socket.next().await, Came::Closed(1003, "text frames only".to_owned()));
}

#[tokio::test]
async fn example_13_silence_ends_a_socket_and_protocol_pongs_keep_it() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let config = tbg_realtime::RealtimeConfig {
        heartbeat_interval: Duration::from_millis(200),
        heartbeat_timeout: Duration::from_millis(600),
        ..realtime_config()
    };
    let replica = app.serve_with(config).await;
    let mut browser = replica.open(&person.access).await;
    let mut silent = replica.open(&person.access).await;

    // Reading answers pings; who does not read answers none.
    for _ in 0..10 {
        assert_eq!(browser.next_within(Duration::from_millis(200)).await, None);
    }

    assert_eq!(silent.next().await, Came::Closed(4008, "heartbeat timeout".to_owned()));
    assert!(browser.until_pong().await.is_empty());
}

#[tokio::test]
async fn a_notification_is_marked_as_read() {
    let app = App::new().await;
    let (person, other) = (app.miner(1).await, app.miner(2).await);
    app.consume().await;
    let id: i64 = sqlx::query_scalar("SELECT id FROM notifications WHERE user_id = $1")
        .bind(person.id)
        .fetch_one(&app.db.pool)
        .await
        .expect("the welcome");
    let replica = app.serve().await;
    let (mut mine, mut theirs) = (replica.open(&person.access).await, replica.open(&other.access).await);

    theirs.send(json!({ "action": "mark_read", "id": id.to_string() })).await;
    let refused = theirs.next().await.json();
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("not_found")));

    mine.send(json!({ "action": "mark_read", "id": id.to_string() })).await;
    assert_eq!(mine.next().await.json(), json!({ "type": "marked_read", "id": id.to_string() }));
    assert_eq!(app.db.number("SELECT count(*) FROM notifications WHERE read").await, 1);
    let unread = "SELECT sum(notifications_unread)::BIGINT FROM user_social_counters";
    assert_eq!(app.db.number(unread).await, 1);
}
