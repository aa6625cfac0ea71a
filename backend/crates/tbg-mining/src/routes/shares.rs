//! Shares of the caller (contract `mining.md` §7, 4–5).

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tbg_web::cursor::{self, Micros};
use tbg_web::{ApiError, Caller, Int, Page, Query, Routes, Text};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::round;
use crate::Mining;
use crate::store::shares::{self as store, Filter, ShareRow};
use crate::store::{account, summary};

const DEFAULT_LIMIT: i64 = 50;
const LIVE_SHARES: i64 = 20;

/// A submitted share.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = MiningShare)]
pub(crate) struct Share {
    id: String,
    time: DateTime<Utc>,
    worker_name: String,
    /// Assigned difficulty.
    difficulty: f64,
    /// Achieved difficulty.
    share_diff: f64,
    /// Whether the pool accepted it.
    is_valid: bool,
    /// Whether it solved a block.
    is_block: bool,
}

impl From<ShareRow> for Share {
    fn from(row: ShareRow) -> Self {
        Self {
            id: row.id.to_string(),
            time: row.time,
            worker_name: row.worker_name,
            difficulty: row.difficulty,
            share_diff: row.share_diff,
            is_valid: row.is_valid,
            is_block: row.is_block,
        }
    }
}

/// Which shares.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SharesQuery {
    /// Rows of a page; 50 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    limit: Option<Int<1, 100>>,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<String>, min_length = 1, max_length = 200)]
    cursor: Option<Text<0, 200>>,
    /// Short name of a worker.
    #[param(value_type = Option<String>, min_length = 0, max_length = 128)]
    worker_name: Option<Text<0, 128>>,
    /// true: accepted, false: rejected; all unless given.
    valid_only: Option<bool>,
}

/// What shares of all time and of today count.
#[derive(Serialize, ToSchema)]
struct ShareStats {
    total_shares: i64,
    accepted_shares: i64,
    rejected_shares: i64,
    /// Per cent of all time; 0 without shares.
    acceptance_rate: f64,
    shares_today: i64,
    accepted_today: i64,
    best_diff_today: f64,
}

/// A share with what makes it remarkable.
#[derive(Serialize, ToSchema)]
struct LiveShare {
    #[serde(flatten)]
    share: Share,
    /// Whether it is one of the caller's current bests.
    is_personal_best: bool,
    /// Whether it is above today's average.
    is_above_average: bool,
}

/// The newest shares.
#[derive(Serialize, ToSchema)]
struct LiveShares {
    shares: Vec<LiveShare>,
}

/// The routes of shares.
pub(crate) fn routes() -> Routes<Mining> {
    Routes::new().user(routes!(list)).user(routes!(stats)).user(routes!(live))
}

/// Per cent with two decimals; 0 of nothing.
pub(crate) fn per_cent(part: i64, whole: i64) -> f64 {
    if whole == 0 { 0.0 } else { round(100.0 * part as f64 / whole as f64, 2) }
}

/// Shares
///
/// Newest first.
#[utoipa::path(
    get,
    path = "/api/v1/mining/shares",
    tag = "mining",
    params(SharesQuery),
    responses(
        (status = 200, description = "A page", body = Page<Share>),
        (status = 400, description = "The cursor is not one of this list", body = tbg_web::ErrorBody),
    )
)]
async fn list(
    State(mining): State<Mining>,
    caller: Caller,
    Query(query): Query<SharesQuery>,
) -> Result<Json<Page<Share>>, ApiError> {
    let limit = query.limit.map_or(DEFAULT_LIMIT, Int::get);
    let after: Option<(Micros, i64)> =
        query.cursor.as_ref().map(|cursor| cursor::decode(cursor.as_str())).transpose()?;
    let mut conn = mining.pool.acquire().await?;
    let account = account::load(&mut conn, caller.user_id).await?;
    let rows = match &account.address {
        Some(address) => {
            let worker = query.worker_name.as_ref().map(Text::as_str).filter(|name| !name.is_empty());
            let filter = Filter { worker, valid: query.valid_only };
            let after = after.map(|(Micros(time), id)| (time, id));
            store::page(&mut conn, address, &filter, after, limit + 1).await?
        }
        None => Vec::new(),
    };
    Ok(Json(Page::of(rows, limit, |row| (Micros(row.time), row.id)).map(Share::from)))
}

/// Counts of shares
#[utoipa::path(
    get,
    path = "/api/v1/mining/shares/stats",
    tag = "mining",
    responses((status = 200, description = "Of all time and of today", body = ShareStats))
)]
async fn stats(State(mining): State<Mining>, caller: Caller) -> Result<Json<ShareStats>, ApiError> {
    let mut conn = mining.pool.acquire().await?;
    let row = summary::counts(&mut conn, caller.user_id, mining.clock.now()).await?;
    Ok(Json(ShareStats {
        total_shares: row.total,
        accepted_shares: row.accepted,
        rejected_shares: row.rejected,
        acceptance_rate: per_cent(row.accepted, row.total),
        shares_today: row.today_total,
        accepted_today: row.today_accepted,
        best_diff_today: row.today_best,
    }))
}

/// The newest shares
#[utoipa::path(
    get,
    path = "/api/v1/mining/shares/live",
    tag = "mining",
    responses((status = 200, description = "Twenty at most, newest first", body = LiveShares))
)]
async fn live(State(mining): State<Mining>, caller: Caller) -> Result<Json<LiveShares>, ApiError> {
    let mut conn = mining.pool.acquire().await?;
    let today = mining.clock.now().date_naive();
    let rows = store::newest_of(&mut conn, caller.user_id, today, LIVE_SHARES).await?;
    let shares = rows
        .into_iter()
        .map(|(row, is_personal_best, is_above_average)| LiveShare {
            share: Share::from(row),
            is_personal_best,
            is_above_average,
        })
        .collect();
    Ok(Json(LiveShares { shares }))
}
