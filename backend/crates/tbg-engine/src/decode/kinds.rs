//! The fields of each event (contract `mining.md` §2.2): read, checked, defaults filled in.

use std::net::IpAddr;

use super::Refusal;
use super::fields::{Fields, bad_value};
use crate::event::{BlockFound, Connected, EventKind, NetworkBlock, Share};
use crate::key::short_worker_name;

const MAX_HEIGHT: i64 = i32::MAX as i64;
const MAX_USER: usize = 90;
/// The name of a worker.
const MAX_NAME: usize = 128;
/// A full username: the longest address, a separator and the longest worker name.
const MAX_USERNAME: usize = MAX_USER + 1 + MAX_NAME;

/// What the fields of one event say.
pub(super) struct Read {
    pub(super) kind: EventKind,
    pub(super) user: String,
    pub(super) worker: String,
}

pub(super) fn read(event: &str, fields: &mut Fields) -> Result<Read, Refusal> {
    let kind = match event {
        "share_submitted" => EventKind::ShareSubmitted(share(fields)?),
        "share_best_diff" => {
            let new_best = fields.number("new_best", 0.0)?;
            fields.number("prev_best", 0.0)?;
            fields.text("timeframe", "session", 32)?;
            EventKind::ShareBestDiff { new_best }
        }
        "block_found" => EventKind::BlockFound(block_found(fields)?),
        "miner_connected" => EventKind::MinerConnected(connected(fields)?),
        "miner_disconnected" => {
            client(fields)?;
            fields.number("session_duration", 0.0)?;
            fields.integer("shares_session", i64::MAX)?;
            EventKind::MinerDisconnected
        }
        "diff_updated" => {
            client_id(fields)?;
            fields.number("old_diff", 0.0)?;
            fields.number("ema_share_rate", 0.0)?;
            fields.integer("stable_intervals", i64::MAX)?;
            fields.integer("adjustment_count", i64::MAX)?;
            EventKind::DiffUpdated { new_diff: fields.number("new_diff", 0.0)? }
        }
        "hashrate_update" => {
            fields.rename("hashrate_24h", "hashrate_1d");
            let mut rates = [0.0; 4];
            for (rate, name) in
                rates.iter_mut().zip(["hashrate_1m", "hashrate_5m", "hashrate_1h", "hashrate_1d"])
            {
                *rate = fields.hashrate(name)?;
            }
            EventKind::HashrateUpdate { rates }
        }
        "new_block_network" => return network_block(fields),
        "asicboost_detected" => {
            fields.text("pool_mask", "", 64)?;
            fields.text("miner_mask", "", 64)?;
            EventKind::AsicboostDetected
        }
        other => return archived(other, fields),
    };
    let (user, worker) = miner(fields)?;
    Ok(Read { kind, user, worker })
}

fn share(fields: &mut Fields) -> Result<Share, Refusal> {
    client_id(fields)?;
    Ok(Share {
        diff: fields.number("diff", 0.0)?,
        sdiff: fields.number("sdiff", 0.0)?,
        accepted: fields.flag("accepted", true)?,
        reject_reason: fields.text("reject_reason", "", 64)?,
        ip: ip(fields)?,
        nonce: fields.extra("nonce", 16),
        nonce2: fields.extra("nonce2", 32),
        hash: fields.extra("hash", 64),
    })
}

fn block_found(fields: &mut Fields) -> Result<BlockFound, Refusal> {
    let hash = fields.text("hash", "", 64)?;
    Ok(BlockFound {
        height: height(fields)?,
        hash: (!hash.is_empty()).then_some(hash),
        diff: fields.number("diff", 0.0)?,
        network_diff: fields.number("network_diff", 0.0)?,
        // No reward exceeds the money supply; NUMERIC(16,8) holds it.
        reward_sats: fields.integer("reward_sats", 2_100_000_000_000_000)?,
        coinbase_sig: fields.text("coinbase_sig", "", 128)?,
    })
}

fn connected(fields: &mut Fields) -> Result<Connected, Refusal> {
    client_id(fields)?;
    fields.flag("asicboost_capable", false)?;
    Ok(Connected {
        ip: ip(fields)?,
        useragent: fields.text("useragent", "", 256)?,
        initial_diff: fields.number("initial_diff", 1.0)?,
    })
}

/// A block of the network has no miner.
fn network_block(fields: &mut Fields) -> Result<Read, Refusal> {
    fields.text("prev_hash", "", 64)?;
    let kind = EventKind::NewBlockNetwork(NetworkBlock {
        height: height(fields)?,
        hash: fields.text("hash", "", 64)?,
        diff: fields.number("diff", 0.0)?,
    });
    Ok(Read { kind, user: String::new(), worker: String::new() })
}

/// An event of another name is kept as it is; a miner is taken from it only if it names one well.
fn archived(event: &str, fields: &mut Fields) -> Result<Read, Refusal> {
    let text = |name| fields.map.get(name).and_then(|value| value.as_str()).unwrap_or("").to_owned();
    let (user, worker) = (text("user"), text("worker"));
    // A username may hold an address; without a user, the worker is a name alone.
    let longest = if user.is_empty() { MAX_NAME } else { MAX_USERNAME };
    let good = is_user(&user) && worker.chars().count() <= longest;
    let (user, worker) = if good { (user, worker) } else { (String::new(), String::new()) };
    let worker = if user.is_empty() { worker } else { short_worker_name(&user, &worker) };
    Ok(Read { kind: EventKind::Other(event.to_owned()), user, worker })
}

fn miner(fields: &mut Fields) -> Result<(String, String), Refusal> {
    let user = fields.text("user", "unknown", MAX_USER)?;
    if !is_user(&user) {
        return Err(bad_value("user", format_args!("letters and digits only")));
    }
    let worker = fields.text("worker", "unknown", MAX_USERNAME)?;
    let short = short_worker_name(&user, &worker);
    Ok((user, short))
}

fn is_user(user: &str) -> bool {
    user.len() <= MAX_USER && user.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn client(fields: &mut Fields) -> Result<(), Refusal> {
    client_id(fields)?;
    ip(fields).map(|_| ())
}

fn client_id(fields: &mut Fields) -> Result<(), Refusal> {
    fields.integer("client_id", i64::MAX).map(|_| ())
}

fn height(fields: &mut Fields) -> Result<i32, Refusal> {
    let height = fields.integer("height", MAX_HEIGHT)?;
    i32::try_from(height).map_err(|_| bad_value("height", format_args!("at most {MAX_HEIGHT}")))
}

/// An address of the network. One that cannot be read is no reason to lose a share.
fn ip(fields: &mut Fields) -> Result<Option<IpAddr>, Refusal> {
    Ok(fields.text("ip", "", 64)?.parse().ok())
}
