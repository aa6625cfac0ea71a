//! The mining domain: what shares and blocks add up to (contract `mining.md`).
//!
//! Its [`reactor`] writes, in the transaction of each batch: the archive (`mining_events`, `shares`), the
//! rollups per hour and address (`hourly_shares`), per day and user (`user_daily_stats`), per ISO week and
//! address (`weekly_best_diff`), the bests of each user (`personal_bests`), blocks with their celebration
//! and feed row, and the difficulty of the network. [`jobs`] keeps partitions; [`rebuild`] recomputes the
//! rollups from the archive.
//!
//! Invariants:
//! * Work and hashrate come from **assigned** difficulty, bests from **achieved** difficulty.
//! * Rejected shares count in totals, never in bests, work or averages.
//! * Event time decides hour, day and week.
//! * A per-user row counts only what was processed while the user held the address.
//! * The order in which batches arrive changes no row: sums and maxima, ties to the earlier share.

pub mod jobs;
mod reactor;
mod rebuild;
pub mod rules;
mod store;

pub use reactor::{MiningConfig, MiningReactor};
pub use rebuild::{Rebuilt, rebuild};

/// The hardest accepted share of the current UTC day, over all miners.
///
/// # Errors
/// When the database does not answer.
pub async fn best_today(
    pool: &sqlx::PgPool,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<Option<f64>, sqlx::Error> {
    let midnight = now.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
    store::best_since(pool, midnight).await
}
