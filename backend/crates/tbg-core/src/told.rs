//! What only one process knows and administrators ask another one for: each process tells it in one hash of Redis,
//! a field per process. A copy for display, and for jobs that would rather wait for ingest.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use redis::{RedisResult, cmd};
use serde::{Deserialize, Serialize};

use crate::redis::Redis;

const KEY: &str = "tbg:processes";
/// A process that has said nothing for so long is gone.
const GONE_AFTER: TimeDelta = TimeDelta::seconds(30);

/// After this it is forgotten.
const FORGOTTEN_AFTER: TimeDelta = TimeDelta::hours(1);

static SOCKETS: AtomicI64 = AtomicI64::new(0);
/// Bits of the seconds; NaN until a batch was applied, or nothing waited for a minute.
static INGEST_LAG: AtomicU64 = AtomicU64::new(f64::NAN.to_bits());
/// Batches that had a lag.
static INGEST_LAGS: AtomicU64 = AtomicU64::new(0);
/// Unix seconds; 0 until a batch was committed.
static LAST_COMMIT: AtomicI64 = AtomicI64::new(0);
/// Unix seconds; 0 until one is known.
static LAST_BACKUP: AtomicI64 = AtomicI64::new(0);

/// Open sockets of this process.
pub fn sockets(count: usize) {
    SOCKETS.store(i64::try_from(count).unwrap_or(i64::MAX), Ordering::Relaxed);
}

/// Seconds from the oldest event of the last batch that applied one to its commit.
pub fn ingest_lag(seconds: f64) {
    INGEST_LAG.store(seconds.to_bits(), Ordering::Relaxed);
    INGEST_LAGS.fetch_add(1, Ordering::Relaxed);
}

/// How often [`ingest_lag`] was told.
#[must_use]
pub fn ingest_lags() -> u64 {
    INGEST_LAGS.load(Ordering::Relaxed)
}

/// Another process applies batches now: its lag counts.
pub fn ingest_stands_by() {
    INGEST_LAG.store(f64::NAN.to_bits(), Ordering::Relaxed);
}

/// Nothing comes and nothing waits: the lag of the last batch is over.
pub fn ingest_caught_up() {
    INGEST_LAG.store(0.0_f64.to_bits(), Ordering::Relaxed);
}

/// When ingest last committed a batch.
pub fn ingest_committed(at: DateTime<Utc>) {
    LAST_COMMIT.store(at.timestamp(), Ordering::Relaxed);
}

/// What [`ingest_committed`] was told last.
#[must_use]
pub fn ingest_committed_at() -> Option<DateTime<Utc>> {
    instant(&LAST_COMMIT)
}

/// Unix seconds that are known.
fn instant(seconds: &AtomicI64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds.load(Ordering::Relaxed), 0).filter(|at| at.timestamp() > 0)
}

/// When a dump or a base backup last succeeded, in Unix seconds.
pub fn last_backup(at: i64) {
    LAST_BACKUP.store(at, Ordering::Relaxed);
}

/// What a process knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// When it said so.
    pub at: DateTime<Utc>,
    /// Its open sockets.
    pub sockets: i64,
    /// None until it has applied a batch, or has found nothing waiting for a minute.
    pub ingest_lag_seconds: Option<f64>,
    /// When that was.
    #[serde(default)]
    pub ingest_committed_at: Option<DateTime<Utc>>,
    /// None until it has seen one.
    pub last_backup_at: Option<DateTime<Utc>>,
}

impl Told {
    /// What this process knows now.
    #[must_use]
    pub fn now(at: DateTime<Utc>) -> Self {
        let lag = f64::from_bits(INGEST_LAG.load(Ordering::Relaxed));
        Self {
            at,
            sockets: SOCKETS.load(Ordering::Relaxed),
            ingest_lag_seconds: Some(lag).filter(|lag| lag.is_finite()),
            ingest_committed_at: ingest_committed_at(),
            last_backup_at: instant(&LAST_BACKUP),
        }
    }
}

/// What all processes know together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Known {
    /// Open sockets.
    pub sockets: i64,
    /// The greatest lag of an ingest process; none while no such process is known that knows its own.
    pub ingest_lag_seconds: Option<f64>,
    /// The newest commit of one.
    pub ingest_committed_at: Option<DateTime<Utc>>,
    /// The newest backup.
    pub last_backup_at: Option<DateTime<Utc>>,
}

/// Tells what the process of that name knows.
///
/// # Errors
/// When Redis does not answer.
pub async fn tell(redis: &mut Redis, process: &str, told: &Told) -> RedisResult<()> {
    let json = serde_json::to_string(told).unwrap_or_default();
    redis::pipe()
        .cmd("HSET")
        .arg(KEY)
        .arg(process)
        .arg(json)
        .ignore()
        // Names change with every start of a container: a quiet hour forgets them all.
        .cmd("EXPIRE")
        .arg(KEY)
        .arg(3600)
        .ignore()
        .query_async(redis)
        .await
}

/// What the processes have told lately; those that are gone are forgotten.
///
/// # Errors
/// When Redis does not answer.
pub async fn ask(redis: &mut Redis, now: DateTime<Utc>) -> RedisResult<Known> {
    let all: HashMap<String, String> = cmd("HGETALL").arg(KEY).query_async(redis).await?;
    let (mut known, mut gone) = (Known::default(), Vec::new());
    for (process, json) in all {
        match serde_json::from_str::<Told>(&json) {
            Ok(told) if (now - told.at).abs() <= GONE_AFTER => {
                known.sockets += told.sockets;
                let lags = known.ingest_lag_seconds.into_iter().chain(told.ingest_lag_seconds);
                known.ingest_lag_seconds = lags.reduce(f64::max);
                known.ingest_committed_at = known.ingest_committed_at.max(told.ingest_committed_at);
                known.last_backup_at = known.last_backup_at.max(told.last_backup_at);
            }
            // Somebody else's clock may differ: whoever speaks again is not forgotten by ours.
            Ok(told) if (now - told.at).abs() <= FORGOTTEN_AFTER => {}
            _ => gone.push(process),
        }
    }
    if !gone.is_empty() {
        cmd("HDEL").arg(KEY).arg(gone).query_async::<()>(redis).await?;
    }
    Ok(known)
}
