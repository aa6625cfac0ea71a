//! What the infrastructure routes and the layers share. Cheap to clone: every field is a handle.

use std::sync::Arc;

use ipnet::IpNet;
use metrics_exporter_prometheus::PrometheusHandle;
use redis::aio::ConnectionManager;
use sqlx::PgPool;

use crate::auth::Authenticator;
use crate::cors::Origins;
use crate::health::HealthCache;
use crate::limit::{Limiter, Limits};

/// What [`WebState`] is made of.
pub struct WebParts {
    /// The primary database.
    pub pool: PgPool,
    /// The multiplexed Redis connection.
    pub redis: ConnectionManager,
    /// Renders `/metrics`. Who installs the recorder also runs its upkeep.
    pub metrics: PrometheusHandle,
    /// The version of the program, for `/version`.
    pub version: &'static str,
    /// The name of the deployment (`production`, `development`, …), for `/version`.
    pub environment: &'static str,
    /// Whether `/openapi.json` and `/docs` are served.
    pub docs_enabled: bool,
    /// Knows who asks.
    pub authenticator: Arc<Authenticator>,
    /// Counts requests.
    pub limiter: Limiter,
    /// Requests a minute, by tier.
    pub limits: Limits,
    /// Web pages that may call.
    pub origins: Origins,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<[IpNet]>,
}

/// The state behind every route.
#[derive(Clone)]
pub struct WebState {
    pub(crate) parts: Arc<WebParts>,
    pub(crate) health: Arc<HealthCache>,
}

impl WebState {
    /// Puts the handles together; the health cache starts empty.
    #[must_use]
    pub fn new(parts: WebParts) -> Self {
        Self { parts: Arc::new(parts), health: Arc::default() }
    }
}
