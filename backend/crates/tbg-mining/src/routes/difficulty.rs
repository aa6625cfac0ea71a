//! Achieved difficulties and bests (contract `mining.md` §4.3, §4.4, §7, 6–9).

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tbg_core::UserId;
use tbg_web::{ApiError, Caller, ErrorCode, Int, Query, Routes};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::round;
use super::shares::per_cent;
use crate::rules::histogram::label;
use crate::rules::rollups::Timeframe;
use crate::store::difficulty as store;
use crate::{Mining, cache};

const DEFAULT_POINTS: i64 = 200;
/// How long a histogram is kept.
const HISTOGRAM_TTL: Duration = Duration::from_secs(60);

/// A best of the caller.
#[derive(Serialize, ToSchema)]
struct PersonalBest {
    /// week, month or alltime.
    timeframe: String,
    /// `YYYY-Www`, `YYYY-MM`, or null for all time.
    #[schema(required)]
    period_key: Option<String>,
    best_difficulty: f64,
    share_time: DateTime<Utc>,
    #[schema(required)]
    worker_name: Option<String>,
    /// Per cent of miners below, as of the last hour.
    #[schema(required)]
    percentile: Option<f64>,
}

/// How many points.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ScatterQuery {
    /// Newest shares; 200 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 500)]
    limit: Option<Int<1, 500>>,
}

/// A share as a point.
#[derive(Serialize, ToSchema)]
struct ScatterPoint {
    time: DateTime<Utc>,
    /// Achieved difficulty.
    difficulty: f64,
}

/// Achieved difficulties over time.
#[derive(Serialize, ToSchema)]
struct Scatter {
    /// Oldest first.
    points: Vec<ScatterPoint>,
    count: usize,
}

/// A range of difficulties.
#[derive(Serialize, Deserialize, ToSchema)]
struct Bucket {
    range_min: f64,
    range_max: f64,
    label: String,
    count: i64,
}

/// How often which difficulty was achieved in 30 days.
#[derive(Serialize, Deserialize, ToSchema)]
struct Distribution {
    /// Eight, or none without shares.
    buckets: Vec<Bucket>,
    total_shares: i64,
}

/// Both views of difficulty.
#[derive(Serialize, ToSchema)]
struct Difficulty {
    scatter: Scatter,
    distribution: Distribution,
}

/// A time frame.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Frame {
    #[default]
    Week,
    Month,
    Alltime,
}

impl From<Frame> for Timeframe {
    fn from(frame: Frame) -> Self {
        match frame {
            Frame::Week => Self::Week,
            Frame::Month => Self::Month,
            Frame::Alltime => Self::Alltime,
        }
    }
}

/// Which time frame.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PercentileQuery {
    /// week unless given.
    #[param(inline)]
    timeframe: Option<Frame>,
}

/// Where the caller's best stands.
#[derive(Serialize, ToSchema)]
struct Percentile {
    /// week, month or alltime.
    #[schema(value_type = String)]
    timeframe: &'static str,
    /// Per cent of miners below.
    percentile: f64,
    best_difficulty: f64,
    rank: i64,
    total_miners: i64,
}

/// The caller's best of this week and where it stands.
#[derive(Serialize, ToSchema)]
struct BestDiff {
    difficulty: f64,
    share_time: DateTime<Utc>,
    #[schema(required)]
    worker_name: Option<String>,
    rank: i64,
    percentile: f64,
    total_miners: i64,
}

/// The routes of difficulty.
pub(crate) fn routes() -> Routes<Mining> {
    Routes::new()
        .user(routes!(bests))
        .user(routes!(personal_bests))
        .user(routes!(scatter))
        .user(routes!(distribution))
        .user(routes!(difficulty))
        .user(routes!(percentile))
        .user(routes!(best_diff))
}

/// Bests
///
/// Of this week, the week before, this month and ever; those that there are.
#[utoipa::path(
    get,
    path = "/api/v1/mining/difficulty/bests",
    tag = "mining",
    responses((status = 200, description = "Narrow to broad", body = Vec<PersonalBest>))
)]
async fn bests(State(mining): State<Mining>, caller: Caller) -> Result<Json<Vec<PersonalBest>>, ApiError> {
    all_bests(&mining, caller.user_id).await.map(Json)
}

/// Bests
///
/// The same as `/mining/difficulty/bests`.
#[utoipa::path(
    get,
    path = "/api/v1/mining/personal-bests",
    tag = "mining",
    responses((status = 200, description = "Narrow to broad", body = Vec<PersonalBest>))
)]
async fn personal_bests(
    State(mining): State<Mining>,
    caller: Caller,
) -> Result<Json<Vec<PersonalBest>>, ApiError> {
    all_bests(&mining, caller.user_id).await.map(Json)
}

async fn all_bests(mining: &Mining, user: UserId) -> Result<Vec<PersonalBest>, ApiError> {
    let now = mining.clock.now();
    let wanted = [
        Timeframe::Week.period_key(now),
        Timeframe::Week.period_key(now - TimeDelta::weeks(1)),
        Timeframe::Month.period_key(now),
        None,
    ];
    let periods: Vec<String> = wanted.iter().flatten().cloned().collect();
    let mut conn = mining.pool.acquire().await?;
    let mut rows = store::bests(&mut conn, user, &periods).await?;
    let mut bests = Vec::with_capacity(wanted.len());
    for period in wanted {
        let Some(index) = rows.iter().position(|row| row.period_key == period) else { continue };
        let row = rows.swap_remove(index);
        bests.push(PersonalBest {
            timeframe: row.timeframe,
            period_key: row.period_key,
            best_difficulty: row.best_difficulty,
            share_time: row.share_time,
            worker_name: row.worker_name,
            percentile: row.percentile,
        });
    }
    Ok(bests)
}

/// Difficulties over time
///
/// Of the newest accepted shares.
#[utoipa::path(
    get,
    path = "/api/v1/mining/difficulty/scatter",
    tag = "mining",
    params(ScatterQuery),
    responses((status = 200, description = "Oldest first", body = Scatter))
)]
async fn scatter(
    State(mining): State<Mining>,
    caller: Caller,
    Query(query): Query<ScatterQuery>,
) -> Result<Json<Scatter>, ApiError> {
    let limit = query.limit.map_or(DEFAULT_POINTS, Int::get);
    scatter_of(&mining, caller.user_id, limit).await.map(Json)
}

async fn scatter_of(mining: &Mining, user: UserId, limit: i64) -> Result<Scatter, ApiError> {
    let mut conn = mining.pool.acquire().await?;
    let rows = store::scatter(&mut conn, user, limit).await?;
    let points: Vec<ScatterPoint> =
        rows.into_iter().rev().map(|(time, difficulty)| ScatterPoint { time, difficulty }).collect();
    Ok(Scatter { count: points.len(), points })
}

/// Distribution of difficulties
///
/// Over the accepted shares of 30 days; a minute old at most.
#[utoipa::path(
    get,
    path = "/api/v1/mining/difficulty/distribution",
    tag = "mining",
    responses((status = 200, description = "Eight ranges", body = Distribution))
)]
async fn distribution(State(mining): State<Mining>, caller: Caller) -> Result<Json<Distribution>, ApiError> {
    distribution_of(&mining, caller.user_id).await.map(Json)
}

async fn distribution_of(mining: &Mining, user: UserId) -> Result<Distribution, ApiError> {
    let key = format!("mining:dist:{user}");
    let is_cached = !mining.config.cache_ttl.is_zero();
    if let (true, Some(kept)) = (is_cached, cache::read::<Distribution>(mining, &key).await) {
        return Ok(kept);
    }
    let mut conn = mining.pool.acquire().await?;
    let counted = store::histogram(&mut conn, user, mining.clock.now()).await?;
    drop(conn);
    let buckets: Vec<Bucket> = counted.map_or_else(Vec::new, |(edges, counts)| {
        let ranges = edges.windows(2).zip(counts);
        ranges
            .map(|(range, count)| Bucket {
                range_min: round(range[0], 2),
                range_max: round(range[1], 2),
                label: label(range[0], range[1]),
                count,
            })
            .collect()
    });
    let distribution =
        Distribution { total_shares: buckets.iter().map(|bucket| bucket.count).sum(), buckets };
    if is_cached {
        let json = serde_json::to_vec(&distribution).map_err(ApiError::internal)?;
        cache::write(mining, &key, &json, HISTOGRAM_TTL).await;
    }
    Ok(distribution)
}

/// Both views of difficulty
#[utoipa::path(
    get,
    path = "/api/v1/mining/difficulty",
    tag = "mining",
    responses((status = 200, description = "Points and ranges", body = Difficulty))
)]
async fn difficulty(State(mining): State<Mining>, caller: Caller) -> Result<Json<Difficulty>, ApiError> {
    let scatter = scatter_of(&mining, caller.user_id, DEFAULT_POINTS).await?;
    Ok(Json(Difficulty { scatter, distribution: distribution_of(&mining, caller.user_id).await? }))
}

async fn place_of(mining: &Mining, user: UserId, frame: Timeframe) -> Result<store::Place, ApiError> {
    let period = frame.period_key(mining.clock.now());
    let mut conn = mining.pool.acquire().await?;
    let place = store::place(&mut conn, user, frame.as_str(), period.as_deref()).await?;
    place.ok_or_else(|| {
        ApiError::new(ErrorCode::PersonalBestNotFound, "No personal best found for this timeframe")
    })
}

/// Where the best stands
///
/// Among all miners of the current period.
#[utoipa::path(
    get,
    path = "/api/v1/mining/difficulty/percentile",
    tag = "mining",
    params(PercentileQuery),
    responses(
        (status = 200, description = "Rank and percentile", body = Percentile),
        (status = 404, description = "No best in this time frame", body = tbg_web::ErrorBody),
    )
)]
async fn percentile(
    State(mining): State<Mining>,
    caller: Caller,
    Query(query): Query<PercentileQuery>,
) -> Result<Json<Percentile>, ApiError> {
    let frame = Timeframe::from(query.timeframe.unwrap_or_default());
    let place = place_of(&mining, caller.user_id, frame).await?;
    Ok(Json(Percentile {
        timeframe: frame.as_str(),
        percentile: per_cent(place.below, place.total),
        best_difficulty: place.best_difficulty,
        rank: place.above + 1,
        total_miners: place.total,
    }))
}

/// Best of this week
#[utoipa::path(
    get,
    path = "/api/v1/mining/best-diff",
    tag = "mining",
    responses(
        (status = 200, description = "With rank and percentile", body = BestDiff),
        (status = 404, description = "No best this week", body = tbg_web::ErrorBody),
    )
)]
async fn best_diff(State(mining): State<Mining>, caller: Caller) -> Result<Json<BestDiff>, ApiError> {
    let place = place_of(&mining, caller.user_id, Timeframe::Week).await?;
    Ok(Json(BestDiff {
        difficulty: place.best_difficulty,
        share_time: place.share_time,
        percentile: per_cent(place.below, place.total),
        rank: place.above + 1,
        total_miners: place.total,
        worker_name: place.worker_name,
    }))
}
