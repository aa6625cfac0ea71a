//! The first page of the dashboard (contract `mining.md` §8). `/ws-stats` belongs to the sockets.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tbg_core::UserId;
use tbg_web::{ApiError, Caller, Int, Query, Routes};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::store::{dashboard as store, summary};
use crate::{Mining, cache};
use tbg_core::progress::{level_of, live_streak};

const DEFAULT_FEED: i64 = 20;
const EVENTS: i64 = 10;
const DEFAULT_BADGES: i64 = 5;

/// The numbers at the top.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct DashboardStats {
    /// The first of the four averages that is not zero, H/s.
    hashrate: f64,
    hashrate_change: f64,
    shares_today: i64,
    shares_change: f64,
    workers_online: i64,
    workers_total: i64,
    /// Weeks.
    streak: i32,
    best_diff_week: f64,
    network_diff: f64,
    best_diff_ratio: f64,
    level: i32,
    level_title: String,
    /// In all.
    xp: i64,
    /// From this level to the next.
    xp_to_next: i64,
    badges_earned: i32,
    network_height: i64,
}

/// Which rows of the feed.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct FeedQuery {
    /// 20 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 50)]
    limit: Option<Int<1, 50>>,
    /// Only rows older than this one.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 9007199254740991_i64)]
    before_id: Option<Int<1, 9_007_199_254_740_991>>,
}

/// A row of the feed.
#[derive(Serialize, ToSchema)]
struct FeedItem {
    id: i64,
    /// block, badge, miner, worldcup or competition.
    #[serde(rename = "type")]
    kind: String,
    text: String,
    #[schema(required)]
    description: Option<String>,
    time: DateTime<Utc>,
    #[schema(value_type = Object)]
    metadata: Value,
}

/// Where an event leads.
#[derive(Serialize, ToSchema)]
struct EventAction {
    label: String,
    href: String,
}

/// Something that is about to end.
#[derive(Serialize, ToSchema)]
pub(crate) struct UpcomingEvent {
    id: String,
    /// world-cup, lottery, streak, competition or maintenance.
    #[serde(rename = "type")]
    kind: String,
    title: String,
    #[schema(required)]
    description: Option<String>,
    ends_at: DateTime<Utc>,
    #[schema(required)]
    action: Option<EventAction>,
}

impl From<store::EventRow> for UpcomingEvent {
    fn from(row: store::EventRow) -> Self {
        let action = row.action_label.zip(row.action_href).map(|(label, href)| EventAction { label, href });
        Self {
            id: row.id,
            kind: row.event_type,
            title: row.title,
            description: row.description,
            ends_at: row.ends_at,
            action,
        }
    }
}

/// How many badges.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct BadgesQuery {
    /// 5 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 20)]
    limit: Option<Int<1, 20>>,
}

/// A badge of the caller.
#[derive(Serialize, ToSchema)]
struct RecentBadge {
    slug: String,
    name: String,
    description: String,
    rarity: String,
    earned_at: DateTime<Utc>,
}

/// The routes of the dashboard.
pub(crate) fn routes() -> Routes<Mining> {
    Routes::new().user(routes!(stats)).user(routes!(feed)).user(routes!(events)).user(routes!(recent_badges))
}

impl Mining {
    /// What `GET /api/v1/dashboard/stats` answers, for sockets.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn dashboard_stats_json(&self, user: UserId) -> anyhow::Result<Value> {
        let stats = dashboard_stats(self, user).await;
        let stats = stats.map_err(|error| anyhow::anyhow!("statistics: {error:?}"))?;
        Ok(serde_json::to_value(stats)?)
    }
}

/// What `GET /api/v1/dashboard/stats` answers.
pub(crate) async fn dashboard_stats(mining: &Mining, user: UserId) -> Result<DashboardStats, ApiError> {
    Ok(compute(mining, user).await?.0)
}

/// The numbers, and since when the oldest of them are kept.
async fn compute(mining: &Mining, user: UserId) -> Result<(DashboardStats, DateTime<Utc>), ApiError> {
    let kept = cache::stats(mining, user).await?;
    let (stats, glance) = (&kept.stats, &kept.stats.summary);
    let mut conn = mining.pool.acquire().await?;
    let progress = summary::progress(&mut conn, user).await?;
    let xp = progress.as_ref().map_or(0, |progress| progress.total_xp);
    let level = level_of(xp);
    let streak = progress.as_ref().map_or(0, |row| {
        let week = row.last_active_week.as_deref();
        live_streak(row.current_streak, row.freezes, week, mining.clock.now()).current
    });
    let rates = [glance.hashrate_1m, glance.hashrate_5m, glance.hashrate_1h, glance.hashrate_24h];
    let numbers = DashboardStats {
        hashrate: rates.into_iter().find(|rate| *rate > 0.0).unwrap_or(0.0),
        hashrate_change: stats.hashrate_change_24h,
        shares_today: glance.shares_today,
        shares_change: stats.shares_change_24h,
        workers_online: glance.workers_online,
        workers_total: glance.workers_total,
        streak,
        best_diff_week: stats.best_diff_week,
        network_diff: stats.network_difficulty,
        best_diff_ratio: stats.best_diff_ratio,
        level: level.level,
        level_title: level.title.to_owned(),
        xp,
        xp_to_next: level.xp_for_level,
        badges_earned: progress.as_ref().map_or(0, |progress| progress.badges_earned),
        network_height: stats.network_height,
    };
    Ok((numbers, stats.updated_at))
}

/// The numbers at the top
///
/// Ten seconds old at most.
#[utoipa::path(
    get,
    path = "/api/v1/dashboard/stats",
    tag = "dashboard",
    responses((status = 200, description = "Mining and game in one", body = DashboardStats))
)]
async fn stats(State(mining): State<Mining>, caller: Caller) -> Result<Json<DashboardStats>, ApiError> {
    let ttl: Duration = mining.config.cache_ttl;
    let key = format!("dashboard:stats:{}", caller.user_id);
    if !ttl.is_zero()
        && let Some(kept) = cache::read(&mining, &key).await
    {
        return Ok(Json(kept));
    }
    let (stats, kept_since) = compute(&mining, caller.user_id).await?;
    // The numbers of mining may have been kept for a while: kept twice, they would be twice as old.
    let age = (mining.clock.now() - kept_since).to_std().unwrap_or_default();
    let left = ttl.saturating_sub(age);
    if !left.is_zero() {
        let json = serde_json::to_vec(&stats).map_err(ApiError::internal)?;
        cache::write(&mining, &key, &json, left).await;
    }
    Ok(Json(stats))
}

/// What happens in the pool
#[utoipa::path(
    get,
    path = "/api/v1/dashboard/feed",
    tag = "dashboard",
    params(FeedQuery),
    responses((status = 200, description = "Newest first", body = Vec<FeedItem>))
)]
async fn feed(
    State(mining): State<Mining>,
    _caller: Caller,
    Query(query): Query<FeedQuery>,
) -> Result<Json<Vec<FeedItem>>, ApiError> {
    let mut conn = mining.pool.acquire().await?;
    let limit = query.limit.map_or(DEFAULT_FEED, Int::get);
    let rows = store::feed(&mut conn, query.before_id.map(Int::get), limit).await?;
    let items = rows.into_iter().map(|row| FeedItem {
        id: row.id,
        kind: row.event_type,
        text: row.title,
        description: row.description,
        time: row.created_at,
        metadata: row.metadata,
    });
    Ok(Json(items.collect()))
}

/// What ends soon
#[utoipa::path(
    get,
    path = "/api/v1/dashboard/events",
    tag = "dashboard",
    responses((status = 200, description = "The next to end first, ten at most", body = Vec<UpcomingEvent>))
)]
async fn events(State(mining): State<Mining>, caller: Caller) -> Result<Json<Vec<UpcomingEvent>>, ApiError> {
    let mut conn = mining.pool.acquire().await?;
    let rows = store::events(&mut conn, caller.user_id, mining.clock.now(), EVENTS).await?;
    Ok(Json(rows.into_iter().map(UpcomingEvent::from).collect()))
}

/// Badges earned last
#[utoipa::path(
    get,
    path = "/api/v1/dashboard/recent-badges",
    tag = "dashboard",
    params(BadgesQuery),
    responses((status = 200, description = "Newest first", body = Vec<RecentBadge>))
)]
async fn recent_badges(
    State(mining): State<Mining>,
    caller: Caller,
    Query(query): Query<BadgesQuery>,
) -> Result<Json<Vec<RecentBadge>>, ApiError> {
    let mut conn = mining.pool.acquire().await?;
    let limit = query.limit.map_or(DEFAULT_BADGES, Int::get);
    let rows = store::badges(&mut conn, caller.user_id, limit).await?;
    let badges = rows.into_iter().map(|row| RecentBadge {
        slug: row.slug,
        name: row.name,
        description: row.description,
        rarity: row.rarity,
        earned_at: row.earned_at,
    });
    Ok(Json(badges.collect()))
}
