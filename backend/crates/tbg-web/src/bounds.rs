//! How large a request's head may be (contract `production.md` §4).

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::{ApiError, ErrorCode};

/// The longest path and query, in bytes.
const MAX_URI_BYTES: usize = 8 * 1024;
/// The largest sum of header names and values, in bytes.
pub(crate) const MAX_HEADER_BYTES: usize = 16 * 1024;

pub(crate) async fn check(request: Request, next: Next) -> Response {
    let uri = request.uri();
    let uri_bytes = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
    if uri_bytes > MAX_URI_BYTES {
        return ApiError::new(ErrorCode::UriTooLong, "Path and query are too long").into_response();
    }
    let header_bytes: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if header_bytes > MAX_HEADER_BYTES {
        return ApiError::new(ErrorCode::HeadersTooLarge, "Headers are too large").into_response();
    }
    next.run(request).await
}
