//! The stack around every route, in one place, because its order is its meaning.
//!
//! Outermost first:
//! 1. request id, span, access log: sees every request and the final response;
//! 2. security headers: on everything, whatever made it;
//! 3. metrics: count what the client got;
//! 4. error shape: writes the one error body for all that happens below;
//! 5. panic catcher: below the shape, so that a panic in a layer gets the same body;
//! 6. size of the request's head;
//! 7. CORS: refusals and preflights are not counted against anybody;
//! 8. patience: a request does not outlast a database that answers nobody;
//! 9. front door: credential, rate limit;
//! 10. panic catcher again: an answer after a panic still tells the client its limit;
//! 11. deadline: covers reading the body and the handler;
//! 12. body limit.
//!
//! The class of a route is enforced by a layer of the route itself ([`crate::Routes`]).

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use crate::cors::Origins;
use crate::error::ApiError;
use crate::front_door::FrontDoor;
use crate::state::Probes;
use crate::{bounds, cors, error_shape, front_door, http_metrics, request_id, security_headers};

/// The largest request body; more is answered 413.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// The longest that a request may take; more is answered 503.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// How long a request may take before it is asked whether the database still answers.
const PATIENCE: Duration = Duration::from_millis(2_500);

pub(crate) fn apply(router: Router, origins: Origins, door: FrontDoor, probes: Probes) -> Router {
    router.layer(
        ServiceBuilder::new()
            .layer(from_fn(request_id::identify))
            .layer(from_fn(security_headers::secure))
            .layer(from_fn(http_metrics::measure))
            .layer(from_fn(error_shape::shape))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn(bounds::check))
            .layer(from_fn_with_state(origins, cors::check))
            .layer(from_fn_with_state(probes, wait_with_the_database))
            .layer(from_fn_with_state(door, front_door::pass))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, REQUEST_DEADLINE))
            .layer(RequestBodyLimitLayer::new(MAX_BODY_BYTES)),
    )
}

/// A request that takes long goes on as long as the database answers others. When the network swallows what is sent
/// to it, nobody says so: then this is a 503 within five seconds (contract `production.md` §2.3, row 4), not a wait.
/// A request whose body is still on its way waits for its client, and is given that time.
async fn wait_with_the_database(State(probes): State<Probes>, request: Request, next: Next) -> Response {
    let is_read = Arc::new(AtomicBool::new(request.body().is_end_stream()));
    let answer = next.run(request.map(|body| noting_its_end(body, &is_read)));
    tokio::pin!(answer);
    loop {
        tokio::select! {
            response = &mut answer => return response,
            () = tokio::time::sleep(PATIENCE) => {}
        }
        if !is_read.load(Ordering::Relaxed) {
            continue;
        }
        tokio::select! {
            biased;
            response = &mut answer => return response,
            is_answering = probes.database_answers() => if !is_answering {
                return ApiError::unavailable_because(anyhow::anyhow!("the database does not answer")).into_response();
            }
        }
    }
}

/// The same body, which sets `is_read` when it has been read to its end.
fn noting_its_end(body: Body, is_read: &Arc<AtomicBool>) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let is_read = Arc::clone(is_read);
    let end = stream::poll_fn(move |_| {
        is_read.store(true, Ordering::Relaxed);
        Poll::Ready(None)
    });
    Body::from_stream(body.into_data_stream().chain(end))
}

fn panicked(payload: Box<dyn Any + Send>) -> Response {
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    ApiError::internal(anyhow::anyhow!("panic in a handler: {message}")).into_response()
}
