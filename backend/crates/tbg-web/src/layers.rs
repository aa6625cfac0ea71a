//! The stack around every route, in one place, because its order is its meaning.
//!
//! Outermost first:
//! 1. request id, span, access log: sees every request and the final response;
//! 2. security headers: on everything, whatever made it;
//! 3. metrics: count what the client got;
//! 4. error shape: writes the one error body for all that happens below;
//! 5. panic catcher: below the shape, so that a panic in a layer gets the same body;
//! 6. CORS: refusals and preflights are not counted against anybody;
//! 7. what the limit says, on every answer that was counted;
//! 8. patience: a request does not outlast a database that answers nobody;
//! 9. front door: credential, rate limit; then the size of the request's head;
//! 10. panic catcher again: an answer after a panic still tells the client its limit;
//! 11. deadline: covers reading the body and the handler;
//! 12. body limit.
//!
//! The class of a route is enforced by a layer of the route itself ([`crate::Routes`]).

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
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

/// What decides who gets in.
pub(crate) struct Gate {
    pub origins: Origins,
    pub door: FrontDoor,
    pub probes: Probes,
}

pub(crate) fn apply(router: Router, gate: Gate) -> Router {
    router.layer(
        ServiceBuilder::new()
            .layer(from_fn(present))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn_with_state(Arc::new(gate), admit))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, REQUEST_DEADLINE))
            .layer(RequestBodyLimitLayer::new(MAX_BODY_BYTES)),
    )
}

/// 1 to 4, innermost first. One layer of axum, because each clones and boxes all that is below it.
async fn present(request: Request, next: Next) -> Response {
    let shaped = async move |request| error_shape::shape(request, next).await;
    let measured = async move |request| http_metrics::measure(request, shaped).await;
    let secured = async move |request| security_headers::secure(request, measured).await;
    request_id::identify(request, secured).await
}

/// 6 to 9, innermost first; one layer for the same reason.
async fn admit(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let gate = &*gate;
    let counted = OnceLock::new();
    let counted = &counted;
    let bounded = async move |request| bounds::check(request, next).await;
    let passed = async move |request| front_door::pass(&gate.door, counted, request, bounded).await;
    let patient = async move |request| wait_with_the_database(&gate.probes, request, passed).await;
    let told = async move |request| front_door::tell_limit(patient(request).await, counted.get());
    cors::check(&gate.origins, request, told).await
}

/// A request that takes long goes on as long as the database answers others. When the network swallows what is sent
/// to it, nobody says so: then this is a 503 within five seconds (contract `production.md` §2.3, row 4), not a wait.
/// A request that waits for its client's body is given the time.
async fn wait_with_the_database(
    probes: &Probes,
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let awaits_client = Arc::new(AtomicBool::new(false));
    let answer = next(request.map(|body| noting_waits(body, &awaits_client)));
    tokio::pin!(answer);
    loop {
        tokio::select! {
            response = &mut answer => return response,
            () = tokio::time::sleep(PATIENCE) => {}
        }
        if awaits_client.load(Ordering::Relaxed) {
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

/// The same body, which says in `awaits_client` whether somebody waits for the rest of it. A handler that has not come to
/// it yet waits for something else.
fn noting_waits(body: Body, awaits_client: &Arc<AtomicBool>) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let (mut parts, awaits_client) = (body.into_data_stream(), Arc::clone(awaits_client));
    Body::from_stream(stream::poll_fn(move |context| {
        let part = parts.poll_next_unpin(context);
        awaits_client.store(part.is_pending(), Ordering::Relaxed);
        part
    }))
}

/// The log has the place already, and not the message, which may quote what somebody sent.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    ApiError::internal(anyhow::anyhow!("panic in a handler")).into_response()
}
