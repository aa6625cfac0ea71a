//! The game: experience, levels, badges, weekly streaks, celebrations (contract `gamification.md`).
//!
//! Shares, records, blocks, and what other domains report become experience, each exactly once. One pure fold
//! ([`rules`]) decides for all paths: the [`GameReactor`] inside the batch's transaction, and [`GameEvents`] for
//! the events of other domains. Both lock the player first, so whatever comes at the same time waits.
//!
//! Reading order: `rules/streak` and `rules/catalogue`, then `rules/causes`, then `store/load` and `store/save`.
//!
//! Tables: `badge_definitions`, `badge_stats`, `user_badges`, `xp_ledger`, `user_gamification`,
//! `streak_calendar`, `level_celebrations`, `streak_celebrations`.
//!
//! Invariants, at every commit: `total_xp` is the sum of the ledger and `xp_entries` its length; a grant's key is
//! given once; a badge is held at most once per user and period; the streak is a function of the active weeks;
//! the ledger is only ever appended to.

mod consumer;
mod jobs;
mod metrics;
mod operator;
mod reactor;
mod routes;
mod rules;
mod states;
mod store;
mod tell;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use sqlx::PgPool;
use tbg_core::Clock;
use tbg_core::redis::Redis;
use tbg_web::Routes;

pub use crate::consumer::GameEvents;
pub use crate::jobs::{JobParts, check, jobs, keep_statistics};
pub use crate::operator::{GRANTABLE, Granted, adjust_xp, grant_badge, parse_reference};
pub use crate::reactor::GameReactor;
use crate::states::States;
use crate::store::{BadgeRow, Earner};

/// How old the catalogue's statistics and the newest earners may be.
const BADGES_TTL: Duration = Duration::from_secs(30);

/// Badges whose earners are kept.
const BADGES_MAX: u64 = 1_000;

/// What the endpoints stand on.
pub struct Parts {
    /// The primary database.
    pub pool: PgPool,
    /// The shared Redis.
    pub redis: Redis,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Whether the catalogue may be kept in this process for half a minute.
    pub caches: bool,
}

/// The endpoints of the game. Clones share everything.
#[derive(Clone)]
pub struct Game(Arc<Inner>);

/// Behind a [`Game`].
pub struct Inner {
    pool: PgPool,
    redis: Redis,
    clock: Arc<dyn Clock>,
    states: States,
    badges: Cache<(), Arc<Vec<BadgeRow>>>,
    earners: Cache<i32, Arc<Vec<Earner>>>,
}

impl Deref for Game {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Game {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let ttl = if parts.caches { BADGES_TTL } else { Duration::ZERO };
        Self(Arc::new(Inner {
            states: states::gather(parts.pool.clone()),
            pool: parts.pool,
            redis: parts.redis,
            clock: parts.clock,
            badges: Cache::builder().max_capacity(1).time_to_live(ttl).build(),
            earners: Cache::builder().max_capacity(BADGES_MAX).time_to_live(ttl).build(),
        }))
    }

    /// The endpoints.
    #[must_use]
    pub fn routes(self) -> Routes {
        documented_routes().with_state(self)
    }

    /// Drops what this process keeps.
    pub fn clear_cache(&self) {
        self.badges.invalidate_all();
        self.earners.invalidate_all();
    }
}

/// The endpoints without a state behind them, for the OpenAPI document.
#[must_use]
pub fn documented_routes() -> Routes<Game> {
    routes::all()
}
