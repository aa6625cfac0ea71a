//! The rules of the mining domain, pure: how events change rollups, bests and blocks.

pub mod blocks;
mod fold;
pub mod rollups;

pub use fold::{Changes, FeedRow, Mode, RawEvent, RawShare, Reserved, State, fold};
