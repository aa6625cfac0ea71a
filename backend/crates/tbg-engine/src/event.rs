//! The pool's events, typed (contract `mining.md` §2.2).
//!
//! Two difficulties that must never be mixed: **assigned** (`diff`, what the worker was asked for; work
//! and hashrate) and **achieved** (`sdiff`, what the submitted hash reached; bests and records).

use chrono::{DateTime, Utc};

/// One event of the pool, decoded and validated.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolEvent {
    /// When it happened, by the pool's clock, in microseconds.
    pub ts: DateTime<Utc>,
    /// What happened.
    pub kind: EventKind,
    /// `hosted`, `proxy` or `self-hosted`.
    pub source: String,
    /// The pool's region; a label, never a key.
    pub region: String,
    /// Present on events that cross regions.
    pub event_id: Option<String>,
    /// Bitcoin address of the miner; empty when the event is about nobody.
    pub user: String,
    /// Short name of the worker, see [`short_worker_name`](crate::key::short_worker_name).
    pub worker: String,
    /// The `data` object with defaults filled in, as compact JSON: what `mining_events` stores.
    pub payload: String,
}

impl PoolEvent {
    /// Whether the event has effects for one miner: not for `unknown`, `pool` and nobody.
    #[must_use]
    pub fn has_miner(&self) -> bool {
        !matches!(self.user.as_str(), "" | "unknown" | "pool")
    }

    /// The share, if this is one.
    #[must_use]
    pub fn share(&self) -> Option<&Share> {
        match &self.kind {
            EventKind::ShareSubmitted(share) => Some(share),
            _ => None,
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// A worker submitted a share.
    ShareSubmitted(Share),
    /// The pool saw a new best achieved difficulty; covers a lost share datagram.
    ShareBestDiff {
        /// The achieved difficulty.
        new_best: f64,
    },
    /// The pool found a block.
    BlockFound(BlockFound),
    /// A worker connected.
    MinerConnected(Connected),
    /// A worker disconnected.
    MinerDisconnected,
    /// The pool assigned another difficulty.
    DiffUpdated {
        /// The new assigned difficulty.
        new_diff: f64,
    },
    /// The pool's own view of a worker's hashrate, H/s.
    HashrateUpdate {
        /// Over one minute, five minutes, one hour, one day.
        rates: [f64; 4],
    },
    /// The network moved to a new block.
    NewBlockNetwork(NetworkBlock),
    /// A worker uses overt ASICBoost.
    AsicboostDetected,
    /// An event that only the archive keeps, with its name.
    Other(String),
}

impl EventKind {
    /// The names that have a stream of their own, in the order of the contract.
    pub const NAMES: [&'static str; 9] = [
        "share_submitted",
        "share_best_diff",
        "block_found",
        "miner_connected",
        "miner_disconnected",
        "diff_updated",
        "hashrate_update",
        "new_block_network",
        "asicboost_detected",
    ];

    /// The event's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::ShareSubmitted(_) => "share_submitted",
            Self::ShareBestDiff { .. } => "share_best_diff",
            Self::BlockFound(_) => "block_found",
            Self::MinerConnected(_) => "miner_connected",
            Self::MinerDisconnected => "miner_disconnected",
            Self::DiffUpdated { .. } => "diff_updated",
            Self::HashrateUpdate { .. } => "hashrate_update",
            Self::NewBlockNetwork(_) => "new_block_network",
            Self::AsicboostDetected => "asicboost_detected",
            Self::Other(name) => name,
        }
    }

    /// The name as a metric label: a closed set.
    #[must_use]
    pub fn label(&self) -> &'static str {
        let name = self.name();
        Self::NAMES.into_iter().find(|known| *known == name).unwrap_or("other")
    }
}

/// A submitted share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Share {
    /// Assigned difficulty.
    pub diff: f64,
    /// Achieved difficulty.
    pub sdiff: f64,
    /// Whether the pool accepted it.
    pub accepted: bool,
    /// Why not, if not.
    pub reject_reason: String,
    /// Address of the miner's network.
    pub ip: Option<std::net::IpAddr>,
    /// Nonce, hex.
    pub nonce: Option<String>,
    /// Extranonce 2, hex.
    pub nonce2: Option<String>,
    /// Hash of the submitted header, hex.
    pub hash: Option<String>,
}

/// A block found by the pool, as published.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockFound {
    /// Block height.
    pub height: i32,
    /// Block hash, hex; the pool often does not know it.
    pub hash: Option<String>,
    /// Achieved difficulty; zero when unknown.
    pub diff: f64,
    /// Network difficulty; zero when unknown.
    pub network_diff: f64,
    /// Reward in satoshi; zero when unknown.
    pub reward_sats: i64,
    /// Text in the coinbase.
    pub coinbase_sig: String,
}

/// A connection of a worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connected {
    /// Address of the miner's network.
    pub ip: Option<std::net::IpAddr>,
    /// What the firmware calls itself.
    pub useragent: String,
    /// First assigned difficulty.
    pub initial_diff: f64,
}

/// A block of the network. `height` is the one now being mined (tip + 1), `hash` the tip's
/// (contract `mining.md` §3.6).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkBlock {
    /// Height as published.
    pub height: i32,
    /// Hash as published.
    pub hash: String,
    /// Network difficulty.
    pub diff: f64,
}
