//! A week of the caller, for all four games.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tbg_core::UserId;
use tbg_core::period::IsoWeek;
use tbg_web::{ApiError, Caller, ErrorCode, FieldError, FieldErrorKind, Query, Routes, Segment, Text};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::Games;
use crate::live::Standing;
use crate::rules::games::Game;
use crate::rules::lottery::{hex, percentile};
use crate::rules::view::{DAYS, Numbers, view};
use crate::rules::week::{HashSource, derived_hash, game_seed, parse_week, seed};
use crate::store::{self, WeekRow};

/// The week in which Bitcoin began.
const FIRST_WEEK: &str = "2009-W01";

/// A block of the caller.
#[derive(Serialize, ToSchema)]
struct WeekBlock {
    height: i32,
    /// In bitcoin; 0 while it is unknown.
    reward: f64,
    /// Empty while it is unknown.
    hash: String,
}

/// A week in numbers.
#[derive(Serialize, ToSchema)]
pub(super) struct Weekly {
    week_iso: String,
    week_start: DateTime<Utc>,
    /// The last second, for display.
    week_end: DateTime<Utc>,
    /// open, processing or completed.
    status: String,
    best_difficulty: f64,
    #[schema(required)]
    best_difficulty_time: Option<DateTime<Utc>>,
    best_hash: String,
    best_hash_source: HashSource,
    network_difficulty: f64,
    progress_ratio: f64,
    /// `mon` to `sun`.
    #[schema(value_type = std::collections::BTreeMap<String, f64>)]
    daily_best_diffs: Map<String, Value>,
    total_shares: i64,
    weekly_rank: i64,
    percentile: f64,
    total_participants: i64,
    block_found: bool,
    #[schema(required)]
    block_data: Option<WeekBlock>,
    user_name: String,
    /// Games that were played.
    #[schema(value_type = Vec<String>)]
    played: Vec<&'static str>,
    seed: String,
}

/// The same for one game.
#[derive(Serialize, ToSchema)]
struct WeeklyGame {
    #[serde(flatten)]
    week: Weekly,
    #[schema(value_type = String)]
    game_type: &'static str,
    /// What the game shows.
    #[schema(value_type = Object)]
    view: Value,
    game_seed: String,
}

/// Which week.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WeekQuery {
    /// `YYYY-Www`, or a day of it; the current week unless given.
    #[param(value_type = Option<String>, min_length = 0, max_length = 10)]
    week: Option<Text<0, 10>>,
}

/// The routes of weeks.
pub(super) fn routes() -> Routes<Games> {
    Routes::new()
        .user(routes!(weekly))
        .user(routes!(weekly_alias))
        .user(routes!(weekly_game))
        .user(routes!(weekly_game_alias))
}

/// My week
#[utoipa::path(get, path = "/api/v1/games/weekly", tag = "games", params(WeekQuery),
    responses((status = 200, description = "Zeros where there is nothing", body = Weekly)))]
async fn weekly(
    State(games): State<Games>,
    caller: Caller,
    Query(query): Query<WeekQuery>,
) -> Result<Json<Weekly>, ApiError> {
    Ok(Json(load(&games, caller.user_id, &query).await?.0))
}

/// My week (alias)
#[utoipa::path(get, path = "/api/v1/games/weekly-data", tag = "games", params(WeekQuery),
    responses((status = 200, description = "Zeros where there is nothing", body = Weekly)))]
async fn weekly_alias(
    games: State<Games>,
    caller: Caller,
    query: Query<WeekQuery>,
) -> Result<Json<Weekly>, ApiError> {
    weekly(games, caller, query).await
}

/// My week in a game
#[utoipa::path(get, path = "/api/v1/games/weekly/{game}", tag = "games",
    params(("game" = String, Path, description = "Game", max_length = 32), WeekQuery),
    responses((status = 200, description = "The week and what the game shows", body = WeeklyGame),
              (status = 404, description = "No such game", body = tbg_web::ErrorBody)))]
async fn weekly_game(
    State(games): State<Games>,
    caller: Caller,
    Segment(game): Segment,
    Query(query): Query<WeekQuery>,
) -> Result<Json<WeeklyGame>, ApiError> {
    let game =
        Game::of_name(&game).ok_or_else(|| ApiError::new(ErrorCode::GameNotFound, "Game not found"))?;
    let (week, days, seed) = load(&games, caller.user_id, &query).await?;
    let numbers = Numbers {
        best: week.best_difficulty,
        network: week.network_difficulty,
        days,
        hash: &week.best_hash,
        rank: week.weekly_rank,
        percentile: week.percentile,
        block_reward: week.block_data.as_ref().map(|block| block.reward),
    };
    let view = view(game, &numbers);
    Ok(Json(WeeklyGame { game_type: game.stored(), view, game_seed: game_seed(&seed, game), week }))
}

/// My week in a game (alias)
#[utoipa::path(get, path = "/api/v1/games/weekly-data/{game}", tag = "games",
    params(("game" = String, Path, description = "Game", max_length = 32), WeekQuery),
    responses((status = 200, description = "The week and what the game shows", body = WeeklyGame),
              (status = 404, description = "No such game", body = tbg_web::ErrorBody)))]
async fn weekly_game_alias(
    games: State<Games>,
    caller: Caller,
    game: Segment,
    query: Query<WeekQuery>,
) -> Result<Json<WeeklyGame>, ApiError> {
    weekly_game(games, caller, game, query).await
}

/// The week of a query.
fn week_of(query: &WeekQuery, now: DateTime<Utc>) -> Result<IsoWeek, ApiError> {
    let current = IsoWeek::of(now);
    let Some(text) = &query.week else { return Ok(current) };
    let first = IsoWeek::parse(FIRST_WEEK).unwrap_or(current);
    parse_week(text.as_str()).filter(|week| (first..=current).contains(week)).ok_or_else(|| {
        let words = "Expected YYYY-Www, from 2009-W01 to the current week";
        ApiError::validation([FieldError::new("query.week", FieldErrorKind::PatternMismatch, words)])
    })
}

/// The week of a user with its days and its seed: one statement and one round trip to Redis.
async fn load(
    games: &Games,
    user: UserId,
    query: &WeekQuery,
) -> Result<(Weekly, [f64; 7], [u8; 32]), ApiError> {
    let now = games.clock.now();
    let week = week_of(query, now)?;
    let nobody = || ApiError::new(ErrorCode::UserNotFound, "User not found");
    let (row, standing) = if week == IsoWeek::of(now) {
        games.current.ask((user, week)).await?.ok_or_else(nobody)?
    } else {
        past(games, user, week).await?.ok_or_else(nobody)?
    };
    let is_completed = row.is_completed();
    let live = row.live();
    let (best, time, shares) = if is_completed {
        (row.frozen_best, row.frozen_time, row.frozen_shares.unwrap_or(0))
    } else {
        (live.best, live.time, live.shares)
    };
    let best_difficulty = best.unwrap_or(0.0);
    let (rank, participants, percentile) = if is_completed {
        (row.rank.unwrap_or(0).into(), row.participants.unwrap_or(0).into(), row.percentile.unwrap_or(0.0))
    } else {
        (standing.rank, standing.participants, percentile(standing.rank, standing.participants))
    };
    // Of then, which the row of a past week knows; else of now.
    let network_difficulty =
        row.network_difficulty.or(standing.network_difficulty).unwrap_or(games.unknown_network_difficulty);
    let time = time.filter(|_| best.is_some());
    let days = days(&row, week.monday(), best_difficulty, time);
    let (best_hash, best_hash_source) = hash(&row, best_difficulty);
    let start = week.monday().and_time(NaiveTime::MIN).and_utc();
    let seed = seed(week, user.0);
    let weekly = Weekly {
        week_iso: week.to_string(),
        week_start: start,
        week_end: start + TimeDelta::days(7) - TimeDelta::seconds(1),
        status: row.status.clone().unwrap_or_else(|| "open".to_owned()),
        best_difficulty,
        best_difficulty_time: time,
        best_hash,
        best_hash_source,
        network_difficulty,
        progress_ratio: if network_difficulty > 0.0 { best_difficulty / network_difficulty } else { 0.0 },
        daily_best_diffs: DAYS.iter().zip(days).map(|(day, best)| ((*day).to_owned(), best.into())).collect(),
        total_shares: shares,
        weekly_rank: rank,
        percentile,
        total_participants: participants,
        block_found: row.block_height.is_some(),
        block_data: row.block_height.map(|height| WeekBlock {
            height,
            reward: row.block_reward.unwrap_or(0.0),
            hash: row.block_hash.clone().unwrap_or_default(),
        }),
        user_name: user_name(&row),
        played: Game::ALL
            .into_iter()
            .filter(|game| row.played.iter().any(|played| played == game.stored()))
            .map(Game::dashboard)
            .collect(),
        seed: hex(&seed),
    };
    Ok((weekly, days, seed))
}

/// A week before the current one, with the place of now and the difficulty of now where they are needed.
async fn past(games: &Games, user: UserId, week: IsoWeek) -> Result<Option<(WeekRow, Standing)>, ApiError> {
    let Some(row) = store::past_week(&games.pool, user, week.monday()).await? else { return Ok(None) };
    // A draw knows where the user stands.
    let mut standing = if !row.is_completed() {
        games.ranking.standing(&games.pool, (week, user, row.live().best.unwrap_or(0.0))).await
    } else if row.network_difficulty.is_none() {
        let network_difficulty = games.ranking.network_difficulty().await;
        Standing { network_difficulty, ..Standing::default() }
    } else {
        Standing::default()
    };
    // The difficulty of now is Redis's, else the newest row.
    if row.network_difficulty.is_none() && standing.network_difficulty.is_none() {
        standing.network_difficulty = store::network_difficulty(&games.pool).await?;
    }
    Ok(Some((row, standing)))
}

/// The best of each day; the day of the week's best shows at least that.
fn days(row: &WeekRow, monday: NaiveDate, best: f64, time: Option<DateTime<Utc>>) -> [f64; 7] {
    let mut days = [0.0; 7];
    let slot = |day: NaiveDate| usize::try_from((day - monday).num_days()).ok().filter(|slot| *slot < 7);
    for (day, value) in row.days.iter().zip(&row.day_bests) {
        if let Some(slot) = slot(*day) {
            days[slot] = *value;
        }
    }
    if let Some(slot) = time.and_then(|time| slot(time.date_naive())) {
        days[slot] = days[slot].max(best);
    }
    days
}

fn hash(row: &WeekRow, best: f64) -> (String, HashSource) {
    match &row.hash {
        Some(hash) if best > 0.0 && row.hash_best == Some(best) => (hash.clone(), HashSource::Pool),
        _ if best > 0.0 => (derived_hash(best), HashSource::Derived),
        _ => (derived_hash(0.0), HashSource::None),
    }
}

fn user_name(row: &WeekRow) -> String {
    let by_address =
        || row.btc_address.as_deref().map(|address| format!("Miner-{}", &address[..address.len().min(8)]));
    row.display_name.clone().or_else(by_address).unwrap_or_else(|| "Miner".to_owned())
}
