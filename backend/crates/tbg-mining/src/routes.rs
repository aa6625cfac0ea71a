//! The endpoints of mining and of the dashboard, one module per subject (contract `mining.md` §6–8).
//!
//! All of class user and about the caller's own address, unless said otherwise: somebody without an address
//! gets zeros and empty lists.

#[expect(unused_qualifications, reason = "utoipa names the query by its path")]
mod blocks;
mod celebrations;
#[expect(unused_qualifications, reason = "utoipa names the query by its path")]
mod dashboard;
#[expect(unused_qualifications, reason = "utoipa names the query by its path")]
mod difficulty;
#[expect(unused_qualifications, reason = "utoipa names the query by its path")]
pub(crate) mod hashrate;
#[expect(unused_qualifications, reason = "utoipa names the query by its path")]
mod network;
mod setup;
#[expect(unused_qualifications, reason = "utoipa names the query by its path")]
mod shares;
#[expect(unused_qualifications, reason = "utoipa names the query by its path")]
pub(crate) mod summary;
mod workers;

pub(crate) use dashboard::UpcomingEvent;
use tbg_web::Routes;

use crate::Mining;

/// All of them.
pub(crate) fn all() -> Routes<Mining> {
    Routes::new()
        .merge(workers::routes())
        .merge(shares::routes())
        .merge(hashrate::routes())
        .merge(summary::routes())
        .merge(difficulty::routes())
        .merge(blocks::routes())
        .merge(network::routes())
        .merge(celebrations::routes())
        .merge(setup::routes())
        .merge(dashboard::routes())
}

/// Rounds half away from zero to `digits` decimals.
pub(crate) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}
