//! The numbers of games and lottery (contract `games.md` §5).

const PLAYS: &str = "tbg_games_plays_total";
const OVERDUE: &str = "tbg_lottery_overdue_weeks";

pub(crate) fn first_play(game: &'static str) {
    metrics::counter!(PLAYS, "game_type" => game).increment(1);
}

pub(crate) fn overdue(weeks: usize) {
    metrics::gauge!(OVERDUE).set(weeks as f64);
}
