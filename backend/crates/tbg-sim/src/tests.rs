//! The promises of the crate: same seed same bytes, lines that the contract accepts, and
//! statistics near the truth.

mod truth;

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::Address;
use bitcoin::address::NetworkUnchecked;
use proptest::prelude::*;
use serde_json::Value;
use tbg_bitcoin::Network;

use super::*;

/// Nothing but shares and reports: no rejects, copies, delays, reconnects.
fn calm(miners: u32) -> SimConfig {
    SimConfig {
        miners,
        reject_rate: 0.0,
        duplicate_rate: 0.0,
        out_of_order_rate: 0.0,
        mean_session_seconds: f64::INFINITY,
        ..SimConfig::default()
    }
}

/// A lot of everything.
fn wild(miners: u32) -> SimConfig {
    SimConfig {
        miners,
        reject_rate: 0.1,
        duplicate_rate: 0.2,
        out_of_order_rate: 0.1,
        mean_session_seconds: 240.0,
        block_interval_seconds: 45.0,
        forced_block_every_seconds: Some(30.0),
        ..SimConfig::default()
    }
}

/// All events that arrive within the first `seconds`.
fn events(config: &SimConfig, seconds: i64) -> Vec<SimEvent> {
    let end = config.start_us + seconds * 1_000_000;
    Simulator::new(config.clone()).take_while(|event| event.arrive_us < end).collect()
}

fn data(event: &SimEvent) -> Value {
    let line: Value = serde_json::from_str(&event.json).unwrap_or_default();
    assert!(line["data"].is_object(), "not an envelope: {}", event.json);
    line["data"].clone()
}

fn number(data: &Value, field: &str) -> f64 {
    data[field].as_f64().unwrap_or(f64::NAN)
}

#[test]
fn same_seed_same_bytes() {
    let run =
        |seed| -> Vec<SimEvent> { Simulator::new(SimConfig { seed, ..wild(300) }).take(20_000).collect() };
    assert_eq!(run(7), run(7));
    let (seven, eight) = (run(7), run(8));
    assert_ne!(seven, eight);
    assert_ne!(address_of(7, 0, Network::Mainnet), address_of(8, 0, Network::Mainnet));
}

#[test]
fn more_miners_leave_the_others_as_they_were() {
    let (small, large) =
        (SimConfig { reject_rate: 0.1, ..calm(40) }, SimConfig { reject_rate: 0.1, ..calm(90) });
    let of = |config: &SimConfig| -> Vec<SimEvent> {
        let mut all = events(config, 1200);
        all.retain(|event| event.miner == Some(7));
        all
    };
    assert!(of(&small).len() > 20);
    assert_eq!(of(&small), of(&large));
    let (few, many) = (Simulator::new(small), Simulator::new(large));
    assert_eq!(few.miners(), &many.miners()[..40]);
}

#[test]
fn every_line_is_an_envelope() {
    let required = BTreeMap::from([
        ("share_submitted", "user worker client_id diff sdiff accepted"),
        ("share_best_diff", "user worker new_best prev_best timeframe"),
        ("block_found", "user worker height diff network_diff reward_sats"),
        ("miner_connected", "user worker client_id ip useragent initial_diff asicboost_capable"),
        ("miner_disconnected", "user worker client_id ip session_duration shares_session"),
        (
            "diff_updated",
            "user worker client_id old_diff new_diff ema_share_rate stable_intervals \
             adjustment_count",
        ),
        ("hashrate_update", "user worker hashrate_1m hashrate_5m hashrate_1h hashrate_1d"),
        ("new_block_network", "height hash diff prev_hash"),
        ("asicboost_detected", "user worker pool_mask miner_mask"),
    ]);
    let mut seen = BTreeSet::new();
    for event in events(&wild(300), 900) {
        let line: Value = serde_json::from_str(&event.json).unwrap_or_default();
        assert_eq!(line["event"], event.event, "{}", event.json);
        assert_eq!(line["source"], "hosted");
        let region = line["region"].as_str().unwrap_or_default();
        assert!(["default", "eu-west", "us-east", "ap-south"].contains(&region));
        let fields = required.get(event.event).copied().unwrap_or("unknown event");
        for field in fields.split_whitespace() {
            assert!(!line["data"][field].is_null(), "{field} is missing: {}", event.json);
        }
        let ts = format!(r#""ts":{}.{:06},"#, event.ts_us / 1_000_000, event.ts_us % 1_000_000);
        assert!(event.json.contains(&ts), "{}", event.json);
        assert!(event.json.is_ascii() && event.json.len() < 1024);
        assert!(!event.json.contains(char::is_control));
        seen.insert(event.event);
    }
    assert_eq!(seen.len(), required.len(), "only saw {seen:?}");
}

#[test]
fn arrival_is_in_order_and_at_most_three_seconds_late() {
    let mut last = 0;
    let mut late = 0;
    for event in events(&wild(200), 600) {
        assert!(event.arrive_us >= last);
        last = event.arrive_us;
        let delay = event.arrive_us - event.ts_us;
        assert!((0..=3_000_000).contains(&delay), "{delay}");
        late += u32::from(delay > 0);
    }
    assert!(late > 100);
}

#[test]
fn blocks_extend_the_chain() {
    let (mut height, mut hash): (u64, Option<Value>) = (0, None);
    let (mut blocks, mut of_pool) = (0_u32, 0_u32);
    for event in events(&wild(100), 3600) {
        let data = data(&event);
        if event.event == "new_block_network" {
            let next = data["height"].as_u64().unwrap_or_default();
            assert!(if height == 0 { next == 900_000 } else { next == height + 1 });
            assert!(hash.is_none_or(|hash| data["prev_hash"] == hash));
            assert_eq!(data["hash"].as_str().map(str::len), Some(64));
            height = next;
            hash = Some(data["hash"].clone());
        } else if event.event == "block_found" {
            assert_eq!(data["height"].as_u64(), Some(height));
            assert_eq!(number(&data, "network_diff"), 1e14);
            assert!(data["hash"].is_null());
            if data["user"] == "pool" {
                assert!(event.miner.is_none());
                of_pool += 1;
            } else {
                blocks += 1;
            }
        }
    }
    assert!(blocks > 100 && of_pool > 20 && of_pool < blocks, "{blocks} {of_pool}");
}

#[test]
fn addresses_are_valid_on_their_network() {
    for (network, theirs) in [
        (Network::Mainnet, bitcoin::Network::Bitcoin),
        (Network::Testnet, bitcoin::Network::Testnet),
        (Network::Signet, bitcoin::Network::Signet),
        (Network::Regtest, bitcoin::Network::Regtest),
    ] {
        let mut kinds = BTreeSet::new();
        for index in 0..300 {
            let text = address_of(3, index, network);
            let address = text.parse::<Address<NetworkUnchecked>>().map(|address| {
                assert!(address.is_valid_for_network(theirs), "{text}");
                address.assume_checked().address_type()
            });
            assert!(matches!(address, Ok(Some(_))), "{text}");
            kinds.extend(address.ok().flatten());
        }
        assert_eq!(kinds.len(), 4);
    }
}

#[test]
fn nothing_to_do_ends() {
    let config = SimConfig { block_interval_seconds: f64::INFINITY, ..calm(0) };
    assert_eq!(Simulator::new(config).count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_settings_give_valid_lines(
        seed in any::<u64>(),
        miners in 0_u32..20,
        start_us in any::<i64>(),
        values in prop::array::uniform8(prop::num::f64::ANY),
    ) {
        let [target, reject, duplicate, late, session, interval, difficulty, forced] = values;
        let config = SimConfig {
            first_address: None,
            seed,
            run: 0,
            miners,
            start_us,
            network: Network::Signet,
            target_share_seconds: target,
            reject_rate: reject,
            duplicate_rate: duplicate,
            out_of_order_rate: late,
            mean_session_seconds: session,
            block_interval_seconds: interval,
            network_difficulty: difficulty,
            forced_block_every_seconds: Some(forced),
        };
        let mut last = 0;
        for event in Simulator::new(config).take(300) {
            prop_assert!(event.arrive_us >= last && event.arrive_us >= event.ts_us);
            last = event.arrive_us;
            let line: Result<Value, _> = serde_json::from_str(&event.json);
            prop_assert!(line.is_ok(), "{}", event.json);
        }
    }
}
