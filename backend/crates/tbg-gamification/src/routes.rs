//! The endpoints of the game, one module per subject (contract `gamification.md` §5). Each has an alias under
//! `/gamification`, served by the same handler.

mod badges;
mod celebrations;
mod state;
#[expect(unused_qualifications, reason = "utoipa names the query by its path")]
mod streak;
#[expect(unused_qualifications, reason = "utoipa names the query by its path")]
mod xp;

use tbg_web::Routes;

use crate::Game;

/// All of them.
pub(crate) fn all() -> Routes<Game> {
    Routes::new()
        .merge(badges::routes())
        .merge(xp::routes())
        .merge(streak::routes())
        .merge(state::routes())
        .merge(celebrations::routes())
}
