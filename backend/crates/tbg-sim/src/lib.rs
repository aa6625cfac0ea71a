//! A seeded simulator of a mining pool.
//!
//! [`Simulator`] is an endless iterator over what a ckpool-like pool with any number of miners
//! would send: one [`SimEvent`] per datagram, each with its envelope A line (contract `mining.md`
//! §2.2). Demos, load tests and the tests of the ingest pipeline read from it, so it also produces
//! what real pools produce and parsers get wrong: repeated datagrams, late arrivals, rejected
//! shares, reconnects, and blocks announced twice.
//!
//! It is pure: no I/O, no wall clock, no threads. Pacing and sending are the caller's work. The
//! same [`SimConfig`] gives the same bytes (on one platform: logarithms come from its maths
//! library). Each miner draws from its own random stream, so a larger population leaves the
//! miners that were there before as they were.
//!
//! ```
//! use tbg_sim::{SimConfig, Simulator};
//!
//! let config = SimConfig { miners: 10, ..SimConfig::default() };
//! let lines: Vec<String> = Simulator::new(config).take(100).map(|event| event.json).collect();
//! assert_eq!(lines.len(), 100);
//! ```

mod config;
mod event;
mod identity;
mod random;
mod rig;
mod simulator;
#[cfg(test)]
mod tests;
mod wire;

pub use config::SimConfig;
pub use event::SimEvent;
pub use identity::{Miner, address_of};
pub use simulator::Simulator;
