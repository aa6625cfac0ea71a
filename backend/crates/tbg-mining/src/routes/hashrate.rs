//! Hashrate and its charts (contract `mining.md` §4.1, §7, 12–13).

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tbg_core::UserId;
use tbg_web::{ApiError, Caller, Query, Routes};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::{round, workers};
use crate::Mining;
use crate::live::UserRates;
use crate::rules::live::LiveWorker;
use crate::rules::window::{Window, hashrate};
use crate::store::{account, charts};

/// How far back a chart goes.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WindowQuery {
    /// 24h unless given.
    #[param(inline)]
    window: Option<Window>,
}

impl WindowQuery {
    pub(crate) fn window(&self) -> Window {
        self.window.unwrap_or_default()
    }
}

/// The same under the name that older clients use.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RangeQuery {
    /// 24h unless given.
    #[param(inline)]
    range: Option<Window>,
}

/// A place in a chart.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = HashratePoint)]
pub(crate) struct Point {
    pub time: DateTime<Utc>,
    /// H/s.
    pub hashrate: f64,
}

/// Hashrate over time.
#[derive(Serialize, ToSchema)]
#[schema(as = HashrateChart)]
pub(crate) struct Chart {
    #[schema(inline)]
    window: Window,
    /// Oldest first.
    points: Vec<Point>,
    /// The last that is not zero.
    current: f64,
    /// Of those that are not zero.
    average: f64,
    peak: f64,
}

impl Chart {
    pub(crate) fn of(window: Window, points: Vec<Point>) -> Self {
        let mining = || points.iter().map(|point| point.hashrate).filter(|rate| *rate > 0.0);
        let (sum, count) = mining().fold((0.0, 0.0), |(sum, count), rate| (sum + rate, count + 1.0));
        let average = if count > 0.0 { round(sum / count, 2) } else { 0.0 };
        Self {
            window,
            current: mining().next_back().unwrap_or(0.0),
            average,
            peak: mining().fold(0.0, f64::max),
            points,
        }
    }
}

/// Hashrate of all workers, H/s.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[schema(as = UserHashrate)]
struct Hashrate {
    hashrate_1m: f64,
    hashrate_5m: f64,
    hashrate_1h: f64,
    hashrate_24h: f64,
    workers_online: i64,
}

/// The routes of hashrate.
pub(crate) fn routes() -> Routes<Mining> {
    Routes::new().user(routes!(rates)).user(routes!(chart)).user(routes!(history))
}

/// The sum over workers.
pub(crate) fn sum(workers: &[(String, LiveWorker)]) -> UserRates {
    workers.iter().fold(UserRates::default(), |mut sum, (_, worker)| {
        sum.rates.iter_mut().zip(worker.rates).for_each(|(total, rate)| *total += rate);
        sum.workers_online += i64::from(worker.is_online);
        sum
    })
}

/// From the sweep's sum, else the workers', else the shares of the last day.
async fn current(mining: &Mining, user: UserId) -> Result<UserRates, ApiError> {
    let mut conn = mining.pool.acquire().await?;
    let Some(address) = account::load(&mut conn, user).await?.address else {
        return Ok(UserRates::default());
    };
    drop(conn);
    if let Ok(Some(rates)) = mining.0.live.user_rates(&address).await {
        return Ok(rates);
    }
    let workers = workers::live_workers(mining, user, &address).await?;
    if !workers.is_empty() {
        return Ok(sum(&workers));
    }
    let mut conn = mining.pool.acquire().await?;
    let work = charts::recent_work(&mut conn, &address, mining.clock.now()).await?;
    let rates = [(work[0], 60.0), (work[1], 300.0), (work[2], 3600.0), (work[3], 86_400.0)];
    Ok(UserRates { rates: rates.map(|(work, seconds)| hashrate(work, seconds)), workers_online: 0 })
}

/// Hashrate
///
/// Of all workers together.
#[utoipa::path(
    get,
    path = "/api/v1/mining/hashrate",
    tag = "mining",
    responses((status = 200, description = "Four averages", body = Hashrate))
)]
async fn rates(State(mining): State<Mining>, caller: Caller) -> Result<Json<Hashrate>, ApiError> {
    let UserRates { rates, workers_online } = current(&mining, caller.user_id).await?;
    let [hashrate_1m, hashrate_5m, hashrate_1h, hashrate_24h] = rates;
    Ok(Json(Hashrate { hashrate_1m, hashrate_5m, hashrate_1h, hashrate_24h, workers_online }))
}

/// Hashrate over time
#[utoipa::path(
    get,
    path = "/api/v1/mining/hashrate/chart",
    tag = "mining",
    params(WindowQuery),
    responses((status = 200, description = "The chart", body = Chart))
)]
async fn chart(
    State(mining): State<Mining>,
    caller: Caller,
    Query(query): Query<WindowQuery>,
) -> Result<Json<Chart>, ApiError> {
    let window = query.window();
    let mut conn = mining.pool.acquire().await?;
    let points = charts::points(&mut conn, caller.user_id, None, window, mining.clock.now()).await?;
    Ok(Json(Chart::of(window, points)))
}

/// The points of the chart alone
#[utoipa::path(
    get,
    path = "/api/v1/mining/hashrate/history",
    tag = "mining",
    params(RangeQuery),
    responses((status = 200, description = "Oldest first", body = Vec<Point>))
)]
async fn history(
    State(mining): State<Mining>,
    caller: Caller,
    Query(query): Query<RangeQuery>,
) -> Result<Json<Vec<Point>>, ApiError> {
    let window = query.range.unwrap_or_default();
    let mut conn = mining.pool.acquire().await?;
    Ok(Json(charts::points(&mut conn, caller.user_id, None, window, mining.clock.now()).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_tells_of_the_points_that_are_not_zero() {
        let point = |second, hashrate| Point { time: DateTime::from_timestamp(second, 0).unwrap(), hashrate };
        let chart = Chart::of(Window::Day, vec![point(0, 1.0), point(300, 2.005), point(600, 0.0)]);
        assert_eq!((chart.current, chart.average, chart.peak), (2.005, 1.5, 2.005));
        let empty = Chart::of(Window::Hour, Vec::new());
        assert_eq!((empty.current, empty.average, empty.peak), (0.0, 0.0, 0.0));
    }
}
