//! All SQL of the mining domain. One statement per table and batch, rows by `UNNEST`, in key order.

pub(crate) mod account;
pub(crate) mod adoption;
pub(crate) mod block_reads;
mod blocks;
pub(crate) mod charts;
pub(crate) mod dashboard;
pub(crate) mod difficulty;
pub(crate) mod live;
mod raw;
pub(crate) mod rebuild;
mod rollups;
pub(crate) mod shares;
pub(crate) mod summary;

pub(crate) use blocks::{
    confirm_blocks, insert_celebrations, load_blocks, network_height, reserve_block_ids, upsert_blocks,
    upsert_feed, upsert_network,
};
pub(crate) use raw::{insert_events, insert_shares, reserve_share_ids};
pub(crate) use rollups::{best_since, load_known, upsert_bests, upsert_rollups};
