//! Numbers of the whole deployment, told by one process: the leader of the jobs (contract `production.md` §10).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use redis::{InfoDict, cmd};
use sqlx::PgPool;
use tbg_core::jobs::Job;
use tbg_core::metrics::OUTBOX_DEPTH;
use tbg_core::redis::Redis;
use tbg_core::{Clock, outbox, told};

use crate::store::gauges as store;

const BLOCKS_FOUND: &str = "tbg_mining_blocks_found_total";
const LOTTERY_DRAWS: &str = "tbg_gamification_lottery_draws_total";
const ACTIVE_SESSIONS: &str = "tbg_games_active_sessions";
const OUTBOX_AGE: &str = "tbg_outbox_oldest_age_seconds";
const REDIS_USED: &str = "tbg_redis_used_memory_bytes";
const REDIS_MAX: &str = "tbg_redis_maxmemory_bytes";
const BACKUP_LAST: &str = "tbg_backup_last_success_timestamp_seconds";
const BACKUP_MAX_AGE: &str = "tbg_backup_max_age_seconds";

/// How old a backup of each kind may get, in seconds: 26 hours, 8 days, 15 minutes (contract §10).
const MAX_AGES: [(&str, f64); 3] = [("dump", 93_600.0), ("base", 691_200.0), ("wal", 900.0)];
/// Kinds whose last success the backup service writes into a file; the database knows that of `wal`.
const KINDS_IN_FILES: [&str; 2] = ["dump", "base"];

/// What the gauges are read from.
#[derive(Clone)]
pub struct GaugeParts {
    /// The primary database.
    pub pool: PgPool,
    /// For its own memory.
    pub redis: Redis,
    /// When.
    pub clock: Arc<dyn Clock>,
    /// Where the backup service leaves the time of its last success: files `<kind>.timestamp`, Unix seconds.
    pub backup_status_dir: Option<PathBuf>,
}

/// The job, every 15 seconds.
///
/// # Errors
/// Never in practice: when the schedule does not parse.
pub fn gauge_job(parts: GaugeParts) -> anyhow::Result<Job> {
    Job::new("gauges", "*/15 * * * * *", move |_| {
        let parts = parts.clone();
        async move { measure_all(&parts).await }
    })
}

/// Reads all gauges once: also at start, so that none is missing until the job has run.
///
/// # Errors
/// When the database does not answer. Redis may be away: its memory keeps the last value.
pub async fn measure_all(parts: &GaugeParts) -> anyhow::Result<()> {
    let row = store::read(&parts.pool, parts.clock.now(), outbox::CONSUMERS).await.context("gauges")?;
    // Absolute, so that a restart does not begin at 0 again.
    metrics::counter!(BLOCKS_FOUND).absolute(row.blocks.unsigned_abs());
    metrics::counter!(LOTTERY_DRAWS).absolute(row.draws.unsigned_abs());
    metrics::gauge!(ACTIVE_SESSIONS).set(row.active_players as f64);
    metrics::gauge!(OUTBOX_AGE).set(row.outbox_age_seconds.max(0.0));
    metrics::gauge!(OUTBOX_DEPTH).set(row.outbox_depth as f64);
    for (kind, seconds) in MAX_AGES {
        metrics::gauge!(BACKUP_MAX_AGE, "kind" => kind).set(seconds);
    }
    if let Some(archived) = row.wal_archived_at {
        metrics::gauge!(BACKUP_LAST, "kind" => "wal").set(archived.timestamp() as f64);
    }
    let mut newest = 0.0_f64;
    for kind in KINDS_IN_FILES {
        if let Some(seconds) = parts.backup_status_dir.as_deref().and_then(|dir| last_success(dir, kind)) {
            metrics::gauge!(BACKUP_LAST, "kind" => kind).set(seconds);
            newest = newest.max(seconds);
        }
    }
    if newest > 0.0 {
        told::last_backup(newest as i64);
    }
    let memory: Result<InfoDict, _> = cmd("INFO").arg("memory").query_async(&mut parts.redis.clone()).await;
    match memory {
        Ok(memory) => {
            metrics::gauge!(REDIS_USED).set(memory.get::<f64>("used_memory").unwrap_or_default());
            metrics::gauge!(REDIS_MAX).set(memory.get::<f64>("maxmemory").unwrap_or_default());
        }
        Err(error) => tracing::debug!(%error, "the memory of Redis is not known"),
    }
    Ok(())
}

/// Unix seconds of the last success of a kind of backup; none if there was none, or the file is no number.
fn last_success(dir: &Path, kind: &str) -> Option<f64> {
    let text = std::fs::read_to_string(dir.join(format!("{kind}.timestamp"))).ok()?;
    text.trim().parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_success_is_a_number_in_a_file_or_unknown() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(last_success(dir.path(), "dump"), None);
        for (text, expected) in
            [("1795000000\n", Some(1_795_000_000.0)), ("soon", None), ("NaN", None), ("-1", None)]
        {
            std::fs::write(dir.path().join("dump.timestamp"), text).unwrap();
            assert_eq!(last_success(dir.path(), "dump"), expected, "{text}");
        }
    }
}
