//! Everything of the caller's game at once, and the parts that others reuse.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use tbg_core::UserId;
use tbg_core::period::IsoWeek;
use tbg_core::progress::{level_of, live_streak};
use tbg_web::{ApiError, Caller, ErrorCode, Routes};
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::Game;
use crate::store::StateRow;

/// Experience and level.
#[derive(Serialize, ToSchema)]
pub(crate) struct Xp {
    total_xp: i64,
    level: i32,
    #[schema(value_type = String)]
    level_title: &'static str,
    xp_into_level: i64,
    xp_for_level: i64,
    next_level: i32,
    #[schema(value_type = String)]
    next_title: &'static str,
}

/// The streak as it is now.
#[derive(Serialize, ToSchema)]
pub(crate) struct Streak {
    current_streak: i32,
    longest_streak: i32,
    #[schema(required, value_type = Option<String>, format = "date")]
    streak_start_date: Option<NaiveDate>,
    #[schema(required)]
    last_active_week: Option<String>,
    is_active_this_week: bool,
    /// Always equal to `current_streak`.
    effective_streak: i32,
    freezes_available: i16,
    days_active_this_week: u32,
    #[schema(required)]
    expires_at: Option<DateTime<Utc>>,
}

/// Badges in two numbers.
#[derive(Serialize, ToSchema)]
struct BadgeCount {
    earned: i32,
    total: i64,
}

/// Sums of mining, as far as they count here.
#[derive(Serialize, ToSchema)]
#[schema(as = GameStats)]
struct Stats {
    total_shares: i64,
    blocks_found: i32,
    best_difficulty: f64,
}

/// The game of a user.
#[derive(Serialize, ToSchema)]
struct GameState {
    xp: Xp,
    streak: Streak,
    badges: BadgeCount,
    stats: Stats,
}

impl Xp {
    pub(crate) fn of(total_xp: i64) -> Self {
        let level = level_of(total_xp);
        Self {
            total_xp,
            level: level.level,
            level_title: level.title,
            xp_into_level: level.xp_into_level,
            xp_for_level: level.xp_for_level,
            next_level: level.next_level,
            next_title: level.next_title,
        }
    }
}

impl Streak {
    pub(crate) fn of(row: &StateRow, now: DateTime<Utc>) -> Self {
        let live = live_streak(row.current_streak, row.freezes, row.last_active_week.as_deref(), now);
        Self {
            current_streak: live.current,
            longest_streak: row.longest_streak,
            streak_start_date: row.streak_start_date.filter(|_| live.current > 0),
            last_active_week: row.last_active_week.clone(),
            is_active_this_week: live.is_active_this_week,
            effective_streak: live.current,
            freezes_available: live.freezes,
            days_active_this_week: row.active_days.count_ones(),
            expires_at: live.expires_at,
        }
    }
}

/// The caller's row.
pub(crate) async fn row(game: &Game, user: UserId) -> Result<StateRow, ApiError> {
    let week = IsoWeek::of(game.clock.now());
    game.states
        .ask((user, week))
        .await?
        .ok_or_else(|| ApiError::new(ErrorCode::UserNotFound, "User not found"))
}

/// The routes of the state.
pub(crate) fn routes() -> Routes<Game> {
    Routes::new().user(routes!(state)).user(routes!(state_alias))
}

/// My game
#[utoipa::path(get, path = "/api/v1/users/me/gamification", tag = "gamification",
    responses((status = 200, description = "Experience, streak, badges, sums", body = GameState)))]
async fn state(State(game): State<Game>, caller: Caller) -> Result<Json<GameState>, ApiError> {
    let row = row(&game, caller.user_id).await?;
    Ok(Json(GameState {
        xp: Xp::of(row.total_xp),
        streak: Streak::of(&row, game.clock.now()),
        badges: BadgeCount { earned: row.badges_earned, total: row.badges_total },
        stats: Stats {
            total_shares: row.total_shares,
            blocks_found: row.blocks_found,
            best_difficulty: row.best_difficulty,
        },
    }))
}

/// My game (alias)
#[utoipa::path(get, path = "/api/v1/gamification/state", tag = "gamification",
    responses((status = 200, description = "Experience, streak, badges, sums", body = GameState)))]
async fn state_alias(game: State<Game>, caller: Caller) -> Result<Json<GameState>, ApiError> {
    state(game, caller).await
}
