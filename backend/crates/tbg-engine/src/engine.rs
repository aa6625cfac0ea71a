//! Applies a batch of events in one transaction (contract `mining.md` §3.4).

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt as _;
use sqlx::{Connection as _, PgConnection};
use tbg_core::metrics::{self as names, Counts};
use tbg_core::{outbox, users};
use uuid::Uuid;

use crate::batch::{Batch, BatchEvent};
use crate::dead_letters::DeadLetter;
use crate::decode::MAX_AGE;
use crate::key::{Identified, KeyRule};
use crate::push::Push;
use crate::reactor::{AnyReactor, Reactor};
use crate::store;

/// Two emissions of one share lie closer together than this.
const DUPLICATE_WINDOW: TimeDelta = TimeDelta::seconds(2);

/// Turns events into effects, exactly once.
#[derive(Default)]
pub struct Engine {
    reactors: Vec<Box<dyn AnyReactor>>,
}

/// What applying a batch did.
#[derive(Default)]
pub struct Outcome {
    /// Events whose effects are now stored.
    pub applied: usize,
    /// Events that had been applied before.
    pub duplicate: usize,
    /// What to publish, in order.
    pub pushes: Vec<Push>,
    /// Time per stage, in the order of the stages.
    pub stages: Vec<(&'static str, &'static str, Duration)>,
    /// What was applied.
    pub batch: Batch,
    /// The oldest applied event.
    pub oldest: Option<DateTime<Utc>>,
    tallies: HashMap<Tally, u64>,
}

/// What is counted once the batch is committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Tally {
    Event { event: &'static str, outcome: &'static str },
    Share { status: &'static str },
    DeadLetter { reason: &'static str },
}

impl Engine {
    /// An engine without reactors: it archives nothing and only keeps the ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a reactor after the ones before it.
    #[must_use]
    pub fn with(mut self, reactor: impl Reactor + 'static) -> Self {
        self.reactors.push(Box::new(reactor));
        self
    }

    /// Applies `events` and stores `letters` in one transaction; after the commit, counts. An event
    /// older than ninety days at `now` is `aged`: it takes part in maxima only.
    ///
    /// # Errors
    /// When the database does not answer or refuses; then nothing of the batch is stored.
    pub async fn apply(
        &self,
        conn: &mut PgConnection,
        events: Vec<impl Into<Identified>>,
        letters: &[DeadLetter],
        now: DateTime<Utc>,
    ) -> Result<Outcome, sqlx::Error> {
        let (mut outcome, mut counts) = (Outcome::default(), Vec::new());
        let mut stage = Stopwatch::start();
        let mut tx = conn.begin().await?;
        store::take_batch_turn(&mut tx).await?;
        store::insert_letters(&mut tx, letters).await?;
        outcome.stages.push(("engine", "begin", stage.lap()));

        let events = events.into_iter().map(Into::into).collect();
        let batch = deduplicate(&mut tx, events, now, &mut outcome).await?;
        outcome.stages.push(("engine", "ledger", stage.lap()));

        if !batch.events.is_empty() {
            let batch = with_holders(&mut tx, batch).await?;
            outcome.stages.push(("engine", "holders", stage.lap()));
            let mut events_so_far = Vec::new();
            for reactor in &self.reactors {
                let ran = reactor.run(&mut tx, &batch, &events_so_far).await?;
                events_so_far.extend(ran.events);
                outcome.pushes.extend(ran.pushes);
                counts.push(ran.counts);
                outcome.stages.extend([
                    (reactor.name(), "load", ran.load),
                    (reactor.name(), "react", ran.react),
                    (reactor.name(), "store", ran.store),
                ]);
            }
            stage.lap();
            outbox::write(&mut tx, &events_so_far).await?;
            outcome.stages.push(("engine", "outbox", stage.lap()));
            outcome.batch = batch;
        }
        tx.commit().await?;
        outcome.stages.push(("engine", "commit", stage.lap()));
        for letter in letters {
            let event = crate::event::EventKind::Other(letter.refusal.event_type.clone()).label();
            outcome.count(Tally::Event { event, outcome: "dead" });
            outcome.count(Tally::DeadLetter { reason: letter.refusal.reason.as_str() });
        }
        outcome.publish_counts();
        counts.into_iter().for_each(Counts::publish);
        Ok(outcome)
    }

    /// The same, but `None` when a reactor panics. Then nothing of the batch is stored: the transaction ends before
    /// the connection is used again. Only a connection that was in the middle of a COPY refuses what comes next.
    ///
    /// # Errors
    /// See [`apply`](Self::apply).
    pub async fn apply_guarded(
        &self,
        conn: &mut PgConnection,
        events: Vec<impl Into<Identified>>,
        letters: &[DeadLetter],
        now: DateTime<Utc>,
    ) -> Result<Option<Outcome>, sqlx::Error> {
        match AssertUnwindSafe(self.apply(conn, events, letters, now)).catch_unwind().await {
            Ok(applied) => applied.map(Some),
            Err(_) => Ok(None),
        }
    }
}

impl Outcome {
    fn count(&mut self, tally: Tally) {
        *self.tallies.entry(tally).or_default() += 1;
    }

    /// Counters move after the commit only, so that they agree with the tables.
    fn publish_counts(&self) {
        for (tally, count) in &self.tallies {
            match *tally {
                Tally::Event { event, outcome } => {
                    metrics::counter!(names::INGEST_EVENTS_TOTAL, "event" => event, "outcome" => outcome)
                        .increment(*count);
                }
                Tally::Share { status } => {
                    metrics::counter!(names::SHARES_TOTAL, "status" => status).increment(*count);
                }
                Tally::DeadLetter { reason } => {
                    metrics::counter!(names::DEAD_LETTERS_TOTAL, "reason" => reason).increment(*count);
                }
            }
        }
    }
}

/// Waits for this transaction's turn among the batches: for whoever rewrites what batches write.
///
/// # Errors
/// When the database does not answer.
pub async fn take_turn(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    store::take_batch_turn(conn).await
}

/// Orders the events, drops those that the ledger or the batch itself already knows, and records the rest.
async fn deduplicate(
    conn: &mut PgConnection,
    mut events: Vec<Identified>,
    now: DateTime<Utc>,
    outcome: &mut Outcome,
) -> Result<Batch, sqlx::Error> {
    events.sort_by_key(|identified| (identified.event.ts, identified.key));
    let (Some(first), Some(last)) = (events.first(), events.last()) else {
        return Ok(Batch::default());
    };
    let (from, to) = (first.event.ts - DUPLICATE_WINDOW, last.event.ts + DUPLICATE_WINDOW);
    let keys: Vec<Uuid> = events.iter().map(|identified| identified.key).collect();
    let mut seen: HashMap<Uuid, Vec<DateTime<Utc>>> = HashMap::with_capacity(events.len());
    for (key, ts) in store::ledger_rows(conn, &keys, from, to).await? {
        seen.entry(key).or_default().push(ts);
    }
    let mut batch = Batch { events: Vec::with_capacity(events.len()), processed_at: now, ..Batch::default() };
    let mut new_rows = Vec::with_capacity(events.len());
    for Identified { key, rule, event: pool } in events {
        let event = pool.kind.label();
        let times = seen.entry(key).or_default();
        if times.iter().any(|ts| is_duplicate(rule, *ts, pool.ts)) {
            outcome.duplicate += 1;
            outcome.count(Tally::Event { event, outcome: "duplicate" });
            continue;
        }
        times.push(pool.ts);
        let aged = pool.ts < now - MAX_AGE;
        if !aged {
            new_rows.push((key, pool.ts));
        }
        outcome.applied += 1;
        outcome.oldest = Some(outcome.oldest.map_or(pool.ts, |oldest| oldest.min(pool.ts)));
        outcome.count(Tally::Event { event, outcome: "applied" });
        if let Some(share) = pool.share().filter(|_| !aged) {
            let status = if share.accepted { "accepted" } else { "rejected" };
            outcome.count(Tally::Share { status });
        }
        batch.events.push(BatchEvent { key, pool, aged });
    }
    // In key order, neighbours of the index are written one after the other.
    new_rows.sort_unstable();
    store::insert_ledger(conn, &new_rows).await?;
    Ok(batch)
}

fn is_duplicate(rule: KeyRule, known: DateTime<Utc>, ts: DateTime<Utc>) -> bool {
    match rule {
        KeyRule::Exact => true,
        KeyRule::Window => (known - ts).abs() < DUPLICATE_WINDOW,
    }
}

async fn with_holders(conn: &mut PgConnection, mut batch: Batch) -> Result<Batch, sqlx::Error> {
    let mut addresses: Vec<String> = batch
        .events
        .iter()
        .filter(|event| event.pool.has_miner())
        .map(|event| event.pool.user.clone())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    batch.holders = users::holders(conn, &addresses).await?;
    Ok(batch)
}

/// Measures consecutive stages.
struct Stopwatch(Instant);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.0, now)
    }
}
