//! The classes of routes, and the layer that holds a route to its class (contract `auth-users.md` §1.6).

use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tbg_core::audit::{Action, Entry, record_refusal};

use super::authenticator::{Authenticator, Credential, refusal};
use super::store::ApiKeyRow;
use super::{Admin, Caller};
use crate::client::Origin;
use crate::error::{ApiError, ErrorCode};

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Everybody; credentials are ignored.
    None,
    /// Everybody, but a credential that is sent must be good.
    Optional,
    /// Access token, or API key with the permission of the method.
    User,
    /// Access token only.
    Session,
    /// Access token of an administrator.
    Admin,
}

/// What the request's credential is, put into its extensions by the front door.
#[derive(Clone)]
pub(crate) struct Presented {
    pub credential: Credential,
    pub authenticator: Arc<Authenticator>,
    pub origin: Origin,
}

/// Lets the request pass if its credential satisfies `class`, and tells the handler who asks. Personal answers are
/// kept by no cache, unless the handler says so.
pub(crate) async fn enforce(class: Class, mut request: Request, next: Next) -> Response {
    if class == Class::None {
        return next.run(request).await;
    }
    let Some(presented) = request.extensions().get::<Presented>().cloned() else {
        return ApiError::internal(anyhow::anyhow!("the front door was not passed")).into_response();
    };
    let route = request.extensions().get::<MatchedPath>().cloned();
    let asked = Asked { class, method: request.method().clone(), route };
    let admitted = admit(&asked, &presented).await;
    let is_personal = matches!(admitted, Ok(Some(_)));
    match admitted {
        Ok(Some(admitted)) => {
            if admitted.is_admin {
                request.extensions_mut().insert(Admin { user_id: admitted.caller.user_id });
            }
            request.extensions_mut().insert(admitted.caller);
        }
        Ok(None) => {}
        Err(error) => return error.into_response(),
    }
    let mut response = next.run(request).await;
    if is_personal {
        // Whose answer it is, a cache may not see: an API key is a header that none knows.
        response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    response
}

/// What is asked for.
struct Asked {
    class: Class,
    method: Method,
    route: Option<MatchedPath>,
}

struct Admitted {
    caller: Caller,
    is_admin: bool,
}

async fn admit(asked: &Asked, presented: &Presented) -> Result<Option<Admitted>, ApiError> {
    let class = asked.class;
    let authenticator = &presented.authenticator;
    let admitted = match &presented.credential {
        Credential::Absent if class == Class::Optional => return Ok(None),
        Credential::Absent => return Err(refusal(ErrorCode::AuthRequired)),
        Credential::Refused(code) => return Err(refusal(*code)),
        Credential::Unknown(error) => return Err(error.clone()),
        Credential::Token(claims) => {
            let (session, is_admin) = authenticator.session(claims).await?;
            Admitted { caller: Caller { user_id: session.user_id, session: Some(session) }, is_admin }
        }
        Credential::ApiKey(key) => {
            let caller = authenticator.owner(key).await?;
            permit(class, key, &asked.method)?;
            Admitted { caller, is_admin: false }
        }
    };
    if class == Class::Admin && !admitted.is_admin {
        Box::pin(audit_denied(presented, &admitted.caller, asked)).await;
        return Err(refusal(ErrorCode::AdminRequired));
    }
    Ok(Some(admitted))
}

/// Whether an API key is enough. On admin routes the refusal is the admin's own, and audited.
fn permit(class: Class, key: &ApiKeyRow, method: &Method) -> Result<(), ApiError> {
    match class {
        Class::Session => Err(refusal(ErrorCode::SessionRequired)),
        Class::User | Class::Optional if !has_permission(key, method) => {
            Err(refusal(ErrorCode::ApiKeyPermission))
        }
        _ => Ok(()),
    }
}

/// `write` implies `read`.
fn has_permission(key: &ApiKeyRow, method: &Method) -> bool {
    let has = |word| key.permissions.as_array().is_some_and(|all| all.iter().any(|one| one == word));
    let reads = matches!(*method, Method::GET | Method::HEAD);
    has("write") || (reads && has("read"))
}

async fn audit_denied(presented: &Presented, caller: &Caller, asked: &Asked) {
    let route = asked.route.as_ref().map_or("none", MatchedPath::as_str);
    let entry = Entry::new(Action::AdminAccessDenied, "route")
        .by(caller.user_id)
        .on(route)
        .from(&presented.origin.0)
        .details(serde_json::json!({ "method": asked.method.as_str() }))
        .denied();
    record_refusal(presented.authenticator.pool(), &entry).await;
}
