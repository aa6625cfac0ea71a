//! The endpoints of operations, one module each (contract `production.md` §9). All of class admin.

mod audit;
mod cache;
mod stats;

use std::ops::Deref;
use std::sync::Arc;

use sqlx::PgPool;
use tbg_core::Clock;
use tbg_core::audit::Entry;
use tbg_core::redis::Redis;
use tbg_web::{ApiError, Routes};
use utoipa_axum::routes;

use crate::caches::CacheRegistry;

/// What operations stands on.
pub struct Parts {
    /// The primary database.
    pub pool: PgPool,
    /// The shared Redis.
    pub redis: Redis,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Version of the program.
    pub version: &'static str,
    /// Name of the deployment.
    pub environment: &'static str,
    /// What may be cleared.
    pub caches: CacheRegistry,
}

/// The domain. Cheap to clone.
#[derive(Clone)]
pub struct Operations(Arc<Parts>);

impl Operations {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The endpoints of the domain.
    #[must_use]
    pub fn routes(self) -> Routes {
        documented_routes().with_state(self)
    }
}

impl Deref for Operations {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The endpoints without a state behind them, for the OpenAPI document.
#[must_use]
pub fn documented_routes() -> Routes<Operations> {
    Routes::new()
        .admin(routes!(stats::admin_stats))
        .admin(routes!(audit::admin_audit))
        .admin(routes!(cache::clear_cache))
}

/// Writes what an administrator saw or did. Without the row there is no answer.
pub(crate) async fn record(operations: &Operations, entry: &Entry) -> Result<(), ApiError> {
    let mut conn = operations.pool.acquire().await.map_err(ApiError::unavailable_because)?;
    tbg_core::audit::record(&mut conn, entry).await.map_err(ApiError::unavailable_because)
}
