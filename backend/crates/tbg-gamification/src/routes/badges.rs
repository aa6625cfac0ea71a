//! The catalogue, who holds a badge, and the caller's own.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use tbg_core::progress::LEVELS;
use tbg_web::{ApiError, Caller, ErrorCode, Routes, Segment};
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::Game;
use crate::store::{self, BadgeRow, EarnedRow};

const RECENT_EARNERS: i64 = 10;
const BADGES_MAX_AGE: HeaderValue = HeaderValue::from_static("public, max-age=30");
const LEVELS_MAX_AGE: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// A badge with its holders.
#[derive(Clone, Serialize, ToSchema)]
struct Badge {
    slug: String,
    name: String,
    description: String,
    category: String,
    rarity: String,
    xp_reward: i32,
    /// Distinct holders.
    total_earned: i32,
    /// Of all players.
    percentage: f64,
    #[schema(required)]
    icon_url: Option<String>,
    /// Whether it can be earned once per period.
    repeatable: bool,
}

/// The catalogue.
#[derive(Serialize, ToSchema)]
struct Badges {
    badges: Vec<Badge>,
}

/// Somebody who earned a badge.
#[derive(Serialize, ToSchema)]
#[schema(as = BadgeEarner)]
struct Earner {
    /// Public name.
    user: String,
    earned_at: DateTime<Utc>,
}

/// A badge and who earned it last.
#[derive(Serialize, ToSchema)]
struct BadgeDetail {
    #[serde(flatten)]
    badge: Badge,
    recent_earners: Vec<Earner>,
}

/// A level.
#[derive(Serialize, ToSchema)]
struct Level {
    level: i32,
    #[schema(value_type = String)]
    title: &'static str,
    /// A label; what counts is `cumulative`.
    xp_required: i64,
    /// Experience from which it holds.
    cumulative: i64,
}

/// All levels.
#[derive(Serialize, ToSchema)]
struct Levels {
    levels: Vec<Level>,
}

/// A badge of the caller.
#[derive(Serialize, ToSchema)]
struct EarnedBadge {
    slug: String,
    /// The first time.
    earned_at: DateTime<Utc>,
    /// What it was earned with; of a badge that was earned again also `timesEarned` and `lastEarned`.
    #[schema(value_type = Object)]
    metadata: Value,
}

/// The caller's badges.
#[derive(Serialize, ToSchema)]
struct EarnedBadges {
    /// One per badge, newest award first.
    earned: Vec<EarnedBadge>,
    total_available: i64,
    total_earned: usize,
}

impl From<&BadgeRow> for Badge {
    fn from(row: &BadgeRow) -> Self {
        Self {
            slug: row.slug.clone(),
            name: row.name.clone(),
            description: row.description.clone(),
            category: row.category.clone(),
            rarity: row.rarity.clone(),
            xp_reward: row.xp_reward,
            total_earned: row.total_earned,
            percentage: row.percentage,
            icon_url: row.icon_url.clone(),
            repeatable: row.repeatable,
        }
    }
}

impl From<EarnedRow> for EarnedBadge {
    fn from(row: EarnedRow) -> Self {
        let mut metadata = row.metadata;
        if row.times > 1 {
            metadata["timesEarned"] = json!(row.times.to_string());
            metadata["lastEarned"] = json!(row.last_earned_at.date_naive());
        }
        Self { slug: row.slug, earned_at: row.earned_at, metadata }
    }
}

/// The routes of badges and levels.
pub(crate) fn routes() -> Routes<Game> {
    Routes::new()
        .public(routes!(badges))
        .public(routes!(badges_alias))
        .public(routes!(badge))
        .public(routes!(badge_alias))
        .public(routes!(levels))
        .public(routes!(levels_alias))
        .user(routes!(earned))
        .user(routes!(earned_alias))
}

/// All badges
#[utoipa::path(get, path = "/api/v1/badges", tag = "gamification",
    responses((status = 200, description = "In their order", body = Badges)))]
async fn badges(State(game): State<Game>) -> Result<impl IntoResponse, ApiError> {
    let rows = rows(&game).await?;
    let badges = Badges { badges: rows.iter().map(Badge::from).collect() };
    Ok(([(CACHE_CONTROL, BADGES_MAX_AGE)], Json(badges)))
}

/// All badges (alias)
#[utoipa::path(get, path = "/api/v1/gamification/badges", tag = "gamification",
    responses((status = 200, description = "In their order", body = Badges)))]
async fn badges_alias(game: State<Game>) -> Result<impl IntoResponse, ApiError> {
    badges(game).await
}

/// A badge and who earned it last
#[utoipa::path(get, path = "/api/v1/badges/{slug}", tag = "gamification",
    params(("slug" = String, Path, description = "Slug", max_length = 64)),
    responses((status = 200, description = "The badge", body = BadgeDetail),
              (status = 404, description = "No such badge", body = tbg_web::ErrorBody)))]
async fn badge(State(game): State<Game>, Segment(slug): Segment) -> Result<impl IntoResponse, ApiError> {
    let rows = rows(&game).await?;
    let row = rows
        .iter()
        .find(|row| row.slug == slug)
        .ok_or_else(|| ApiError::new(ErrorCode::BadgeNotFound, "Badge not found"))?;
    let earners = earners(&game, row.id).await?;
    let recent_earners =
        earners.iter().map(|row| Earner { user: row.name.clone(), earned_at: row.earned_at }).collect();
    let detail = BadgeDetail { badge: Badge::from(row), recent_earners };
    Ok(([(CACHE_CONTROL, BADGES_MAX_AGE)], Json(detail)))
}

/// A badge and who earned it last (alias)
#[utoipa::path(get, path = "/api/v1/gamification/badges/{slug}", tag = "gamification",
    params(("slug" = String, Path, description = "Slug", max_length = 64)),
    responses((status = 200, description = "The badge", body = BadgeDetail),
              (status = 404, description = "No such badge", body = tbg_web::ErrorBody)))]
async fn badge_alias(game: State<Game>, slug: Segment) -> Result<impl IntoResponse, ApiError> {
    badge(game, slug).await
}

/// All levels
#[utoipa::path(get, path = "/api/v1/levels", tag = "gamification",
    responses((status = 200, description = "From the first to the last", body = Levels)))]
async fn levels() -> impl IntoResponse {
    /// Experience from the level before, as the client labels it.
    const REQUIRED: [i64; LEVELS.len()] = [
        0, 100, 500, 1_000, 2_500, 3_000, 3_500, 4_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
        1_000_000,
    ];
    let levels = LEVELS
        .iter()
        .zip(REQUIRED)
        .map(|((level, title, cumulative), xp_required)| Level {
            level: *level,
            title,
            xp_required,
            cumulative: *cumulative,
        })
        .collect();
    ([(CACHE_CONTROL, LEVELS_MAX_AGE)], Json(Levels { levels }))
}

/// All levels (alias)
#[utoipa::path(get, path = "/api/v1/gamification/levels", tag = "gamification",
    responses((status = 200, description = "From the first to the last", body = Levels)))]
async fn levels_alias() -> impl IntoResponse {
    levels().await
}

/// My badges
#[utoipa::path(get, path = "/api/v1/users/me/badges", tag = "gamification",
    responses((status = 200, description = "Newest award first", body = EarnedBadges)))]
async fn earned(State(game): State<Game>, caller: Caller) -> Result<Json<EarnedBadges>, ApiError> {
    let (rows, total_available) = store::earned(&game.pool, caller.user_id).await?;
    let earned: Vec<EarnedBadge> = rows.into_iter().map(Into::into).collect();
    Ok(Json(EarnedBadges { total_earned: earned.len(), total_available, earned }))
}

/// My badges (alias)
#[utoipa::path(get, path = "/api/v1/gamification/badges/earned", tag = "gamification",
    responses((status = 200, description = "Newest award first", body = EarnedBadges)))]
async fn earned_alias(game: State<Game>, caller: Caller) -> Result<Json<EarnedBadges>, ApiError> {
    earned(game, caller).await
}

/// The catalogue with its statistics, kept for half a minute.
async fn rows(game: &Game) -> Result<Arc<Vec<BadgeRow>>, ApiError> {
    if let Some(rows) = game.badges.get(&()) {
        return Ok(rows);
    }
    let rows = Arc::new(store::badges(&game.pool).await?);
    game.badges.insert((), Arc::clone(&rows));
    Ok(rows)
}

/// The newest earners of a badge, kept for half a minute.
async fn earners(game: &Game, badge: i32) -> Result<Arc<Vec<store::Earner>>, ApiError> {
    if let Some(earners) = game.earners.get(&badge) {
        return Ok(earners);
    }
    let earners = Arc::new(store::earners(&game.pool, badge, RECENT_EARNERS).await?);
    game.earners.insert(badge, Arc::clone(&earners));
    Ok(earners)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sqlx::PgPool;
    use tbg_core::MockClock;

    use super::*;
    use crate::Parts;

    /// A game whose database does not answer.
    fn game(caches: bool) -> Game {
        let options = "postgres://nobody@127.0.0.1:1/nothing".parse().unwrap();
        let pool = sqlx::postgres::PgPoolOptions::new().acquire_timeout(Duration::from_millis(200));
        let pool: PgPool = pool.connect_lazy_with(options);
        let client = redis::Client::open("redis://127.0.0.1:1").unwrap();
        let redis = redis::aio::ConnectionManager::new_lazy_with_config(client, Default::default()).unwrap();
        let clock = Arc::new(MockClock::at(DateTime::default()));
        Game::new(Parts { pool, redis: redis.into(), clock, caches })
    }

    fn first_share() -> BadgeRow {
        let text = || String::from("first_share");
        BadgeRow {
            id: 1,
            slug: text(),
            name: text(),
            description: text(),
            category: text(),
            rarity: text(),
            xp_reward: 50,
            repeatable: false,
            icon_url: None,
            total_earned: 1,
            percentage: 100.0,
        }
    }

    async fn ask(game: &Game) -> Result<u16, ApiError> {
        let slug = Segment("first_share".to_owned());
        badge(State(game.clone()), slug).await.map(|answer| answer.into_response().status().as_u16())
    }

    #[tokio::test]
    async fn a_badge_and_its_earners_are_kept_until_they_are_dropped() {
        for (caches, is_kept) in [(true, true), (false, false)] {
            let game = game(caches);
            game.badges.insert((), Arc::new(vec![first_share()]));
            game.earners.insert(1, Arc::new(Vec::new()));
            assert_eq!(ask(&game).await.is_ok(), is_kept);
            game.clear_cache();
            assert!(ask(&game).await.is_err(), "the database does not answer");
        }
    }
}
