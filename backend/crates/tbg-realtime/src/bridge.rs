//! From Redis pub/sub to the sockets of this replica (contract `realtime.md` §6).
//!
//! One connection of its own hears everything; each message is handed to queues without waiting. When the
//! connection breaks it is made again, with growing pauses; then every open socket's session is looked at
//! once, because its end may have been announced meanwhile.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use serde::Deserialize;
use tbg_core::UserId;
use tbg_core::live::LiveEvent;
use tbg_core::redis::DedicatedGuard;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::rules::deliver;
use crate::{Realtime, metrics};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often a silent connection is tried, and how long it may take to answer.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

const REVOKED: &str = "auth:revoked";
const CACHE_CLEARED: &str = "cache:cleared";
const GLOBAL: &str = "ws:global";
const OF_USERS: &str = "ws:user:*";

/// Whose sessions ended.
#[derive(Deserialize)]
struct Revoked {
    user_id: i64,
    sid: Option<Uuid>,
}

/// Listens until `shutdown`; a crash is an interruption like any other.
pub(crate) async fn run(realtime: Realtime, shutdown: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    let mut had_gap = false;
    while !shutdown.is_cancelled() {
        let (listener, stop) = (realtime.clone(), shutdown.clone());
        let ended = tokio::spawn(async move { listen(&listener, had_gap, &stop).await }).await;
        let was_up = realtime.bridge_up.swap(false, Ordering::AcqRel);
        metrics::bridge_up(false);
        if shutdown.is_cancelled() {
            return;
        }
        let error = match ended {
            Ok(Ok(())) => "the connection ended".to_owned(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "it crashed".to_owned(),
        };
        if was_up {
            pause = FIRST_PAUSE;
            tracing::warn!(error, "live events are not heard: Redis is away");
        }
        had_gap = true;
        // Replicas that lost the same Redis do not all come back at once.
        let jitter = pause.mul_f64((Uuid::new_v4().as_u128() & 0xff) as f64 / 1024.0);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause + jitter) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn listen(realtime: &Realtime, had_gap: bool, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let connect = async {
        let _counted = DedicatedGuard::count();
        let mut connection = realtime.redis.get_async_pubsub().await?;
        connection.subscribe(topics()).await?;
        connection.psubscribe(OF_USERS).await?;
        Ok::<_, redis::RedisError>(connection)
    };
    let connection = tokio::time::timeout(PROBE_INTERVAL, connect).await.context("no answer in time")??;
    let (mut sink, mut messages) = connection.split();
    realtime.bridge_up.store(true, Ordering::Release);
    metrics::bridge_up(true);
    tracing::info!("live events are heard");
    if had_gap {
        let realtime = realtime.clone();
        tokio::spawn(async move { realtime.recheck_all().await });
    }
    let mut probe = tokio::time::interval(PROBE_INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            message = messages.next() => {
                let Some(message) = message else { return Ok(()) };
                hear(realtime, message.get_channel_name(), message.get_payload_bytes());
            }
            _ = probe.tick() => {
                let answer = sink.ping::<redis::Value>();
                tokio::time::timeout(PROBE_INTERVAL, answer).await.context("Redis fell silent")??;
            }
        }
    }
}

fn topics() -> Vec<String> {
    let events = LiveEvent::ALL.iter().filter_map(|event| event.redis_channel());
    events.chain([GLOBAL, REVOKED, CACHE_CLEARED].map(str::to_owned)).collect()
}

/// Acts on one message. Nonsense is counted and told without its content.
fn hear(realtime: &Realtime, topic: &str, payload: &[u8]) {
    match topic {
        CACHE_CLEARED => (realtime.on_cache_cleared)(),
        REVOKED => match serde_json::from_slice::<Revoked>(payload) {
            Ok(revoked) => realtime.hub.revoke(UserId(revoked.user_id), revoked.sid),
            Err(_) => fault(topic, "invalid_json"),
        },
        topic => match deliver(topic, payload) {
            Ok(delivery) => realtime.hub.deliver(delivery),
            Err(reason) => {
                // A user's channel ends with who it is: that stays out of the log.
                let topic = if topic.starts_with("ws:user:") { OF_USERS } else { topic };
                fault(topic, &reason.to_string());
            }
        },
    }
}

fn fault(topic: &str, reason: &str) {
    metrics::bridge_fault(reason.to_owned());
    tracing::warn!(topic, reason, "a published event was not delivered");
}

/// Delivers what this process could not publish, while it hears nothing either.
pub(crate) async fn run_local(realtime: Realtime, shutdown: CancellationToken) {
    let mut local = realtime.bus.local();
    loop {
        let message = tokio::select! {
            () = shutdown.cancelled() => return,
            message = local.recv() => message,
        };
        match message {
            Ok(message) if !realtime.bridge_is_up() => {
                let (topic, payload) = message.wire();
                hear(&realtime, &topic, payload.to_string().as_bytes());
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
