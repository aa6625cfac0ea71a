//! What games do with the events of other domains.

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tbg_core::consumer::Handle;
use tbg_core::live::LiveMessage;
use tbg_core::outbox::Pending;

use crate::store;

/// Consumes deletions.
#[derive(Clone, Copy, Debug, Default)]
pub struct GamesEvents;

impl GamesEvents {
    /// The consumer.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Handle for GamesEvents {
    fn consumer(&self) -> &'static str {
        "games"
    }

    async fn handle(
        &self,
        conn: &mut PgConnection,
        event: &Pending,
        _now: DateTime<Utc>,
    ) -> anyhow::Result<Vec<LiveMessage>> {
        // Another topic is perhaps one of a newer release: it waits for a process that knows it.
        ensure!(event.topic == "UserDeleted", "{} is not an event for games", event.topic);
        store::forget(conn, event.user_id.context("the event names no user")?).await?;
        Ok(Vec::new())
    }
}
