//! Scheduled work: on the audit log here, on the pool's totals in `totals` (contract `production.md` §19).

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tbg_core::Clock;
use tbg_core::jobs::Job;

use crate::rules::seal::hex;
use crate::store::audit as store;
use crate::verify::{Verdict, verify};

/// Unix time up to which the audit log is sealed.
pub const LAST_SEAL_TIMESTAMP: &str = "tbg_audit_last_seal_timestamp_seconds";
/// 1 when the last verification found nothing, else 0.
pub const VERIFY_OK: &str = "tbg_audit_verify_ok";
/// Rows that are not in the partition of any month.
pub const DEFAULT_ROWS: &str = "tbg_audit_default_rows";

/// The newest seal that this process has seen: what the nightly verification holds the database to, so that a
/// chain whose end was cut off is noticed.
type LastSeen = Arc<Mutex<Option<(i64, [u8; 32])>>>;

/// Seals of one run: after a downtime there is one per month.
const MAX_SEALS: u32 = 64;

/// What one run of [`keep`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Partitions created.
    pub created: i32,
    /// Partitions dropped.
    pub dropped: i32,
}

/// The jobs of the domain.
///
/// # Errors
/// Never in practice: when a schedule does not parse.
pub fn jobs(pool: &PgPool, clock: &Arc<dyn Clock>) -> anyhow::Result<Vec<Job>> {
    let mut jobs = crate::totals::jobs(pool, clock)?;
    let (sealing, clock) = (pool.clone(), Arc::clone(clock));
    let (verifying, keeping, anchoring) = (pool.clone(), pool.clone(), pool.clone());
    let seen = LastSeen::default();
    let sealed = Arc::clone(&seen);
    jobs.extend([
        Job::new("audit_seal", "0 * * * * *", move |_| {
            let (pool, now, seen) = (sealing.clone(), clock.now(), Arc::clone(&sealed));
            async move { seal_due(&pool, now, &seen).await }
        })?,
        Job::new("audit_verify", "30 3 * * *", move |_| {
            let (pool, seen) = (verifying.clone(), Arc::clone(&seen));
            async move {
                let anchor = *seen.lock().unwrap_or_else(PoisonError::into_inner);
                verify_all(&pool, anchor).await
            }
        })?,
        Job::new("audit_partitions", "10 0 * * *", move |_| {
            let pool = keeping.clone();
            async move { keep(&pool).await.map(|_| ()) }
        })?,
        Job::new("audit_anchor", "0 * * * *", move |_| {
            let pool = anchoring.clone();
            async move { log_head(&pool).await }
        })?,
    ]);
    Ok(jobs)
}

/// Creates the partitions of this month and the three after it, and drops those that ended a year ago and are
/// sealed. Also called at start, so that a long downtime leaves no month without its partition.
///
/// # Errors
/// When the database does not answer, or a lock is not free within two seconds: try again.
pub async fn keep(pool: &PgPool) -> anyhow::Result<Kept> {
    let mut conn = pool.acquire().await?;
    let created = store::keep_partitions(&mut conn).await.context("partitions of the audit log")?;
    let dropped = store::retain(&mut conn).await.context("retention of the audit log")?;
    tracing::info!(created, dropped, "audit partitions kept");
    Ok(Kept { created, dropped })
}

/// Sets the gauges of the audit log, so that they are there from the start: the head of the chain, then the
/// verdict of a whole verification.
///
/// # Errors
/// When the database does not answer.
pub async fn measure(pool: &PgPool) -> anyhow::Result<()> {
    let mut conn = pool.acquire().await?;
    if let Some(head) = store::head(&mut conn).await? {
        metrics::gauge!(LAST_SEAL_TIMESTAMP).set(head.hi.timestamp() as f64);
    }
    metrics::gauge!(DEFAULT_ROWS).set(store::default_rows(&mut conn).await? as f64);
    drop(conn);
    verify_all(pool, None).await
}

async fn seal_due(pool: &PgPool, now: DateTime<Utc>, seen: &LastSeen) -> anyhow::Result<()> {
    for _ in 0..MAX_SEALS {
        if crate::seal(pool, now).await.context("sealing the audit log")?.is_none() {
            break;
        }
    }
    let mut conn = pool.acquire().await?;
    if let Some(head) = store::head(&mut conn).await? {
        metrics::gauge!(LAST_SEAL_TIMESTAMP).set(head.hi.timestamp() as f64);
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A head that went back is not taken for the newest: verification shall see it.
        if seen.is_none_or(|(seal_no, _)| seal_no <= head.seal_no) {
            *seen = Some((head.seal_no, head.hash));
        }
    }
    metrics::gauge!(DEFAULT_ROWS).set(store::default_rows(&mut conn).await? as f64);
    Ok(())
}

/// A fault is no failure of the job: it has done its work, and the alert speaks.
async fn verify_all(pool: &PgPool, anchor: Option<(i64, [u8; 32])>) -> anyhow::Result<()> {
    let verdict = verify(pool, None, anchor).await.context("verifying the audit log")?;
    metrics::gauge!(VERIFY_OK).set(if matches!(verdict, Verdict::Good { .. }) { 1.0 } else { 0.0 });
    match verdict {
        Verdict::Good { seals, rows } => tracing::info!(seals, rows, "the audit log holds"),
        Verdict::Fault(fault) => tracing::error!(seal_no = fault.seal_no, "audit log tampered with: {fault}"),
    }
    Ok(())
}

/// The head in the log is an anchor outside of the database.
async fn log_head(pool: &PgPool) -> anyhow::Result<()> {
    if let Some(head) = crate::head(pool).await? {
        tracing::info!(seal_no = head.seal_no, hash = hex(&head.hash), "head of the audit log");
    }
    Ok(())
}
