//! The overview of a miner: summary, statistics, days (contract `mining.md` §4.5, §7, 14–16).

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use bytes::Bytes;
use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tbg_core::UserId;
use tbg_web::{ApiError, Caller, Int, Query, Routes};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::hashrate::sum;
use super::shares::per_cent;
use super::{round, workers};
use crate::rules::live::LiveWorker;
use crate::rules::rank::Rank;
use crate::rules::window::{Window, change, next_retarget_blocks};
use crate::store::{charts, summary as store};
use crate::{Mining, cache};
use tbg_core::progress::{level_of, live_streak};

const DEFAULT_DAYS: i64 = 30;

/// A miner at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = MiningSummary)]
pub(crate) struct Summary {
    pub hashrate_1m: f64,
    pub hashrate_5m: f64,
    pub hashrate_1h: f64,
    pub hashrate_24h: f64,
    pub workers_online: i64,
    pub workers_total: i64,
    pub shares_today: i64,
    pub accepted_today: i64,
    /// Per cent of all time; 0 without shares.
    pub acceptance_rate: f64,
    pub best_diff_today: f64,
    pub best_diff_alltime: f64,
    /// The caller's own.
    pub blocks_found: i64,
    #[schema(required)]
    pub last_share: Option<DateTime<Utc>>,
}

/// The summary and what it is measured against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = MiningStats)]
pub(crate) struct Stats {
    #[serde(flatten)]
    pub summary: Summary,
    pub rejected_today: i64,
    /// Of all time.
    pub total_shares: i64,
    /// Per cent against 24 hours ago.
    pub hashrate_change_24h: f64,
    /// Per cent against yesterday until this time.
    pub shares_change_24h: f64,
    pub best_diff_week: f64,
    /// Null without a best this week.
    #[schema(required)]
    pub weekly_rank: Option<i64>,
    /// Null without a best this week, or where nobody is below.
    #[schema(required)]
    pub weekly_percentile: Option<f64>,
    pub network_difficulty: f64,
    pub network_height: i64,
    /// best_diff_week / network_difficulty.
    pub best_diff_ratio: f64,
    pub updated_at: DateTime<Utc>,
}

impl Stats {
    /// From live state and rollups: one statement, one more with a Redis that knows no worker, and one for everybody's
    /// bests when those that are kept have aged.
    pub(crate) async fn compute(mining: &Mining, user: UserId) -> Result<Self, ApiError> {
        let now = mining.clock.now();
        let mut conn = mining.pool.acquire().await?;
        let standing = store::standing(&mut conn, user, now).await?;
        drop(conn);
        let rank = match standing.best_week {
            Some(best) => Some(Rank::among(&cache::bests_of_week(mining, now).await?, best)),
            None => None,
        };
        let (live, network) = match &standing.address {
            Some(address) => overview(mining, user, address).await?,
            None => (Vec::new(), mining.0.live.network().await.ok().flatten()),
        };
        let rates = sum(&live);
        let (network_difficulty, network_height) = network.map_or_else(
            || (standing.network_difficulty.unwrap_or(0.0), standing.network_height.unwrap_or(0).into()),
            |network| (network.difficulty, network.height),
        );
        let best_diff_week = standing.best_week.unwrap_or(0.0);
        let [hashrate_1m, hashrate_5m, hashrate_1h, hashrate_24h] = rates.rates;
        Ok(Self {
            summary: Summary {
                hashrate_1m,
                hashrate_5m,
                hashrate_1h,
                hashrate_24h,
                workers_online: rates.workers_online,
                workers_total: i64::try_from(live.len()).unwrap_or(i64::MAX),
                shares_today: standing.today_total,
                accepted_today: standing.today_accepted,
                acceptance_rate: per_cent(standing.accepted, standing.total),
                best_diff_today: standing.today_best,
                best_diff_alltime: standing.best_alltime.unwrap_or(0.0),
                blocks_found: standing.blocks,
                last_share: live.iter().filter_map(|(_, worker)| worker.last_share).max(),
            },
            rejected_today: standing.today_rejected,
            total_shares: standing.total,
            hashrate_change_24h: change(hashrate_1h, standing.hashrate_before.unwrap_or(0.0)),
            shares_change_24h: change(standing.today_total as f64, standing.yesterday),
            best_diff_week,
            weekly_rank: rank.map(|rank| rank.above + 1),
            weekly_percentile: rank
                .map(|rank| per_cent(rank.below, rank.total))
                .filter(|percentile| *percentile > 0.0),
            network_difficulty,
            network_height,
            best_diff_ratio: ratio(best_diff_week, network_difficulty),
            updated_at: now,
        })
    }
}

/// Workers and network in two round trips; from the table where Redis is away or has forgotten.
async fn overview(
    mining: &Mining,
    user: UserId,
    address: &str,
) -> Result<(Vec<(String, LiveWorker)>, Option<crate::live::LiveNetwork>), ApiError> {
    match mining.0.live.overview(address).await {
        Ok((live, network)) if !live.is_empty() => Ok((live, network)),
        Ok((_, network)) => Ok((workers::stored_workers(mining, user).await?, network)),
        Err(_) => Ok((workers::stored_workers(mining, user).await?, None)),
    }
}

/// 0 of an unknown network.
pub(crate) fn ratio(best: f64, network: f64) -> f64 {
    if network == 0.0 { 0.0 } else { best / network }
}

/// How many days back.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DaysQuery {
    /// 30 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 90)]
    days: Option<Int<1, 90>>,
}

impl DaysQuery {
    fn days(&self) -> i64 {
        self.days.map_or(DEFAULT_DAYS, Int::get)
    }
}

/// A day of uptime.
#[derive(Serialize, ToSchema)]
struct UptimeDay {
    #[schema(value_type = String, format = "date")]
    date: NaiveDate,
    uptime_minutes: i32,
    shares: i64,
    active: bool,
}

/// Uptime, day by day.
#[derive(Serialize, ToSchema)]
struct Uptime {
    /// Oldest first, without gaps.
    days: Vec<UptimeDay>,
    total_uptime_hours: f64,
    days_active: usize,
}

/// A day's numbers.
#[derive(Serialize, ToSchema)]
struct DailyStats {
    #[schema(value_type = String, format = "date")]
    date: NaiveDate,
    total_shares: i64,
    accepted_shares: i64,
    rejected_shares: i64,
    best_diff: f64,
    avg_diff: f64,
    uptime_minutes: i32,
    workers_seen: i32,
}

/// Days, newest first.
#[derive(Serialize, ToSchema)]
struct DailyStatsList {
    days: Vec<DailyStats>,
}

/// The routes of the overview.
pub(crate) fn routes() -> Routes<Mining> {
    Routes::new()
        .user(routes!(summary))
        .user(routes!(stats))
        .user(routes!(uptime))
        .user(routes!(daily_stats))
        .user(routes!(dashboard))
}

/// A body that was serialised when it was computed.
pub(crate) fn json(body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Summary
///
/// As old as the statistics behind it: ten seconds at most.
#[utoipa::path(
    get,
    path = "/api/v1/mining/summary",
    tag = "mining",
    responses((status = 200, description = "At a glance", body = Summary))
)]
async fn summary(State(mining): State<Mining>, caller: Caller) -> Result<Response, ApiError> {
    Ok(json(cache::stats(&mining, caller.user_id).await?.summary_body.clone()))
}

/// Statistics
///
/// Ten seconds old at most.
#[utoipa::path(
    get,
    path = "/api/v1/mining/stats",
    tag = "mining",
    responses((status = 200, description = "The summary and what it is measured against", body = Stats))
)]
async fn stats(State(mining): State<Mining>, caller: Caller) -> Result<Response, ApiError> {
    Ok(json(cache::stats(&mining, caller.user_id).await?.stats_body.clone()))
}

/// Uptime
#[utoipa::path(
    get,
    path = "/api/v1/mining/uptime",
    tag = "mining",
    params(DaysQuery),
    responses((status = 200, description = "Day by day until today", body = Uptime))
)]
async fn uptime(
    State(mining): State<Mining>,
    caller: Caller,
    Query(query): Query<DaysQuery>,
) -> Result<Json<Uptime>, ApiError> {
    let (today, count) = (mining.clock.now().date_naive(), query.days());
    let mut conn = mining.pool.acquire().await?;
    let rows = store::days(&mut conn, caller.user_id, today, count).await?;
    let first = today.checked_sub_days(Days::new(count.unsigned_abs() - 1)).unwrap_or(today);
    let days: Vec<UptimeDay> = first
        .iter_days()
        .take(usize::try_from(count).unwrap_or(0))
        .map(|date| {
            let row = rows.iter().find(|row| row.day == date);
            let shares = row.map_or(0, |row| row.total_shares);
            let uptime_minutes = row.map_or(0, |row| row.uptime_minutes);
            UptimeDay { date, uptime_minutes, shares, active: shares > 0 }
        })
        .collect();
    let minutes: i32 = days.iter().map(|day| day.uptime_minutes).sum();
    Ok(Json(Uptime {
        total_uptime_hours: round(f64::from(minutes) / 60.0, 1),
        days_active: days.iter().filter(|day| day.active).count(),
        days,
    }))
}

/// Numbers by day
///
/// Days with shares or uptime, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/mining/daily-stats",
    tag = "mining",
    params(DaysQuery),
    responses((status = 200, description = "Newest first", body = DailyStatsList))
)]
async fn daily_stats(
    State(mining): State<Mining>,
    caller: Caller,
    Query(query): Query<DaysQuery>,
) -> Result<Json<DailyStatsList>, ApiError> {
    let today = mining.clock.now().date_naive();
    let mut conn = mining.pool.acquire().await?;
    let rows = store::days(&mut conn, caller.user_id, today, query.days()).await?;
    let days = rows
        .into_iter()
        .map(|row| DailyStats {
            date: row.day,
            total_shares: row.total_shares,
            accepted_shares: row.accepted_shares,
            rejected_shares: row.rejected_shares,
            best_diff: row.best_diff,
            avg_diff: row.avg_diff,
            uptime_minutes: row.uptime_minutes,
            workers_seen: row.workers_seen,
        })
        .collect();
    Ok(Json(DailyStatsList { days }))
}

/// Everything for one page
///
/// Statistics, a line of 24 hours, streak and level in one answer.
#[utoipa::path(
    get,
    path = "/api/v1/mining/dashboard",
    tag = "mining",
    responses((status = 200, description = "Grouped by subject", body = serde_json::Value))
)]
async fn dashboard(
    State(mining): State<Mining>,
    caller: Caller,
) -> Result<Json<serde_json::Value>, ApiError> {
    let now = mining.clock.now();
    let kept = cache::stats(&mining, caller.user_id).await?;
    let (stats, glance) = (&kept.stats, &kept.stats.summary);
    let mut conn = mining.pool.acquire().await?;
    let points = charts::points(&mut conn, caller.user_id, None, Window::Week, now).await?;
    let progress = store::progress(&mut conn, caller.user_id).await?;
    let line: Vec<f64> = points
        .iter()
        .filter(|point| point.time > now - TimeDelta::days(1))
        .map(|point| point.hashrate)
        .collect();
    let line = &line[line.len().saturating_sub(24)..];
    let level = level_of(progress.as_ref().map_or(0, |progress| progress.total_xp));
    let streak = progress.as_ref().map_or_else(Default::default, |progress| {
        live_streak(progress.current_streak, progress.freezes, progress.last_active_week.as_deref(), now)
    });
    Ok(Json(serde_json::json!({
        "hashrate": {
            "current": glance.hashrate_5m, "change_24h": stats.hashrate_change_24h, "sparkline_24h": line,
        },
        "shares": {
            "today": glance.shares_today, "change_24h": stats.shares_change_24h,
            "accepted_rate": glance.acceptance_rate,
        },
        "workers": { "online": glance.workers_online, "total": glance.workers_total },
        "streak": {
            "weeks": streak.current, "is_active": streak.is_active_this_week, "deadline": streak.expires_at,
        },
        "best_diff": {
            "weekly": stats.best_diff_week, "alltime": glance.best_diff_alltime,
            "weekly_rank": stats.weekly_rank, "weekly_percentile": stats.weekly_percentile,
        },
        "network": {
            "difficulty": stats.network_difficulty, "block_height": stats.network_height,
            "next_retarget_blocks": next_retarget_blocks(stats.network_height),
        },
        "level": {
            "current": level.level, "title": level.title,
            "xp_total": progress.as_ref().map_or(0, |progress| progress.total_xp),
            "xp_into_level": level.xp_into_level, "xp_for_level": level.xp_for_level,
        },
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_match_acceptance_example_18() {
        assert_eq!(ratio(4_231_847_293.0, 100_847_293_444_000.0), 4.196_292_382_749_889e-5);
        assert_eq!(ratio(1.0, 0.0), 0.0);
    }
}
