//! Sockets: what browsers are told the moment it is true (contract `realtime.md`).
//!
//! A client opens `/ws` with its access token, subscribes to channels and reads. Domains publish
//! [`tbg_core::live`] events to Redis after their commits; the bridge of every replica hears all of them
//! and hands each to the queues of those whom it concerns. Best effort: the facts are in the database, and
//! what a user must not miss comes again to a client that resumes.
//!
//! Reading order: `rules` (what may be said, who gets which frame, what a slow reader loses), `hub` (who is
//! here), `connection` (the talk with one client), `bridge` (from Redis), `routes` (who gets in).
//!
//! No tables. In Redis: `ws:conns:<user>`, the ledger by which all replicas together hold a user to their cap;
//! `ws:kept:<user>` is read here and written by the publisher.
//!
//! Invariants: a personal event reaches its owner's sockets or nobody; a socket that is gone is in no index
//! and in no ledger; nothing waits for a slow reader.

mod bridge;
mod connection;
mod hub;
mod metrics;
mod routes;
mod rules;
mod store;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::StatusCode;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tbg_core::UserId;
use tbg_core::live::{LiveBus, LiveEvent};
use tbg_core::redis::Redis;
use tbg_web::auth::{Authenticator, Claims};
use tbg_web::limit::Limiter;
use tbg_web::{Origins, Routes};
use tokio_util::sync::CancellationToken;

use crate::connection::Closing;
use crate::hub::Hub;
use crate::rules::{Entry, Weight};
use crate::store::Store;

pub use crate::rules::{Channel, Subscriptions};

/// How often the ledger learns that sockets are alive.
const LEDGER_REFRESH: Duration = Duration::from_secs(30);
/// How often a user's numbers may be pushed.
const STATS_INTERVAL: Duration = Duration::from_secs(10);
/// Users whose numbers are looked up at once.
const STATS_AT_ONCE: usize = 4;
/// How long closing everybody may be spread, and how far apart two sockets are closed at most.
const SHUTDOWN_SPREAD: Duration = Duration::from_secs(4);
const SHUTDOWN_STEP: Duration = Duration::from_millis(5);
/// How long clients may take to answer that.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// What sockets need of other domains.
#[async_trait]
pub trait Feeds: Send + Sync {
    /// The body of `GET /api/v1/dashboard/stats` for a user.
    async fn dashboard_stats(&self, user: UserId) -> anyhow::Result<Value>;
    /// Marks a notification as read; false if it is not the user's.
    async fn mark_read(&self, user: UserId, notification: i64) -> anyhow::Result<bool>;
    /// The user's address.
    async fn address_of(&self, user: UserId) -> anyhow::Result<Option<String>>;
}

/// How sockets work in a deployment.
#[derive(Clone, Debug)]
pub struct RealtimeConfig {
    /// Sockets of this replica.
    pub max_connections: usize,
    /// Sockets of a user, over all replicas.
    pub max_per_user: usize,
    /// Sockets that a user may open a minute.
    pub connects_per_min: u32,
    /// Messages that a client may send a minute.
    pub messages_per_min: u32,
    /// Time between pings.
    pub heartbeat_interval: Duration,
    /// Silence after which a socket is closed.
    pub heartbeat_timeout: Duration,
    /// Whether a JSON ping goes with the protocol's.
    pub app_ping: bool,
    /// Whether a refusal is a socket that closes at once, instead of a status.
    pub reject_with_close_code: bool,
}

/// What sockets stand on.
pub struct Parts {
    /// Knows who may come in.
    pub auth: Arc<Authenticator>,
    /// Counts handshakes.
    pub limiter: Limiter,
    /// For the bridge's own connection.
    pub redis: redis::Client,
    /// For everything else.
    pub manager: Redis,
    /// What could not be published is delivered from here.
    pub bus: LiveBus,
    /// Pages that may open sockets.
    pub origins: Origins,
    /// Other domains.
    pub feeds: Arc<dyn Feeds>,
    /// How.
    pub config: RealtimeConfig,
    /// What to do when caches were cleared somewhere.
    pub on_cache_cleared: Arc<dyn Fn() + Send + Sync>,
}

/// The sockets of this process. Clones share everything.
#[derive(Clone)]
pub struct Realtime(Arc<Shared>);

/// Behind a [`Realtime`].
pub struct Shared {
    auth: Arc<Authenticator>,
    limiter: Limiter,
    redis: redis::Client,
    store: Store,
    bus: LiveBus,
    origins: Origins,
    feeds: Arc<dyn Feeds>,
    config: RealtimeConfig,
    on_cache_cleared: Arc<dyn Fn() + Send + Sync>,
    hub: Arc<Hub>,
    bridge_up: AtomicBool,
}

impl Deref for Realtime {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The endpoints without a state behind them, for the OpenAPI document.
#[must_use]
pub fn documented_routes() -> Routes<Realtime> {
    routes::all()
}

impl Realtime {
    /// Puts the parts together; connects to nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        metrics::register();
        Self(Arc::new(Shared {
            auth: parts.auth,
            limiter: parts.limiter,
            redis: parts.redis,
            store: Store::new(parts.manager),
            bus: parts.bus,
            origins: parts.origins,
            feeds: parts.feeds,
            config: parts.config,
            on_cache_cleared: parts.on_cache_cleared,
            hub: Arc::default(),
            bridge_up: AtomicBool::new(false),
        }))
    }

    /// The endpoints.
    #[must_use]
    pub fn routes(&self) -> Routes {
        documented_routes().with_state(self.clone())
    }

    /// Whether what is published is heard.
    #[must_use]
    pub fn bridge_is_up(&self) -> bool {
        self.bridge_up.load(Ordering::Acquire)
    }

    /// Runs the bridge and the upkeep until `shutdown`, then closes all sockets.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::join!(
            bridge::run(self.clone(), shutdown.clone()),
            bridge::run_local(self.clone(), shutdown.clone()),
            self.keep_ledger(shutdown.clone()),
            self.push_stats(shutdown.clone()),
            self.close_all(shutdown),
        );
    }

    /// Whether the session behind `claims` still stands; yes while nobody can tell.
    async fn may_stay(&self, claims: &Claims) -> bool {
        match self.auth.session(claims).await {
            Ok(_) => true,
            Err(error) => !matches!(error.code().status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
        }
    }

    /// Looks at the session of every open socket once.
    async fn recheck_all(&self) {
        for connection in self.hub.all() {
            if !self.may_stay(&connection.claims).await {
                connection.close(Closing::REVOKED);
            }
        }
    }

    async fn keep_ledger(&self, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(tokio::time::sleep(LEDGER_REFRESH)).await.is_some() {
            let mut by_user: HashMap<UserId, Vec<_>> = HashMap::new();
            for connection in self.hub.all() {
                by_user.entry(connection.user).or_default().push(connection.id);
            }
            let alive: Vec<_> = by_user.into_iter().collect();
            if let Err(error) = self.store.refresh(&alive).await {
                tracing::debug!(%error, "the ledger of sockets was not refreshed");
            }
        }
    }

    /// Pushes the numbers of users to whom something happened, if they changed.
    async fn push_stats(&self, shutdown: CancellationToken) {
        let mut told: HashMap<UserId, Value> = HashMap::new();
        while shutdown.run_until_cancelled(tokio::time::sleep(STATS_INTERVAL)).await.is_some() {
            let users = self.hub.take_touched();
            let stats = futures_util::stream::iter(users)
                .map(|user| async move { (user, self.feeds.dashboard_stats(user).await) })
                .buffer_unordered(STATS_AT_ONCE)
                .collect::<Vec<_>>()
                .await;
            let mut now_told = HashMap::with_capacity(stats.len());
            for (user, stats) in stats {
                let Ok(stats) = stats else { continue };
                if told.get(&user) != Some(&stats) {
                    let event = LiveEvent::StatsUpdate;
                    let data = json!({ "type": event.name(), "stats": stats });
                    let text = json!({ "channel": Channel::Dashboard.name(), "data": data }).to_string();
                    let weight = Weight::of(Some(event));
                    let entry = Entry { text: text.into(), weight, event: Some(event), is_message: true };
                    self.hub.deliver_to(user, Channel::Dashboard, &entry);
                }
                now_told.insert(user, stats);
            }
            told = now_told;
        }
    }

    /// After `shutdown`: nobody comes in, everybody is closed a little apart, so that they do not come back
    /// together.
    async fn close_all(&self, shutdown: CancellationToken) {
        shutdown.cancelled().await;
        self.hub.drain();
        let sockets = self.hub.all();
        let count = u32::try_from(sockets.len()).unwrap_or(u32::MAX).max(1);
        let started = tokio::time::Instant::now();
        let step = SHUTDOWN_STEP.min(SHUTDOWN_SPREAD / count);
        for (index, connection) in sockets.iter().enumerate() {
            connection.close(Closing::SHUTDOWN);
            let due = started + step * u32::try_from(index).unwrap_or(u32::MAX);
            tokio::time::sleep_until(due).await;
        }
        let deadline = tokio::time::Instant::now() + SHUTDOWN_WAIT;
        while self.hub.count() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(SHUTDOWN_STEP).await;
        }
        // Clients come back within seconds: what is left in the ledger would count against them.
        let gone: Vec<_> = sockets.iter().map(|connection| (connection.user, connection.id)).collect();
        if let Err(error) = self.store.leave_all(&gone).await {
            tracing::debug!(%error, "the ledger of sockets forgets this process by its age");
        }
    }
}
