//! After the commit: acknowledge, then publish, while the writer is already at the next batch.
//!
//! Batches are settled in their order. When an acknowledgement fails, the writer stops leading: what was
//! committed but not acknowledged comes again, and is then a duplicate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use tbg_core::redis::Redis;
use tbg_core::{Clock, metrics as names};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::dead_letters::DeadLetter;
use crate::engine::Outcome;
use crate::push::Publisher;
use crate::reactor::AfterCommit;
use crate::source::{EntryId, streams};

/// Committed batches that may wait to be settled.
const QUEUE: usize = 2;

/// A batch that is in the database.
pub(crate) struct Committed {
    /// The entries that it came from.
    pub(crate) ids: Vec<EntryId>,
    /// The dead letters that were stored with it.
    pub(crate) letters: Vec<DeadLetter>,
    /// What it did.
    pub(crate) outcome: Outcome,
}

/// What one batch took, for whoever measures.
pub struct BatchReport {
    /// Entries of the batch, duplicates and refused ones included.
    pub events: usize,
    /// Events that were applied.
    pub applied: usize,
    /// Time per stage: who, what, how long. Acknowledging and publishing run beside the next batch.
    pub stages: Vec<(&'static str, &'static str, Duration)>,
}

/// Settles batches in a task of its own.
pub(crate) struct Settler {
    queue: mpsc::Sender<Committed>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Settler {
    pub(crate) fn spawn(
        redis: Redis,
        clock: Arc<dyn Clock>,
        after_commit: Arc<[Arc<dyn AfterCommit>]>,
        on_batch: Option<mpsc::UnboundedSender<BatchReport>>,
    ) -> Self {
        let (queue, mut batches) = mpsc::channel(QUEUE);
        let task = tokio::spawn(async move {
            let mut settling =
                Settling { redis, clock, after_commit, on_batch, publisher: Publisher::default() };
            while let Some(batch) = batches.recv().await {
                settling.settle(batch).await?;
            }
            Ok(())
        });
        Self { queue, task }
    }

    /// Hands over a batch.
    ///
    /// # Errors
    /// When an earlier acknowledgement failed; [`finish`](Self::finish) tells why.
    pub(crate) async fn settle(&self, batch: Committed) -> anyhow::Result<()> {
        self.queue.send(batch).await.ok().context("an acknowledgement failed; the batches come again")
    }

    /// Waits until everything is settled.
    ///
    /// # Errors
    /// When an acknowledgement failed.
    pub(crate) async fn finish(self) -> anyhow::Result<()> {
        drop(self.queue);
        self.task.await.map_err(|_| anyhow!("settling crashed"))?
    }
}

struct Settling {
    redis: Redis,
    clock: Arc<dyn Clock>,
    after_commit: Arc<[Arc<dyn AfterCommit>]>,
    on_batch: Option<mpsc::UnboundedSender<BatchReport>>,
    publisher: Publisher,
}

impl Settling {
    async fn settle(&mut self, batch: Committed) -> anyhow::Result<()> {
        let Committed { ids, letters, outcome } = batch;
        let started = Instant::now();
        let now = self.clock.now();
        let ts = format!("{}.{:06}", now.timestamp(), now.timestamp_subsec_micros());
        streams::acknowledge(&mut self.redis, &ids, &letters, &ts)
            .await
            .context("acknowledging: the batch is committed and will come again as duplicates")?;
        let acknowledged = Instant::now();
        let mut pushes = outcome.pushes;
        for domain in self.after_commit.iter() {
            pushes.extend(domain.committed(&outcome.batch, now).await);
        }
        self.publisher.publish(&mut self.redis, pushes, now).await;
        metrics::gauge!(names::INGEST_BATCH_EVENTS).set(ids.len() as f64);
        if let Some(oldest) = outcome.oldest {
            let lag = (now - oldest).num_milliseconds().max(0) as f64 / 1e3;
            metrics::gauge!(names::INGEST_LAG_SECONDS).set(lag);
            tbg_core::told::ingest_lag(lag);
        }
        tbg_core::told::ingest_committed(now);
        if let Some(listener) = &self.on_batch {
            let mut stages = outcome.stages;
            stages.push(("beside", "ack", acknowledged - started));
            stages.push(("beside", "publish", acknowledged.elapsed()));
            let _ = listener.send(BatchReport { events: ids.len(), applied: outcome.applied, stages });
        }
        Ok(())
    }
}
