//! Writes the events to the streams, whatever happens to Redis meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tbg_core::redis::Redis;
use tbg_engine::source::publisher::add_entry;
use tbg_engine::source::stream_names;
use tbg_sim::Simulator;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::stage::MAXLEN;

/// Entries of one round trip.
const PIPELINE: usize = 200;
/// Pause before a pipeline that failed is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// How long Redis may stay away.
const PATIENCE: Duration = Duration::from_secs(120);

/// Lets a share of the events through for each kill, so that there is something to lose at every one of
/// them and after the last.
pub struct Gate {
    kills: usize,
    done: AtomicUsize,
}

impl Gate {
    /// A gate for that many kills.
    pub fn new(kills: usize) -> Self {
        Self { kills, done: AtomicUsize::new(0) }
    }

    /// A kill is done.
    pub fn open(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn allowed(&self, events: usize) -> usize {
        events * (self.done.load(Ordering::Relaxed).min(self.kills) + 1) / (self.kills + 1)
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Poured {
    /// Events, duplicates of the simulated pool included.
    pub events: usize,
    /// Round trips that failed and were repeated.
    pub repeated: usize,
}

/// Writes `count` events at `rate` a second at most.
///
/// A pipeline that fails is written again as a whole until Redis takes it. Redis may have taken a part of
/// it before, so this makes duplicates. They have the same timestamp, so the rules call them duplicates.
pub async fn pour(
    mut simulator: Simulator,
    count: usize,
    rate: u32,
    gate: Arc<Gate>,
    mut redis: Redis,
) -> anyhow::Result<Poured> {
    let mut ticks = interval(Duration::from_secs_f64(PIPELINE as f64 / f64::from(rate)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut poured = Poured::default();
    while poured.events < count {
        let wanted = PIPELINE.min(count - poured.events);
        while gate.allowed(count) < poured.events + wanted {
            sleep(Duration::from_millis(10)).await;
        }
        ticks.tick().await;
        let mut pipe = redis::pipe();
        for event in simulator.by_ref().take(wanted) {
            add_entry(&mut pipe, event.json.as_bytes(), MAXLEN);
        }
        let started = Instant::now();
        while let Err(error) = pipe.query_async::<()>(&mut redis).await {
            if started.elapsed() > PATIENCE {
                return Err(error).context("Redis does not come back");
            }
            poured.repeated += 1;
            sleep(RETRY).await;
        }
        poured.events += wanted;
    }
    Ok(poured)
}

/// Entries in all streams.
pub async fn entries(redis: &mut Redis) -> anyhow::Result<u64> {
    let mut pipe = redis::pipe();
    for stream in stream_names() {
        pipe.cmd("XLEN").arg(stream);
    }
    let lengths: Vec<u64> = pipe.query_async(redis).await.context("XLEN")?;
    Ok(lengths.into_iter().sum())
}
