//! The metrics recorder and the names that more than one crate uses (contract `production.md` §10).
//! Labels come from closed sets only: never an address, a user or a raw path.

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Counts applied shares by `status`.
pub const SHARES_TOTAL: &str = "tbg_mining_shares_total";
/// Counts events by `event` and `outcome` (applied, duplicate, dead, lost).
pub const INGEST_EVENTS_TOTAL: &str = "tbg_ingest_events_total";
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
/// Unix time of the last success of a job, by `task`.
pub const JOB_LAST_SUCCESS: &str = "tbg_job_last_success_timestamp_seconds";

/// Installs the process's recorder; `http_buckets` are the bounds of request durations in seconds.
///
/// # Errors
/// When a recorder is already installed.
pub fn install(http_buckets: &[f64]) -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("http_request_duration_seconds".to_owned()), http_buckets)
        .and_then(PrometheusBuilder::install_recorder)
        .context("cannot install the metrics recorder")?;
    describe();
    Ok(handle)
}

fn describe() {
    for status in ["accepted", "rejected"] {
        metrics::counter!(SHARES_TOTAL, "status" => status).absolute(0);
    }
    metrics::counter!(crate::audit::WRITE_FAILURES_TOTAL).increment(0);
    metrics::describe_counter!(SHARES_TOTAL, "Applied shares, duplicates not counted.");
    metrics::describe_counter!(INGEST_EVENTS_TOTAL, "Pool events by name and outcome.");
    metrics::describe_gauge!(INGEST_LAG_SECONDS, "Commit time minus oldest event of the last batch.");
    metrics::describe_gauge!(INGEST_STREAM_PENDING, "Stream entries not yet acknowledged.");
    metrics::describe_counter!(SPOOL_DROPPED_TOTAL, "Events that the spool dropped.");
    metrics::describe_gauge!(INGEST_BATCH_EVENTS, "Events of the last batch.");
    metrics::describe_gauge!(INGEST_ACTIVE_WRITER, "1 in the process that writes.");
    metrics::describe_gauge!(JOB_LAST_SUCCESS, "Unix time of a job's last success.");
}
