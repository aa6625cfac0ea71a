//! What waits to be celebrated, until any device has done so.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tbg_web::{ApiError, Caller, ErrorCode, OptionalBody, Routes};
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::{Game, store};

const AT_MOST: i64 = 100;

/// A level that waits to be celebrated.
#[derive(Serialize, ToSchema)]
struct LevelCelebration {
    celebration_id: i64,
    old_level: i32,
    new_level: i32,
    new_title: String,
    created_at: DateTime<Utc>,
}

/// Levels that wait.
#[derive(Serialize, ToSchema)]
struct LevelCelebrations {
    /// Oldest first, a hundred at most.
    celebrations: Vec<LevelCelebration>,
}

/// A milestone that waits to be celebrated.
#[derive(Serialize, ToSchema)]
struct StreakCelebration {
    celebration_id: i64,
    streak_weeks: i32,
    milestone: String,
    created_at: DateTime<Utc>,
}

/// Milestones that wait.
#[derive(Serialize, ToSchema)]
struct StreakCelebrations {
    /// Oldest first, a hundred at most.
    celebrations: Vec<StreakCelebration>,
}

/// Nothing to say.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = AcknowledgeAward)]
#[serde(deny_unknown_fields)]
struct Acknowledge {}

/// It was celebrated.
#[derive(Serialize, ToSchema)]
#[schema(as = AwardAcknowledged)]
struct Acknowledged {
    /// Always `acknowledged`.
    #[schema(value_type = String)]
    status: &'static str,
}

/// The routes of celebrations.
pub(crate) fn routes() -> Routes<Game> {
    Routes::new()
        .user(routes!(levels))
        .user(routes!(acknowledge_level))
        .user(routes!(milestones))
        .user(routes!(acknowledge_milestone))
}

/// Levels that wait to be celebrated
#[utoipa::path(get, path = "/api/v1/users/me/level-ups/pending", tag = "gamification",
    responses((status = 200, description = "Oldest first", body = LevelCelebrations)))]
async fn levels(State(game): State<Game>, caller: Caller) -> Result<Json<LevelCelebrations>, ApiError> {
    let rows = store::pending_levels(&game.pool, caller.user_id, AT_MOST).await?;
    let celebrations = rows
        .into_iter()
        .map(|row| LevelCelebration {
            celebration_id: row.id,
            old_level: row.old_level,
            new_level: row.new_level,
            new_title: row.new_title,
            created_at: row.created_at,
        })
        .collect();
    Ok(Json(LevelCelebrations { celebrations }))
}

/// Milestones that wait to be celebrated
#[utoipa::path(get, path = "/api/v1/users/me/streak-milestones/pending", tag = "gamification",
    responses((status = 200, description = "Oldest first", body = StreakCelebrations)))]
async fn milestones(State(game): State<Game>, caller: Caller) -> Result<Json<StreakCelebrations>, ApiError> {
    let rows = store::pending_milestones(&game.pool, caller.user_id, AT_MOST).await?;
    let celebrations = rows
        .into_iter()
        .map(|row| StreakCelebration {
            celebration_id: row.id,
            streak_weeks: row.streak_weeks,
            milestone: row.milestone,
            created_at: row.created_at,
        })
        .collect();
    Ok(Json(StreakCelebrations { celebrations }))
}

/// Acknowledge a level
///
/// Works once; the body may be left out.
#[utoipa::path(post, path = "/api/v1/users/me/level-ups/{celebration_id}/ack", tag = "gamification",
    params(("celebration_id" = i64, Path, description = "Celebration")),
    request_body = Acknowledge, extensions(("x-optional-body" = json!(true))),
    responses((status = 200, description = "It will not come again", body = Acknowledged),
              (status = 404, description = "None of the caller's that waits", body = tbg_web::ErrorBody)))]
async fn acknowledge_level(
    State(game): State<Game>,
    caller: Caller,
    id: Result<Path<i64>, PathRejection>,
    OptionalBody(Acknowledge {}): OptionalBody<Acknowledge>,
) -> Result<Json<Acknowledged>, ApiError> {
    let id = parse(id)?;
    answer(store::acknowledge_level(&game.pool, caller.user_id, id, game.clock.now()).await?)
}

/// Acknowledge a milestone
///
/// Works once; the body may be left out.
#[utoipa::path(post, path = "/api/v1/users/me/streak-milestones/{celebration_id}/ack", tag = "gamification",
    params(("celebration_id" = i64, Path, description = "Celebration")),
    request_body = Acknowledge, extensions(("x-optional-body" = json!(true))),
    responses((status = 200, description = "It will not come again", body = Acknowledged),
              (status = 404, description = "None of the caller's that waits", body = tbg_web::ErrorBody)))]
async fn acknowledge_milestone(
    State(game): State<Game>,
    caller: Caller,
    id: Result<Path<i64>, PathRejection>,
    OptionalBody(Acknowledge {}): OptionalBody<Acknowledge>,
) -> Result<Json<Acknowledged>, ApiError> {
    let id = parse(id)?;
    answer(store::acknowledge_milestone(&game.pool, caller.user_id, id, game.clock.now()).await?)
}

fn parse(id: Result<Path<i64>, PathRejection>) -> Result<i64, ApiError> {
    use tbg_web::{FieldError, FieldErrorKind};
    id.map(|Path(id)| id).map_err(|_| {
        let error = FieldError::new("path.celebration_id", FieldErrorKind::TypeError, "Must be an integer");
        ApiError::validation([error])
    })
}

fn answer(is_done: bool) -> Result<Json<Acknowledged>, ApiError> {
    if is_done {
        Ok(Json(Acknowledged { status: "acknowledged" }))
    } else {
        let words = "Celebration not found or already acknowledged";
        Err(ApiError::new(ErrorCode::CelebrationNotFound, words))
    }
}
