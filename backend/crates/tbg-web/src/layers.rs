//! The stack around every route, in one place, because its order is its meaning.
//!
//! Outermost first:
//! 1. request id, span, access log: sees every request and the final response;
//! 2. metrics: count what the client got;
//! 3. error shape: writes the one error body for all that happens below;
//! 4. panic catcher: below the shape, so that a panic gets the same body;
//! 5. deadline: covers reading the body and the handler;
//! 6. body limit.
//!
//! CORS, security headers and rate limiting belong directly below 4: their refusals need the error
//! body, and a panic in them must be caught too.

use std::any::Any;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use crate::error::ApiError;
use crate::{error_shape, http_metrics, request_id};

/// The largest request body; more is answered 413.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// The longest that a request may take; more is answered 503.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn apply(router: Router) -> Router {
    router.layer(
        ServiceBuilder::new()
            .layer(from_fn(request_id::identify))
            .layer(from_fn(http_metrics::measure))
            .layer(from_fn(error_shape::shape))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, REQUEST_DEADLINE))
            .layer(RequestBodyLimitLayer::new(MAX_BODY_BYTES)),
    )
}

fn panicked(payload: Box<dyn Any + Send>) -> Response {
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    ApiError::internal(anyhow::anyhow!("panic in a handler: {message}")).into_response()
}
