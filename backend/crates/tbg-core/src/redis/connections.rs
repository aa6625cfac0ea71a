//! The connections of a process (contract `production.md` §13): four that everybody shares. What must wait for an answer
//! without end, a reader of streams and a subscriber, has its own besides.

use std::time::Duration;

use futures_util::future::join_all;
use redis::Client;

use super::{Redis, client, manager};
use crate::config::Settings;

/// How often [`Connections::keep_alive`] is to be called.
pub const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
/// After how many calls without a command a connection is tried: 30 s.
const QUIET: u32 = 6;

/// Four connections, by who would keep whom waiting. Clones share them.
#[derive(Clone)]
pub struct Connections {
    client: Client,
    /// What somebody waits for: requests and sockets.
    pub serving: Redis,
    /// The streams of events: what the pool's socket brings, and what the writer has done with.
    pub streams: Redis,
    /// What is shown as it happens: live events, live rows, rankings.
    pub live: Redis,
    /// What nobody waits for: jobs, mail, gauges, probes.
    pub background: Redis,
}

impl Connections {
    /// For `TBG_REDIS_URL`; connects to nothing yet.
    ///
    /// # Errors
    /// See [`client`].
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        let client = client(settings)?;
        Ok(Self {
            serving: manager(&client)?,
            streams: manager(&client)?,
            live: manager(&client)?,
            background: manager(&client)?,
            client,
        })
    }

    /// For connections of one's own.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Sends PING where there was no command for 30 s, so that a connection that died unnoticed is replaced before
    /// somebody needs it. To be called every [`KEEP_ALIVE_EVERY`].
    pub async fn keep_alive(&self) {
        let shared = [&self.serving, &self.streams, &self.live, &self.background];
        let idle = shared.into_iter().filter(|connection| connection.quiet() >= QUIET);
        join_all(idle.cloned().map(|mut connection| async move {
            // One that does not answer is replaced by the manager: there is nothing else to do about it.
            let _ = redis::cmd("PING").query_async::<()>(&mut connection).await;
        }))
        .await;
    }
}
