//! All SQL of games and lottery.

mod draw;
mod play;
mod react;
mod reads;

pub(crate) use draw::*;
pub(crate) use play::*;
pub(crate) use react::*;
pub(crate) use reads::*;
