//! Carrying sessions on and ending them (contract `auth-users.md` §3, §4).

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tbg_core::UserId;
use tbg_core::audit::{Action, Entry, record_refusal};
use tbg_web::{ApiError, Body, NoBody, Origin, Routes, Session, Text};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::me::{UserMe, user_me};
use crate::Identity;
use crate::sessions::{self, Refreshed, Tokens};

/// What every sign-in answers.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenResponse {
    /// Calls the API, as `Authorization: Bearer …`.
    access_token: String,
    /// Gets new tokens, once.
    refresh_token: String,
    /// Always bearer.
    #[schema(value_type = String)]
    token_type: &'static str,
    /// Seconds that the access token is valid.
    expires_in: i64,
    /// Who signed in.
    user: UserMe,
}

impl TokenResponse {
    /// Tokens with the user as the database has them now.
    pub(crate) async fn of(
        identity: &Identity,
        user: UserId,
        tokens: Tokens,
    ) -> Result<Json<Self>, ApiError> {
        Ok(Json(Self {
            access_token: tokens.access,
            refresh_token: tokens.refresh,
            token_type: "bearer",
            expires_in: identity.config.access_ttl_seconds,
            user: user_me(identity, user, false).await?,
        }))
    }
}

/// A refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshRequest {
    /// As the last sign-in or refresh gave it.
    refresh_token: Text<1, 4096>,
}

/// Done.
#[derive(Serialize, ToSchema)]
pub(crate) struct Done {
    #[schema(value_type = String)]
    pub(crate) status: &'static str,
}

/// How many sessions ended.
#[derive(Serialize, ToSchema)]
pub(crate) struct AllRevoked {
    #[schema(value_type = String)]
    status: &'static str,
    /// Sessions that were live.
    revoked_count: usize,
}

/// The routes of this module.
pub(crate) fn routes() -> Routes<Identity> {
    Routes::new()
        .public(routes!(refresh))
        .public(routes!(logout))
        .public(routes!(revoke))
        .session(routes!(logout_all))
        .session(routes!(me))
}

/// Exchanges a refresh token for new tokens
///
/// Works once per token. A token that comes back ends all sessions of its user.
#[utoipa::path(
    post,
    path = "/api/v1/auth/refresh",
    tag = "auth",
    request_body = RefreshRequest,
    responses(
        (status = 200, description = "New tokens", body = TokenResponse),
        (status = 401, description = "Not a live refresh token", body = tbg_web::ErrorBody),
        (status = 403, description = "The account is banned", body = tbg_web::ErrorBody),
    )
)]
pub(crate) async fn refresh(
    State(identity): State<Identity>,
    Origin(origin): Origin,
    Body(request): Body<RefreshRequest>,
) -> Result<Json<TokenResponse>, ApiError> {
    let refreshed = sessions::refresh(&identity, request.refresh_token.as_str(), &origin).await?;
    match refreshed {
        Refreshed::Renewed(user, tokens) => TokenResponse::of(&identity, user, tokens).await,
        refused => {
            let reason = match refused {
                Refreshed::Invalid(reason) => reason,
                Refreshed::Banned => "banned",
                _ => "reused",
            };
            let entry = Entry::new(Action::AuthTokenRefresh, "session")
                .from(&origin)
                .details(json!({ "reason": reason }))
                .failed();
            record_refusal(&identity.pool, &entry).await;
            Err(sessions::refusal(&refused))
        }
    }
}

/// Ends the session of a refresh token
///
/// Always answers the same; a token that is not ours changes nothing.
#[utoipa::path(
    post,
    path = "/api/v1/auth/logout",
    tag = "auth",
    request_body = RefreshRequest,
    responses((status = 200, description = "The session has ended", body = Done))
)]
pub(crate) async fn logout(
    State(identity): State<Identity>,
    Origin(origin): Origin,
    Body(request): Body<RefreshRequest>,
) -> Result<Json<Done>, ApiError> {
    sessions::end(&identity, request.refresh_token.as_str(), &origin).await?;
    Ok(Json(Done { status: "logged_out" }))
}

/// Ends the session of a refresh token (another name of logout)
#[utoipa::path(
    post,
    path = "/api/v1/auth/revoke",
    tag = "auth",
    request_body = RefreshRequest,
    responses((status = 200, description = "The session has ended", body = Done))
)]
pub(crate) async fn revoke(
    identity: State<Identity>,
    origin: Origin,
    request: Body<RefreshRequest>,
) -> Result<Json<Done>, ApiError> {
    logout(identity, origin, request).await
}

/// Ends all sessions of the user, this one too
#[utoipa::path(
    post,
    path = "/api/v1/auth/logout-all",
    tag = "auth",
    responses((status = 200, description = "All sessions have ended", body = AllRevoked))
)]
pub(crate) async fn logout_all(
    State(identity): State<Identity>,
    session: Session,
    Origin(origin): Origin,
    _: NoBody,
) -> Result<Json<AllRevoked>, ApiError> {
    let revoked_count = sessions::end_all(&identity, session.user_id, session.sid, &origin).await?;
    Ok(Json(AllRevoked { status: "all_sessions_revoked", revoked_count }))
}

/// Who is signed in
#[utoipa::path(
    get,
    path = "/api/v1/auth/me",
    tag = "auth",
    responses((status = 200, description = "The user", body = UserMe))
)]
pub(crate) async fn me(State(identity): State<Identity>, session: Session) -> Result<Json<UserMe>, ApiError> {
    Ok(Json(user_me(&identity, session.user_id, false).await?))
}
