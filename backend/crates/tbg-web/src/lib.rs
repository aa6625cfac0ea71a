//! What every route of the backend stands on.
//!
//! A domain crate hands over an [`OpenApiRouter`] with its routes; [`router`] adds the routes that
//! belong to no domain (`/health`, `/ready`, `/version`, `/metrics`, and where enabled
//! `/openapi.json` and `/docs`) and wraps all of them in one stack of layers. A handler can then
//! rely on four things without writing a line for them:
//!
//! - **One error body.** A handler returns [`ApiError`]; whatever else goes wrong (no such route,
//!   wrong method, body too large, a rejected extractor, a deadline, a panic) is turned into the
//!   same body by one layer. No client ever sees another shape.
//! - **A request id.** [`RequestId`] is in the request's extensions, in the span of every log line
//!   written meanwhile, in the `X-Request-Id` header of the response and in the error body.
//! - **Limits.** A body over [`MAX_BODY_BYTES`] is refused, a request that takes longer than
//!   [`REQUEST_DEADLINE`] is answered 503.
//! - **Numbers.** Each request is counted and timed under its route template, never under its path.
//!
//! Reading order: [`ApiError`] and its codes, then `layers` (which layer stands where, and why),
//! then the probes in `health`. [`serve`] runs the result on a listener and drains it on shutdown.
//!
//! Invariants: request id in the body = request id in the header; a 5xx says nothing about its
//! cause; labels of metrics come from closed sets. Contract: `auth-users.md` section 1,
//! `production.md` sections 9 and 10.

mod dependency_errors;
mod docs;
mod error;
mod error_shape;
mod health;
mod http_metrics;
mod layers;
mod request_id;
mod route_labels;
mod server;
mod state;

use axum::Router;
use axum::routing::get;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use crate::error::{ApiError, ErrorBody, ErrorCode, FieldError, FieldErrorKind};
pub use crate::http_metrics::HTTP_LATENCY_BUCKETS_SECONDS;
pub use crate::layers::{MAX_BODY_BYTES, REQUEST_DEADLINE};
pub use crate::request_id::RequestId;
pub use crate::server::serve;
pub use crate::state::WebState;

/// Builds the whole HTTP service: the routes of the domains, the infrastructure routes, the
/// documentation where `state.docs_enabled`, and every layer around them.
pub fn router(state: WebState, domains: OpenApiRouter<WebState>) -> Router {
    let (routes, document) = docs::documented_routes(domains).split_for_parts();
    let routes = routes.route("/metrics", get(health::metrics));
    let routes = if state.docs_enabled { routes.merge(docs::page(document)) } else { routes };
    layers::apply(routes.with_state(state))
}

/// The OpenAPI document of the infrastructure routes alone.
pub fn openapi() -> OpenApi {
    openapi_with(OpenApiRouter::default())
}

/// The OpenAPI document of the infrastructure routes and `domains`: what [`router`] serves.
pub fn openapi_with(domains: OpenApiRouter<WebState>) -> OpenApi {
    docs::documented_routes(domains).into_openapi()
}
