//! All SQL of the game: players are loaded and saved as a whole, reads are by key.

mod check;
mod load;
mod reads;
mod save;

pub(crate) use check::{keep_statistics, page_of_changed, repair};
pub(crate) use load::{Wanted, catalogue, has_champion, is_player, load, players_among};
pub(crate) use reads::*;
pub(crate) use save::{forget, save};
