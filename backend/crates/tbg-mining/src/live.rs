//! What is live: hashes in Redis that the writer changes after each commit and jobs sweep (contract
//! `mining.md` §5.2, §5.3). Nothing here is the only home of a fact: a flushed Redis heals from `workers` and
//! from the next shares.
//!
//! Writers and sweeps may run in different processes. Each reads a hash, computes in Rust, and writes only if
//! the hash has still the revision that it read.

mod commit;
mod notices;
mod store;
pub(crate) mod sweep;

pub use self::commit::LiveCommit;
pub use self::store::{LiveNetwork, LiveStore, UserRates, WorkerKey};
pub use crate::rules::live::{LiveWorker, StatusChange};
