//! All SQL of the game: players are loaded and saved as a whole, reads are by key.

/// The player whom the columns of `user_gamification` in a row describe. A macro, because each query has a type of
/// its own for its rows.
macro_rules! player_of {
    ($user:expr, $row:ident) => {
        Player {
            user: $user,
            total_xp: $row.total_xp,
            xp_entries: $row.xp_entries,
            badges_earned: $row.badges_earned,
            streak: Streak {
                current: $row.current_streak,
                longest: $row.longest_streak,
                start: $row.streak_start_date,
                last_active: $row.last_active_week.as_deref().and_then(IsoWeek::parse),
                freezes: $row.freezes,
            },
            total_shares: $row.total_shares,
            best_difficulty: $row.best_difficulty,
            best_week: $row.best_difficulty_week.as_deref().and_then(IsoWeek::parse),
            blocks_found: $row.blocks_found,
            first_share_day: $row.first_share_day,
            ..Player::default()
        }
    };
}

mod check;
mod load;
mod operator;
mod reads;
mod save;

pub(crate) use check::{differing, keep_statistics, page_of_changed, repair};
pub(crate) use load::{Wanted, catalogue, has_champion, load, players_among};
pub(crate) use operator::{adjustable_xp, holds, lock_player};
pub(crate) use reads::*;
pub(crate) use save::{forget, save};
