//! The rules of games and lottery, pure: anybody can recompute them.

pub mod games;
pub mod lottery;
pub mod proof;
pub(crate) mod view;
pub(crate) mod week;
