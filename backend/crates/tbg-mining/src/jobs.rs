//! Scheduled work of the mining domain (contract `mining.md` §5.1, §5.3).

use std::sync::Arc;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use tbg_core::Clock;
use tbg_core::jobs::Job;
use tbg_core::outbox;
use tbg_core::partitions::{self, DayPartitioned, Maintained};
use tbg_engine::dead_letters;

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
/// Rows deleted in one statement, and statements in one run.
const CHUNK: i64 = 10_000;
const MAX_CHUNKS: u32 = 1_000;

/// The jobs of the domain.
///
/// # Errors
/// Never in practice: when a schedule does not parse.
pub fn jobs(pool: &PgPool, clock: &Arc<dyn Clock>) -> anyhow::Result<Vec<Job>> {
    let (pool, clock) = (pool.clone(), Arc::clone(clock));
    let partitions = Job::new("partitions_retention", "30 2 * * *", move |_| {
        let (pool, now) = (pool.clone(), clock.now());
        async move { keep_partitions(&pool, now).await.map(|_| ()) }
    })?;
    Ok(vec![partitions])
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
