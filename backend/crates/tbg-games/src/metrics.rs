//! The numbers of games and lottery (contract `games.md` §5).

use crate::rules::games::Game;

const PLAYS: &str = "tbg_games_plays_total";
const OVERDUE: &str = "tbg_lottery_overdue_weeks";

/// Makes the plays of every game appear at 0, so that the first one is seen.
pub(crate) fn register() {
    for game in Game::ALL {
        metrics::counter!(PLAYS, "game_type" => game.stored()).increment(0);
    }
}

pub(crate) fn first_play(game: &'static str) {
    metrics::counter!(PLAYS, "game_type" => game).increment(1);
}

pub(crate) fn overdue(weeks: usize) {
    metrics::gauge!(OVERDUE).set(weeks as f64);
}
