//! How to connect a miner (contract `mining.md` §7).

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tbg_web::{ApiError, Caller, Routes};
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::Mining;
use crate::store::account;

/// Regions of the pool with their ports (contract §1).
const REGIONS: [(&str, u16); 3] = [("eu-west", 3333), ("us-east", 3334), ("ap-south", 3335)];

/// A region of the pool.
#[derive(Serialize, ToSchema)]
#[schema(as = StratumRegion)]
struct Region {
    #[schema(value_type = String)]
    region: &'static str,
    url: String,
}

/// What to type into a miner.
#[derive(Serialize, ToSchema)]
#[schema(as = MinerSetup)]
struct Setup {
    stratum_url: String,
    host: String,
    port: u16,
    /// The caller's address.
    #[schema(required)]
    username: Option<String>,
    #[schema(value_type = String)]
    worker_format: &'static str,
    /// Ignored by the pool.
    #[schema(value_type = String)]
    password: &'static str,
    regions: Vec<Region>,
}

/// The routes of the set-up.
pub(crate) fn routes() -> Routes<Mining> {
    Routes::new().user(routes!(setup))
}

/// How to connect a miner
#[utoipa::path(
    get,
    path = "/api/v1/mining/setup",
    tag = "mining",
    responses((status = 200, description = "What to type into a miner", body = Setup))
)]
async fn setup(State(mining): State<Mining>, caller: Caller) -> Result<Json<Setup>, ApiError> {
    let mut conn = mining.pool.acquire().await?;
    let account = account::load(&mut conn, caller.user_id).await?;
    let url = &mining.config.stratum_public_url;
    let (scheme, rest) = url.split_once("://").unwrap_or(("stratum+tcp", url));
    let (host, port) = rest.rsplit_once(':').unwrap_or((rest, ""));
    let regions = REGIONS
        .into_iter()
        .map(|(region, port)| Region { region, url: format!("{scheme}://{host}:{port}") })
        .collect();
    Ok(Json(Setup {
        stratum_url: url.clone(),
        host: host.to_owned(),
        port: port.parse().unwrap_or(3333),
        username: account.address,
        worker_format: "<address>.<worker>",
        password: "x",
        regions,
    }))
}
