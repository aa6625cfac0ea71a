//! Scheduled work of the mining domain (contract `mining.md` §5.1, §5.3).

use std::sync::Arc;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use tbg_core::Clock;
use tbg_core::jobs::Job;
use tbg_core::live::LiveBus;
use tbg_core::outbox;
use tbg_core::partitions::{self, DayPartitioned, Maintained};
use tbg_engine::dead_letters;

use crate::live::LiveStore;
use crate::live::sweep::{self, Sweep, SweepConfig};
use crate::rules::rollups::Timeframe;
use crate::{events, store};

/// Tables of this system that are partitioned by day, with their retention (`mining.md` §5.1).
pub const DAY_PARTITIONED: [DayPartitioned; 4] = [
    DayPartitioned { table: "mining_events", keep_days: 30 },
    DayPartitioned { table: "shares", keep_days: 90 },
    DayPartitioned { table: "hashrate_snapshots", keep_days: 90 },
    // Longer than the 90 days after which an event is refused: nothing acceptable can count twice.
    DayPartitioned { table: "ingest_ledger", keep_days: 95 },
];
const KEEP_DEAD_LETTERS: TimeDelta = TimeDelta::days(30);
const KEEP_CONSUMED_EVENTS: TimeDelta = TimeDelta::days(7);
const KEEP_ENDED_EVENTS: TimeDelta = TimeDelta::days(7);
/// Shares of yesterday that counters do not have.
const DRIFT: &str = "tbg_mining_drift_shares";
/// Rows deleted in one statement, and statements in one run.
const CHUNK: i64 = 10_000;
const MAX_CHUNKS: u32 = 1_000;

/// How the jobs judge.
#[derive(Clone, Copy, Debug)]
pub struct JobConfig {
    /// Seconds of silence after which a worker is offline.
    pub worker_timeout_seconds: u32,
    /// Seconds between snapshots.
    pub snapshot_interval_seconds: u32,
    /// Public rows that the feed keeps.
    pub feed_max_items: u32,
}

/// What the jobs stand on.
pub struct JobParts {
    /// The primary database.
    pub pool: PgPool,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Live state.
    pub live: LiveStore,
    /// Publishes live events.
    pub bus: LiveBus,
    /// Settings.
    pub config: JobConfig,
}

/// The jobs of the domain.
///
/// # Errors
/// Never in practice: when a schedule does not parse.
pub fn jobs(parts: &JobParts) -> anyhow::Result<Vec<Job>> {
    let JobParts { pool, clock, live, bus, config } = parts;
    let mut jobs = sweep::jobs(&Sweep {
        pool: pool.clone(),
        clock: Arc::clone(clock),
        live: live.clone(),
        bus: bus.clone(),
        config: SweepConfig {
            worker_timeout_seconds: config.worker_timeout_seconds,
            snapshot_interval_seconds: config.snapshot_interval_seconds,
        },
    })?;
    jobs.push(events::job(pool, clock, bus)?);
    let keep = i64::from(config.feed_max_items);
    macro_rules! job {
        ($name:literal, $schedule:literal, |$pool:ident, $now:ident| $work:expr) => {{
            let (pool, clock) = (pool.clone(), Arc::clone(clock));
            Job::new($name, $schedule, move |_| {
                let ($pool, $now) = (pool.clone(), clock.now());
                async move { $work.await.context($name) }
            })?
        }};
    }
    jobs.extend([
        job!("partitions_retention", "30 2 * * *", |pool, now| async {
            keep_partitions(&pool, now).await.map(|_| ())
        }),
        job!("percentiles", "10 0 * * * *", |pool, now| refresh_percentiles(&pool, now)),
        job!("feed_prune", "30 0 * * * *", |pool, now| prune_feed(&pool, now, keep)),
        job!("drift_check", "0 5 0 * * *", |pool, now| check_drift(&pool, now)),
    ]);
    Ok(jobs)
}

/// Stored percentiles of the current periods.
async fn refresh_percentiles(pool: &PgPool, now: DateTime<Utc>) -> anyhow::Result<()> {
    let mut conn = pool.acquire().await?;
    for frame in Timeframe::ALL {
        let period = frame.period_key(now);
        store::difficulty::refresh_percentiles(&mut conn, frame.as_str(), period.as_deref()).await?;
    }
    Ok(())
}

async fn prune_feed(pool: &PgPool, now: DateTime<Utc>, keep: i64) -> anyhow::Result<()> {
    for _ in 0..MAX_CHUNKS {
        if store::dashboard::prune(pool, now - KEEP_ENDED_EVENTS, keep, CHUNK).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Yesterday's counters against the shares themselves; tells, changes nothing.
async fn check_drift(pool: &PgPool, now: DateTime<Utc>) -> anyhow::Result<()> {
    let today = now.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
    let drift = store::dashboard::drift(pool, today - TimeDelta::days(1), today).await?;
    metrics::gauge!(DRIFT).set(drift as f64);
    if drift != 0 {
        tracing::error!(drift, "counters of yesterday differ from its shares: see `tbg rebuild`");
    }
    Ok(())
}

/// Creates partitions a week ahead, drops expired ones, prunes dead letters and consumed domain events.
///
/// # Errors
/// When the database does not answer, or a lock is not free: the job is tried again.
pub async fn keep_partitions(pool: &PgPool, now: DateTime<Utc>) -> anyhow::Result<Maintained> {
    let done = partitions::maintain(pool, &DAY_PARTITIONED, now).await.context("partition maintenance")?;
    let mut conn = pool.acquire().await?;
    for _ in 0..MAX_CHUNKS {
        let letters = dead_letters::prune(&mut conn, now - KEEP_DEAD_LETTERS, CHUNK).await?;
        let events = outbox::prune_done(&mut conn, now - KEEP_CONSUMED_EVENTS, CHUNK).await?;
        if letters.max(events) < CHUNK.unsigned_abs() {
            break;
        }
    }
    tracing::info!(created = done.created, dropped = done.dropped, pruned = done.pruned, "partitions kept");
    Ok(done)
}
