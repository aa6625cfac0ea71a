//! The seven security headers, each exactly once on every response; and `no-store` where answers are about
//! a person. Contract: `production.md` §6, `auth-users.md` §1.3.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS, X_XSS_PROTECTION,
};
use axum::response::Response;

/// Names and values of `production.md` §6.
pub const SECURITY_HEADERS: [(HeaderName, &str); 7] = [
    (STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (X_XSS_PROTECTION, "0"),
    (REFERRER_POLICY, "strict-origin-when-cross-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
    (CONTENT_SECURITY_POLICY, "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'"),
];

pub(crate) async fn secure(request: Request, next: impl AsyncFnOnce(Request) -> Response) -> Response {
    let is_personal = is_personal(request.uri().path());
    let mut response = next(request).await;
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if is_personal {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

fn is_personal(path: &str) -> bool {
    ["/api/v1/auth", "/api/v1/users/me", "/api/v1/admin"]
        .iter()
        .any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_about_a_person_are_not_stored() {
        for path in ["/api/v1/auth/login", "/api/v1/users/me", "/api/v1/users/me/settings"] {
            assert!(is_personal(path), "{path}");
        }
        for path in ["/health", "/api/v1/users/menace", "/api/v1/users/bc1q"] {
            assert!(!is_personal(path), "{path}");
        }
    }
}
