//! Sockets from the client's side (contract `realtime.md`): real HTTP, real frames, one replica or two, on a
//! real Redis. The numbers in names are those of the contract's acceptance examples.

mod channels;
mod client;
mod faults;
mod handshake;
mod protocol;
mod publishers;
mod resume;

use serde_json::Value;
use tbg_tests::app::App;
use tbg_tests::program::until;

/// Publishes as another program would.
async fn publish(app: &App, channel: &str, payload: &Value) {
    publish_text(app, channel, &payload.to_string()).await;
}

async fn publish_text(app: &App, channel: &str, payload: &str) {
    let mut redis = app.redis.manager();
    redis::cmd("PUBLISH").arg(channel).arg(payload).query_async::<()>(&mut redis).await.expect("published");
}

/// Waits until the ledger of a user holds `count` sockets.
async fn ledger_holds(app: &App, user: i64, count: i64) {
    let mut redis = app.redis.manager();
    let holds = until(async || {
        let held: i64 = redis::cmd("ZCARD")
            .arg(format!("ws:conns:{user}"))
            .query_async(&mut redis)
            .await
            .expect("Redis answers");
        held == count
    });
    assert!(holds.await, "the ledger of user {user} does not come to {count}");
}
