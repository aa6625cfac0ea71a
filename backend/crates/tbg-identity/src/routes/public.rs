//! What anybody may look up by address (contract `auth-users.md` §6.4). An address that is malformed,
//! unknown, banned, deleted or hidden gives the same answer.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tbg_bitcoin::BtcAddress;
use tbg_core::progress::live_streak;
use tbg_web::{ApiError, ErrorCode, Routes};
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::Identity;
use crate::store::public;

/// A user in public.
#[derive(Serialize, ToSchema)]
pub(crate) struct PublicUser {
    btc_address: String,
    display_name: Option<String>,
    /// ISO 3166-1 alpha-2; null where the user hides it.
    country_code: Option<String>,
    avatar_url: Option<String>,
    bio: Option<String>,
    /// Whether the user proved control of the address.
    is_verified: bool,
    created_at: DateTime<Utc>,
}

/// Public numbers of a user.
#[derive(Serialize, ToSchema)]
pub(crate) struct PublicStats {
    /// The best share ever.
    best_difficulty: f64,
    /// Accepted shares.
    total_shares: i64,
    blocks_found: i64,
    /// Weeks in a row.
    current_streak: i64,
    /// Slugs of the badges.
    badges: Vec<String>,
}

/// The routes of this module.
pub(crate) fn routes() -> Routes<Identity> {
    Routes::new().public(routes!(public_user)).public(routes!(public_stats))
}

/// Looks a user up by address
#[utoipa::path(
    get,
    path = "/api/v1/users/{address}",
    tag = "users",
    params(("address" = String, Path, description = "A mining address")),
    responses(
        (status = 200, description = "The user", body = PublicUser),
        (status = 404, description = "No such user, or not a public one", body = tbg_web::ErrorBody),
    )
)]
pub(crate) async fn public_user(
    State(identity): State<Identity>,
    address: Result<Path<String>, PathRejection>,
) -> Result<Json<PublicUser>, ApiError> {
    let address = shown(&identity, address)?;
    let mut conn = identity.pool.acquire().await?;
    let row = public::user(&mut conn, address.as_str()).await?.ok_or_else(no_such_user)?;
    Ok(Json(PublicUser {
        btc_address: row.btc_address,
        display_name: row.display_name,
        country_code: row.country_code,
        avatar_url: row.avatar_url,
        bio: row.bio,
        is_verified: row.is_verified,
        created_at: row.created_at,
    }))
}

/// Looks a user's numbers up by address
#[utoipa::path(
    get,
    path = "/api/v1/users/{address}/stats",
    tag = "users",
    params(("address" = String, Path, description = "A mining address")),
    responses(
        (status = 200, description = "The numbers", body = PublicStats),
        (status = 404, description = "No such user, or not a public one", body = tbg_web::ErrorBody),
    )
)]
pub(crate) async fn public_stats(
    State(identity): State<Identity>,
    address: Result<Path<String>, PathRejection>,
) -> Result<Json<PublicStats>, ApiError> {
    let address = shown(&identity, address)?;
    let mut conn = identity.pool.acquire().await?;
    let row = public::stats(&mut conn, address.as_str()).await?.ok_or_else(no_such_user)?;
    let (last, now) = (row.last_active_week.as_deref(), identity.clock.now());
    Ok(Json(PublicStats {
        best_difficulty: row.best_difficulty,
        total_shares: row.total_shares,
        blocks_found: row.blocks_found.into(),
        current_streak: live_streak(row.current_streak, row.freezes, last, now).current.into(),
        badges: row.badges,
    }))
}

/// The address in its normal form; a path that is none, even one that is not UTF-8, is an unknown user.
fn shown(identity: &Identity, address: Result<Path<String>, PathRejection>) -> Result<BtcAddress, ApiError> {
    let Ok(Path(text)) = address else { return Err(no_such_user()) };
    BtcAddress::parse(&text, identity.config.network).map_err(|_| no_such_user())
}

fn no_such_user() -> ApiError {
    ApiError::new(ErrorCode::UserNotFound, "User not found")
}
