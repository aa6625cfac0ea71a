//! The layer that gives every error response the one body.
//!
//! An [`ApiError`] travels in the response's extensions and is written here. An error response that
//! carries none and is not JSON comes from below us (the router's 404 and 405, the body limit, a
//! rejected extractor, the deadline): its status decides which [`ApiError`] it becomes, its text is
//! dropped, because it may repeat what the client sent. Headers such as `Allow` are kept. JSON
//! without an [`ApiError`] is a probe's own shape and passes through.
//!
//! Contract: `auth-users.md` section 1.2.

use axum::Json;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::{ApiError, ErrorCode, FieldError, FieldErrorKind};
use crate::request_id::RequestId;

/// When to come back if something that we need is away.
const RETRY_AFTER_SECONDS: u64 = 5;
/// Contract: `auth-users.md` §1.2, last line.
const WWW_AUTHENTICATE_BEARER: &str = "Bearer realm=\"tbg\", error=\"invalid_token\"";

pub(crate) async fn shape(request: Request, next: Next) -> Response {
    let request_id = request.extensions().get::<RequestId>().cloned();
    let root = FieldRoot::of(&request);
    let mut response = next.run(request).await;
    let error = match response.extensions_mut().remove::<ApiError>() {
        Some(error) => error,
        None if is_foreign_error(&response) => translate(response.status(), root),
        None => return response,
    };
    error.log_cause();
    write(response, error, request_id.as_ref().map_or("", RequestId::as_str))
}

fn is_foreign_error(response: &Response) -> bool {
    let status = response.status();
    (status.is_client_error() || status.is_server_error()) && !is_json(response.headers())
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

fn translate(status: StatusCode, root: FieldRoot) -> ApiError {
    match status {
        StatusCode::NOT_FOUND => ApiError::not_found(),
        StatusCode::METHOD_NOT_ALLOWED => ApiError::method_not_allowed(),
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::payload_too_large(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ApiError::unsupported_media_type(),
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
            ApiError::validation([root.rejected(status)])
        }
        StatusCode::SERVICE_UNAVAILABLE => ApiError::unavailable(),
        // No layer and no extractor that we use answers anything else: a handler forgot its code.
        _ => ApiError::internal(anyhow::anyhow!("{status} was answered without an ApiError")),
    }
}

fn write(response: Response, error: ApiError, request_id: &str) -> Response {
    let code = error.code();
    let retry_after_s = error.retry_after_seconds();
    let (mut parts, _) = response.into_parts();
    let (json, body) = Json(error.into_body(request_id.to_owned())).into_response().into_parts();

    parts.status = code.status();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(CONTENT_ENCODING);
    if let Some(content_type) = json.headers.get(CONTENT_TYPE) {
        parts.headers.insert(CONTENT_TYPE, content_type.clone());
    }
    let away = (code == ErrorCode::ServiceUnavailable).then_some(RETRY_AFTER_SECONDS);
    if let Some(seconds) = retry_after_s.or(away) {
        parts.headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if code.is_about_access() {
        parts.headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(WWW_AUTHENTICATE_BEARER));
    }
    Response::from_parts(parts, body)
}

/// The part of a request that a bare rejection is about: an extractor reads the body last, so a
/// request with one is taken to have failed there. Extractors that know better return [`ApiError`].
#[derive(Clone, Copy)]
enum FieldRoot {
    Body,
    Query,
    Path,
}

impl FieldRoot {
    fn of(request: &Request<Body>) -> Self {
        if !request.body().is_end_stream() {
            Self::Body
        } else if request.uri().query().is_some() {
            Self::Query
        } else {
            Self::Path
        }
    }

    fn rejected(self, status: StatusCode) -> FieldError {
        use FieldErrorKind::{InvalidJson, TypeError};
        match self {
            Self::Body if status == StatusCode::BAD_REQUEST => {
                FieldError::new("body", InvalidJson, "is not valid JSON")
            }
            Self::Body => FieldError::new("body", TypeError, "does not have the required form"),
            Self::Query => FieldError::new("query", TypeError, "does not have the required form"),
            Self::Path => FieldError::new("path", TypeError, "does not have the required form"),
        }
    }
}
