//! The endpoints of games and lottery, one module per subject (contract `games.md` §4).

#[expect(unused_qualifications, reason = "utoipa names the query by its path")]
mod lottery;
#[expect(unused_qualifications, reason = "utoipa names the query by its path")]
mod play;
#[expect(unused_qualifications, reason = "utoipa names the query by its path")]
mod proofs;
#[expect(unused_qualifications, reason = "utoipa names the query by its path")]
mod weekly;

use tbg_web::{ApiError, ErrorCode, Routes};

use crate::Games;

/// All of them.
pub(crate) fn all() -> Routes<Games> {
    Routes::new()
        .merge(weekly::routes())
        .merge(play::routes())
        .merge(lottery::routes())
        .merge(proofs::routes())
}

/// No such draw, or not yet.
fn no_draw() -> ApiError {
    ApiError::new(ErrorCode::LotteryDrawNotFound, "Lottery draw not found")
}
