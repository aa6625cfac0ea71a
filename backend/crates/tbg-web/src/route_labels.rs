//! The words under which a request is logged and counted.
//!
//! Invariant: both come from closed sets. A method that is not a standard one is `other`, a path
//! that no route matches is `none`, so no client can add a time series. Contract: `production.md`
//! section 10.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;

/// The status of a request whose client has left before its answer, as proxies write it.
pub(crate) const CLIENT_LEFT: u16 = 499;

/// Method and route template of one request.
pub(crate) struct RouteLabels {
    method: &'static str,
    matched: Option<MatchedPath>,
}

impl RouteLabels {
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            method: method_word(request.method()),
            matched: request.extensions().get::<MatchedPath>().cloned(),
        }
    }

    pub(crate) fn method(&self) -> &'static str {
        self.method
    }

    pub(crate) fn template(&self) -> &str {
        self.matched.as_ref().map_or("none", MatchedPath::as_str)
    }

    /// Whether machines ask for this every few seconds.
    pub(crate) fn is_probe(&self) -> bool {
        is_probe(self.template())
    }
}

/// Whether machines ask for this template every few seconds.
pub(crate) fn is_probe(template: &str) -> bool {
    matches!(template, "/health" | "/ready" | "/metrics")
}

fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
