//! The game's rules, pure: the catalogue, a player's state, what causes do to it.

pub(crate) mod catalogue;
pub(crate) mod causes;
pub(crate) mod derive;
pub(crate) mod player;
pub(crate) mod streak;
pub(crate) mod words;
