//! The metrics recorder and the names that more than one crate uses (contract `production.md` §10).
//! Labels come from closed sets only: never an address, a user or a raw path.

use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use metrics::Counter;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::config::Settings;

/// Counts applied shares by `status`.
pub const SHARES_TOTAL: &str = "tbg_mining_shares_total";
/// Counts events by `event` and `outcome` (applied, duplicate, dead, lost).
pub const INGEST_EVENTS_TOTAL: &str = "tbg_ingest_events_total";
/// Counts stored dead letters by `reason`.
pub const DEAD_LETTERS_TOTAL: &str = "tbg_dead_letters_total";
/// Seconds from the oldest event of a batch to its commit.
pub const INGEST_LAG_SECONDS: &str = "tbg_ingest_lag_seconds";
/// Entries that were read but not yet acknowledged, or not yet read.
pub const INGEST_STREAM_PENDING: &str = "tbg_ingest_stream_pending";
/// Events that the spool had to drop, by `reason` (full, disk).
pub const SPOOL_DROPPED_TOTAL: &str = "tbg_ingest_spool_dropped_total";
/// Rows of the last batch.
pub const INGEST_BATCH_EVENTS: &str = "tbg_ingest_batch_events";
/// Whether this process is the active writer.
pub const INGEST_ACTIVE_WRITER: &str = "tbg_ingest_active_writer";
/// Domain events that wait for their consumer.
pub const OUTBOX_DEPTH: &str = "tbg_outbox_depth";
/// Unix time of the last success of a job, by `task`.
pub const JOB_LAST_SUCCESS: &str = "tbg_job_last_success_timestamp_seconds";
/// Seconds that the last run of a job in this process took, by `task`.
pub const JOB_DURATION: &str = "tbg_job_duration_seconds";
/// Seconds that an interval of a job lasts, by `task`.
pub const JOB_INTERVAL: &str = "tbg_job_interval_seconds";
/// Duration of SQL statements as this process sees them, by `op`.
pub const DB_QUERY_SECONDS: &str = "tbg_db_query_duration_seconds";
/// Duration of round trips to Redis, by `command`.
pub const REDIS_COMMAND_SECONDS: &str = "tbg_redis_command_duration_seconds";
/// Counts lines of the log that were lost: not read fast enough, or not to be written.
pub const LOG_LINES_LOST_TOTAL: &str = "tbg_log_lines_lost_total";

/// Bounds of the durations of statements and commands, in seconds.
const DEPENDENCY_BUCKETS: [f64; 13] =
    [0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Installs the process's recorder; `http_buckets` are the bounds of request durations in seconds. Unless numbers
/// are wanted, what is counted goes nowhere.
///
/// # Errors
/// When a recorder is already installed.
pub fn install(settings: &Settings, http_buckets: &[f64]) -> anyhow::Result<PrometheusHandle> {
    if !settings.metrics_enabled {
        return Ok(PrometheusBuilder::new().build_recorder().handle());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("http_request_duration_seconds".to_owned()), http_buckets)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Full(DB_QUERY_SECONDS.to_owned()), &DEPENDENCY_BUCKETS)
        })
        .and_then(|builder| {
            builder
                .set_buckets_for_metric(Matcher::Full(REDIS_COMMAND_SECONDS.to_owned()), &DEPENDENCY_BUCKETS)
        })
        .and_then(PrometheusBuilder::install_recorder)
        .context("cannot install the metrics recorder")?;
    describe();
    Ok(handle)
}

/// What is counted once a transaction is committed: counters agree with the tables, also when the transaction is
/// rolled back and tried again.
#[derive(Debug, Default)]
pub struct Counts(Mutex<Vec<(Counter, u64)>>);

impl Counts {
    /// Keeps an increment until the commit.
    pub fn add(&self, counter: Counter, by: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((counter, by));
    }

    /// Moves the counters: the transaction is committed.
    pub fn publish(self) {
        for (counter, by) in self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            counter.increment(by);
        }
    }
}

fn describe() {
    for status in ["accepted", "rejected"] {
        metrics::counter!(SHARES_TOTAL, "status" => status).absolute(0);
    }
    metrics::counter!(crate::audit::WRITE_FAILURES_TOTAL).increment(0);
    metrics::describe_counter!(SHARES_TOTAL, "Applied shares, duplicates not counted.");
    metrics::describe_counter!(INGEST_EVENTS_TOTAL, "Pool events by name and outcome.");
    metrics::describe_counter!(DEAD_LETTERS_TOTAL, "Pool events that were refused and kept, by reason.");
    metrics::describe_gauge!(INGEST_LAG_SECONDS, "Commit time minus oldest event of the last batch.");
    metrics::describe_gauge!(INGEST_STREAM_PENDING, "Stream entries not yet acknowledged.");
    metrics::describe_counter!(SPOOL_DROPPED_TOTAL, "Events that the spool dropped.");
    metrics::describe_gauge!(INGEST_BATCH_EVENTS, "Events of the last batch.");
    metrics::describe_gauge!(INGEST_ACTIVE_WRITER, "1 in the process that writes.");
    metrics::describe_gauge!(JOB_LAST_SUCCESS, "Unix time of a job's last success.");
    metrics::describe_gauge!(JOB_DURATION, "Time that a job's last run took, whatever its end.");
    metrics::describe_gauge!(OUTBOX_DEPTH, "Domain events that wait for their consumer.");
    metrics::describe_gauge!(JOB_INTERVAL, "Longest time between two scheduled runs of a job.");
    metrics::describe_counter!(
        LOG_LINES_LOST_TOTAL,
        "Lines of the log that nobody read in time or that could not be written."
    );
    metrics::describe_histogram!(DB_QUERY_SECONDS, "SQL statements, by their first word.");
    metrics::describe_histogram!(REDIS_COMMAND_SECONDS, "Round trips to Redis.");
}
