//! The rules of the mining domain, pure: how events change rollups, bests and blocks.

pub mod blocks;
mod fold;
pub mod histogram;
pub mod live;
mod notices;
pub mod rank;
pub mod rollups;
pub mod window;

pub use fold::{Changes, FeedRow, Mode, RawEvent, RawShare, Reserved, State, fold};
