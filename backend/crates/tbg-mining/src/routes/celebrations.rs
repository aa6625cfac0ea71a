//! Blocks of the caller that wait to be celebrated (contract `mining.md` §7, 19–20).

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tbg_web::{ApiError, Caller, ErrorCode, OptionalBody, Routes};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::blocks::btc;
use crate::Mining;
use crate::store::block_reads as store;

const AT_MOST: i64 = 100;

/// A block that waits to be celebrated.
#[derive(Serialize, ToSchema)]
struct BlockCelebration {
    celebration_id: i64,
    block_id: i64,
    block_height: i32,
    /// Empty while it is unknown.
    block_hash: String,
    /// 0 while it is unknown.
    reward_btc: f64,
    found_at: DateTime<Utc>,
}

/// Celebrations that wait.
#[derive(Serialize, ToSchema)]
struct PendingCelebrations {
    /// Oldest block first, a hundred at most.
    celebrations: Vec<BlockCelebration>,
}

/// Nothing to say.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Acknowledge {}

/// It was celebrated.
#[derive(Serialize, ToSchema)]
struct Acknowledged {
    /// Always `acknowledged`.
    #[schema(value_type = String)]
    status: &'static str,
}

/// The routes of celebrations.
pub(crate) fn routes() -> Routes<Mining> {
    Routes::new().user(routes!(pending)).user(routes!(acknowledge))
}

/// Celebrations that wait
#[utoipa::path(
    get,
    path = "/api/v1/mining/celebrations/pending",
    tag = "mining",
    responses((status = 200, description = "Oldest block first", body = PendingCelebrations))
)]
async fn pending(
    State(mining): State<Mining>,
    caller: Caller,
) -> Result<Json<PendingCelebrations>, ApiError> {
    let mut conn = mining.pool.acquire().await?;
    let rows = store::pending(&mut conn, caller.user_id, AT_MOST).await?;
    let celebrations = rows
        .into_iter()
        .map(|row| BlockCelebration {
            celebration_id: row.celebration_id,
            block_id: row.block_id,
            block_height: row.block_height,
            block_hash: row.block_hash.unwrap_or_default(),
            reward_btc: row.reward_sats.map_or(0.0, btc),
            found_at: row.found_at,
        })
        .collect();
    Ok(Json(PendingCelebrations { celebrations }))
}

/// Acknowledge a celebration
///
/// Works once; the body may be left out.
#[utoipa::path(
    post,
    path = "/api/v1/mining/celebrations/{id}/ack",
    tag = "mining",
    params(("id" = i64, Path, description = "Celebration")),
    request_body = Acknowledge,
    extensions(("x-optional-body" = json!(true))),
    responses(
        (status = 200, description = "It will not come again", body = Acknowledged),
        (status = 404, description = "None of the caller's that waits", body = tbg_web::ErrorBody),
    )
)]
async fn acknowledge(
    State(mining): State<Mining>,
    caller: Caller,
    id: Result<Path<i64>, PathRejection>,
    OptionalBody(Acknowledge {}): OptionalBody<Acknowledge>,
) -> Result<Json<Acknowledged>, ApiError> {
    let not_found =
        || ApiError::new(ErrorCode::CelebrationNotFound, "Celebration not found or already acknowledged");
    let Path(id) = id.map_err(|_| not_found())?;
    let mut conn = mining.pool.acquire().await?;
    if store::acknowledge(&mut conn, caller.user_id, id, mining.clock.now()).await? {
        Ok(Json(Acknowledged { status: "acknowledged" }))
    } else {
        Err(not_found())
    }
}
