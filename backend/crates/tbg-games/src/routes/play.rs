//! Playing, and what was played.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tbg_core::outbox::{self, DomainEvent};
use tbg_core::period::IsoWeek;
use tbg_web::cursor::{self, Micros};
use tbg_web::{
    ApiError, Body, Caller, ErrorCode, FieldError, FieldErrorKind, Int, Page, Query, Routes, Text,
};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::rules::games::Game;
use crate::rules::week::{game_seed, parse_week, seed};
use crate::store::{self, Play};
use crate::{Games, metrics};

const METADATA_MAX_BYTES: usize = 4096;
const METADATA_MAX_LEVELS: usize = 4;
/// More do not fit into the bytes.
const METADATA_MAX_PROPERTIES: usize = METADATA_MAX_BYTES / 4;
const PER_PAGE: i64 = 10;
const DEFAULT_LIMIT: i64 = 20;

/// A play.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PlayRequest {
    /// Any of the game's names.
    #[schema(value_type = String, min_length = 1, max_length = 32)]
    game_type: Text<1, 32>,
    /// What the client likes to keep: an object of at most 4096 bytes and four levels.
    #[schema(schema_with = free_object)]
    metadata: Option<Value>,
    /// Another name of `metadata`.
    #[schema(schema_with = free_object)]
    result_data: Option<Value>,
    /// The current week unless given.
    #[serde(default, deserialize_with = "tbg_web::present")]
    #[schema(value_type = Option<String>, nullable = false, min_length = 0, max_length = 10)]
    week_iso: Option<Text<0, 10>>,
    /// Whether it was shared; once true, it stays so.
    #[serde(default, deserialize_with = "tbg_web::present")]
    #[schema(nullable = false)]
    shared: Option<bool>,
}

/// An object of the client's own, or nothing.
fn free_object() -> utoipa::openapi::schema::Object {
    use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .max_properties(Some(METADATA_MAX_PROPERTIES))
        .build()
}

/// A session after a play.
#[derive(Serialize, ToSchema)]
struct PlayResponse {
    session_id: i64,
    #[schema(value_type = String)]
    game_type: &'static str,
    week_iso: String,
    first_play: bool,
    plays: i32,
    /// Always 0: playing pays nothing.
    xp_awarded: i32,
    seed: String,
}

/// A past week of the caller.
#[derive(Serialize, ToSchema)]
struct PastWeek {
    week_iso: String,
    week_start: DateTime<Utc>,
    week_end: DateTime<Utc>,
    best_difficulty: f64,
    weekly_rank: i32,
    percentile: f64,
    total_participants: i32,
    xp_awarded: i32,
    /// The game that was played last, or `none`.
    #[schema(value_type = String)]
    game_played: &'static str,
}

/// Past weeks.
#[derive(Serialize, ToSchema)]
struct History {
    /// Newest first.
    weeks: Vec<PastWeek>,
    total: i64,
    page: i64,
    per_page: i64,
}

/// Which page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct HistoryQuery {
    /// 1 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1000)]
    page: Option<Int<1, 1000>>,
    /// 10 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 50)]
    per_page: Option<Int<1, 50>>,
}

/// A session.
#[derive(Serialize, ToSchema)]
struct Session {
    id: i64,
    game_type: String,
    week_iso: String,
    played_at: DateTime<Utc>,
    last_played_at: DateTime<Utc>,
    plays: i32,
    #[schema(value_type = Object)]
    metadata: Value,
    shared: bool,
}

/// Which sessions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SessionsQuery {
    /// 20 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    limit: Option<Int<1, 100>>,
    /// Where the page before ended.
    #[param(value_type = Option<String>, min_length = 0, max_length = 200)]
    cursor: Option<Text<0, 200>>,
    /// One game only, by any of its names.
    #[param(value_type = Option<String>, min_length = 0, max_length = 32)]
    game_type: Option<Text<0, 32>>,
}

/// The routes of playing.
pub(super) fn routes() -> Routes<Games> {
    Routes::new().user(routes!(play)).user(routes!(history)).user(routes!(sessions))
}

/// Play a game
///
/// Counts once per game and week; playing again adds to the same session.
#[utoipa::path(post, path = "/api/v1/games/play", tag = "games", request_body = PlayRequest,
    responses((status = 200, description = "The session", body = PlayResponse),
              (status = 400, description = "No such game", body = tbg_web::ErrorBody),
              (status = 409, description = "Not a week that can be played", body = tbg_web::ErrorBody)))]
async fn play(
    State(games): State<Games>,
    caller: Caller,
    Body(request): Body<PlayRequest>,
) -> Result<Json<PlayResponse>, ApiError> {
    let game = game_of(request.game_type.as_str())?;
    let metadata = metadata_of(request.metadata, request.result_data)?;
    let now = games.clock.now();
    let current = IsoWeek::of(now);
    let week = match &request.week_iso {
        None => current,
        Some(text) => parse_week(text.as_str()).ok_or_else(not_playable)?,
    };
    // The rank of now, of a week that runs; that of the draw, of one that is over.
    let rank = if week == current {
        let place = games.current.ask((caller.user_id, week)).await?;
        place.and_then(|(_, standing)| i32::try_from(standing.rank).ok())
    } else {
        let rank = store::result_of(&games.pool, caller.user_id, week.monday()).await?;
        Some(rank.ok_or_else(not_playable)?)
    };
    let week_iso = week.to_string();
    let play = Play {
        user: caller.user_id,
        game: game.stored(),
        week_iso: &week_iso,
        week_start: week.monday(),
        metadata: &metadata,
        shared: request.shared.unwrap_or(false),
        now,
    };
    let mut tx = games.pool.begin().await?;
    let gone = || ApiError::new(ErrorCode::AuthTokenRevoked, "Session has ended");
    let played = store::play(&mut tx, &play).await?.ok_or_else(gone)?;
    if played.is_first {
        let event = DomainEvent::GamePlayed {
            user_id: caller.user_id,
            session_id: played.id,
            game_type: game.stored().into(),
            week_iso: week_iso.clone(),
            weekly_rank: rank.unwrap_or(0),
        };
        outbox::write(&mut tx, &[event]).await?;
    }
    tx.commit().await?;
    if played.is_first {
        metrics::first_play(game.stored());
    }
    Ok(Json(PlayResponse {
        session_id: played.id,
        game_type: game.stored(),
        seed: game_seed(&seed(week, caller.user_id.0), game),
        week_iso,
        first_play: played.is_first,
        plays: played.plays,
        xp_awarded: 0,
    }))
}

fn game_of(name: &str) -> Result<Game, ApiError> {
    Game::of_name(name).ok_or_else(|| {
        let words = "Invalid game_type: expected hammer, horse_race, slot_machine or scratch_card";
        ApiError::new(ErrorCode::InvalidGameType, words)
    })
}

fn not_playable() -> ApiError {
    ApiError::new(ErrorCode::WeekNotPlayable, "This week cannot be played")
}

/// What is kept of a play; an empty object without any.
fn metadata_of(metadata: Option<Value>, result_data: Option<Value>) -> Result<Value, ApiError> {
    let invalid =
        |kind, words: &'static str| ApiError::validation([FieldError::new("body.metadata", kind, words)]);
    let value = match (metadata, result_data) {
        (Some(_), Some(_)) => {
            return Err(invalid(FieldErrorKind::ExtraForbidden, "Send metadata or result_data, not both"));
        }
        (Some(value), None) | (None, Some(value)) => value,
        (None, None) => return Ok(json!({})),
    };
    if !value.is_object() {
        return Err(invalid(FieldErrorKind::TypeError, "Must be an object"));
    }
    if value.to_string().len() > METADATA_MAX_BYTES {
        return Err(invalid(FieldErrorKind::StringTooLong, "Must be at most 4096 bytes of JSON"));
    }
    if depth(&value) > METADATA_MAX_LEVELS {
        return Err(invalid(FieldErrorKind::OutOfRange, "Must have at most 4 levels"));
    }
    if has_nul(&value) {
        return Err(invalid(FieldErrorKind::ControlCharacters, "Must not contain NUL characters"));
    }
    Ok(value)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// PostgreSQL keeps no NUL in JSON.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// My past weeks
#[utoipa::path(get, path = "/api/v1/games/history", tag = "games", params(HistoryQuery),
    responses((status = 200, description = "Newest first", body = History)))]
async fn history(
    State(games): State<Games>,
    caller: Caller,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<History>, ApiError> {
    let (page, per_page) = (query.page.map_or(1, Int::get), query.per_page.map_or(PER_PAGE, Int::get));
    let (rows, total) = store::history(&games.pool, caller.user_id, (page - 1) * per_page, per_page).await?;
    let weeks = rows
        .into_iter()
        .map(|row| {
            let start = row.week_start.and_time(NaiveTime::MIN).and_utc();
            PastWeek {
                week_iso: row.week_iso,
                week_start: start,
                week_end: start + TimeDelta::days(7) - TimeDelta::seconds(1),
                best_difficulty: row.best_difficulty,
                weekly_rank: row.rank,
                percentile: row.percentile,
                total_participants: row.participants,
                xp_awarded: row.xp,
                game_played: row.game.as_deref().and_then(Game::of_name).map_or("none", Game::dashboard),
            }
        })
        .collect();
    Ok(Json(History { weeks, total, page, per_page }))
}

/// My sessions
///
/// The last played first.
#[utoipa::path(get, path = "/api/v1/games/sessions", tag = "games", params(SessionsQuery),
    responses((status = 200, description = "A page", body = Page<Session>),
              (status = 400, description = "No such game, or not a cursor of this list", body = tbg_web::ErrorBody)))]
async fn sessions(
    State(games): State<Games>,
    caller: Caller,
    Query(query): Query<SessionsQuery>,
) -> Result<Json<Page<Session>>, ApiError> {
    let limit = query.limit.map_or(DEFAULT_LIMIT, Int::get);
    let game = query.game_type.as_ref().map(|name| game_of(name.as_str())).transpose()?;
    let after: Option<(Micros, i64)> =
        query.cursor.as_ref().map(|cursor| cursor::decode(cursor.as_str())).transpose()?;
    let after = after.map(|(Micros(time), id)| (time, id));
    let rows = store::sessions(&games.pool, caller.user_id, game.map(Game::stored), after, limit + 1).await?;
    let page = Page::of(rows, limit, |row| (Micros(row.last_played_at), row.id));
    Ok(Json(page.map(|row| Session {
        id: row.id,
        game_type: row.game_type,
        week_iso: row.week_iso,
        played_at: row.played_at,
        last_played_at: row.last_played_at,
        plays: row.plays,
        metadata: row.metadata,
        shared: row.shared,
    })))
}
