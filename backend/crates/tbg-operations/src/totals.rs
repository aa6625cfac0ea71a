//! Shares of the whole pool by hour, so that an overview need not read the rows of every address.

use std::sync::Arc;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use tbg_core::Clock;
use tbg_core::jobs::Job;

use crate::store::totals as store;

/// How far back every minute looks: shares still come in for the hour before.
pub const TOTALS_RECENT: TimeDelta = TimeDelta::hours(1);
/// How far back every night looks, and every start at least.
pub const TOTALS_WEEK: TimeDelta = TimeDelta::days(7);
/// How far back a replay or a rebuild may have changed hours: no older event is counted.
pub const TOTALS_REPLAY: TimeDelta = TimeDelta::days(91);

/// The jobs of the totals.
///
/// # Errors
/// Never in practice: when a schedule does not parse.
pub(crate) fn jobs(pool: &PgPool, clock: &Arc<dyn Clock>) -> anyhow::Result<Vec<Job>> {
    Ok(vec![
        job("pool_hourly_totals", "20 * * * * *", TOTALS_RECENT, pool, clock)?,
        job("pool_hourly_totals_week", "40 0 * * *", TOTALS_WEEK, pool, clock)?,
    ])
}

fn job(
    name: &'static str,
    schedule: &str,
    back: TimeDelta,
    pool: &PgPool,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Job> {
    let (pool, clock) = (pool.clone(), Arc::clone(clock));
    Job::new(name, schedule, move |_| {
        let (pool, now) = (pool.clone(), clock.now());
        async move { recompute_totals(&pool, now, back).await.map(|_| ()).context("totals of the pool") }
    })
}

/// Sums the hours from `back` before `now` to that of `now` anew. Returns how many are new or changed.
///
/// # Errors
/// When the database does not answer.
pub async fn recompute_totals(
    pool: &PgPool,
    now: DateTime<Utc>,
    back: TimeDelta,
) -> Result<u64, sqlx::Error> {
    let mut conn = pool.acquire().await?;
    store::recompute(&mut conn, now - back, now).await
}

/// Sums what may be missing after a downtime anew: from the newest hour that is there, and a week at least.
///
/// # Errors
/// When the database does not answer.
pub async fn catch_up_totals(pool: &PgPool, now: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let mut conn = pool.acquire().await?;
    let week = now - TOTALS_WEEK;
    let from = store::newest(&mut conn).await?.map_or(now - TOTALS_REPLAY, |newest| newest.min(week));
    store::recompute(&mut conn, from, now).await
}
