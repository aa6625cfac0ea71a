//! Which web pages may call (contract `production.md` §5).
//!
//! A page of an allowed origin gets the CORS headers on every answer. A page of another origin may read
//! what everybody may (its browser hides the answer from it), but neither ask nor change: preflights and
//! changing methods are refused before anything else is done. Origins are compared byte by byte.

use std::sync::Arc;

use axum::Json;
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use tbg_core::config::Environment;

use crate::error::{ApiError, ErrorCode};

const PRODUCTION: [&str; 3] =
    ["https://thebitcoingame.com", "https://www.thebitcoingame.com", "https://app.thebitcoingame.com"];
const DEVELOPMENT: [&str; 3] = ["http://localhost:5173", "http://localhost:3000", "http://127.0.0.1:5173"];

const METHODS: &str = "GET, POST, PUT, PATCH, DELETE, OPTIONS";
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, X-API-Key, X-Request-Id";
const EXPOSED_HEADERS: &str =
    "X-Request-Id, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After";
const MAX_AGE_SECONDS: &str = "3600";

/// The origins of a deployment.
#[derive(Clone, Debug)]
pub struct Origins(Arc<Known>);

#[derive(Debug)]
struct Known {
    allowed: Vec<&'static str>,
    own: Option<String>,
}

/// What an origin may do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// No page, or a page of ours.
    Own,
    Allowed,
    Other,
}

impl Origins {
    /// The origins of `environment`, and the API's own.
    #[must_use]
    pub fn of(environment: Environment, own: Option<String>) -> Self {
        let development = matches!(environment, Environment::Development | Environment::Test);
        let allowed = PRODUCTION.into_iter().chain(DEVELOPMENT.into_iter().filter(|_| development)).collect();
        Self(Arc::new(Known { allowed, own }))
    }

    /// Whether a page of `origin` may open a WebSocket or change something.
    #[must_use]
    pub fn admits(&self, origin: &[u8]) -> bool {
        self.standing(Some(origin)) != Standing::Other
    }

    fn standing(&self, origin: Option<&[u8]>) -> Standing {
        let Some(origin) = origin else { return Standing::Own };
        if self.0.own.as_ref().is_some_and(|own| own.as_bytes() == origin) {
            Standing::Own
        } else if self.0.allowed.iter().any(|allowed| allowed.as_bytes() == origin) {
            Standing::Allowed
        } else {
            Standing::Other
        }
    }
}

pub(crate) async fn check(
    origins: &Origins,
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let standing = origins.standing(origin.as_ref().map(HeaderValue::as_bytes));
    let is_preflight = origin.is_some()
        && request.method() == Method::OPTIONS
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);

    let mut response = if standing == Standing::Other && (is_preflight || changes) {
        ApiError::new(ErrorCode::OriginNotAllowed, "Origin is not allowed").into_response()
    } else if is_preflight {
        preflight(standing)
    } else {
        next(request).await
    };
    if let (Standing::Allowed, Some(origin)) = (standing, origin) {
        allow(response.headers_mut(), origin);
    }
    response.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
    response
}

fn preflight(standing: Standing) -> Response {
    let mut response = Json(serde_json::json!({})).into_response();
    if standing == Standing::Allowed {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_SECONDS));
    }
    response
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
}
