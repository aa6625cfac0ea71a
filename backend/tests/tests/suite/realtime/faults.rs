//! Redis and PostgreSQL away, slow readers, shutdown.

use std::time::Duration;

use serde_json::json;
use tbg_core::UserId;
use tbg_core::live::{LiveEvent, LiveMessage};
use tbg_tests::app::{App, realtime_config};
use tbg_tests::program::until;
use tbg_tests::socket::Came;

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
