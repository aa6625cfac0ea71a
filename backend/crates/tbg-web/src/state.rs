//! What the handlers share. Cheap to clone: every field is a handle.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use redis::aio::ConnectionManager;
use sqlx::PgPool;

use crate::health::HealthCache;

/// The state behind every route.
#[derive(Clone)]
pub struct WebState {
    /// The primary database.
    pub pool: PgPool,
    /// The multiplexed Redis connection.
    pub redis: ConnectionManager,
    /// Renders `/metrics`. Who installs the recorder also runs its upkeep.
    pub metrics: PrometheusHandle,
    /// The version of the program, for `/version`.
    pub version: &'static str,
    /// The name of the deployment (`production`, `development`, …), for `/version`.
    pub environment: Arc<str>,
    /// Whether `/openapi.json` and `/docs` are served.
    pub docs_enabled: bool,
    pub(crate) health: Arc<HealthCache>,
}

impl WebState {
    /// Puts the handles together; the health cache starts empty.
    pub fn new(
        pool: PgPool,
        redis: ConnectionManager,
        metrics: PrometheusHandle,
        version: &'static str,
        environment: impl Into<Arc<str>>,
        docs_enabled: bool,
    ) -> Self {
        Self {
            pool,
            redis,
            metrics,
            version,
            environment: environment.into(),
            docs_enabled,
            health: Arc::default(),
        }
    }
}
