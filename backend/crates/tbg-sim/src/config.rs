//! What to simulate, and the facts about each network that the pool is built with.

use tbg_bitcoin::Network;

/// Latest start that is accepted, so that no instant ever overflows: the end of the year 9999.
const LAST_START_US: i64 = 253_402_300_799_000_000;

/// The settings of a simulation. Values without meaning (negative, not a number) are replaced by
/// [`Simulator::new`](crate::Simulator::new) as told at each field.
#[derive(Clone, Debug, PartialEq)]
pub struct SimConfig {
    /// Seed of every random stream.
    pub seed: u64,
    /// Varies what the same miners do: another run of the same crowd. 0 for the plain run of the seed.
    pub run: u64,
    /// Number of workers (rigs); several may mine to one address.
    pub miners: u32,
    /// Simulated start in unix microseconds; from 1970 to 9999.
    pub start_us: i64,
    /// Network of the addresses and of the share difficulty bounds.
    pub network: Network,
    /// Seconds between two shares of a worker that vardiff aims at, a millisecond to a day; else 15.
    pub target_share_seconds: f64,
    /// Part of the shares that the pool rejects, 0 to 1; else 0.
    pub reject_rate: f64,
    /// Part of the accepted shares that are sent two or three times within 500 microseconds,
    /// 0 to 1; else 0.
    pub duplicate_rate: f64,
    /// Part of the miners' events that arrive up to 3 seconds after their `ts`, 0 to 1; else 0.
    /// Blocks and the share that found one are never late.
    pub out_of_order_rate: f64,
    /// Mean seconds between connecting and disconnecting; infinite, zero or negative: never
    /// disconnects. The mean time away is 60 seconds.
    pub mean_session_seconds: f64,
    /// Mean seconds between blocks that the rest of the network finds; infinite, zero or negative:
    /// none.
    pub block_interval_seconds: f64,
    /// Network difficulty, at least 1; a share that reaches it is a block.
    pub network_difficulty: f64,
    /// Seconds (at least a millisecond) between shares that are made to be a block, each of a
    /// random online miner, beside the shares of its own work; none,
    /// not finite, zero or negative: only luck finds blocks.
    pub forced_block_every_seconds: Option<f64>,
    /// Address of the first owner, instead of one that nobody holds the keys of.
    pub first_address: Option<String>,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            run: 0,
            miners: 1000,
            start_us: 1_771_804_800_000_000,
            network: Network::Mainnet,
            target_share_seconds: 15.0,
            reject_rate: 0.01,
            duplicate_rate: 0.005,
            out_of_order_rate: 0.02,
            mean_session_seconds: 4.0 * 3600.0,
            block_interval_seconds: 600.0,
            network_difficulty: 1e14,
            forced_block_every_seconds: None,
            first_address: None,
        }
    }
}

impl SimConfig {
    /// The same settings with every value inside its range.
    pub(crate) fn sane(self) -> Self {
        let endless = |seconds: f64| {
            if seconds > 0.0 { seconds } else { f64::INFINITY }
        };
        Self {
            start_us: self.start_us.clamp(0, LAST_START_US),
            target_share_seconds: positive(self.target_share_seconds).unwrap_or(15.0).clamp(1e-3, 86_400.0),
            reject_rate: rate(self.reject_rate),
            duplicate_rate: rate(self.duplicate_rate),
            out_of_order_rate: rate(self.out_of_order_rate),
            mean_session_seconds: endless(self.mean_session_seconds),
            block_interval_seconds: endless(self.block_interval_seconds),
            network_difficulty: positive(self.network_difficulty).unwrap_or(1.0).clamp(1.0, 1e30),
            forced_block_every_seconds: self
                .forced_block_every_seconds
                .filter(|_| self.miners > 0)
                .and_then(positive)
                .map(|seconds| seconds.max(1e-3)),
            ..self
        }
    }

    /// Bounds of the share difficulty on the network (contract `mining.md` §1, which names none
    /// for testnet: it gets those of signet).
    pub(crate) fn bounds(&self) -> DiffBounds {
        match self.network {
            Network::Mainnet => DiffBounds { min: 512.0, start: 10_000.0 },
            Network::Testnet | Network::Signet => DiffBounds { min: 64.0, start: 256.0 },
            Network::Regtest => DiffBounds { min: 500_000.0, start: 500_000.0 },
        }
    }
}

/// Share difficulties that the pool assigns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiffBounds {
    /// The least that vardiff may assign.
    pub min: f64,
    /// What a worker unknown to the pool gets.
    pub start: f64,
}

fn positive(value: f64) -> Option<f64> {
    (value.is_finite() && value > 0.0).then_some(value)
}

fn rate(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) }
}
