//! Who comes in, and how often: reads the credential, then counts the request in its tier.
//!
//! The tier follows from what is *proven*: a token with a bad signature or a key that nobody has counts for
//! the client's address. A refused request reaches no handler and hashes no password. The routes under
//! `/api/v1/auth` are counted before their credential is even looked at.
//! Contract: `auth-users.md` §1.3, `production.md` §3.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use tbg_core::UserId;

use crate::auth::{Authenticator, Credential, Presented};
use crate::client::{client_ip, origin_of};
use crate::error::{ApiError, ErrorCode};
use crate::limit::{Decision, Limiter, Limits, Subject, Tier, redis_key};

const AUTH_ROUTES: &str = "/api/v1/auth/";
/// Neither counted nor headed; `/ws` has limits of its own.
const EXEMPT: [&str; 4] = ["/health", "/ready", "/metrics", "/ws"];

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What the front door stands on.
pub(crate) struct FrontDoor {
    pub authenticator: Arc<Authenticator>,
    pub limiter: Limiter,
    pub limits: Limits,
    pub trusted_proxies: Arc<[IpNet]>,
}

pub(crate) async fn pass(door: &FrontDoor, mut request: Request, next: Next) -> Response {
    let ip = client_ip(request.extensions(), request.headers(), &door.trusted_proxies);
    let origin = origin_of(ip, request.headers());
    request.extensions_mut().insert(origin.clone());
    let path = request.uri().path();
    if EXEMPT.contains(&path) {
        return next.run(request).await;
    }
    let counted_first = if path.starts_with(AUTH_ROUTES) {
        let decision = door.count(Tier::AuthEndpoint, Subject::Ip(ip)).await;
        if !decision.allowed {
            return refuse(decision);
        }
        Some(decision)
    } else {
        None
    };
    let credential = door.authenticator.identify(request.headers()).await;
    let decision = match counted_first {
        Some(decision) => decision,
        None => {
            let (tier, subject) = match &credential {
                Credential::ApiKey(key) => (Tier::ApiKey, Subject::ApiKey(key.id)),
                Credential::Token(claims) => match claims.sub.parse() {
                    Ok(user) => (Tier::User, Subject::User(UserId(user))),
                    Err(_) => (Tier::Unauth, Subject::Ip(ip)),
                },
                _ => (Tier::Unauth, Subject::Ip(ip)),
            };
            door.count(tier, subject).await
        }
    };
    if !decision.allowed {
        return refuse(decision);
    }
    let authenticator = Arc::clone(&door.authenticator);
    request.extensions_mut().insert(Presented { credential, authenticator, origin });
    let mut response = next.run(request).await;
    announce(response.headers_mut(), decision);
    response
}

impl FrontDoor {
    async fn count(&self, tier: Tier, subject: Subject) -> Decision {
        self.limiter.decide(tier, &redis_key(tier, subject), self.limits.of(tier)).await
    }
}

fn refuse(decision: Decision) -> Response {
    let error = ApiError::new(ErrorCode::RateLimited, "Too many requests")
        .retry_after(decision.retry_after_s.unwrap_or(1));
    let mut response = error.into_response();
    announce(response.headers_mut(), decision);
    response
}

fn announce(headers: &mut HeaderMap, decision: Decision) {
    headers.insert(LIMIT, HeaderValue::from(decision.limit));
    headers.insert(REMAINING, HeaderValue::from(decision.remaining));
    headers.insert(RESET, HeaderValue::from(decision.reset_epoch_s));
}
