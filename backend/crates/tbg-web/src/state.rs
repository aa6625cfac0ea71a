//! What the infrastructure routes and the layers share. Cheap to clone: every field is a handle.

use std::sync::Arc;

use axum::extract::FromRef;
use ipnet::IpNet;
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::PgPool;
use tbg_core::redis::Redis;

use crate::auth::Authenticator;
use crate::cors::Origins;
use crate::health::HealthCache;
use crate::limit::{Limiter, Limits};

/// What the routes stand on that machines ask.
pub struct ProbeParts {
    /// The primary database.
    pub pool: PgPool,
    /// The multiplexed Redis connection.
    pub redis: Redis,
    /// Renders `/metrics`. Who installs the recorder also runs its upkeep.
    pub metrics: PrometheusHandle,
    /// The version of the program, for `/version`.
    pub version: &'static str,
    /// The name of the deployment (`production`, `development`, …), for `/version`.
    pub environment: &'static str,
}

/// The state of the routes that machines ask.
#[derive(Clone)]
pub(crate) struct Probes {
    pub(crate) parts: Arc<ProbeParts>,
    pub(crate) health: Arc<HealthCache>,
}

impl Probes {
    pub(crate) fn new(parts: ProbeParts) -> Self {
        Self { parts: Arc::new(parts), health: Arc::default() }
    }
}

/// What [`WebState`] is made of.
pub struct WebParts {
    /// For the routes that machines ask.
    pub probes: ProbeParts,
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

/// What the front door and its neighbours share.
pub(crate) struct Front {
    pub(crate) docs_enabled: bool,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) limiter: Limiter,
    pub(crate) limits: Limits,
    pub(crate) origins: Origins,
    pub(crate) trusted_proxies: Arc<[IpNet]>,
}

/// The state behind every route.
#[derive(Clone)]
pub struct WebState {
    pub(crate) parts: Arc<Front>,
    pub(crate) probes: Probes,
}

impl WebState {
    /// Puts the handles together; the health cache starts empty.
    #[must_use]
    pub fn new(parts: WebParts) -> Self {
        let WebParts { probes, docs_enabled, authenticator, limiter, limits, origins, trusted_proxies } =
            parts;
        let front = Front { docs_enabled, authenticator, limiter, limits, origins, trusted_proxies };
        Self { parts: Arc::new(front), probes: Probes::new(probes) }
    }
}

impl FromRef<WebState> for Probes {
    fn from_ref(state: &WebState) -> Self {
        state.probes.clone()
    }
}
