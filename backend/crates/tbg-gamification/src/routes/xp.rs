//! The caller's experience: sum, ledger, sources.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tbg_core::UserId;
use tbg_core::progress::LEVELS;
use tbg_web::{ApiError, Caller, Int, Query, Routes};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::state::{self, Xp};
use crate::{Game, store};

const PER_PAGE: i64 = 50;
const SUMMARY_TTL_SECONDS: u64 = 60;

/// A level that was reached.
#[derive(Serialize, ToSchema)]
struct LevelReached {
    level: i32,
    #[schema(value_type = String)]
    title: &'static str,
    reached_at: DateTime<Utc>,
}

/// Experience, level, and when levels were reached.
#[derive(Serialize, ToSchema)]
struct XpDetail {
    #[serde(flatten)]
    xp: Xp,
    levels_reached: Vec<LevelReached>,
}

/// A line of the ledger.
#[derive(Serialize, ToSchema)]
struct XpEntry {
    amount: i32,
    source: String,
    source_id: String,
    description: String,
    created_at: DateTime<Utc>,
}

/// A page of the ledger.
#[derive(Serialize, ToSchema)]
struct XpHistory {
    /// Newest first.
    entries: Vec<XpEntry>,
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
    /// 50 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    per_page: Option<Int<1, 100>>,
}

/// What a source gave.
#[derive(Serialize, Deserialize, ToSchema)]
struct SourceSum {
    source: String,
    amount: i64,
    entries: i64,
}

/// Where experience came from.
#[derive(Serialize, Deserialize, ToSchema)]
struct XpSummary {
    total_xp: i64,
    /// The largest first.
    by_source: Vec<SourceSum>,
}

/// The routes of experience.
pub(crate) fn routes() -> Routes<Game> {
    Routes::new()
        .user(routes!(xp))
        .user(routes!(xp_alias))
        .user(routes!(history))
        .user(routes!(history_alias))
        .user(routes!(summary))
}

/// My experience
#[utoipa::path(get, path = "/api/v1/users/me/xp", tag = "gamification",
    responses((status = 200, description = "Sum and level", body = XpDetail)))]
async fn xp(State(game): State<Game>, caller: Caller) -> Result<Json<XpDetail>, ApiError> {
    let row = state::row(&game, caller.user_id).await?;
    let title = |level: i32| LEVELS.iter().find(|(of, ..)| *of == level).map_or("", |(_, title, _)| title);
    let first = LevelReached { level: 1, title: title(1), reached_at: row.created_at };
    let later = row.levels.iter().zip(&row.reached).map(|(level, at)| LevelReached {
        level: *level,
        title: title(*level),
        reached_at: *at,
    });
    let levels_reached = std::iter::once(first).chain(later).collect();
    Ok(Json(XpDetail { xp: Xp::of(row.total_xp), levels_reached }))
}

/// My experience (alias)
#[utoipa::path(get, path = "/api/v1/gamification/xp", tag = "gamification",
    responses((status = 200, description = "Sum and level", body = XpDetail)))]
async fn xp_alias(game: State<Game>, caller: Caller) -> Result<Json<XpDetail>, ApiError> {
    xp(game, caller).await
}

/// My ledger
#[utoipa::path(get, path = "/api/v1/users/me/xp/history", tag = "gamification", params(HistoryQuery),
    responses((status = 200, description = "Newest first", body = XpHistory)))]
async fn history(
    State(game): State<Game>,
    caller: Caller,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<XpHistory>, ApiError> {
    let (page, per_page) = (query.page.map_or(1, Int::get), query.per_page.map_or(PER_PAGE, Int::get));
    let total = store::entries(&game.pool, caller.user_id).await?;
    let rows = store::history(&game.pool, caller.user_id, (page - 1) * per_page, per_page).await?;
    let entries = rows
        .into_iter()
        .map(|row| XpEntry {
            amount: row.amount,
            source: row.source,
            source_id: row.source_id,
            description: row.description,
            created_at: row.created_at,
        })
        .collect();
    Ok(Json(XpHistory { entries, total, page, per_page }))
}

/// My ledger (alias)
#[utoipa::path(get, path = "/api/v1/gamification/xp/history", tag = "gamification", params(HistoryQuery),
    responses((status = 200, description = "Newest first", body = XpHistory)))]
async fn history_alias(
    game: State<Game>,
    caller: Caller,
    query: Query<HistoryQuery>,
) -> Result<Json<XpHistory>, ApiError> {
    history(game, caller, query).await
}

/// Where my experience came from
///
/// A minute old at most.
#[utoipa::path(get, path = "/api/v1/gamification/xp/summary", tag = "gamification",
    responses((status = 200, description = "The largest source first", body = XpSummary)))]
async fn summary(State(game): State<Game>, caller: Caller) -> Result<Json<XpSummary>, ApiError> {
    if let Some(kept) = kept(&game, caller.user_id).await {
        return Ok(Json(kept));
    }
    let rows = store::by_source(&game.pool, caller.user_id).await?;
    let by_source: Vec<SourceSum> =
        rows.into_iter().map(|(source, amount, entries)| SourceSum { source, amount, entries }).collect();
    let summary = XpSummary { total_xp: by_source.iter().map(|sum| sum.amount).sum(), by_source };
    keep(&game, caller.user_id, &summary).await;
    Ok(Json(summary))
}

fn key(user: UserId) -> String {
    format!("gam:xpsum:{user}")
}

/// Redis that is away costs a query, never an answer.
async fn kept(game: &Game, user: UserId) -> Option<XpSummary> {
    let mut redis = game.redis.clone();
    let text: Option<String> = redis::cmd("GET").arg(key(user)).query_async(&mut redis).await.ok()?;
    serde_json::from_str(&text?).ok()
}

async fn keep(game: &Game, user: UserId, summary: &XpSummary) {
    let Ok(text) = serde_json::to_string(summary) else { return };
    let mut redis = game.redis.clone();
    let mut set = redis::cmd("SET");
    set.arg(key(user)).arg(text).arg("EX").arg(SUMMARY_TTL_SECONDS);
    if let Err(error) = set.query_async::<()>(&mut redis).await {
        tracing::debug!(%error, "a sum was not kept");
    }
}
