//! The caller's streak and calendar.

use axum::Json;
use axum::extract::State;
use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use tbg_core::period::IsoWeek;
use tbg_core::progress::live_streak;
use tbg_web::{ApiError, Caller, Int, Query, Routes};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::state::{self, Streak};
use crate::{Game, store};

const WEEKS: i64 = 52;

/// An active or frozen week.
#[derive(Serialize, ToSchema)]
struct CalendarWeek {
    week_iso: String,
    #[schema(value_type = String, format = "date")]
    week_start: NaiveDate,
    share_count: i64,
    best_diff: f64,
    is_active: bool,
    is_frozen: bool,
    days_active: u32,
}

/// The caller's weeks.
#[derive(Serialize, ToSchema)]
struct Calendar {
    /// Newest first.
    weeks: Vec<CalendarWeek>,
}

/// How many weeks back.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct CalendarQuery {
    /// 52 unless given; the current week included.
    #[param(value_type = Option<i64>, minimum = 4, maximum = 104)]
    weeks: Option<Int<4, 104>>,
}

/// The routes of the streak.
pub(crate) fn routes() -> Routes<Game> {
    Routes::new()
        .user(routes!(streak))
        .user(routes!(streak_alias))
        .user(routes!(calendar))
        .user(routes!(calendar_alias))
}

/// My streak
#[utoipa::path(get, path = "/api/v1/users/me/streak", tag = "gamification",
    responses((status = 200, description = "As it is now", body = Streak)))]
async fn streak(State(game): State<Game>, caller: Caller) -> Result<Json<Streak>, ApiError> {
    let row = state::row(&game, caller.user_id).await?;
    Ok(Json(Streak::of(&row, game.clock.now())))
}

/// My streak (alias)
#[utoipa::path(get, path = "/api/v1/gamification/streak", tag = "gamification",
    responses((status = 200, description = "As it is now", body = Streak)))]
async fn streak_alias(game: State<Game>, caller: Caller) -> Result<Json<Streak>, ApiError> {
    streak(game, caller).await
}

/// My calendar
#[utoipa::path(get, path = "/api/v1/users/me/streak/calendar", tag = "gamification", params(CalendarQuery),
    responses((status = 200, description = "Active and frozen weeks, newest first", body = Calendar)))]
async fn calendar(
    State(game): State<Game>,
    caller: Caller,
    Query(query): Query<CalendarQuery>,
) -> Result<Json<Calendar>, ApiError> {
    let now = game.clock.now();
    let back = u32::try_from(query.weeks.map_or(WEEKS, Int::get) - 1).unwrap_or(0);
    let since = IsoWeek::of(now).minus(back);
    let rows = store::calendar(&game.pool, caller.user_id, &since.to_string()).await?;
    let mut weeks: Vec<CalendarWeek> = rows
        .weeks
        .into_iter()
        .filter_map(|row| {
            Some(CalendarWeek {
                week_start: IsoWeek::parse(&row.week_iso)?.monday(),
                week_iso: row.week_iso,
                share_count: row.share_count,
                best_diff: row.best_diff,
                is_active: row.is_active,
                is_frozen: row.is_frozen,
                days_active: row.active_days.count_ones(),
            })
        })
        .collect();
    // Weeks that freezes were spent on since the last active one have no row yet.
    let live = live_streak(rows.current_streak, rows.freezes, rows.last_active_week.as_deref(), now);
    if let Some(last) = rows.last_active_week.as_deref().and_then(IsoWeek::parse) {
        for ahead in 1..=live.frozen {
            let week = last.plus(ahead);
            if week >= since && !weeks.iter().any(|known| known.week_start == week.monday()) {
                weeks.push(frozen(week));
            }
        }
    }
    weeks.sort_by_key(|week| std::cmp::Reverse(week.week_start));
    Ok(Json(Calendar { weeks }))
}

/// My calendar (alias)
#[utoipa::path(get, path = "/api/v1/gamification/streak/calendar", tag = "gamification", params(CalendarQuery),
    responses((status = 200, description = "Active and frozen weeks, newest first", body = Calendar)))]
async fn calendar_alias(
    game: State<Game>,
    caller: Caller,
    query: Query<CalendarQuery>,
) -> Result<Json<Calendar>, ApiError> {
    calendar(game, caller, query).await
}

fn frozen(week: IsoWeek) -> CalendarWeek {
    CalendarWeek {
        week_iso: week.to_string(),
        week_start: week.monday(),
        share_count: 0,
        best_diff: 0.0,
        is_active: false,
        is_frozen: true,
        days_active: 0,
    }
}
