//! The loop that consumes a domain's events from the outbox: in order, each in one transaction with its
//! effects, live events after the commit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::Clock;
use crate::live::{LiveBus, LiveMessage};
use crate::outbox::{self, Pending};

/// How often new events are looked for: what follows from an event normally follows within 250 ms (contract
/// `gamification.md` §4.2).
const POLL: Duration = Duration::from_millis(100);
/// Wait after the database failed.
const WAIT_AFTER_ERROR: Duration = Duration::from_secs(2);
/// Wait before an event that could not be consumed is tried again; the ones after it go on meanwhile.
const RETRY_AFTER: TimeDelta = TimeDelta::seconds(30);

/// What a domain does with the events of others.
#[async_trait]
pub trait Handle: Send + Sync {
    /// The consumer's name in the outbox.
    fn consumer(&self) -> &'static str;

    /// Applies one event in the given transaction. Doing it twice must change nothing the second time. What
    /// is returned is published after the commit, and what was added to the event's counts is counted then.
    async fn handle(
        &self,
        conn: &mut PgConnection,
        event: &Pending,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Vec<LiveMessage>>;
}

/// Consumes one domain's events.
pub struct Consumer {
    pool: PgPool,
    clock: Arc<dyn Clock>,
    bus: LiveBus,
    handler: Arc<dyn Handle>,
    /// Events that failed, with the time of the next try.
    failed: HashMap<i64, DateTime<Utc>>,
}

impl Consumer {
    /// A consumer; reads nothing yet.
    #[must_use]
    pub fn new(pool: PgPool, clock: Arc<dyn Clock>, bus: LiveBus, handler: Arc<dyn Handle>) -> Self {
        Self { pool, clock, bus, handler, failed: HashMap::new() }
    }

    /// Consumes until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut wait = Duration::ZERO;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = match self.drain().await {
                Ok(_) => POLL,
                Err(error) => {
                    let consumer = self.handler.consumer();
                    tracing::warn!(consumer, error = format!("{error:#}"), "events wait in the outbox");
                    WAIT_AFTER_ERROR
                }
            };
        }
    }

    /// Consumes what is open now. Returns how many events were consumed.
    ///
    /// # Errors
    /// When the database does not answer. An event that cannot be consumed is no error here: it is logged and
    /// tried again later.
    pub async fn drain(&mut self) -> anyhow::Result<u64> {
        let (mut after, mut consumed) = (0, 0);
        loop {
            let now = self.clock.now();
            let mut tx = self.pool.begin().await.context("outbox")?;
            let Some(event) = outbox::take(&mut tx, self.handler.consumer(), after).await? else {
                return Ok(consumed);
            };
            after = event.id;
            if self.failed.get(&event.id).is_some_and(|again| now < *again) {
                continue;
            }
            match self.handler.handle(&mut tx, &event, now).await {
                Ok(messages) => {
                    outbox::done(&mut tx, event.id, now).await?;
                    tx.commit().await?;
                    event.counts.publish();
                    self.failed.remove(&event.id);
                    self.bus.publish(&messages).await;
                    consumed += 1;
                }
                Err(error) => {
                    // At once: a rollback that is left to the pool keeps the consumer's turn meanwhile.
                    tx.rollback().await?;
                    let (consumer, topic) = (self.handler.consumer(), &event.topic);
                    tracing::error!(
                        consumer,
                        topic,
                        id = event.id,
                        error = format!("{error:#}"),
                        "an event was not consumed"
                    );
                    self.failed.insert(event.id, now + RETRY_AFTER);
                }
            }
        }
    }
}
