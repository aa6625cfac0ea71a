//! Mailed links and changed passwords (contract `auth-users.md` §4, §4.5, §5).

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::json;
use tbg_core::UserId;
use tbg_core::audit::{self, Action, Entry, Origin as AuditOrigin, record_refusal};
use tbg_web::{ApiError, Body, ErrorCode, NoBody, Origin, Routes, Session, Text};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::email_sign_in::{PasswordAttempt, weak_password};
use super::session::Done;
use crate::Identity;
use crate::cooldowns;
use crate::hasher::Verdict;
use crate::mail::{Purpose, Template};
use crate::rules::email::{Email, email_hash, token_hash};
use crate::rules::password::is_strong;
use crate::store::tokens::WhyNot;
use crate::store::{attempts, mail, sessions, tokens, users};

/// Seconds between two mails with a verification link.
const RESEND_COOLDOWN_SECONDS: u64 = 300;

/// A mailed token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyEmailRequest {
    token: Text<32, 128>,
}

/// Whose password was forgotten.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForgotPasswordRequest {
    email: Email,
}

/// A mailed token and a new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResetPasswordRequest {
    token: Text<32, 128>,
    #[schema(format = Password)]
    new_password: Text<1, 128>,
}

/// The password and the next one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangePasswordRequest {
    #[schema(format = Password)]
    current_password: Text<1, 128>,
    #[schema(format = Password)]
    new_password: Text<1, 128>,
}

/// The routes of this module.
pub(crate) fn routes() -> Routes<Identity> {
    Routes::new()
        .public(routes!(verify_email))
        .session(routes!(resend_verification))
        .public(routes!(forgot_password))
        .public(routes!(reset_password))
        .session(routes!(change_password))
}

/// Confirms an e-mail with a mailed token
#[utoipa::path(
    post,
    path = "/api/v1/auth/verify-email",
    tag = "auth",
    request_body = VerifyEmailRequest,
    responses(
        (status = 200, description = "Confirmed", body = Done),
        (status = 400, description = "Invalid, expired or used", body = tbg_web::ErrorBody),
    )
)]
pub(crate) async fn verify_email(
    State(identity): State<Identity>,
    Origin(origin): Origin,
    Body(request): Body<VerifyEmailRequest>,
) -> Result<Json<Done>, ApiError> {
    let now = identity.clock.now();
    let hash = token_hash(request.token.as_str());
    let mut tx = identity.pool.begin().await?;
    tokens::lock_owner_of_verification(&mut tx, &hash).await?;
    let Some(taken) = tokens::take_verification(&mut tx, &hash, now).await? else {
        let fault = tokens::why_not_verification(&mut tx, &hash, now).await?.unwrap_or(WhyNot::Used);
        drop(tx);
        audit_failure(&identity, Action::AuthEmailVerified, &origin, fault.reason()).await;
        return Err(token_error(fault));
    };
    let user = taken.user_id;
    let verified = if taken.purpose == Purpose::Notification {
        users::verify_notification_email(&mut tx, user, &taken.email, now).await?
    } else {
        // The same address may be the one for notifications: proven is proven.
        users::verify_notification_email(&mut tx, user, &taken.email, now).await?;
        users::verify_account_email(&mut tx, user, &taken.email).await?
    };
    if !verified {
        tx.commit().await?;
        audit_failure(&identity, Action::AuthEmailVerified, &origin, "other_email").await;
        return Err(token_error(WhyNot::Invalid));
    }
    let entry = Entry::new(Action::AuthEmailVerified, "user")
        .by(user)
        .on(user)
        .from(&origin)
        .details(json!({ "purpose": taken.purpose.as_str() }));
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(Json(Done { status: "email_verified" }))
}

fn token_error(fault: WhyNot) -> ApiError {
    match fault {
        WhyNot::Invalid => ApiError::new(ErrorCode::TokenInvalid, "Token is invalid"),
        WhyNot::Expired => ApiError::new(ErrorCode::TokenExpired, "Token has expired"),
        WhyNot::Used => ApiError::new(ErrorCode::TokenUsed, "Token was used before"),
    }
}

async fn audit_failure(identity: &Identity, action: Action, origin: &AuditOrigin, reason: &str) {
    let entry = Entry::new(action, "user").from(origin).details(json!({ "reason": reason })).failed();
    record_refusal(&identity.pool, &entry).await;
}

/// Mails another verification link
#[utoipa::path(
    post,
    path = "/api/v1/auth/resend-verification",
    tag = "auth",
    responses(
        (status = 200, description = "It is on its way", body = Done),
        (status = 400, description = "Nothing to verify", body = tbg_web::ErrorBody),
    )
)]
pub(crate) async fn resend_verification(
    State(identity): State<Identity>,
    session: Session,
    Origin(origin): Origin,
    _: NoBody,
) -> Result<Json<Done>, ApiError> {
    let mut tx = identity.pool.begin().await?;
    let account = users::by_id(&mut tx, session.user_id).await?;
    let email = account.as_ref().and_then(|account| account.email.clone());
    let Some(email) = email else { return Err(email_account_required()) };
    if account.is_some_and(|account| account.email_verified) {
        return Err(ApiError::new(ErrorCode::EmailAlreadyVerified, "The e-mail is verified already"));
    }
    let key = format!("auth:resend:{}", session.user_id);
    cooldowns::start(&identity, &key, RESEND_COOLDOWN_SECONDS).await?;
    let context = json!({ "purpose": "account" });
    mail::enqueue(&mut tx, Some(session.user_id), &email, Template::VerifyEmail, &context).await?;
    let entry = Entry::new(Action::AuthVerificationResent, "user")
        .by(session.user_id)
        .on(session.user_id)
        .from(&origin);
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(Json(Done { status: "verification_email_sent" }))
}

fn email_account_required() -> ApiError {
    ApiError::new(ErrorCode::EmailAccountRequired, "The account has no email and password")
}

/// Mails a link to set a new password
///
/// Answers the same whether or not the e-mail has an account.
#[utoipa::path(
    post,
    path = "/api/v1/auth/forgot-password",
    tag = "auth",
    request_body = ForgotPasswordRequest,
    responses((status = 200, description = "If there is an account, a mail is on its way", body = Done))
)]
pub(crate) async fn forgot_password(
    State(identity): State<Identity>,
    Origin(origin): Origin,
    Body(request): Body<ForgotPasswordRequest>,
) -> Result<Json<Done>, ApiError> {
    let email = request.email.as_str();
    let mut tx = identity.pool.begin().await?;
    let account = users::by_email(&mut tx, email).await?.filter(|account| account.password_hash.is_some());
    let short_hash: String = email_hash(email).chars().take(16).collect();
    let entry = Entry::new(Action::AuthPasswordResetRequested, "user")
        .from(&origin)
        .details(json!({ "email_hash": short_hash }));
    let entry = match &account {
        Some(account) => {
            let user = UserId(account.id);
            let context = json!({ "requested_from": origin.ip });
            mail::enqueue(&mut tx, Some(user), email, Template::PasswordReset, &context).await?;
            entry.by(user).on(user)
        }
        None => entry.failed(),
    };
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(Json(Done { status: "reset_requested" }))
}

/// Sets a new password with a mailed token
///
/// Ends all sessions.
#[utoipa::path(
    post,
    path = "/api/v1/auth/reset-password",
    tag = "auth",
    request_body = ResetPasswordRequest,
    responses(
        (status = 200, description = "The new password is set", body = Done),
        (status = 400, description = "Weak password; or token invalid, expired or used", body = tbg_web::ErrorBody),
    )
)]
pub(crate) async fn reset_password(
    State(identity): State<Identity>,
    Origin(origin): Origin,
    Body(request): Body<ResetPasswordRequest>,
) -> Result<Json<Done>, ApiError> {
    if !is_strong(request.new_password.as_str()) {
        return Err(weak_password());
    }
    let now = identity.clock.now();
    let token = token_hash(request.token.as_str());
    // Asked before the expensive hash, decided again in the transaction.
    let fault = tokens::why_not_reset(&mut *identity.pool.acquire().await?, &token, now).await?;
    if let Some(fault) = fault {
        audit_failure(&identity, Action::AuthPasswordReset, &origin, fault.reason()).await;
        return Err(token_error(fault));
    }
    let hash = identity.hasher.hash(identity.entropy.as_ref(), request.new_password.into_string()).await?;
    let mut tx = identity.pool.begin().await?;
    tokens::lock_owner_of_reset(&mut tx, &token).await?;
    let Some(user) = tokens::take_reset(&mut tx, &token, now).await? else {
        return Err(token_error(WhyNot::Used));
    };
    let Some(account) = users::lock(&mut tx, user).await? else {
        return Err(token_error(WhyNot::Invalid));
    };
    users::set_password(&mut tx, user, &hash, None).await?;
    let live = sessions::revoke_all(&mut tx, user, "password_reset", None, now).await?;
    users::reject_tokens_before(&mut tx, user, now).await?;
    if let Some(email) = &account.email {
        attempts::clear(&mut tx, &email_hash(email)).await?;
        mail::enqueue(&mut tx, Some(user), email, Template::PasswordChanged, &json!({})).await?;
    }
    let entry = Entry::new(Action::AuthPasswordReset, "user").by(user).on(user).from(&origin);
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    identity.auth.revoke_sessions(user, &live).await;
    identity.auth.forget_user(user).await;
    Ok(Json(Done { status: "password_reset_complete" }))
}

/// Changes the password
///
/// Ends all other sessions.
#[utoipa::path(
    post,
    path = "/api/v1/auth/change-password",
    tag = "auth",
    request_body = ChangePasswordRequest,
    responses(
        (status = 200, description = "The new password is set", body = Done),
        (status = 400, description = "Weak password, or an account without one", body = tbg_web::ErrorBody),
    )
)]
pub(crate) async fn change_password(
    State(identity): State<Identity>,
    session: Session,
    Origin(origin): Origin,
    Body(request): Body<ChangePasswordRequest>,
) -> Result<Json<Done>, ApiError> {
    let user = session.user_id;
    let account = users::by_id(&mut *identity.pool.acquire().await?, user).await?;
    let known = account.as_ref().and_then(|a| Some((a.email.clone()?, a.password_hash.clone()?)));
    let Some((email, stored)) = known else { return Err(email_account_required()) };
    if !is_strong(request.new_password.as_str()) {
        return Err(weak_password());
    }
    let mail_hash = email_hash(&email);
    let attempt = PasswordAttempt { identity: &identity, email_hash: &mail_hash, origin: &origin };
    let is_last = attempt.reserve(account.as_ref()).await?;
    let current = request.current_password.into_string();
    let checked = identity.hasher.verify(current, Some(stored.clone())).await;
    if attempt.unless_unchecked(checked, is_last).await? == Verdict::Wrong {
        attempt.failed(Some(user), "bad_password", is_last).await;
        return Err(ApiError::new(ErrorCode::AuthPasswordIncorrect, "The current password is incorrect"));
    }
    let hash = identity.hasher.hash(identity.entropy.as_ref(), request.new_password.into_string()).await?;
    let live = set_new_password(&identity, &session, &stored, &hash, &email, &origin).await?;
    identity.auth.revoke_sessions(user, &live).await;
    Ok(Json(Done { status: "password_changed" }))
}

/// Everything that a new password causes, in one transaction; returns the sessions that ended.
async fn set_new_password(
    identity: &Identity,
    session: &Session,
    old_hash: &str,
    new_hash: &str,
    email: &str,
    origin: &AuditOrigin,
) -> Result<Vec<uuid::Uuid>, ApiError> {
    let (user, now) = (session.user_id, identity.clock.now());
    let mut tx = identity.pool.begin().await?;
    users::lock(&mut tx, user).await?;
    if !users::set_password(&mut tx, user, new_hash, Some(old_hash)).await? {
        return Err(ApiError::new(ErrorCode::AuthPasswordIncorrect, "The password was changed just now"));
    }
    let live = sessions::revoke_all(&mut tx, user, "password_change", Some(session.sid), now).await?;
    attempts::clear(&mut tx, &email_hash(email)).await?;
    mail::enqueue(&mut tx, Some(user), email, Template::PasswordChanged, &json!({})).await?;
    let entry = Entry::new(Action::AuthPasswordChanged, "user").by(user).on(user).from(origin);
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(live)
}
