//! What every route of the backend stands on.
//!
//! A domain crate hands over its [`Routes`], each with its auth class; [`router`] adds the routes that
//! belong to no domain (`/health`, `/ready`, `/version`, `/metrics`, `/.well-known/jwks.json`, and where
//! enabled `/openapi.json` and `/docs`) and wraps all of them in one stack of layers. A handler can then
//! rely on six things without writing a line for them:
//!
//! - **Who asks.** [`Caller`], [`Session`], [`Admin`] or [`MaybeCaller`] as an argument ([`auth`]).
//! - **Good input.** [`Body`] and [`Query`] refuse what breaks a rule and name the field ([`extract`]).
//! - **One error body.** A handler returns [`ApiError`]; whatever else goes wrong (no such route,
//!   wrong method, body too large, a rejected extractor, a deadline, a panic) is turned into the
//!   same body by one layer. No client ever sees another shape.
//! - **A request id.** [`RequestId`] is in the request's extensions, in the span of every log line
//!   written meanwhile, in the `X-Request-Id` header of the response and in the error body.
//! - **Limits.** Requests are counted in their tier ([`limit`]), a body over [`MAX_BODY_BYTES`] is refused,
//!   a request that takes longer than [`REQUEST_DEADLINE`] is answered 503.
//! - **Numbers.** Each request is counted and timed under its route template, never under its path.
//!
//! Reading order: [`ApiError`] and its codes, then `layers` (which layer stands where, and why),
//! then the probes in `health`. [`serve`] runs the result on a listener and drains it on shutdown.
//!
//! Invariants: request id in the body = request id in the header; a 5xx says nothing about its
//! cause; labels of metrics come from closed sets. Contract: `auth-users.md` section 1,
//! `production.md` sections 9 and 10.

pub mod auth;
mod bounds;
mod client;
mod cors;
mod dependency_errors;
mod docs;
mod error;
mod error_shape;
pub mod extract;
mod front_door;
mod gather;
mod health;
mod http_metrics;
mod jwks;
mod layers;
pub mod limit;
mod page;
mod request_id;
mod route_labels;
mod routes;
mod security_headers;
mod server;
mod state;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use utoipa::openapi::OpenApi;

use crate::state::Probes;

pub use crate::auth::{Admin, AuthMethod, Caller, MaybeCaller, Session};
pub use crate::client::{Origin, Peer};
pub use crate::cors::Origins;
pub use crate::error::{ApiError, ErrorBody, ErrorCode, FieldError, FieldErrorKind};
pub use crate::extract::{Body, Int, NoBody, OptionalBody, Patch, Prose, Query, Segment, Text, present};
pub use crate::gather::{Gather, in_order};
pub use crate::http_metrics::HTTP_LATENCY_BUCKETS_SECONDS;
pub use crate::layers::{MAX_BODY_BYTES, REQUEST_DEADLINE};
pub use crate::page::{Page, Pagination, cursor};
pub use crate::request_id::RequestId;
pub use crate::routes::Routes;
pub use crate::security_headers::SECURITY_HEADERS;
pub use crate::server::serve;
pub use crate::state::{ProbeParts, WebParts, WebState};

/// Builds the whole HTTP service: the routes of the domains, the infrastructure routes, the
/// documentation where it is enabled, and every layer around them.
pub fn router(state: WebState, domains: Routes) -> Router {
    let parts = Arc::clone(&state.parts);
    let door = front_door::FrontDoor {
        authenticator: Arc::clone(&parts.authenticator),
        limiter: parts.limiter.clone(),
        limits: parts.limits,
        trusted_proxies: Arc::clone(&parts.trusted_proxies),
    };
    let (routes, document) = docs::documented_routes(domains).split_for_parts();
    http_metrics::register(&document);
    let routes = routes.route("/metrics", get(health::metrics));
    let routes = if parts.docs_enabled { routes.merge(docs::page(document)) } else { routes };
    let probes = state.probes.clone();
    layers::apply(routes.with_state(state), layers::Gate { origins: parts.origins.clone(), door, probes })
}

/// What a process answers that serves no API: health, version, metrics. For its orchestrator and Prometheus alone.
pub fn probe_router(parts: ProbeParts) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/version", get(health::version))
        .route("/metrics", get(health::metrics))
        .with_state(Probes::new(parts))
}

/// The OpenAPI document of the infrastructure routes and `domains`: what [`router`] serves.
#[must_use]
pub fn openapi_with(domains: Routes) -> OpenApi {
    docs::documented_routes(domains).into_openapi()
}
