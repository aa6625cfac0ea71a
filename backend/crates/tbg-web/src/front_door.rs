//! Who comes in, and how often: reads the credential, then counts the request in its tier.
//!
//! The tier follows from what is *proven*: a token with a bad signature or a key that nobody has counts for
//! the client's address. A refused request reaches no handler and hashes no password. The routes under
//! `/api/v1/auth` are counted before their credential is even looked at.
//! Contract: `auth-users.md` §1.3, `production.md` §3.

use std::sync::{Arc, OnceLock};

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
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

/// Lets a request in, or refuses it; `counted` gets what the limiter decided, if it was asked.
pub(crate) async fn pass(
    door: &FrontDoor,
    counted: &OnceLock<Decision>,
    mut request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let ip = client_ip(request.extensions(), request.headers(), &door.trusted_proxies);
    let origin = origin_of(ip, request.headers());
    request.extensions_mut().insert(origin.clone());
    let path = request.uri().path();
    if EXEMPT.contains(&path) {
        return next(request).await;
    }
    let is_auth_route = path.starts_with(AUTH_ROUTES);
    if is_auth_route && let Err(refused) = door.count(counted, Tier::AuthEndpoint, Subject::Ip(ip)).await {
        return refused;
    }
    let credential = door.authenticator.identify(request.headers()).await;
    if !is_auth_route {
        let (tier, subject) = match &credential {
            Credential::ApiKey(key) => (Tier::ApiKey, Subject::ApiKey(key.id)),
            Credential::Token(claims) => match claims.sub.parse() {
                Ok(user) => (Tier::User, Subject::User(UserId(user))),
                Err(_) => (Tier::Unauth, Subject::Ip(ip)),
            },
            _ => (Tier::Unauth, Subject::Ip(ip)),
        };
        if let Err(refused) = door.count(counted, tier, subject).await {
            return refused;
        }
    }
    let authenticator = Arc::clone(&door.authenticator);
    request.extensions_mut().insert(Presented { credential, authenticator, origin });
    next(request).await
}

impl FrontDoor {
    /// Counts the request and notes the decision in `counted`; what to answer if it is refused.
    async fn count(
        &self,
        counted: &OnceLock<Decision>,
        tier: Tier,
        subject: Subject,
    ) -> Result<(), Response> {
        let decision = self.limiter.decide(tier, &redis_key(tier, subject), self.limits.of(tier)).await;
        let _ = counted.set(decision);
        if decision.allowed {
            return Ok(());
        }
        let error = ApiError::new(ErrorCode::RateLimited, "Too many requests");
        Err(error.retry_after(decision.retry_after_s.unwrap_or(1)).into_response())
    }
}

/// Tells the limit on the answer to a request that was counted.
pub(crate) fn tell_limit(mut response: Response, counted: Option<&Decision>) -> Response {
    if let Some(decision) = counted {
        let headers = response.headers_mut();
        headers.insert(LIMIT, HeaderValue::from(decision.limit));
        headers.insert(REMAINING, HeaderValue::from(decision.remaining));
        headers.insert(RESET, HeaderValue::from(decision.reset_epoch_s));
    }
    response
}
