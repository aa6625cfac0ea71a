//! The loop of the active writer (contract `mining.md` §3.2).
//!
//! Exactly one process writes to a database: the one whose connection holds the writer lock. All its
//! transactions run on that same connection, so a writer that lost the lock cannot commit: the lock *is*
//! the connection. The others stand by and take over within seconds.
//!
//! While a transaction runs, the next batch is already being read and decoded, and the one before is
//! acknowledged and published (see [`settle`](crate::settle)).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tbg_core::redis::{DedicatedGuard, Redis};
use tbg_core::{Clock, db, metrics as names, told};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::dead_letters::DeadLetter;
use crate::decode::{Reason, Refusal, check_age};
use crate::engine::{Engine, Outcome};
use crate::event::PoolEvent;
use crate::key::Identified;
use crate::reactor::AfterCommit;
use crate::settle::{BatchReport, Committed, Settler};
use crate::source::streams::{self, ReadLimits, StreamReader};
use crate::source::{Entry, EntryId, stream_names};
use crate::store;

/// How often a standby asks for the lock: well below the promised ten seconds.
const STANDBY_POLL: Duration = Duration::from_secs(2);
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// While waiting, how often the database and Redis are asked whether they are back.
const RECOVERY_PROBE: Duration = Duration::from_secs(1);
/// How often the backlog is measured.
const BACKLOG_EVERY: Duration = Duration::from_secs(5);
/// When nothing waited and no batch had a lag for so long, ingest has caught up.
const CAUGHT_UP: Duration = Duration::from_secs(60);
/// Deliveries after which an entry that cannot be applied becomes a dead letter.
const MAX_DELIVERIES: i32 = 5;

/// What a writer needs.
pub struct Writer {
    /// How to connect to the database.
    pub database: PgConnectOptions,
    /// Where the streams are.
    pub redis: redis::Client,
    /// Acknowledges and publishes.
    pub manager: Redis,
    /// Applies batches.
    pub engine: Arc<Engine>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Name in the consumer group.
    pub consumer: String,
    /// How much is read at once.
    pub limits: ReadLimits,
    /// What domains do after each commit.
    pub after_commit: Arc<[Arc<dyn AfterCommit>]>,
    /// Told about every committed batch; benchmarks listen here.
    pub on_batch: Option<mpsc::UnboundedSender<BatchReport>>,
}

/// Why a writer stopped leading.
enum Ended {
    Shutdown,
    Failed(anyhow::Error),
}

impl Writer {
    /// Stands by, leads, recovers, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.write(&shutdown) => {}
            () = self.measure_backlog() => {}
        }
        metrics::gauge!(names::INGEST_ACTIVE_WRITER).set(0.0);
    }

    /// Says how much waits, whatever the writer does or cannot do: a stall is what nobody else would tell.
    async fn measure_backlog(&self) {
        let mut tick = tokio::time::interval(BACKLOG_EVERY);
        let mut quiet = Quiet::new(Instant::now());
        loop {
            tick.tick().await;
            let mut redis = self.manager.clone();
            let asked = tokio::time::timeout(BACKLOG_EVERY, streams::backlog(&mut redis)).await;
            let Ok(Ok(backlog)) = asked else { continue };
            metrics::gauge!(names::INGEST_STREAM_PENDING).set(backlog.total as f64);
            if quiet.is_over(backlog.total, told::ingest_lags(), Instant::now()) {
                metrics::gauge!(names::INGEST_LAG_SECONDS).set(0.0);
                told::ingest_caught_up();
            }
        }
    }

    async fn write(&self, shutdown: &CancellationToken) {
        let mut backoff = BACKOFF_FIRST;
        while !shutdown.is_cancelled() {
            let led_since = Instant::now();
            match self.stand_by_and_lead(shutdown).await {
                Ended::Shutdown => break,
                Ended::Failed(error) => {
                    metrics::gauge!(names::INGEST_ACTIVE_WRITER).set(0.0);
                    tracing::warn!(error = format!("{error:#}"), "ingest paused; nothing is lost");
                }
            }
            if led_since.elapsed() > BACKOFF_MAX {
                backoff = BACKOFF_FIRST;
            }
            self.wait_for_recovery(backoff, shutdown).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn stand_by_and_lead(&self, shutdown: &CancellationToken) -> Ended {
        let mut conn = match self.become_writer(shutdown).await {
            Ok(Some(conn)) => conn,
            Ok(None) => return Ended::Shutdown,
            Err(error) => return Ended::Failed(error),
        };
        metrics::gauge!(names::INGEST_ACTIVE_WRITER).set(1.0);
        tracing::info!(consumer = self.consumer, "this process is the active writer");
        let ended = self.lead(&mut conn, shutdown).await;
        // Closing gives the lock to a standby at once.
        let _ = conn.close().await;
        ended
    }

    /// Waits until this process holds the writer lock.
    async fn become_writer(&self, shutdown: &CancellationToken) -> anyhow::Result<Option<PgConnection>> {
        let mut conn = self.database.connect().await.context("PostgreSQL is away")?;
        let mut is_said = false;
        loop {
            if store::try_writer_lock(&mut conn).await? {
                return Ok(Some(conn));
            }
            if !std::mem::replace(&mut is_said, true) {
                tracing::info!("another process is the active writer: standing by");
                metrics::gauge!(names::INGEST_LAG_SECONDS).set(0.0);
                told::ingest_stands_by();
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                () = tokio::time::sleep(STANDBY_POLL) => {}
            }
        }
    }

    async fn lead(&self, conn: &mut PgConnection, shutdown: &CancellationToken) -> Ended {
        let (sender, mut batches) = mpsc::channel(1);
        let reading = self.spawn_reader(sender, shutdown.clone());
        let settler = Settler::spawn(
            self.manager.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&self.after_commit),
            self.on_batch.clone(),
        );
        let ended = loop {
            let batch = match batches.recv().await {
                Some(Ok(batch)) => batch,
                Some(Err(error)) => break Ended::Failed(error),
                None => break Ended::Shutdown,
            };
            if let Err(error) = self.process(conn, batch, &settler).await {
                break Ended::Failed(error);
            }
        };
        reading.abort();
        match settler.finish().await {
            Err(error) if matches!(ended, Ended::Shutdown) => Ended::Failed(error),
            _ => ended,
        }
    }

    /// Reads ahead by one batch. Ends on `shutdown`: what was read but not committed comes again.
    fn spawn_reader(
        &self,
        sender: mpsc::Sender<anyhow::Result<Vec<Entry>>>,
        shutdown: CancellationToken,
    ) -> tokio::task::JoinHandle<()> {
        let (client, consumer, limits) = (self.redis.clone(), self.consumer.clone(), self.limits);
        tokio::spawn(async move {
            let read = async {
                let _counted = DedicatedGuard::count();
                let conn = tbg_core::redis::dedicated(&client).await?;
                let mut reader = StreamReader::start(conn, consumer, limits).await?;
                let abandoned = reader.abandoned(Duration::ZERO).await?;
                if sender.send(Ok(abandoned)).await.is_err() {
                    return Ok(());
                }
                loop {
                    let entries = reader.next().await?;
                    if sender.send(Ok(entries)).await.is_err() {
                        return redis::RedisResult::Ok(());
                    }
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                result = read => {
                    if let Err(error) = result {
                        let error = anyhow::Error::new(error).context("reading the event streams");
                        let _ = sender.send(Err(error)).await;
                    }
                }
            }
        })
    }

    /// Applies a batch and hands it to the settler.
    async fn process(
        &self,
        conn: &mut PgConnection,
        entries: Vec<Entry>,
        settler: &Settler,
    ) -> anyhow::Result<()> {
        if entries.is_empty() {
            // The lock may have gone with the connection while there was nothing to do.
            return conn.ping().await.context("PostgreSQL is away");
        }
        let batch = Sorted::of(entries, self.clock.now());
        let whole = self.try_apply(conn, batch.events.clone(), &batch.letters).await?;
        match whole {
            Some(outcome) => {
                let Sorted { ids, letters, .. } = batch;
                settler.settle(Committed { ids, letters, outcome }).await
            }
            None => self.process_singly(conn, batch, settler).await,
        }
    }

    /// A batch that the database refused: each entry alone, so that one bad entry stops nobody else.
    async fn process_singly(
        &self,
        conn: &mut PgConnection,
        batch: Sorted,
        settler: &Settler,
    ) -> anyhow::Result<()> {
        tracing::warn!(events = batch.events.len(), "a batch was refused: applying its events one by one");
        let Sorted { mut ids, events, letters } = batch;
        let letter_ids = ids.split_off(events.len());
        if let Some(outcome) = self.try_apply(conn, Vec::new(), &letters).await? {
            settler.settle(Committed { ids: letter_ids, letters, outcome }).await?;
        }
        for (id, event) in ids.into_iter().zip(events) {
            if let Some(outcome) = self.try_apply(conn, vec![event.clone()], &[]).await? {
                settler.settle(Committed { ids: vec![id], letters: Vec::new(), outcome }).await?;
                continue;
            }
            let deliveries = streams::deliveries(&mut self.manager.clone(), id.0, &id.1).await?;
            if deliveries < MAX_DELIVERIES {
                tracing::warn!(
                    deliveries,
                    event = event.event.kind.label(),
                    "an event was refused; it comes again"
                );
                continue;
            }
            let letters = vec![letter_of_poison(&id, &event.event, deliveries)];
            if let Some(outcome) = self.try_apply(conn, Vec::new(), &letters).await? {
                settler.settle(Committed { ids: vec![id], letters, outcome }).await?;
            }
        }
        Ok(())
    }

    /// `None` when the database refuses the events themselves (or a reactor panics), an error when it is away.
    async fn try_apply(
        &self,
        conn: &mut PgConnection,
        events: Vec<Identified>,
        letters: &[DeadLetter],
    ) -> anyhow::Result<Option<Outcome>> {
        let span = tracing::info_span!("batch", events = events.len());
        let applying = self.engine.apply_guarded(conn, events, letters, self.clock.now()).instrument(span);
        match applying.await {
            Ok(Some(outcome)) => Ok(Some(outcome)),
            Ok(None) => {
                tracing::error!("a reactor panicked");
                Ok(None)
            }
            Err(error) if db::is_transient(&error) => Err(error).context("PostgreSQL is away"),
            Err(error) => {
                tracing::error!(%error, "the database refused a batch");
                Ok(None)
            }
        }
    }

    /// Waits for `backoff`, or less when the database and Redis answer again.
    async fn wait_for_recovery(&self, backoff: Duration, shutdown: &CancellationToken) {
        let until = Instant::now() + backoff;
        while Instant::now() < until {
            let step = RECOVERY_PROBE.min(until.saturating_duration_since(Instant::now()));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(step) => {}
            }
            if self.dependencies_answer().await {
                return;
            }
        }
    }

    async fn dependencies_answer(&self) -> bool {
        let asked = async {
            let mut conn = self.database.connect().await.ok()?;
            conn.ping().await.ok()?;
            redis::cmd("PING").query_async::<()>(&mut self.manager.clone()).await.ok()
        };
        matches!(tokio::time::timeout(RECOVERY_PROBE, asked).await, Ok(Some(())))
    }
}

/// The letter of an event that the database has refused too often.
fn letter_of_poison(id: &EntryId, event: &PoolEvent, deliveries: i32) -> DeadLetter {
    let mut refusal = Refusal::new(Reason::ApplyFailed, "the database refuses its effects");
    event.kind.name().clone_into(&mut refusal.event_type);
    let names = stream_names();
    let stream = names.get(id.0).map_or("", String::as_str);
    let mut letter = DeadLetter::new(stream, &id.1, refusal, event.to_envelope().as_bytes());
    letter.deliveries = deliveries;
    letter
}

/// A batch taken apart: ids of events first, then of letters, both in order.
struct Sorted {
    ids: Vec<EntryId>,
    events: Vec<Identified>,
    letters: Vec<DeadLetter>,
}

impl Sorted {
    fn of(entries: Vec<Entry>, now: chrono::DateTime<chrono::Utc>) -> Self {
        let mut sorted =
            Self { ids: Vec::with_capacity(entries.len()), events: Vec::new(), letters: Vec::new() };
        let mut letter_ids = Vec::new();
        let names = stream_names();
        for Entry { stream, id, content } in entries {
            let refused = match content {
                Ok(identified) => match check_age(&identified.event, now, false) {
                    Ok(()) => {
                        sorted.ids.push((stream, id));
                        sorted.events.push(identified);
                        continue;
                    }
                    Err(refusal) => {
                        let name = names.get(stream).map_or("", String::as_str);
                        DeadLetter::new(name, &id, refusal, identified.event.to_envelope().as_bytes())
                    }
                },
                Err(letter) => *letter,
            };
            letter_ids.push((stream, id));
            sorted.letters.push(refused);
        }
        sorted.ids.extend(letter_ids);
        sorted
    }
}

/// Since when nothing waits and nothing is applied.
struct Quiet {
    since: Instant,
    lags: u64,
}

impl Quiet {
    /// Nothing is known yet: a minute begins.
    fn new(now: Instant) -> Self {
        Self { since: now, lags: told::ingest_lags() }
    }

    /// Whether the last lag is over: `waiting` entries now, and `lags` so far. By the clock of the process, which
    /// nobody sets back.
    fn is_over(&mut self, waiting: usize, lags: u64, now: Instant) -> bool {
        if waiting > 0 || lags != self.lags {
            *self = Self { since: now, lags };
        }
        now - self.since >= CAUGHT_UP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_over_after_a_minute_in_which_nothing_waits_and_none_is_new() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut quiet = Quiet { since: start, lags: 7 };

        assert!(!quiet.is_over(0, 7, after(59)), "a process that has just begun knows nothing");
        assert!(quiet.is_over(0, 7, after(60)));
        assert!(!quiet.is_over(0, 8, after(61)), "a batch was applied");
        assert!(!quiet.is_over(1, 8, after(100)), "something waits");
        assert!(!quiet.is_over(0, 8, after(159)));
        assert!(quiet.is_over(0, 8, after(160)));
    }
}
