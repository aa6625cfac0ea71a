//! Clean-up (contract `auth-users.md` §12): in batches, so that no statement holds many locks.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tbg_core::Clock;
use tbg_core::jobs::Job;

use crate::store::cleanup;

/// The jobs of the domain.
///
/// # Errors
/// When a schedule is not valid.
pub fn jobs(pool: &PgPool, clock: &Arc<dyn Clock>) -> anyhow::Result<Vec<Job>> {
    let (pool, clock) = (pool.clone(), Arc::clone(clock));
    let clean_up = Job::new("identity_cleanup", "0 7 * * * *", move |_| {
        let (pool, now) = (pool.clone(), clock.now());
        async move { clean_up(&pool, now).await }
    })?;
    Ok(vec![clean_up])
}

/// Deletes what nobody needs any more. A rotated token stays until it expires: it is the trap for thieves.
///
/// # Errors
/// When the database does not answer.
pub async fn clean_up(pool: &PgPool, now: DateTime<Utc>) -> anyhow::Result<()> {
    let mut conn = pool.acquire().await?;
    while cleanup::sweep(&mut conn, now).await? >= cleanup::BATCH.unsigned_abs() {}
    Ok(())
}
