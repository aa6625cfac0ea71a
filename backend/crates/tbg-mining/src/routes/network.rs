//! The network as the pool sees it, for everybody (contract `mining.md` §7, 17–18).

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tbg_web::{ApiError, Caller, Int, Query, Routes};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::Mining;
use crate::store::block_reads as store;

const HISTORY: i64 = 50;
const DEFAULT_LIMIT: i64 = 20;

/// A difficulty of the past.
#[derive(Serialize, ToSchema)]
struct DifficultyPoint {
    block_height: i32,
    difficulty: f64,
    timestamp: DateTime<Utc>,
}

/// Difficulty and height of the network.
#[derive(Serialize, ToSchema)]
struct NetworkDifficulty {
    current_difficulty: f64,
    /// The height that is being mined.
    current_height: i64,
    /// Newest first, fifty at most.
    history: Vec<DifficultyPoint>,
}

/// A block of the network.
#[derive(Serialize, ToSchema)]
#[schema(as = NetworkBlock)]
struct Block {
    height: i32,
    /// Empty while it is unknown.
    hash: String,
    difficulty: f64,
    timestamp: DateTime<Utc>,
}

/// Blocks of the network.
#[derive(Serialize, ToSchema)]
#[schema(as = NetworkBlocks)]
struct Blocks {
    /// Newest first.
    blocks: Vec<Block>,
}

/// Difficulty and height.
#[derive(Serialize, ToSchema)]
#[schema(as = NetworkNow)]
struct Now {
    difficulty: f64,
    block_height: i64,
}

/// How many blocks.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct BlocksQuery {
    /// 20 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    limit: Option<Int<1, 100>>,
}

/// The routes of the network.
pub(crate) fn routes() -> Routes<Mining> {
    Routes::new().user(routes!(difficulty)).user(routes!(blocks)).user(routes!(now))
}

/// Difficulty and height from Redis, else those of the newest row, else zeros.
async fn current(mining: &Mining, newest: Option<&store::NetworkRow>) -> (f64, i64) {
    match mining.0.live.network().await {
        Ok(Some(network)) => (network.difficulty, network.height),
        _ => newest.map_or((0.0, 0), |row| (row.difficulty, row.block_height.into())),
    }
}

/// Difficulty of the network
#[utoipa::path(
    get,
    path = "/api/v1/mining/network/difficulty",
    tag = "mining",
    responses((status = 200, description = "Now and before", body = NetworkDifficulty))
)]
async fn difficulty(
    State(mining): State<Mining>,
    _caller: Caller,
) -> Result<Json<NetworkDifficulty>, ApiError> {
    let mut conn = mining.pool.acquire().await?;
    let rows = store::network(&mut conn, HISTORY).await?;
    drop(conn);
    let (current_difficulty, current_height) = current(&mining, rows.first()).await;
    let history = rows
        .into_iter()
        .map(|row| DifficultyPoint {
            block_height: row.block_height,
            difficulty: row.difficulty,
            timestamp: row.time,
        })
        .collect();
    Ok(Json(NetworkDifficulty { current_difficulty, current_height, history }))
}

/// Blocks of the network
#[utoipa::path(
    get,
    path = "/api/v1/mining/network/blocks",
    tag = "mining",
    params(BlocksQuery),
    responses((status = 200, description = "Newest first", body = Blocks))
)]
async fn blocks(
    State(mining): State<Mining>,
    _caller: Caller,
    Query(query): Query<BlocksQuery>,
) -> Result<Json<Blocks>, ApiError> {
    let mut conn = mining.pool.acquire().await?;
    let rows = store::network(&mut conn, query.limit.map_or(DEFAULT_LIMIT, Int::get)).await?;
    let blocks = rows
        .into_iter()
        .map(|row| Block {
            height: row.block_height,
            hash: row.block_hash.unwrap_or_default(),
            difficulty: row.difficulty,
            timestamp: row.time,
        })
        .collect();
    Ok(Json(Blocks { blocks }))
}

/// Difficulty and height alone
#[utoipa::path(
    get,
    path = "/api/v1/mining/network",
    tag = "mining",
    responses((status = 200, description = "Now", body = Now))
)]
async fn now(State(mining): State<Mining>, _caller: Caller) -> Result<Json<Now>, ApiError> {
    let mut conn = mining.pool.acquire().await?;
    let rows = store::network(&mut conn, 1).await?;
    drop(conn);
    let (difficulty, block_height) = current(&mining, rows.first()).await;
    Ok(Json(Now { difficulty, block_height }))
}
