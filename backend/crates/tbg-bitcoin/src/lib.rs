//! Bitcoin arithmetic that the game stands on, free of I/O, clocks and randomness.
//!
//! * [`Network`]: the four networks, their address prefixes and subsidy schedule.
//! * [`BtcAddress`]: an address that has been parsed, checked for its network and normalised
//!   (contract `auth-users.md` §2.1).
//! * [`difficulty`]: work, hashrate, subsidy and retarget arithmetic (contract `mining.md` §4).

mod address;
pub mod difficulty;
mod network;

pub use address::{AddressError, AddressType, BtcAddress};
pub use network::Network;
