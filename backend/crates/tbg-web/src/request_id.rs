//! One id per request: in the log, in the response header, in the error body.
//!
//! The outermost layer. It takes the caller's id where that is harmless to echo and to log, opens
//! the span in which all else happens, and writes the access line.
//!
//! Invariant: neither a raw path nor a query string is logged; they carry addresses, tokens and
//! cursors. Contract: `auth-users.md` section 1.3.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use tracing::Instrument;
use uuid::Uuid;

use crate::route_labels::{CLIENT_LEFT, RouteLabels};

const HEADER: &str = "x-request-id";
const MAX_LENGTH: usize = 64;

/// The id of the request at hand; a handler takes it as `Extension<RequestId>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The id as it stands in the header.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The caller's id if it matches `^[A-Za-z0-9._-]{1,64}$`, else a fresh one.
    fn of(headers: &HeaderMap) -> Self {
        headers
            .get(HEADER)
            .and_then(|value| value.to_str().ok())
            .filter(|id| is_harmless(id))
            .map_or_else(Self::fresh, |id| Self(id.into()))
    }

    fn fresh() -> Self {
        Self(Uuid::new_v4().to_string().into())
    }
}

fn is_harmless(id: &str) -> bool {
    (1..=MAX_LENGTH).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

pub(crate) async fn identify(mut request: Request, next: impl AsyncFnOnce(Request) -> Response) -> Response {
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let labels = RouteLabels::of(&request);
    let span = tracing::info_span!(
        "http_request",
        request_id = id.as_str(),
        method = labels.method(),
        path = labels.template(),
    );
    async move {
        let mut access = Access { labels, started: Instant::now(), status: CLIENT_LEFT };
        let mut response = next(request).await;
        if let Ok(value) = HeaderValue::from_str(id.as_str()) {
            response.headers_mut().insert(HEADER, value);
        }
        access.status = response.status().as_u16();
        response
    }
    .instrument(span)
    .await
}

/// The access line, written when the request ends: also when it is dropped because its client has left.
struct Access {
    labels: RouteLabels,
    started: Instant,
    status: u16,
}

impl Drop for Access {
    /// Method and path are fields of the span around this line.
    fn drop(&mut self) {
        let status = self.status;
        let latency_ms = self.started.elapsed().as_secs_f64() * 1_000.0;
        if self.labels.is_probe() {
            tracing::debug!(status, latency_ms, "request");
        } else {
            tracing::info!(status, latency_ms, "request");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_to_64_letters_digits_dots_lines() {
        for id in ["a", "0b7c.A_z-9", &"x".repeat(64)] {
            assert!(is_harmless(id), "{id}");
        }
        for id in ["", &"x".repeat(65), "a b", "a\"b", "ä", "a/b", "a\n"] {
            assert!(!is_harmless(id), "{id}");
        }
    }

    #[test]
    fn a_fresh_id_is_a_hyphenated_uuid_and_never_the_same() {
        let (one, other) = (RequestId::fresh(), RequestId::fresh());
        assert_eq!(one.as_str().len(), 36);
        assert!(is_harmless(one.as_str()));
        assert_ne!(one, other);
    }
}
