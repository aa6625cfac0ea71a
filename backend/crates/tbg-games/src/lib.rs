//! Games and the weekly lottery (contract `games.md`): four ways to see a miner's real week, and a draw whose
//! result anybody can verify from public data.
//!
//! Nothing is chance. A week's participants are frozen into entries; the Merkle root over them is published
//! before anybody is ranked; ranks follow from the entries alone. The clock decides when, never who.
//!
//! Reading order: `rules/lottery` (canonical bytes, tree, seal, ranking) and `rules/proof` (the public files and
//! their verification), then `cycle` (a week's life), then `routes`.
//!
//! Tables: `lottery_draws`, `lottery_entries`, `lottery_tree_levels`, `lottery_results`, `game_sessions`,
//! `weekly_best_hashes`, `lottery_watermark`. In Redis: `lottery:live:<week>`, a copy.
//!
//! Invariants: each step of a week is one transaction that holds its draw; a draw is paid once; a frozen entry
//! never changes, except that a deleted user's salt and address go; no address in any answer but the owner's
//! proof.

mod check;
mod consumer;
mod current;
mod cycle;
mod jobs;
mod live;
mod metrics;
mod reactor;
mod routes;
pub mod rules;
mod store;

use std::ops::Deref;
use std::sync::Arc;

use sqlx::PgPool;
use tbg_core::Clock;
use tbg_web::Routes;
use tokio::sync::Semaphore;

use crate::current::CurrentWeeks;

pub use crate::check::check;
pub use crate::consumer::GamesEvents;
pub use crate::cycle::{Cycle, CycleConfig, Waits, WeekStatus};
pub use crate::jobs::jobs;
pub use crate::live::Ranking;
pub use crate::reactor::{LiveRanking, LotteryReactor};

/// Public files that are on their way at once.
const FILE_STREAMS: usize = 4;

/// What the endpoints stand on.
pub struct Parts {
    /// The primary database.
    pub pool: PgPool,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Live ranks.
    pub ranking: Ranking,
    /// When draws are due.
    pub config: CycleConfig,
    /// What stands for the network's difficulty while it is unknown.
    pub unknown_network_difficulty: f64,
}

/// The endpoints of games and lottery. Clones share everything.
#[derive(Clone)]
pub struct Games(Arc<Inner>);

/// Behind a [`Games`].
pub struct Inner {
    parts: Parts,
    /// Weeks that run.
    current: CurrentWeeks,
    file_streams: Arc<Semaphore>,
}

impl Deref for Games {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Deref for Inner {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Games {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        metrics::register();
        let current = current::gather(parts.pool.clone(), parts.ranking.clone());
        Self(Arc::new(Inner { parts, current, file_streams: Arc::new(Semaphore::new(FILE_STREAMS)) }))
    }

    /// The endpoints.
    #[must_use]
    pub fn routes(self) -> Routes {
        documented_routes().with_state(self)
    }
}

/// The endpoints without a state behind them, for the OpenAPI document.
#[must_use]
pub fn documented_routes() -> Routes<Games> {
    routes::all()
}
