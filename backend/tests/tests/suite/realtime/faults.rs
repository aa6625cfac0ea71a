//! Redis and PostgreSQL away, slow readers, shutdown.

use std::time::Duration;

use serde_json::json;
use tbg_core::UserId;
use tbg_core::live::{LiveEvent, LiveMessage};
use tbg_tests::app::{App, realtime_config};
use tbg_tests::program::until;
use tbg_tests::socket::Came;

use tbg_tests::program::Program;
use tbg_tests::socket::Socket;

use super::{ledger_holds, publish};

#[tokio::test]
async fn example_17_redis_goes_and_comes_back_and_no_socket_closes() {
    let mut app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    let mut socket = replica.open(&person.access).await;
    socket.subscribe("gamification").await;

    app.redis.server.kill().await.expect("killed");
    assert!(until(async || !replica.realtime.bridge_is_up()).await, "the bridge notices");
    let local =
        LiveMessage::personal(LiveEvent::BadgeEarned, UserId(person.id), json!({ "badge_slug": "local" }));
    replica.publish(&[local]).await;
    assert_eq!(socket.next_event("badge_earned").await["data"]["badge_slug"], "local");
    app.redis.server.restart().await.expect("restarted");
    assert!(until(async || replica.realtime.bridge_is_up()).await, "the bridge comes back");
    publish(&app, "pubsub:badge_earned", &json!({ "user_id": person.id, "badge_slug": "again" })).await;

    assert_eq!(socket.next_event("badge_earned").await["data"]["badge_slug"], "again");
    assert!(socket.until_pong().await.is_empty());
}

#[tokio::test]
async fn example_12_who_never_reads_is_closed_and_delays_nobody() {
    let app = App::new().await;
    let (slow, quick) = (app.miner(1).await, app.miner(2).await);
    let replica = app.serve().await;
    let stuck = replica.open(&slow.access).await;
    let mut reader = replica.open(&quick.access).await;
    reader.subscribe("competition").await;
    ledger_holds(&app, slow.id, 1).await;

    // More than the kernel buffers of a connection hold, so that the queue fills.
    let title = "x".repeat(60_000);
    for number in 0..400 {
        let notice = json!({ "event": "notification", "data": { "id": number.to_string(), "title": title } });
        publish(&app, &format!("ws:user:{}", slow.id), &notice).await;
    }
    publish(&app, "pubsub:league_update", &json!({ "league_id": 1 })).await;

    let came = reader.next_within(Duration::from_secs(2)).await.expect("it comes at once").json();
    assert_eq!(came["data"]["league_id"], 1);
    ledger_holds(&app, slow.id, 0).await;
    drop(stuck);
}

#[tokio::test]
async fn example_20_shutdown_closes_everybody_with_1001() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let config = tbg_realtime::RealtimeConfig { max_per_user: 100, ..realtime_config() };
    let replica = app.serve_with(config).await;
    let mut sockets = Vec::new();
    for _ in 0..100 {
        sockets.push(replica.open(&person.access).await);
    }

    let started = std::time::Instant::now();
    replica.begin_stop();
    for socket in &mut sockets {
        assert_eq!(socket.next().await, Came::Closed(1001, "server shutdown".to_owned()));
    }

    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    replica.stop().await;
    ledger_holds(&app, person.id, 0).await;
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_nothing_behind() {
    let app = App::new().await;
    let person = app.miner(1).await;
    let replica = app.serve().await;
    for _ in 0..20 {
        let mut socket = replica.open(&person.access).await;
        socket.subscribe("mining").await;
        socket.cut();
        ledger_holds(&app, person.id, 0).await;
    }

    let stats = reqwest::get(format!("{}/api/v1/dashboard/ws-stats", replica.base)).await.unwrap();
    let stats: serde_json::Value = serde_json::from_str(&stats.text().await.unwrap()).unwrap();
    assert_eq!(stats, json!({ "total_connections": 0, "unique_users": 0, "channels": {} }));
}

const SOCKETS: usize = 1_000;

/// Opens a socket that resumes; returns it with its cursor once it is there.
async fn resume(base: &str, token: &str, since: Option<&str>) -> (Socket, Vec<String>, serde_json::Value) {
    let mut socket = Socket::open(base, token).await.expect("a socket");
    socket.subscribe("gamification").await;
    let mut message = json!({ "action": "resume" });
    if let Some(since) = since {
        message["since"] = json!(since);
    }
    socket.send(message).await;
    let mut slugs = Vec::new();
    loop {
        let came = socket.next().await.json();
        if came["type"] == "resumed" {
            return (socket, slugs, came);
        }
        if let Some(slug) = came["data"]["badge_slug"].as_str() {
            slugs.push(slug.to_owned());
        }
    }
}

#[tokio::test]
async fn a_replica_killed_with_a_thousand_sockets_costs_none_of_them_a_badge() {
    let app = App::new().await;
    let settings = [("TBG_WS_MAX_CONNECTIONS_PER_USER", "1000"), ("TBG_WS_CONNECTS_PER_MIN", "10000")];
    let people = [app.miner(1).await, app.miner(2).await];
    let mut a = Program::start(&app.db, &app.redis, "api", &settings).await;
    let b = Program::start(&app.db, &app.redis, "api", &settings).await;
    a.wait_for("/health", 200).await;
    b.wait_for("/health", 200).await;
    // The programs sign with a key of their own: what counts is that both know ours.
    let tokens: Vec<&str> = people.iter().map(|person| person.access.as_str()).collect();
    let mut cursors = Vec::new();
    let mut sockets = Vec::new();
    for index in 0..SOCKETS {
        let (socket, _, resumed) = resume(&a.base, tokens[index % 2], None).await;
        cursors.push(resumed["cursor"].as_str().expect("a cursor").to_owned());
        sockets.push(socket);
    }

    a.kill().await;
    let killed = std::time::Instant::now();
    for person in &people {
        let badge =
            LiveMessage::personal(LiveEvent::BadgeEarned, UserId(person.id), json!({ "badge_slug": "x" }));
        app.bus.publish(&[badge]).await;
    }
    for socket in &mut sockets {
        assert!(matches!(socket.next().await, Came::Gone | Came::Closed(..)));
    }
    for (index, cursor) in cursors.iter().enumerate() {
        let (_, slugs, resumed) = resume(&b.base, tokens[index % 2], Some(cursor)).await;
        assert_eq!(slugs, ["x"], "socket {index}");
        assert_eq!(resumed["complete"], true, "{resumed}");
    }

    assert!(killed.elapsed() < Duration::from_secs(60), "{:?}", killed.elapsed());
}
