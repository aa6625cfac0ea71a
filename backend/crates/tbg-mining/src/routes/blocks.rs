//! Blocks of the pool, for everybody (contract `mining.md` §7, 10–11).

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tbg_web::cursor::{self, Micros};
use tbg_web::{ApiError, Caller, ErrorCode, Int, Page, Query, Routes, Text};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::Mining;
use crate::store::block_reads::{self as store, BlockRow};

const DEFAULT_LIMIT: i64 = 20;

/// A block that the pool found.
#[derive(Serialize, ToSchema)]
#[schema(as = PoolBlock)]
struct Block {
    block_height: i32,
    /// Empty while it is unknown.
    block_hash: String,
    /// Achieved difficulty.
    #[schema(required)]
    difficulty: Option<f64>,
    #[schema(required)]
    reward_btc: Option<f64>,
    #[schema(required)]
    fees_btc: Option<f64>,
    found_at: DateTime<Utc>,
    confirmed: bool,
    confirmations: i32,
    /// Of the caller's own blocks only.
    #[schema(required)]
    worker_name: Option<String>,
    /// Name of the finder; `Anonymous` if they hide, `Pool` if nobody is known.
    finder: String,
    #[schema(required)]
    finder_country: Option<String>,
    is_mine: bool,
}

/// One block with what only its own page shows.
#[derive(Serialize, ToSchema)]
struct BlockDetail {
    block: Block,
    /// Null if the finder hides or nobody is known.
    #[schema(required)]
    finder_address: Option<String>,
    #[schema(required)]
    coinbase_sig: Option<String>,
}

/// Satoshi as BTC; exact, since a double holds more digits than the money supply.
pub(crate) fn btc(sats: i64) -> f64 {
    sats as f64 / 1e8
}

impl Block {
    fn of(row: BlockRow) -> Self {
        let finder = match (&row.btc_address, row.is_hidden, row.display_name) {
            (None, ..) => "Pool".to_owned(),
            (_, true, _) => "Anonymous".to_owned(),
            (_, _, Some(name)) => name,
            (Some(address), _, None) => format!("Miner-{}", address.chars().take(8).collect::<String>()),
        };
        Self {
            block_height: row.block_height,
            block_hash: row.block_hash.unwrap_or_default(),
            difficulty: row.difficulty,
            reward_btc: row.reward_sats.map(btc),
            fees_btc: row.fees_sats.map(btc),
            found_at: row.found_at,
            confirmed: row.confirmed,
            confirmations: row.confirmations,
            worker_name: row.worker_name.filter(|_| row.is_mine),
            finder,
            finder_country: row.country_code.filter(|_| !row.is_hidden),
            is_mine: row.is_mine,
        }
    }
}

/// Which blocks.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct BlocksQuery {
    /// Rows of a page; 20 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    limit: Option<Int<1, 100>>,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<String>, min_length = 1, max_length = 200)]
    cursor: Option<Text<0, 200>>,
}

/// The routes of blocks.
pub(crate) fn routes() -> Routes<Mining> {
    Routes::new().user(routes!(list)).user(routes!(detail))
}

/// Blocks
///
/// Of the whole pool, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/mining/blocks",
    tag = "mining",
    params(BlocksQuery),
    responses(
        (status = 200, description = "A page", body = Page<Block>),
        (status = 400, description = "The cursor is not one of this list", body = tbg_web::ErrorBody),
    )
)]
async fn list(
    State(mining): State<Mining>,
    caller: Caller,
    Query(query): Query<BlocksQuery>,
) -> Result<Json<Page<Block>>, ApiError> {
    let limit = query.limit.map_or(DEFAULT_LIMIT, Int::get);
    let after: Option<(Micros, i64)> =
        query.cursor.as_ref().map(|cursor| cursor::decode(cursor.as_str())).transpose()?;
    let after = after.map(|(Micros(time), id)| (time, id));
    let mut conn = mining.pool.acquire().await?;
    let rows = store::page(&mut conn, caller.user_id, after, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |row| (Micros(row.found_at), row.id)).map(Block::of)))
}

/// One block
#[utoipa::path(
    get,
    path = "/api/v1/mining/blocks/{height}",
    tag = "mining",
    params(("height" = i32, Path, description = "Block height", minimum = 0)),
    responses(
        (status = 200, description = "The block", body = BlockDetail),
        (status = 404, description = "The pool found no block there", body = tbg_web::ErrorBody),
    )
)]
async fn detail(
    State(mining): State<Mining>,
    caller: Caller,
    height: Result<Path<i32>, PathRejection>,
) -> Result<Json<BlockDetail>, ApiError> {
    let height = height.map(|Path(height)| height).ok().filter(|height| *height >= 0);
    let height = height.ok_or_else(|| {
        ApiError::validation(vec![tbg_web::FieldError::new(
            "path.height",
            tbg_web::FieldErrorKind::OutOfRange,
            "must be from 0 to 2147483647",
        )])
    })?;
    let mut conn = mining.pool.acquire().await?;
    let row = store::at_height(&mut conn, caller.user_id, height).await?;
    let mut row = row.ok_or_else(|| ApiError::new(ErrorCode::BlockNotFound, "Block not found"))?;
    let coinbase_sig = row.coinbase_sig.take();
    let finder_address = row.btc_address.clone().filter(|_| !row.is_hidden);
    Ok(Json(BlockDetail { block: Block::of(row), finder_address, coinbase_sig }))
}
