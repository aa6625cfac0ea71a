//! The mining domain: what shares and blocks add up to (contract `mining.md`).
//!
//! Its [`reactor`] writes, in the transaction of each batch: the archive (`mining_events`, `shares`), the
//! rollups per hour and address (`hourly_shares`), per day and user (`user_daily_stats`), per ISO week and
//! address (`weekly_best_diff`), the bests of each user (`personal_bests`), blocks with their celebration
//! and feed row, and the difficulty of the network. [`live`] keeps what is live in Redis after each commit;
//! [`jobs`] sweep it and keep partitions; [`rebuild`] recomputes the rollups from the archive; `adoption`
//! gives rows of before to whoever proves an address. `routes` serve all of it, from rows kept ready.
//!
//! Tables: `mining_events`, `shares`, `hourly_shares`, `user_daily_stats`, `weekly_best_diff`,
//! `personal_bests`, `workers`, `blocks`, `block_celebrations`, `hashrate_snapshots`, `network_difficulty`,
//! `upcoming_events`; rows of kind block in `activity_feed`.
//!
//! Invariants:
//! * Work and hashrate come from **assigned** difficulty, bests from **achieved** difficulty.
//! * Rejected shares count in totals, never in bests, work or averages.
//! * Event time decides hour, day and week.
//! * A per-user row counts only what was processed while the user held the address.
//! * The order in which batches arrive changes no row: sums and maxima, ties to the earlier share.
//! * Nothing live is the only home of a fact: without Redis every read is answered from tables.

mod adoption;
mod cache;
mod events;
pub mod jobs;
pub mod live;
mod reactor;
mod rebuild;
mod routes;
pub mod rules;
mod store;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tbg_bitcoin::Network;
use tbg_core::Clock;
use tbg_core::live::LiveBus;
use tbg_core::redis::Redis;
use tbg_web::Routes;

pub use adoption::MiningEvents;
pub use reactor::{MiningConfig, MiningReactor};
pub use rebuild::{Rebuilt, rebuild};
pub use store::account::has_mined;

use crate::cache::StatsCache;
use crate::live::LiveStore;

/// How the reads of mining work in this deployment.
#[derive(Clone, Debug)]
pub struct MiningApiConfig {
    /// Addresses of this network.
    pub network: Network,
    /// How old statistics may be; zero computes them for each request.
    pub cache_ttl: Duration,
    /// Where miners connect, as shown to them.
    pub stratum_public_url: String,
}

/// What the reads of mining stand on.
pub struct Parts {
    /// The primary database.
    pub pool: PgPool,
    /// The shared Redis.
    pub redis: Redis,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Publishes live events.
    pub bus: LiveBus,
    /// Settings.
    pub config: MiningApiConfig,
}

/// The domain as the API sees it. Cheap to clone.
#[derive(Clone)]
pub struct Mining(Arc<Inner>);

/// What handlers reach through [`Mining`].
pub struct Inner {
    parts: Parts,
    live: LiveStore,
    stats: StatsCache,
}

impl Mining {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let live = LiveStore::new(parts.redis.clone());
        let stats = StatsCache::new(parts.config.cache_ttl);
        Self(Arc::new(Inner { parts, live, stats }))
    }

    /// The endpoints of the domain.
    #[must_use]
    pub fn routes(&self) -> Routes {
        routes::all().with_state(self.clone())
    }

    /// Forgets the statistics that this process keeps.
    pub fn clear_cache(&self) {
        self.0.stats.clear();
    }
}

impl Deref for Mining {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

/// The endpoints without a state behind them, for the OpenAPI document.
#[must_use]
pub fn documented_routes() -> Routes<Mining> {
    routes::all()
}

/// The hardest accepted share of the current UTC day, over all miners.
///
/// # Errors
/// When the database does not answer.
pub async fn best_today(
    pool: &PgPool,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<Option<f64>, sqlx::Error> {
    let midnight = now.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
    store::best_since(pool, midnight).await
}
