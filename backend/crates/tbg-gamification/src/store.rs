//! All SQL of the game: players are loaded and saved as a whole, reads are by key.

mod check;
mod load;
mod operator;
mod reads;
mod save;

pub(crate) use check::{differing, keep_statistics, page_of_changed, repair};
pub(crate) use load::{Wanted, catalogue, has_champion, load, players_among};
pub(crate) use operator::{adjustable, holds, lock_player};
pub(crate) use reads::*;
pub(crate) use save::{forget, save};
