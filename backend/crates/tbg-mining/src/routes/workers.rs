//! Workers of the caller (contract `mining.md` §7, 1–3).

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tbg_core::UserId;
use tbg_web::{ApiError, Caller, ErrorCode, Query, Routes};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::hashrate::{Chart, WindowQuery};
use super::round;
use super::shares::Share;
use crate::Mining;
use crate::rules::live::LiveWorker;
use crate::store::account::{self, Account};
use crate::store::{charts, live as rows, shares};

const MAX_NAME: usize = 128;
const RECENT_SHARES: i64 = 10;

/// A mining machine.
#[derive(Serialize, ToSchema)]
#[schema(as = MiningWorker)]
pub(crate) struct Worker {
    name: String,
    /// online or offline.
    #[schema(value_type = String)]
    status: &'static str,
    /// H/s over one minute.
    hashrate_1m: f64,
    /// H/s over five minutes.
    hashrate_5m: f64,
    /// H/s over an hour.
    hashrate_1h: f64,
    /// H/s over a day.
    hashrate_24h: f64,
    /// Assigned difficulty.
    current_diff: f64,
    /// Highest achieved difficulty.
    best_diff: f64,
    valid_shares: i64,
    invalid_shares: i64,
    /// Accepted since it connected.
    shares_session: i64,
    /// Per cent of accepted shares; 100 without any.
    accept_rate: f64,
    #[schema(required)]
    last_share: Option<DateTime<Utc>>,
    #[schema(required)]
    connected_at: Option<DateTime<Utc>>,
    /// Null unless the caller's address is proven.
    #[schema(required)]
    ip_address: Option<String>,
    /// Null unless the caller's address is proven.
    #[schema(required)]
    user_agent: Option<String>,
}

impl Worker {
    fn of(name: String, live: LiveWorker, is_verified: bool) -> Self {
        let [hashrate_1m, hashrate_5m, hashrate_1h, hashrate_24h] = live.rates;
        let total = live.valid_shares + live.invalid_shares;
        let accept_rate =
            if total == 0 { 100.0 } else { round(100.0 * live.valid_shares as f64 / total as f64, 2) };
        Self {
            name,
            status: if live.is_online { "online" } else { "offline" },
            hashrate_1m,
            hashrate_5m,
            hashrate_1h,
            hashrate_24h,
            current_diff: live.current_diff,
            best_diff: live.best_diff,
            valid_shares: live.valid_shares,
            invalid_shares: live.invalid_shares,
            shares_session: live.shares_session,
            accept_rate,
            last_share: live.last_share,
            connected_at: live.connected_at,
            ip_address: live.ip.filter(|_| is_verified),
            user_agent: live.useragent.filter(|_| is_verified),
        }
    }
}

/// The workers of the last 24 hours.
#[derive(Serialize, ToSchema)]
#[schema(as = MiningWorkers)]
struct Workers {
    /// By name.
    workers: Vec<Worker>,
    online_count: usize,
    total_count: usize,
}

/// One worker.
#[derive(Serialize, ToSchema)]
#[schema(as = MiningWorkerDetail)]
struct Detail {
    worker: Worker,
    /// Newest first, ten at most.
    recent_shares: Vec<Share>,
}

/// The routes of workers.
pub(crate) fn routes() -> Routes<Mining> {
    Routes::new().user(routes!(list)).user(routes!(detail)).user(routes!(chart))
}

/// The live workers of a user. Where Redis is away or has forgotten them, the table answers.
pub(crate) async fn live_workers(
    mining: &Mining,
    user: UserId,
    address: &str,
) -> Result<Vec<(String, LiveWorker)>, ApiError> {
    match mining.0.live.workers_of(address).await {
        Ok(workers) if !workers.is_empty() => Ok(workers),
        Ok(_) => stored_workers(mining, user).await,
        Err(error) => {
            tracing::debug!(%error, "Redis is away: workers come from the table");
            stored_workers(mining, user).await
        }
    }
}

/// The workers as the table keeps them, by name.
pub(crate) async fn stored_workers(
    mining: &Mining,
    user: UserId,
) -> Result<Vec<(String, LiveWorker)>, ApiError> {
    let rows = rows::workers_of_users(&mining.pool, &[user.0], mining.clock.now()).await?;
    Ok(rows.into_iter().map(|(_, name, worker)| (name, worker)).collect())
}

/// Workers
///
/// Those that were active in the last 24 hours.
#[utoipa::path(
    get,
    path = "/api/v1/mining/workers",
    tag = "mining",
    responses((status = 200, description = "By name", body = Workers))
)]
async fn list(State(mining): State<Mining>, caller: Caller) -> Result<Json<Workers>, ApiError> {
    let mut conn = mining.pool.acquire().await?;
    let Account { address, is_verified } = account::load(&mut conn, caller.user_id).await?;
    drop(conn);
    let workers = match address {
        Some(address) => live_workers(&mining, caller.user_id, &address).await?,
        None => Vec::new(),
    };
    let online_count = workers.iter().filter(|(_, worker)| worker.is_online).count();
    let workers: Vec<Worker> =
        workers.into_iter().map(|(name, worker)| Worker::of(name, worker, is_verified)).collect();
    Ok(Json(Workers { online_count, total_count: workers.len(), workers }))
}

/// One worker
#[utoipa::path(
    get,
    path = "/api/v1/mining/workers/{name}",
    tag = "mining",
    params(("name" = String, Path, description = "Short name of the worker")),
    responses(
        (status = 200, description = "The worker and its newest shares", body = Detail),
        (status = 404, description = "No such worker", body = tbg_web::ErrorBody),
    )
)]
async fn detail(
    State(mining): State<Mining>,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Detail>, ApiError> {
    let name = worker_name(name)?;
    let mut conn = mining.pool.acquire().await?;
    let Account { address, is_verified } = account::load(&mut conn, caller.user_id).await?;
    let address = address.ok_or_else(no_such_worker)?;
    let live = match mining.0.live.worker(&address, &name).await {
        Ok(Some(live)) => live,
        _ => {
            let stored = stored_workers(&mining, caller.user_id).await?;
            stored.into_iter().find(|(known, _)| *known == name).ok_or_else(no_such_worker)?.1
        }
    };
    let filter = shares::Filter { worker: Some(&name), valid: None };
    let recent = shares::page(&mut conn, &address, &filter, None, RECENT_SHARES).await?;
    let recent_shares = recent.into_iter().map(Share::from).collect();
    Ok(Json(Detail { worker: Worker::of(name, live, is_verified), recent_shares }))
}

/// Hashrate of a worker
///
/// Of that worker alone; a worker without snapshots has no points.
#[utoipa::path(
    get,
    path = "/api/v1/mining/workers/{name}/hashrate",
    tag = "mining",
    params(("name" = String, Path, description = "Short name of the worker"), WindowQuery),
    responses(
        (status = 200, description = "The chart", body = Chart),
        (status = 404, description = "Not the name of a worker", body = tbg_web::ErrorBody),
    )
)]
async fn chart(
    State(mining): State<Mining>,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
    Query(query): Query<WindowQuery>,
) -> Result<Json<Chart>, ApiError> {
    let name = worker_name(name)?;
    let window = query.window();
    let mut conn = mining.pool.acquire().await?;
    let points = charts::points(&mut conn, caller.user_id, Some(&name), window, mining.clock.now()).await?;
    Ok(Json(Chart::of(window, points)))
}

/// 1 to 128 characters of the pool's alphabet, but the two that lead elsewhere in a path; all else names no worker.
fn worker_name(name: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    let Ok(Path(name)) = name else { return Err(no_such_worker()) };
    let fits = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && ![".", ".."].contains(&name.as_str());
    if fits { Ok(name) } else { Err(no_such_worker()) }
}

fn no_such_worker() -> ApiError {
    ApiError::new(ErrorCode::WorkerNotFound, "Worker not found")
}
