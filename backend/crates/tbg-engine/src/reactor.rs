//! The seam between the engine and the domains that react to mining.
//!
//! In the one transaction of a batch the engine calls, for each reactor in order: *load* (one query for
//! the users of the batch), *react* (pure: no clock, no I/O, no randomness; everything is an argument),
//! *store* (one `UNNEST` statement per table). Purity is what makes the game replayable and testable.
//!
//! A later reactor sees the domain events of the earlier ones: mining's `BlockAttributed` is how
//! gamification learns in the same transaction that a block has a finder. Reactors know one user at a
//! time; nothing global is updated per share.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tbg_core::metrics::Counts;
use tbg_core::outbox::DomainEvent;

use crate::batch::Batch;
use crate::push::Push;

/// What a reactor decided.
#[derive(Default)]
pub struct Reaction<C> {
    /// What `store` will write.
    pub changes: C,
    /// What other domains will want to know; written to the outbox by the engine.
    pub events: Vec<DomainEvent>,
    /// What browsers show live; published after the commit, best effort.
    pub pushes: Vec<Push>,
}

/// A domain that reacts to mining.
#[async_trait]
pub trait Reactor: Send + Sync {
    /// What `load` reads.
    type State: Send;
    /// What `store` writes.
    type Changes: Send;

    /// The domain's name, for timings.
    fn name(&self) -> &'static str;

    /// Reads what the reaction needs, and reserves the ids that it will give.
    async fn load(&self, conn: &mut PgConnection, batch: &Batch) -> Result<Self::State, sqlx::Error>;

    /// Decides. Must not look at anything but its arguments.
    fn react(
        &self,
        state: Self::State,
        batch: &Batch,
        events_so_far: &[DomainEvent],
    ) -> Reaction<Self::Changes>;

    /// What the changes count; counted after the commit.
    fn counts(&self, _changes: &Self::Changes) -> Counts {
        Counts::default()
    }

    /// Writes the changes.
    async fn store(&self, conn: &mut PgConnection, changes: Self::Changes) -> Result<(), sqlx::Error>;
}

/// What a domain does once a batch is committed and acknowledged: live state that the database need not know.
#[async_trait]
pub trait AfterCommit: Send + Sync {
    /// Called in the order of batches. Failures are its own to log: the facts are stored. What is returned is
    /// published after the batch's own pushes.
    async fn committed(&self, batch: &Batch, now: DateTime<Utc>) -> Vec<Push>;
}

/// What running one reactor gave.
pub(crate) struct Ran {
    pub(crate) events: Vec<DomainEvent>,
    pub(crate) pushes: Vec<Push>,
    pub(crate) counts: Counts,
    pub(crate) load: Duration,
    pub(crate) react: Duration,
    pub(crate) store: Duration,
}

/// A reactor with its types hidden, so that the engine can hold several.
#[async_trait]
pub(crate) trait AnyReactor: Send + Sync {
    fn name(&self) -> &'static str;
    async fn run(
        &self,
        conn: &mut PgConnection,
        batch: &Batch,
        events_so_far: &[DomainEvent],
    ) -> Result<Ran, sqlx::Error>;
}

#[async_trait]
impl<R: Reactor> AnyReactor for R {
    fn name(&self) -> &'static str {
        Reactor::name(self)
    }

    async fn run(
        &self,
        conn: &mut PgConnection,
        batch: &Batch,
        events_so_far: &[DomainEvent],
    ) -> Result<Ran, sqlx::Error> {
        let started = Instant::now();
        let state = self.load(conn, batch).await?;
        let loaded = Instant::now();
        let Reaction { changes, events, pushes } = self.react(state, batch, events_so_far);
        let counts = self.counts(&changes);
        let reacted = Instant::now();
        self.store(conn, changes).await?;
        let (load, react, store) = (loaded - started, reacted - loaded, reacted.elapsed());
        Ok(Ran { events, pushes, counts, load, react, store })
    }
}
