//! The lines of envelope A (contract `mining.md` §2.2), written straight into a `String`.
//!
//! There is no serde here: these lines are most of the work of a load test. It is safe because all
//! texts are ASCII made in this crate, without quotes, backslashes or control characters, and all
//! numbers are finite. `{:?}` prints an `f64` as its shortest exact decimal with a point or an
//! exponent (`512.0`, `1e16`), and both are JSON numbers.

use std::fmt::{Arguments, Write};

use crate::identity::Miner;
use crate::rig::DiffChange;

pub(crate) const SHARE: &str = "share_submitted";
pub(crate) const BEST: &str = "share_best_diff";
pub(crate) const BLOCK: &str = "block_found";
pub(crate) const CONNECTED: &str = "miner_connected";
pub(crate) const DISCONNECTED: &str = "miner_disconnected";
pub(crate) const DIFF: &str = "diff_updated";
pub(crate) const HASHRATE: &str = "hashrate_update";
pub(crate) const NEW_BLOCK: &str = "new_block_network";
pub(crate) const ASICBOOST: &str = "asicboost_detected";

/// Region of events that belong to no miner.
const POOL_REGION: &str = "default";

/// Enough for nearly every line, so that a line is one allocation.
const LINE: usize = 448;

/// Who sends and when: what all events of a miner have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'a> {
    pub miner: &'a Miner,
    /// The pool's number for the connection.
    pub client_id: u64,
    /// Unix microseconds, not negative.
    pub ts_us: i64,
}

/// Appends; writing to a `String` cannot fail, so there is no result to look at.
fn put(line: &mut String, text: Arguments<'_>) {
    let _ = line.write_fmt(text);
}

fn open(region: &str, event: &str, ts_us: i64) -> String {
    let mut line = String::with_capacity(LINE);
    let (seconds, micros) = (ts_us.div_euclid(1_000_000), ts_us.rem_euclid(1_000_000));
    put(
        &mut line,
        format_args!(
            r#"{{"region":"{region}","event":"{event}","ts":{seconds}.{micros:06},"source":"hosted","data":{{"#
        ),
    );
    line
}

impl Sender<'_> {
    fn line(&self, event: &str, client: bool, data: Arguments<'_>) -> String {
        let mut line = open(self.miner.region, event, self.ts_us);
        let Miner { address, worker, .. } = self.miner;
        put(&mut line, format_args!(r#""user":"{address}","worker":"{worker}","#));
        if client {
            put(&mut line, format_args!(r#""client_id":{},"#, self.client_id));
        }
        put(&mut line, data);
        line.push_str("}}");
        line
    }
}

/// `share_submitted`; `reject_reason` is none for an accepted share.
pub(crate) fn share(from: Sender<'_>, diff: f64, sdiff: f64, reject_reason: Option<&str>) -> String {
    let ip = &from.miner.ip;
    match reject_reason {
        None => from.line(
            SHARE,
            true,
            format_args!(r#""diff":{diff:?},"sdiff":{sdiff:?},"accepted":true,"ip":"{ip}""#),
        ),
        Some(reason) => from.line(
            SHARE,
            true,
            format_args!(
                r#""diff":{diff:?},"sdiff":{sdiff:?},"accepted":false,"reject_reason":"{reason}","ip":"{ip}""#
            ),
        ),
    }
}

/// `share_best_diff` of all time.
pub(crate) fn best(from: Sender<'_>, new_best: f64, prev_best: f64) -> String {
    from.line(
        BEST,
        false,
        format_args!(r#""new_best":{new_best:?},"prev_best":{prev_best:?},"timeframe":"alltime""#),
    )
}

/// `miner_connected`.
pub(crate) fn connected(from: Sender<'_>, initial_diff: f64) -> String {
    let Miner { ip, useragent, asicboost, .. } = from.miner;
    from.line(
        CONNECTED,
        true,
        format_args!(
            r#""ip":"{ip}","useragent":"{useragent}","initial_diff":{initial_diff:?},"asicboost_capable":{asicboost}"#
        ),
    )
}

/// `miner_disconnected` after `seconds` with `shares` accepted shares.
pub(crate) fn disconnected(from: Sender<'_>, seconds: f64, shares: u64) -> String {
    let ip = &from.miner.ip;
    from.line(
        DISCONNECTED,
        true,
        format_args!(r#""ip":"{ip}","session_duration":{seconds:?},"shares_session":{shares}"#),
    )
}

/// `diff_updated`.
pub(crate) fn diff_updated(from: Sender<'_>, change: DiffChange) -> String {
    let DiffChange { old, new, share_rate, stable_intervals, adjustments } = change;
    from.line(
        DIFF,
        true,
        format_args!(
            r#""old_diff":{old:?},"new_diff":{new:?},"ema_share_rate":{share_rate:?},"stable_intervals":{stable_intervals},"adjustment_count":{adjustments}"#
        ),
    )
}

/// `hashrate_update`; H/s over 1 minute, 5 minutes, 1 hour and 1 day.
pub(crate) fn hashrate(from: Sender<'_>, rates: [f64; 4]) -> String {
    let [m1, m5, h1, d1] = rates;
    from.line(
        HASHRATE,
        false,
        format_args!(
            r#""hashrate_1m":{m1:?},"hashrate_5m":{m5:?},"hashrate_1h":{h1:?},"hashrate_1d":{d1:?}"#
        ),
    )
}

/// `asicboost_detected`.
pub(crate) fn asicboost(from: Sender<'_>, miner_mask: u32) -> String {
    from.line(ASICBOOST, false, format_args!(r#""pool_mask":"1fffe000","miner_mask":"{miner_mask:08x}""#))
}

/// `block_found` as the pool sends it today: without hash, with diff and reward 0. `finder` is
/// none for the copy that names the pool itself.
pub(crate) fn block(finder: Option<&Miner>, ts_us: i64, height: u64, network_diff: f64) -> String {
    let (region, user, worker) = match finder {
        Some(miner) => (miner.region, miner.address.as_str(), miner.worker.as_str()),
        None => (POOL_REGION, "pool", "pool"),
    };
    let mut line = open(region, BLOCK, ts_us);
    put(
        &mut line,
        format_args!(
            r#""user":"{user}","worker":"{worker}","height":{height},"diff":0.0,"network_diff":{network_diff:?},"reward_sats":0}}}}"#
        ),
    );
    line
}

/// `new_block_network`: `height` is the one to mine now, `hash` that of the tip below it and
/// `prev_hash` that of the tip's parent.
pub(crate) fn new_block(ts_us: i64, height: u64, hash: &str, prev_hash: &str, network_diff: f64) -> String {
    let mut line = open(POOL_REGION, NEW_BLOCK, ts_us);
    put(
        &mut line,
        format_args!(
            r#""height":{height},"hash":"{hash}","diff":{network_diff:?},"prev_hash":"{prev_hash}"}}}}"#
        ),
    );
    line
}
