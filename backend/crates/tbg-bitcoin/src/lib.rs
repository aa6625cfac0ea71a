//! Bitcoin arithmetic that the game stands on, free of I/O, clocks and randomness.
//!
//! * [`Network`]: the four networks, their address prefixes and subsidy schedule.
//! * [`BtcAddress`]: an address that has been parsed, checked for its network and normalised
//!   (contract `auth-users.md` §2.1).
//! * [`verify_message`]: proof that somebody holds the key of an address (contract `auth-users.md`
//!   §2.2 to §2.4).
//! * [`wallet`]: throwaway keys that sign such messages.
//! * [`difficulty`]: work, hashrate, subsidy and retarget arithmetic (contract `mining.md` §4).

mod address;
pub mod difficulty;
mod message;
mod network;
pub mod wallet;

pub use address::{AddressError, AddressType, BtcAddress};
pub use message::verify_message;
pub use network::Network;
