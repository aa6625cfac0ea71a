//! The rules of the wire formats, one sentence each (contract `mining.md` §1, §2, §3.3).

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::{BlockFound, Connected, EventKind, NetworkBlock, Share};
use crate::key::{KeyRule, event_key};

/// The instant of most events here, in each spelling.
const MICROS: i64 = 1_771_804_800_250_001;
const TS: &str = "1771804800.250001";
const RFC: &str = "2026-02-23T00:00:00.250001Z";
/// A stream id of another millisecond.
const ID: &str = "1771804900123-0";
/// A datagram with every part of envelope A.
const SHARE: &str = r#"{"region":"eu-west","event":"share_submitted","ts":1771804800.250001,"source":"proxy","event_id":"0190a3b4-7c8d-7000-b123-456789abcdef","data":{"user":"bc1qexample","worker":"bc1qexample.rig1","client_id":7,"diff":512.0,"sdiff":4096.5,"accepted":true,"reject_reason":"","ip":"203.0.113.9","nonce":"1a2b3c4d","nonce2":"00ff","hash":"00ab","ntime":"65d7","job_id":"j1"}}"#;

fn at(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap()
}

/// Envelope A around a `data` object.
fn envelope(event: &str, data: &str) -> String {
    format!(r#"{{"event":"{event}","ts":{TS},"data":{data}}}"#)
}

/// Envelope B around a `payload` object.
fn envelope_b(kind: &str, payload: &str) -> String {
    format!(
        r#"{{"event_id":"id-1","type":"{kind}","timestamp":"{RFC}","pool_instance":"us-east","payload":{payload}}}"#
    )
}

fn entry(fields: &[(&str, &str)]) -> HashMap<String, String> {
    fields.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

/// Decodes a stream entry, which must be good.
fn read_entry(event: &str, fields: &[(&str, &str)]) -> PoolEvent {
    decode_entry(event, ID, &entry(fields)).unwrap_or_else(|refusal| panic!("{fields:?}: {refusal:?}"))
}

/// Refusal of a stream entry.
fn refuse_entry(event: &str, fields: &[(&str, &str)]) -> Refusal {
    match decode_entry(event, ID, &entry(fields)) {
        Ok(event) => panic!("{fields:?} is accepted: {event:?}"),
        Err(refusal) => refusal,
    }
}

/// Decodes a text, which must be good.
fn read(text: &str) -> PoolEvent {
    decode_text(text).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"))
}

/// Refusal of a line.
fn refuse(line: impl AsRef<[u8]>) -> Refusal {
    let line = line.as_ref();
    match decode_line(line) {
        Ok(event) => panic!("{} is accepted: {event:?}", String::from_utf8_lossy(line)),
        Err(refusal) => refusal,
    }
}

#[track_caller]
fn assert_reason(line: impl AsRef<[u8]>, reason: Reason) {
    let line = line.as_ref();
    assert_eq!(refuse(line).reason, reason, "{}", String::from_utf8_lossy(line));
}

fn payload(event: &PoolEvent) -> Value {
    serde_json::from_str(&event.payload).unwrap()
}

fn other(name: &str) -> EventKind {
    EventKind::Other(name.to_owned())
}

/// Whether no key and no text within holds a control character.
fn is_clean(value: &Value) -> bool {
    let clean = |text: &str| !text.chars().any(char::is_control);
    match value {
        Value::String(text) => clean(text),
        Value::Array(items) => items.iter().all(is_clean),
        Value::Object(object) => object.iter().all(|(key, value)| clean(key) && is_clean(value)),
        _ => true,
    }
}

/// What holds of whatever was decoded or refused.
fn check_outcome(outcome: &Result<PoolEvent, Refusal>) {
    match outcome {
        Ok(event) => {
            let stored = payload(event);
            assert!(stored.is_object(), "{event:?}");
            assert!(is_clean(&stored), "{event:?}");
            assert!(!event.payload.chars().any(char::is_control), "{event:?}");
            let texts = [event.kind.name(), &event.source, &event.region, &event.user, &event.worker];
            let id = event.event_id.as_deref().unwrap_or("");
            for text in texts.into_iter().chain([id]) {
                assert!(!text.chars().any(char::is_control), "{event:?}");
            }
            assert!(event.user.len() <= 90 && event.worker.chars().count() <= 128, "{event:?}");
            if let Some(share) = event.share() {
                assert!(share.diff.is_finite() && share.diff >= 0.0, "{event:?}");
                assert!(share.sdiff.is_finite() && share.sdiff >= 0.0, "{event:?}");
                assert_eq!(stored["accepted"], Value::Bool(share.accepted), "{event:?}");
            }
        }
        Err(refusal) => {
            assert!(!refusal.detail.is_empty(), "{refusal:?}");
            assert!(refusal.event_type.chars().count() <= 64, "{refusal:?}");
            assert!(!refusal.detail.chars().any(char::is_control), "{refusal:?}");
        }
    }
}

// --- events and their defaults (§2.2)

#[test]
fn every_event_without_data_gets_the_defaults_of_the_contract() {
    let cases = [
        (
            EventKind::ShareSubmitted(Share { accepted: true, ..Share::default() }),
            json!({"user": "unknown", "worker": "unknown", "client_id": 0, "diff": 0.0, "sdiff": 0.0,
                "accepted": true, "reject_reason": "", "ip": ""}),
        ),
        (
            EventKind::ShareBestDiff { new_best: 0.0 },
            json!({"user": "unknown", "worker": "unknown", "new_best": 0.0, "prev_best": 0.0,
                "timeframe": "session"}),
        ),
        (
            EventKind::BlockFound(BlockFound::default()),
            json!({"user": "unknown", "worker": "unknown", "height": 0, "hash": "", "diff": 0.0,
                "network_diff": 0.0, "reward_sats": 0, "coinbase_sig": ""}),
        ),
        (
            EventKind::MinerConnected(Connected { initial_diff: 1.0, ..Connected::default() }),
            json!({"user": "unknown", "worker": "unknown", "client_id": 0, "ip": "", "useragent": "",
                "initial_diff": 1.0, "asicboost_capable": false}),
        ),
        (
            EventKind::MinerDisconnected,
            json!({"user": "unknown", "worker": "unknown", "client_id": 0, "ip": "",
                "session_duration": 0.0, "shares_session": 0}),
        ),
        (
            EventKind::DiffUpdated { new_diff: 0.0 },
            json!({"user": "unknown", "worker": "unknown", "client_id": 0, "old_diff": 0.0,
                "new_diff": 0.0, "ema_share_rate": 0.0, "stable_intervals": 0, "adjustment_count": 0}),
        ),
        (
            EventKind::HashrateUpdate { rates: [0.0; 4] },
            json!({"user": "unknown", "worker": "unknown", "hashrate_1m": 0.0, "hashrate_5m": 0.0,
                "hashrate_1h": 0.0, "hashrate_1d": 0.0}),
        ),
        (
            EventKind::NewBlockNetwork(NetworkBlock::default()),
            json!({"height": 0, "hash": "", "diff": 0.0, "prev_hash": ""}),
        ),
        (
            EventKind::AsicboostDetected,
            json!({"user": "unknown", "worker": "unknown", "pool_mask": "", "miner_mask": ""}),
        ),
        (other("pool_restarted"), json!({})),
    ];
    for (kind, stored) in cases {
        let name = kind.name().to_owned();
        let bare = read(&format!(r#"{{"event":"{name}","ts":{TS}}}"#));
        assert_eq!(payload(&bare), stored, "{name}");
        assert_eq!(bare.kind, kind, "{name}");
        assert_eq!(bare.ts, at(MICROS));
        assert_eq!((bare.source.as_str(), bare.region.as_str()), ("hosted", ""));
        assert_eq!(bare.event_id, None);
        assert!(!bare.has_miner(), "{name}");
        assert_eq!(read(&envelope(&name, "{}")), bare, "{name}");
        assert_eq!(read_entry(&name, &[("ts", TS), ("data", "{}")]), bare, "{name}");
    }
}

#[test]
fn a_share_is_read_in_full_and_its_extras_are_kept() {
    let event = read(SHARE);
    let share = Share {
        diff: 512.0,
        sdiff: 4096.5,
        accepted: true,
        reject_reason: String::new(),
        ip: Some("203.0.113.9".parse().unwrap()),
        nonce: Some("1a2b3c4d".to_owned()),
        nonce2: Some("00ff".to_owned()),
        hash: Some("00ab".to_owned()),
    };
    assert_eq!(event.share(), Some(&share));
    assert_eq!(event.ts, at(MICROS));
    assert_eq!((event.source.as_str(), event.region.as_str()), ("proxy", "eu-west"));
    assert_eq!(event.event_id.as_deref(), Some("0190a3b4-7c8d-7000-b123-456789abcdef"));
    assert_eq!((event.user.as_str(), event.worker.as_str()), ("bc1qexample", "rig1"));
    assert_eq!(
        payload(&event),
        json!({"user": "bc1qexample", "worker": "bc1qexample.rig1", "client_id": 7, "diff": 512.0,
            "sdiff": 4096.5, "accepted": true, "reject_reason": "", "ip": "203.0.113.9",
            "nonce": "1a2b3c4d", "nonce2": "00ff", "hash": "00ab", "ntime": "65d7", "job_id": "j1"})
    );
}

#[test]
fn every_other_event_is_read_in_full() {
    let cases = [
        (
            r#"{"user":"A","worker":"A.r","new_best":9.5,"prev_best":3,"timeframe":"alltime"}"#,
            EventKind::ShareBestDiff { new_best: 9.5 },
            json!({"user": "A", "worker": "A.r", "new_best": 9.5, "prev_best": 3.0,
                "timeframe": "alltime"}),
        ),
        (
            r#"{"user":"A","worker":"A.r","height":2147483647,"hash":"00cd","diff":2,"network_diff":1.5,"reward_sats":312500001,"coinbase_sig":"/tbg/"}"#,
            EventKind::BlockFound(BlockFound {
                height: i32::MAX,
                hash: Some("00cd".to_owned()),
                diff: 2.0,
                network_diff: 1.5,
                reward_sats: 312_500_001,
                coinbase_sig: "/tbg/".to_owned(),
            }),
            json!({"user": "A", "worker": "A.r", "height": 2_147_483_647, "hash": "00cd", "diff": 2.0,
                "network_diff": 1.5, "reward_sats": 312_500_001, "coinbase_sig": "/tbg/"}),
        ),
        (
            r#"{"user":"A","worker":"A.r","client_id":3,"ip":"2001:db8::1","useragent":"bitaxe/2.1","initial_diff":10000,"asicboost_capable":true}"#,
            EventKind::MinerConnected(Connected {
                ip: Some("2001:db8::1".parse().unwrap()),
                useragent: "bitaxe/2.1".to_owned(),
                initial_diff: 10_000.0,
            }),
            json!({"user": "A", "worker": "A.r", "client_id": 3, "ip": "2001:db8::1",
                "useragent": "bitaxe/2.1", "initial_diff": 10_000.0, "asicboost_capable": true}),
        ),
        (
            r#"{"user":"A","worker":"A.r","client_id":3,"ip":"192.0.2.1","session_duration":61.5,"shares_session":12,"reason":"timeout"}"#,
            EventKind::MinerDisconnected,
            json!({"user": "A", "worker": "A.r", "client_id": 3, "ip": "192.0.2.1",
                "session_duration": 61.5, "shares_session": 12, "reason": "timeout"}),
        ),
        (
            r#"{"user":"A","worker":"A.r","client_id":3,"old_diff":512,"new_diff":1024,"ema_share_rate":0.25,"stable_intervals":4,"adjustment_count":2}"#,
            EventKind::DiffUpdated { new_diff: 1024.0 },
            json!({"user": "A", "worker": "A.r", "client_id": 3, "old_diff": 512.0, "new_diff": 1024.0,
                "ema_share_rate": 0.25, "stable_intervals": 4, "adjustment_count": 2}),
        ),
        (
            r#"{"user":"A","worker":"A.r","hashrate_1m":1,"hashrate_5m":2,"hashrate_1h":3,"hashrate_1d":4}"#,
            EventKind::HashrateUpdate { rates: [1.0, 2.0, 3.0, 4.0] },
            json!({"user": "A", "worker": "A.r", "hashrate_1m": 1.0, "hashrate_5m": 2.0,
                "hashrate_1h": 3.0, "hashrate_1d": 4.0}),
        ),
        (
            r#"{"user":"A","worker":"A.r","pool_mask":"1fffe000","miner_mask":"18000000"}"#,
            EventKind::AsicboostDetected,
            json!({"user": "A", "worker": "A.r", "pool_mask": "1fffe000", "miner_mask": "18000000"}),
        ),
    ];
    for (data, kind, stored) in cases {
        let event = read(&envelope(kind.name(), data));
        assert_eq!(event.kind, kind);
        assert_eq!(payload(&event), stored);
        assert_eq!((event.user.as_str(), event.worker.as_str()), ("A", "r"));
        assert!(event.has_miner());
    }
}

#[test]
fn a_block_of_the_network_is_about_no_miner() {
    let data = r#"{"height":905,"hash":"00aa","diff":1.5,"prev_hash":"00bb"}"#;
    let event = read(&envelope("new_block_network", data));
    let block = NetworkBlock { height: 905, hash: "00aa".to_owned(), diff: 1.5 };
    assert_eq!(event.kind, EventKind::NewBlockNetwork(block));
    assert_eq!(payload(&event), json!({"height": 905, "hash": "00aa", "diff": 1.5, "prev_hash": "00bb"}));
    assert_eq!((event.user.as_str(), event.worker.as_str()), ("", ""));
}

#[test]
fn a_rejected_share_keeps_its_reason() {
    let data = r#"{"user":"A","accepted":false,"reject_reason":"Stale"}"#;
    let event = read(&envelope("share_submitted", data));
    let share = event.share().unwrap();
    assert!(!share.accepted);
    assert_eq!(share.reject_reason, "Stale");
}

#[test]
fn hashrate_24h_is_another_name_of_hashrate_1d() {
    let event = read(&envelope("hashrate_update", r#"{"hashrate_24h":5}"#));
    assert_eq!(event.kind, EventKind::HashrateUpdate { rates: [0.0, 0.0, 0.0, 5.0] });
    assert_eq!(payload(&event)["hashrate_1d"], json!(5.0));
}

#[test]
fn an_ip_that_cannot_be_read_loses_no_share() {
    let event = read(&envelope("share_submitted", r#"{"user":"A","ip":"unix:"}"#));
    assert_eq!(event.share().unwrap().ip, None);
    assert_eq!(payload(&event)["ip"], "unix:");
}

#[test]
fn unknown_data_keys_are_kept_in_the_payload() {
    let data = r#"{"user":"A","zulu":{"a":[1,2.5,null,true,"x"]},"alpha":-3}"#;
    for name in ["share_submitted", "asicboost_detected", "new_block_network", "odd_event"] {
        let stored = payload(&read(&envelope(name, data)));
        assert_eq!(stored["zulu"], json!({"a": [1, 2.5, null, true, "x"]}), "{name}");
        assert_eq!(stored["alpha"], json!(-3), "{name}");
    }
}

#[test]
fn an_unknown_event_is_kept_raw_with_its_name() {
    let data = r#"{"user":"A","worker":"A.r","diff":"5","accepted":"perhaps","height":-1}"#;
    let event = read(&envelope("pool_restarted", data));
    assert_eq!(event.kind, other("pool_restarted"));
    assert_eq!(event.kind.label(), "other");
    assert_eq!(payload(&event), serde_json::from_str::<Value>(data).unwrap());
    assert_eq!((event.user.as_str(), event.worker.as_str()), ("A", "r"));

    for data in [
        r#"{"user":5}"#.to_owned(),
        r#"{"user":"a b"}"#.to_owned(),
        format!(r#"{{"user":"{}"}}"#, "a".repeat(91)),
    ] {
        let event = read(&envelope("pool_restarted", &data));
        assert_eq!(event.user, "", "{data}");
        assert_eq!(payload(&event), serde_json::from_str::<Value>(&data).unwrap());
    }
}

#[test]
fn an_event_name_is_lower_case_and_at_most_64_characters() {
    let longest = format!("a{}", "_9".repeat(31) + "b");
    assert_eq!(longest.len(), 64);
    assert_eq!(read(&envelope(&longest, "{}")).kind, other(&longest));
    for name in ["", "Share", "1x", "_x", "a-b", "a.b", "a b", "é", "aé", &format!("{longest}c")] {
        assert_reason(envelope(name, "{}"), Reason::BadValue);
        assert_eq!(refuse_entry(name, &[("ts", TS), ("data", "{}")]).reason, Reason::BadValue, "{name}");
    }
}

// --- workers and users (§1)

#[test]
fn workers_are_called_by_their_short_name_and_stored_as_published() {
    for (worker, short) in [
        ("A.rig1", "rig1"),
        ("A_rig1", "rig1"),
        ("A.rig.1", "rig.1"),
        ("A", "default"),
        ("", "default"),
        ("rig1", "rig1"),
        ("B.x", "x"),
        ("A.", "default"),
    ] {
        for name in ["share_submitted", "block_found", "odd_event"] {
            let event = read(&envelope(name, &format!(r#"{{"user":"A","worker":"{worker}"}}"#)));
            assert_eq!(event.worker, short, "{worker}");
            assert_eq!(payload(&event)["worker"], worker);
        }
    }
}

#[test]
fn an_escaped_quote_in_a_worker_name_is_part_of_the_name() {
    let event = read(&envelope("share_submitted", r#"{"user":"A","worker":"A.x\",\"sdiff\":9e9,\"y\":\""}"#));
    assert_eq!(event.worker, r#"x","sdiff":9e9,"y":""#);
    assert_eq!(event.share().unwrap().sdiff.to_bits(), 0);
    assert_eq!(read(&event.to_envelope()), event);
}

#[test]
fn a_user_is_letters_and_digits_only() {
    for user in ["a b", "A.rig1", "A_rig1", "é", "a\\\"b", "../x", "a:b"] {
        assert_reason(envelope("share_submitted", &format!(r#"{{"user":"{user}"}}"#)), Reason::BadValue);
    }
}

#[test]
fn unknown_pool_and_nobody_are_no_miners() {
    for user in ["unknown", "pool", ""] {
        let event = read(&envelope("block_found", &format!(r#"{{"user":"{user}","height":9}}"#)));
        assert_eq!(event.user, user);
        assert!(!event.has_miner());
    }
}

// --- envelopes (§2.2 to §2.5)

#[test]
fn envelope_a_takes_its_defaults_when_fields_are_absent() {
    let event = read(r#"{"event":"miner_connected","ts":1771804800}"#);
    assert_eq!((event.source.as_str(), event.region.as_str()), ("hosted", ""));
    assert_eq!(event.event_id, None);
    for source in ["hosted", "proxy", "self-hosted"] {
        let text = format!(r#"{{"event":"miner_connected","ts":1,"source":"{source}"}}"#);
        assert_eq!(read(&text).source, source);
    }
    assert_reason(r#"{"event":"miner_connected","ts":1,"source":"cloud"}"#, Reason::BadValue);
}

#[test]
fn an_empty_event_id_counts_as_absent_in_every_shape() {
    // Otherwise all such events would have one key, and all but the first would be duplicates.
    let a = r#"{"event":"miner_connected","ts":1,"event_id":""}"#;
    let raw = r#"{"event_type":"miner_connected","ts":1,"event_id":"","payload":{}}"#;
    let b = format!(r#"{{"event_id":"","type":"miner.connected","timestamp":"{RFC}","payload":{{}}}}"#);
    for text in [a, raw, &b] {
        assert_eq!(read(text).event_id, None, "{text}");
    }
    assert_eq!(read_entry("miner_connected", &[("event_id", "")]).event_id, None);
}

#[test]
fn envelope_b_means_what_envelope_a_means() {
    let cases = [
        (
            envelope_b(
                "share.accepted",
                r#"{"address":"A","worker":"A.r","diff":512,"sdiff":4096.5,"ip_address":"192.0.2.1"}"#,
            ),
            r#"{"user":"A","worker":"A.r","diff":512,"sdiff":4096.5,"ip":"192.0.2.1","accepted":true}"#,
            "share_submitted",
        ),
        (
            envelope_b("block.found", r#"{"address":"A","worker":"A.r","height":9,"reward_sat":312500000}"#),
            r#"{"user":"A","worker":"A.r","height":9,"reward_sats":312500000}"#,
            "block_found",
        ),
        (
            envelope_b(
                "miner.connected",
                r#"{"address":"A","worker":"A.r","ip_address":"192.0.2.1","user_agent":"bitaxe"}"#,
            ),
            r#"{"user":"A","worker":"A.r","ip":"192.0.2.1","useragent":"bitaxe"}"#,
            "miner_connected",
        ),
        (
            envelope_b(
                "miner.disconnected",
                r#"{"address":"A","session_duration_sec":60.5,"shares_accepted":4,"reason":"timeout"}"#,
            ),
            r#"{"user":"A","session_duration":60.5,"shares_session":4,"reason":"timeout"}"#,
            "miner_disconnected",
        ),
        (
            envelope_b("difficulty.update", r#"{"address":"A","old_diff":512,"new_diff":1024}"#),
            r#"{"user":"A","old_diff":512,"new_diff":1024}"#,
            "diff_updated",
        ),
        (
            envelope_b("hashrate.update", r#"{"address":"A","hashrate_1m":1,"hashrate_24h":4}"#),
            r#"{"user":"A","hashrate_1m":1,"hashrate_1d":4}"#,
            "hashrate_update",
        ),
        (
            envelope_b(
                "bestdiff.update",
                r#"{"address":"A","new_best":9.5,"previous_best":3,"scope":"alltime"}"#,
            ),
            r#"{"user":"A","new_best":9.5,"prev_best":3,"timeframe":"alltime"}"#,
            "share_best_diff",
        ),
        (
            envelope_b("share.submitted", r#"{"address":"A","worker":"A.r","diff":5,"sdiff":6}"#),
            r#"{"user":"A","worker":"A.r","diff":5,"sdiff":6}"#,
            "share_attempt",
        ),
    ];
    for (b, data, name) in cases {
        let a =
            format!(r#"{{"event":"{name}","ts":{TS},"region":"us-east","event_id":"id-1","data":{data}}}"#);
        assert_eq!(read(&b), read(&a), "{b}");
    }
}

#[test]
fn a_submitted_share_of_envelope_b_is_archived_and_never_counted() {
    let event = read(&envelope_b("share.submitted", r#"{"address":"A","diff":512,"sdiff":4096.5}"#));
    assert_eq!(event.kind, other("share_attempt"));
    assert_eq!(event.share(), None);
    assert_eq!(payload(&event), json!({"user": "A", "diff": 512, "sdiff": 4096.5}));
}

#[test]
fn an_accepted_share_of_envelope_b_was_asked_for_the_smaller_difficulty() {
    for data in [r#"{"diff":512,"sdiff":4096.5}"#, r#"{"diff":4096.5,"sdiff":512}"#] {
        let event = read(&envelope_b("share.accepted", data));
        let share = event.share().unwrap();
        assert!(share.accepted);
        assert_eq!((share.diff, share.sdiff), (512.0, 4096.5));
        assert_eq!(payload(&event)["diff"], json!(512.0));
        assert_eq!(payload(&event)["sdiff"], json!(4096.5));
    }
    assert_reason(envelope_b("share.accepted", r#"{"diff":-1,"sdiff":1}"#), Reason::BadValue);
    assert_reason(envelope_b("share.accepted", r#"{"diff":1,"sdiff":"1"}"#), Reason::BadType);
}

#[test]
fn an_accepted_share_of_envelope_b_is_accepted_whatever_its_payload_says() {
    let event = read(&envelope_b("share.accepted", r#"{"accepted":"no","diff":1,"sdiff":1}"#));
    assert_eq!(payload(&event)["accepted"], json!(true));
}

#[test]
fn an_unknown_type_of_envelope_b_is_kept_raw() {
    let event = read(&envelope_b("pool.restarted", r#"{"address":"A","x":1}"#));
    assert_eq!(event.kind, other("pool_restarted"));
    assert_eq!(payload(&event), json!({"user": "A", "x": 1}));
}

#[test]
fn the_region_of_envelope_b_is_its_pool_instance() {
    let event = read(&envelope_b("miner.connected", "{}"));
    assert_eq!((event.region.as_str(), event.source.as_str()), ("us-east", "hosted"));
    assert_eq!(event.event_id.as_deref(), Some("id-1"));
    assert_eq!(event.ts, at(MICROS));
}

#[test]
fn a_line_of_the_raw_log_is_an_event_with_either_kind_of_time() {
    let data = r#"{"user":"A","worker":"A.r","sdiff":4096.5}"#;
    let same = read(&format!(r#"{{"event":"share_submitted","ts":{TS},"source":"proxy","data":{data}}}"#));
    for ts in [TS.to_owned(), format!("\"{RFC}\""), r#""2026-02-23T01:00:00.250001+01:00""#.to_owned()] {
        let line =
            format!(r#"{{"ts":{ts},"event_type":"share_submitted","source":"proxy","payload":{data}}}"#);
        assert_eq!(read(&line), same, "{ts}");
    }
}

#[test]
fn a_stream_entry_with_data_is_an_event() {
    let data = r#"{"user":"A","worker":"A.r","diff":512.0,"sdiff":4096.5,"accepted":true}"#;
    let fields = [("event", "share_submitted"), ("ts", TS), ("source", "proxy"), ("data", data)];
    let event = read_entry("share_submitted", &fields);
    let same = read(&format!(r#"{{"event":"share_submitted","ts":{TS},"source":"proxy","data":{data}}}"#));
    assert_eq!(event, same);

    let mut more = fields.to_vec();
    more.extend([("region", "eu-west"), ("event_id", "id-1")]);
    let event = read_entry("share_submitted", &more);
    assert_eq!((event.region.as_str(), event.event_id.as_deref()), ("eu-west", Some("id-1")));
}

#[test]
fn the_stream_names_the_event_of_an_entry_that_does_not() {
    assert_eq!(read_entry("asicboost_detected", &[("data", "{}")]).kind, EventKind::AsicboostDetected);
    let event = read_entry("share_submitted", &[("event", "asicboost_detected"), ("data", "{}")]);
    assert_eq!(event.kind, EventKind::AsicboostDetected);
}

#[test]
fn a_flat_entry_is_an_event_with_numbers_as_text() {
    let event = read_entry(
        "share_submitted",
        &[
            ("user", "A"),
            ("worker", "A.r"),
            ("ip", "192.0.2.1"),
            ("diff", "512"),
            ("sdiff", "4096.5"),
            ("client_id", "7"),
            ("accepted", "false"),
            ("timestamp", TS),
            ("job_id", "0012"),
        ],
    );
    let share =
        Share { diff: 512.0, sdiff: 4096.5, ip: Some("192.0.2.1".parse().unwrap()), ..Share::default() };
    assert_eq!(event.kind, EventKind::ShareSubmitted(share));
    assert_eq!(event.ts, at(MICROS));
    assert_eq!((event.user.as_str(), event.worker.as_str()), ("A", "r"));
    let stored = payload(&event);
    assert_eq!(stored["diff"], json!(512.0));
    assert_eq!(stored["sdiff"], json!(4096.5));
    assert_eq!(stored["client_id"], json!(7));
    assert_eq!(stored["accepted"], json!(false));
    assert_eq!(stored["job_id"], json!("0012"));

    let event = read_entry("miner_connected", &[("user", "A"), ("useragent", "bitaxe")]);
    let connected = Connected { useragent: "bitaxe".to_owned(), initial_diff: 1.0, ..Connected::default() };
    assert_eq!(event.kind, EventKind::MinerConnected(connected));
}

#[test]
fn si_suffixes_of_flat_hashrates_match_acceptance_example_15() {
    for (text, rate) in [
        ("19.1M", 19_100_000.0),
        ("3.5k", 3_500.0),
        ("1.2T", 1.2e12),
        ("", 0.0),
        ("abc", 0.0),
        ("2K", 2e3),
        ("2m", 2e6),
        ("2g", 2e9),
        ("2G", 2e9),
        ("2t", 2e12),
        ("2P", 2e15),
        ("2p", 2e15),
        ("2e", 2e18),
        ("2E", 2e18),
        ("1234.5", 1234.5),
        ("1e3", 1e3),
        ("NaN", 0.0),
        ("inf", 0.0),
        ("-5M", 0.0),
        ("1e300E", 0.0),
    ] {
        for name in ["hashrate_1d", "hashrate_24h"] {
            let event = read_entry("hashrate_update", &[("user", "A"), (name, text)]);
            let EventKind::HashrateUpdate { rates } = event.kind else { panic!("{event:?}") };
            assert!((rates[3] - rate).abs() <= rate * 1e-12, "{text}: {rates:?}");
            let stored = payload(&event)["hashrate_1d"].as_f64();
            assert_eq!(stored.map(f64::to_bits), Some(rates[3].to_bits()), "{text}");
        }
    }
}

#[test]
fn numeric_text_is_a_bad_type_outside_the_flat_variant() {
    for (name, field) in [
        ("share_submitted", "diff"),
        ("share_submitted", "sdiff"),
        ("share_submitted", "client_id"),
        ("share_best_diff", "new_best"),
        ("block_found", "height"),
        ("block_found", "reward_sats"),
        ("miner_connected", "initial_diff"),
        ("miner_disconnected", "shares_session"),
        ("diff_updated", "new_diff"),
        ("hashrate_update", "hashrate_1m"),
        ("new_block_network", "height"),
    ] {
        let data = format!(r#"{{"{field}":"512"}}"#);
        assert_reason(envelope(name, &data), Reason::BadType);
        let refusal = refuse_entry(name, &[("ts", TS), ("data", &data)]);
        assert_eq!(refusal.reason, Reason::BadType, "{name}.{field}");
        read_entry(name, &[("ts", TS), (field, "512")]);
    }
    assert_reason(envelope("hashrate_update", r#"{"hashrate_1m":"19.1M"}"#), Reason::BadType);
    assert_reason(r#"{"event":"share_submitted","ts":"1771804800.25","data":{}}"#, Reason::BadType);
}

// --- time

#[test]
fn the_time_of_an_event_is_kept_to_the_microsecond() {
    for (text, micros) in [
        ("1771804800.250001", MICROS),
        ("1771804800.000001", 1_771_804_800_000_001),
        ("1771804800.999999", 1_771_804_800_999_999),
        ("1771804799.999999", 1_771_804_799_999_999),
        ("1771804800.25", 1_771_804_800_250_000),
        ("1771804800", 1_771_804_800_000_000),
        ("1", 1_000_000),
        ("0.000001", 1),
    ] {
        let number = read(&format!(r#"{{"event":"miner_connected","ts":{text}}}"#));
        assert_eq!(number.ts, at(micros), "{text}");
        for name in ["ts", "timestamp"] {
            assert_eq!(read_entry("miner_connected", &[(name, text)]).ts, at(micros), "{text}");
            let fields = [(name, text), ("data", "{}")];
            assert_eq!(read_entry("miner_connected", &fields).ts, at(micros), "{text}");
        }
    }
    assert_eq!(read(&envelope_b("miner.connected", "{}")).ts, at(MICROS));
}

#[test]
fn the_time_of_an_entry_is_ts_then_timestamp_then_its_id() {
    let of = |fields: &[(&str, &str)]| read_entry("miner_connected", fields).ts;
    assert_eq!(of(&[("ts", "5"), ("timestamp", "6")]), at(5_000_000));
    assert_eq!(of(&[("timestamp", "6")]), at(6_000_000));
    assert_eq!(of(&[]), at(1_771_804_900_123_000));
    for id in ["", "x", "*", "-1", "99999999999999999999-0"] {
        let refusal = decode_entry("miner_connected", id, &entry(&[])).unwrap_err();
        assert_eq!(refusal.reason, Reason::MissingField, "{id}");
    }
}

#[test]
fn a_time_of_another_form_is_a_bad_type() {
    for ts in ["true", "{}", "[1]", "\"now\"", "\"2026-02-23T00:00:00Z\""] {
        assert_reason(format!(r#"{{"event":"miner_connected","ts":{ts}}}"#), Reason::BadType);
    }
    for ts in ["true", "\"now\"", "\"2026-02-23\"", "\"2026-02-23T00:00:00\""] {
        assert_reason(format!(r#"{{"event_type":"x","ts":{ts},"payload":{{}}}}"#), Reason::BadType);
    }
    for ts in ["1771804800", "\"now\"", "\"2026-02-23T00:00:00\""] {
        let b = format!(r#"{{"type":"miner.connected","timestamp":{ts},"payload":{{}}}}"#);
        assert_reason(b, Reason::BadType);
    }
    assert_eq!(refuse_entry("miner_connected", &[("ts", "now")]).reason, Reason::BadType);
}

#[test]
fn a_time_out_of_range_is_a_bad_value() {
    assert_reason(r#"{"event":"miner_connected","ts":1e300}"#, Reason::BadValue);
    for ts in ["nan", "inf", "1e300", "99999999999999999999"] {
        assert_eq!(refuse_entry("miner_connected", &[("ts", ts)]).reason, Reason::BadValue, "{ts}");
    }
}

#[test]
fn a_time_before_1970_is_a_bad_value_or_survives_the_round_trip() {
    for outcome in [
        decode_text(r#"{"event":"miner_connected","ts":-1.5}"#),
        decode_text(r#"{"event_type":"miner_connected","ts":"1969-12-31T23:59:58.5Z","payload":{}}"#),
        decode_entry("miner_connected", ID, &entry(&[("ts", "-1.5")])),
    ] {
        match outcome {
            Ok(event) => {
                assert_eq!(event.ts, at(-1_500_000));
                assert_eq!(decode_text(&event.to_envelope()), Ok(event));
            }
            Err(refusal) => assert_eq!(refusal.reason, Reason::BadValue),
        }
    }
}

#[test]
fn an_event_more_than_300_s_ahead_is_of_the_future() {
    let event = read(SHARE);
    let limit = event.ts - TimeDelta::seconds(300);
    for allow_old in [false, true] {
        assert_eq!(check_age(&event, limit, allow_old), Ok(()));
        assert_eq!(check_age(&event, limit + TimeDelta::microseconds(1), allow_old), Ok(()));
        let refusal = check_age(&event, limit - TimeDelta::microseconds(1), allow_old).unwrap_err();
        assert_eq!(refusal.reason, Reason::FutureTs);
        assert_eq!(refusal.event_type, "share_submitted");
        assert!(refusal.detail.starts_with("ts"), "{refusal:?}");
    }
}

#[test]
fn an_event_more_than_90_days_old_is_too_old_unless_allowed() {
    let event = read(SHARE);
    let limit = event.ts + TimeDelta::days(90);
    assert_eq!(check_age(&event, limit, false), Ok(()));
    assert_eq!(check_age(&event, limit - TimeDelta::microseconds(1), false), Ok(()));
    let later = limit + TimeDelta::microseconds(1);
    let refusal = check_age(&event, later, false).unwrap_err();
    assert_eq!(refusal.reason, Reason::TooOld);
    assert_eq!(refusal.event_type, "share_submitted");
    assert!(refusal.detail.starts_with("ts"), "{refusal:?}");
    assert_eq!(check_age(&event, later, true), Ok(()));
    assert_eq!(check_age(&event, later + TimeDelta::days(3650), true), Ok(()));
}

// --- refusals (§3.3)

#[test]
fn reasons_are_spelled_as_in_the_contract() {
    for (reason, text) in [
        (Reason::MalformedJson, "malformed_json"),
        (Reason::MissingField, "missing_field"),
        (Reason::BadType, "bad_type"),
        (Reason::FutureTs, "future_ts"),
        (Reason::TooOld, "too_old"),
        (Reason::BadValue, "bad_value"),
    ] {
        assert_eq!(reason.as_str(), text);
    }
}

#[test]
fn duplicate_keys_are_malformed_at_every_level_and_the_next_datagram_is_read() {
    for line in [
        r#"{"event":"share_submitted","ts":1,"data":{"user":"x","user":"y"}}"#,
        r#"{"event":"share_submitted","ts":1,"data":{"user":"x","user":"x"}}"#,
        r#"{"event":"share_submitted","ts":1,"event":"share_submitted"}"#,
        r#"{"event":"share_submitted","ts":1,"data":{},"data":{}}"#,
        r#"{"event":"share_submitted","ts":1,"ts":2}"#,
        r#"{"event":"odd_event","ts":1,"data":{"a":[{"b":{"c":1,"c":2}}]}}"#,
        r#"{"event":"odd_event","ts":1,"data":{"user":"x","us\u0065r":"y"}}"#,
        r#"{"event":"odd_event","ts":1,"data":{"":1,"":2}}"#,
        r#"{"type":"block.found","timestamp":"2026-02-23T00:00:00Z","payload":{"a":1,"a":1}}"#,
        r#"{"event_type":"odd_event","ts":1,"payload":{"a":1,"a":1}}"#,
    ] {
        assert_reason(line, Reason::MalformedJson);
        assert!(decode_line(SHARE.as_bytes()).is_ok());
    }
    let refusal = refuse_entry("share_submitted", &[("ts", TS), ("data", r#"{"a":1,"a":1}"#)]);
    assert_eq!(refusal.reason, Reason::MalformedJson);
    assert_eq!(refusal.event_type, "share_submitted");
}

#[test]
fn a_quote_in_a_worker_name_that_injects_a_field_is_malformed() {
    let worker = r#"A.x","sdiff":9e15,"user":"B"#;
    let data = format!(r#"{{"user":"A","worker":"{worker}","diff":512.0,"sdiff":600.0}}"#);
    assert_reason(envelope("share_submitted", &data), Reason::MalformedJson);
}

#[test]
fn the_same_key_in_two_objects_is_no_duplicate() {
    let event = read(&envelope("odd_event", r#"{"event":1,"a":{"a":[{"a":1},{"a":2}]}}"#));
    assert_eq!(payload(&event), json!({"event": 1, "a": {"a": [{"a": 1}, {"a": 2}]}}));
}

#[test]
fn whatever_is_not_one_json_object_in_utf_8_is_malformed() {
    let lines: [&[u8]; 24] = [
        b"",
        b" ",
        b"{",
        b"}",
        b"[]",
        b"1",
        b"null",
        b"true",
        b"\"event\"",
        br#"[{"event":"x","ts":1}]"#,
        br#"{"event":"x","ts":1"#,
        br#"{"event":"x","ts":1,}"#,
        br#"{"event":"x","ts":1}x"#,
        br#"{"event":"x","ts":1}{}"#,
        br#"{"event":"x","ts":1},"#,
        b"{\"event\":\"x\",\"ts\":1}\0",
        b"{'event':'x','ts':1}",
        br#"{"event":"x","ts":NaN}"#,
        br#"{"event":"x","ts":01}"#,
        br#"{"event":"x","ts":1,"data":{"a":"\ud800"}}"#,
        b"{\"event\":\"x\",\"ts\":1,\"data\":{\"a\":\"\n\"}}",
        b"{\"event\":\"\xff\",\"ts\":1}",
        b"{\"event\":\"x\",\"ts\":1,\"data\":{\"a\":\"\xc3\x28\"}}",
        b"\xef\xbb\xbf{\"event\":\"x\",\"ts\":1}",
    ];
    for line in lines {
        assert_reason(line, Reason::MalformedJson);
    }
    assert!(decode_line(b" {\"event\":\"x\",\"ts\":1} \r\n").is_ok());
    for data in ["", "x", "[]", "null", "{}x"] {
        let refusal = refuse_entry("share_submitted", &[("ts", TS), ("data", data)]);
        assert_eq!(refusal.reason, Reason::MalformedJson, "{data}");
    }
}

#[test]
fn no_single_byte_is_an_event() {
    for byte in 0..=u8::MAX {
        assert_reason([byte], Reason::MalformedJson);
    }
}

#[test]
fn every_cut_of_a_datagram_is_malformed() {
    for end in 0..SHARE.len() {
        assert_reason(&SHARE[..end], Reason::MalformedJson);
    }
}

#[test]
fn nesting_is_read_to_32_levels_and_overflows_no_stack() {
    // The envelope and its data are two levels.
    let arrays = |levels: usize| {
        let (open, close) = ("[".repeat(levels - 2), "]".repeat(levels - 2));
        envelope("odd_event", &format!(r#"{{"a":{open}{close}}}"#))
    };
    let objects = |levels: usize| {
        let (open, close) = (r#"{"a":"#.repeat(levels - 1), "}".repeat(levels - 1));
        envelope("odd_event", &format!("{open}1{close}"))
    };
    read(&arrays(32));
    read(&objects(32));
    for levels in [33, 128, 129, 10_000] {
        assert_reason(arrays(levels), Reason::MalformedJson);
        assert_reason(objects(levels), Reason::MalformedJson);
        assert_reason("[".repeat(levels), Reason::MalformedJson);
        assert_reason(r#"{"a":"#.repeat(levels), Reason::MalformedJson);
    }
    let data = format!(r#"{{"a":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let refusal = refuse_entry("odd_event", &[("data", &data)]);
    assert_eq!(refusal.reason, Reason::MalformedJson);
}

#[test]
fn an_event_without_name_or_time_misses_a_field() {
    for (line, field) in [
        ("{}", "event"),
        (r#"{"ts":1}"#, "event"),
        (r#"{"ts":1,"data":{"event":"x"}}"#, "event"),
        (r#"{"event":"share_submitted"}"#, "ts"),
        (r#"{"event":"share_submitted","data":{"ts":1}}"#, "ts"),
        (r#"{"event_type":"share_submitted","payload":{}}"#, "ts"),
        (r#"{"type":"share.accepted","payload":{}}"#, "timestamp"),
    ] {
        let refusal = refuse(line);
        assert_eq!(refusal.reason, Reason::MissingField, "{line}");
        assert!(refusal.detail.starts_with(field), "{refusal:?}");
    }
}

#[test]
fn a_field_of_another_json_type_is_a_bad_type() {
    for line in [
        r#"{"event":5,"ts":1}"#,
        r#"{"event":["x"],"ts":1}"#,
        r#"{"event":"x","ts":1,"source":5}"#,
        r#"{"event":"x","ts":1,"region":["eu"]}"#,
        r#"{"event":"x","ts":1,"event_id":7}"#,
        r#"{"event":"x","ts":1,"data":[]}"#,
        r#"{"event":"x","ts":1,"data":"{}"}"#,
        r#"{"event":"x","ts":1,"data":1}"#,
        r#"{"event_type":"x","ts":1,"payload":[]}"#,
        r#"{"type":1,"timestamp":"2026-02-23T00:00:00Z","payload":{}}"#,
        r#"{"type":"x","timestamp":"2026-02-23T00:00:00Z","payload":"{}"}"#,
        r#"{"type":"x","timestamp":"2026-02-23T00:00:00Z","pool_instance":1,"payload":{}}"#,
    ] {
        assert_reason(line, Reason::BadType);
    }
    for (name, data) in [
        ("share_submitted", r#"{"user":5}"#),
        ("share_submitted", r#"{"worker":{}}"#),
        ("share_submitted", r#"{"diff":true}"#),
        ("share_submitted", r#"{"sdiff":[1]}"#),
        ("share_submitted", r#"{"client_id":1.5}"#),
        ("share_submitted", r#"{"accepted":1}"#),
        ("share_submitted", r#"{"accepted":{}}"#),
        ("share_submitted", r#"{"reject_reason":1}"#),
        ("share_submitted", r#"{"ip":1}"#),
        ("share_best_diff", r#"{"new_best":{}}"#),
        ("share_best_diff", r#"{"timeframe":1}"#),
        ("block_found", r#"{"height":1.5}"#),
        ("block_found", r#"{"height":true}"#),
        ("block_found", r#"{"hash":0}"#),
        ("block_found", r#"{"reward_sats":0.5}"#),
        ("block_found", r#"{"coinbase_sig":[]}"#),
        ("miner_connected", r#"{"useragent":1}"#),
        ("miner_connected", r#"{"asicboost_capable":5}"#),
        ("miner_disconnected", r#"{"session_duration":false}"#),
        ("diff_updated", r#"{"adjustment_count":false}"#),
        ("hashrate_update", r#"{"hashrate_1h":false}"#),
        ("new_block_network", r#"{"prev_hash":1}"#),
        ("asicboost_detected", r#"{"miner_mask":1}"#),
    ] {
        assert_reason(envelope(name, data), Reason::BadType);
    }
}

#[test]
fn accepted_is_stored_as_a_json_boolean() {
    for (text, accepted) in [("true", true), ("1", true), ("false", false), ("0", false)] {
        let data = format!(r#"{{"user":"A","accepted":"{text}"}}"#);
        for event in [
            read(&envelope("share_submitted", &data)),
            read_entry("share_submitted", &[("data", &data)]),
            read_entry("share_submitted", &[("user", "A"), ("accepted", text)]),
        ] {
            assert_eq!(event.share().unwrap().accepted, accepted, "{text}");
            assert_eq!(payload(&event)["accepted"], Value::Bool(accepted), "{text}");
        }
    }
    for text in ["", "yes", "2", "t", "null"] {
        let data = format!(r#"{{"accepted":"{text}"}}"#);
        let refusal = refuse(envelope("share_submitted", &data));
        assert!(matches!(refusal.reason, Reason::BadType | Reason::BadValue), "{text}: {refusal:?}");
        refuse_entry("share_submitted", &[("accepted", text)]);
    }
}

#[test]
fn a_negative_number_is_a_bad_value() {
    for (name, field) in [
        ("share_submitted", "diff"),
        ("share_submitted", "sdiff"),
        ("share_submitted", "client_id"),
        ("share_best_diff", "new_best"),
        ("share_best_diff", "prev_best"),
        ("block_found", "height"),
        ("block_found", "diff"),
        ("block_found", "network_diff"),
        ("block_found", "reward_sats"),
        ("miner_connected", "initial_diff"),
        ("miner_disconnected", "session_duration"),
        ("miner_disconnected", "shares_session"),
        ("diff_updated", "old_diff"),
        ("diff_updated", "new_diff"),
        ("hashrate_update", "hashrate_5m"),
        ("new_block_network", "height"),
        ("new_block_network", "diff"),
    ] {
        assert_reason(envelope(name, &format!(r#"{{"{field}":-1}}"#)), Reason::BadValue);
        if !field.starts_with("hashrate") {
            assert_eq!(refuse_entry(name, &[(field, "-1")]).reason, Reason::BadValue, "{name}.{field}");
        }
    }
    assert_reason(envelope("share_submitted", r#"{"diff":-0.000001}"#), Reason::BadValue);
}

#[test]
fn a_flat_number_that_is_not_finite_is_a_bad_value() {
    for field in ["diff", "sdiff"] {
        for text in ["NaN", "nan", "inf", "-inf", "infinity", "1e400", "-1e400"] {
            let refusal = refuse_entry("share_submitted", &[(field, text)]);
            assert_eq!(refusal.reason, Reason::BadValue, "{field}={text}");
        }
        let refusal = refuse_entry("share_submitted", &[(field, "many")]);
        assert_eq!(refusal.reason, Reason::BadType);
    }
}

#[test]
fn a_number_beyond_a_double_is_a_bad_value() {
    for number in ["1e400", "-1e400", "123456789e9999"] {
        assert_reason(envelope("share_submitted", &format!(r#"{{"sdiff":{number}}}"#)), Reason::BadValue);
    }
}

#[test]
fn a_height_of_2_to_the_31_is_a_bad_value() {
    for name in ["block_found", "new_block_network"] {
        read(&envelope(name, r#"{"height":2147483647}"#));
        for height in ["2147483648", "4294967296", "9223372036854775808", "18446744073709551615"] {
            assert_reason(envelope(name, &format!(r#"{{"height":{height}}}"#)), Reason::BadValue);
        }
        assert_eq!(refuse_entry(name, &[("height", "2147483648")]).reason, Reason::BadValue);
    }
}

#[test]
fn a_height_of_more_than_64_bits_is_a_bad_value() {
    for name in ["block_found", "new_block_network"] {
        assert_reason(envelope(name, r#"{"height":99999999999999999999}"#), Reason::BadValue);
        let refusal = refuse_entry(name, &[("height", "99999999999999999999")]);
        assert_eq!(refusal.reason, Reason::BadValue);
    }
}

#[test]
fn a_control_character_anywhere_is_a_bad_value() {
    for dirt in [r"\u0000", r"\n", r"\t", r"\u001b", r"\u007f", r"\u0085", "\u{7f}"] {
        for name in ["share_submitted", "odd_event"] {
            for data in [
                format!(r#"{{"worker":"a{dirt}b"}}"#),
                format!(r#"{{"job_id":"a{dirt}b"}}"#),
                format!(r#"{{"a{dirt}b":1}}"#),
                format!(r#"{{"x":["a{dirt}b"]}}"#),
                format!(r#"{{"x":{{"y":[{{"z":"a{dirt}b"}}]}}}}"#),
                format!(r#"{{"x":{{"a{dirt}b":null}}}}"#),
            ] {
                assert_reason(envelope(name, &data), Reason::BadValue);
                assert_reason(envelope_b(name, &data), Reason::BadValue);
                let raw = format!(r#"{{"event_type":"{name}","ts":1,"payload":{data}}}"#);
                assert_reason(raw, Reason::BadValue);
                let refusal = refuse_entry(name, &[("ts", TS), ("data", &data)]);
                assert_eq!(refusal.reason, Reason::BadValue, "{data}");
            }
        }
        for line in [
            format!(r#"{{"event":"a{dirt}b","ts":1}}"#),
            format!(r#"{{"event":"x","ts":1,"region":"a{dirt}b"}}"#),
            format!(r#"{{"event":"x","ts":1,"event_id":"a{dirt}b"}}"#),
            format!(r#"{{"event":"x","ts":1,"source":"a{dirt}b"}}"#),
            format!(r#"{{"event":"x","ts":1,"a{dirt}b":1}}"#),
        ] {
            assert_reason(line, Reason::BadValue);
        }
    }
}

#[test]
fn a_control_character_of_two_bytes_is_a_bad_value_without_an_escape_too() {
    for dirt in ['\u{80}', '\u{85}', '\u{9f}'] {
        for data in [
            format!(r#"{{"worker":"a{dirt}b"}}"#),
            format!(r#"{{"job_id":"a{dirt}b"}}"#),
            format!(r#"{{"a{dirt}b":1}}"#),
            format!(r#"{{"x":{{"y":["a{dirt}b"]}}}}"#),
        ] {
            assert_reason(envelope("share_submitted", &data), Reason::BadValue);
            let refusal = refuse_entry("odd_event", &[("ts", TS), ("data", &data)]);
            assert_eq!(refusal.reason, Reason::BadValue, "{data:?}");
        }
    }
    // Two bytes alone are no reason.
    read(&envelope("share_submitted", "{\"user\":\"A\",\"worker\":\"A.\u{a0}\u{e9}\"}"));
}

#[test]
fn a_control_character_in_a_flat_entry_is_a_bad_value() {
    for dirt in ['\0', '\n', '\u{7f}', '\u{85}'] {
        let (text, key) = (format!("a{dirt}b"), format!("k{dirt}"));
        for (name, value) in [
            ("worker", text.as_str()),
            ("useragent", &text),
            ("job_id", &text),
            ("region", &text),
            ("event_id", &text),
            ("event", &text),
            (&key, "1"),
        ] {
            let refusal = refuse_entry("miner_connected", &[("ts", TS), (name, value)]);
            assert_eq!(refusal.reason, Reason::BadValue, "{name:?}={value:?}");
        }
    }
}

#[test]
fn the_detail_of_a_refusal_holds_no_control_characters() {
    let clean = |refusal: &Refusal| !refusal.detail.chars().any(char::is_control);
    for line in [
        r#"{"event":"a\u0000b","ts":1}"#,
        r#"{"type":"a\u0000b","timestamp":"x","payload":{}}"#,
        r#"{"event_type":"a\u0000b","ts":1,"payload":{}}"#,
        r#"{"event":"x","ts":1,"data":{"a\u0000b":1,"a\u0000b":1}}"#,
    ] {
        let refusal = refuse(line);
        assert!(clean(&refusal), "{refusal:?}");
    }
    for fields in [[("event", "a\0b"), ("ts", "1")], [("event", "x"), ("a\0b", "1")]] {
        let refusal = refuse_entry("share_submitted", &fields);
        assert!(clean(&refusal), "{refusal:?}");
    }
}

#[test]
fn a_text_over_its_limit_is_a_bad_value() {
    let of = |length: usize| "a".repeat(length);
    for (name, field, limit) in
        [("share_submitted", "user", 90), ("block_found", "user", 90), ("miner_connected", "useragent", 256)]
    {
        read(&envelope(name, &format!(r#"{{"{field}":"{}"}}"#, of(limit))));
        read_entry(name, &[(field, &of(limit))]);
        let data = format!(r#"{{"{field}":"{}"}}"#, of(limit + 1));
        assert_reason(envelope(name, &data), Reason::BadValue);
        assert_eq!(refuse_entry(name, &[("data", &data)]).reason, Reason::BadValue, "{field}");
        let refusal = refuse_entry(name, &[(field, &of(limit + 1))]);
        assert_eq!(refusal.reason, Reason::BadValue, "{field}");
    }
    for (field, limit) in [("region", 32), ("event_id", 64)] {
        let line = |length| format!(r#"{{"event":"x","ts":1,"{field}":"{}"}}"#, of(length));
        read(&line(limit));
        assert_reason(line(limit + 1), Reason::BadValue);
        read_entry("x", &[(field, &of(limit))]);
        let refusal = refuse_entry("x", &[(field, &of(limit + 1))]);
        assert_eq!(refusal.reason, Reason::BadValue, "{field}");
    }
    // Limits count characters, not bytes.
    read(&format!(r#"{{"event":"x","ts":1,"region":"{}"}}"#, "é".repeat(32)));
}

#[test]
fn the_longest_full_username_is_read_and_a_longer_one_is_a_bad_value() {
    let user = "a".repeat(90);
    let name = "r".repeat(128);
    let event =
        read(&envelope("share_submitted", &format!(r#"{{"user":"{user}","worker":"{user}.{name}"}}"#)));
    assert_eq!(event.worker, name);
    let data = format!(r#"{{"user":"{user}","worker":"{user}.{name}r"}}"#);
    assert_reason(envelope("share_submitted", &data), Reason::BadValue);
}

#[test]
fn the_detail_names_the_field_and_never_holds_the_value() {
    let long = "zqx".repeat(400);
    for (line, field, value) in [
        (envelope("share_submitted", r#"{"user":"zqx!"}"#), "user", "zqx"),
        (envelope("share_submitted", &format!(r#"{{"user":"{long}"}}"#)), "user", "zqx"),
        (envelope("share_submitted", &format!(r#"{{"worker":"{long}"}}"#)), "worker", "zqx"),
        (envelope("share_submitted", r#"{"diff":"zqx"}"#), "diff", "zqx"),
        (envelope("share_submitted", r#"{"sdiff":-777.5}"#), "sdiff", "777"),
        (envelope("share_submitted", r#"{"accepted":"zqx"}"#), "accepted", "zqx"),
        (envelope("share_submitted", r#"{"client_id":-777}"#), "client_id", "777"),
        (envelope("miner_connected", &format!(r#"{{"useragent":"{long}"}}"#)), "useragent", "zqx"),
        (envelope("block_found", r#"{"height":7777777777}"#), "height", "7777777777"),
        (r#"{"event":"x","ts":"zqx"}"#.to_owned(), "ts", "zqx"),
        (r#"{"event":"zqx!","ts":1}"#.to_owned(), "event", "zqx"),
        (r#"{"event":"x","ts":1,"source":"zqx"}"#.to_owned(), "source", "zqx"),
        (format!(r#"{{"event":"x","ts":1,"region":"{long}"}}"#), "region", "zqx"),
        (format!(r#"{{"event":"x","ts":1,"event_id":"{long}"}}"#), "event_id", "zqx"),
        (r#"{"event":"x","ts":1,"data":"zqx"}"#.to_owned(), "data", "zqx"),
        (r#"{"event_type":"x","ts":1,"payload":"zqx"}"#.to_owned(), "payload", "zqx"),
    ] {
        let refusal = refuse(&line);
        assert!(refusal.detail.contains(field), "{line}: {refusal:?}");
        assert!(!refusal.detail.contains(value), "{line}: {refusal:?}");
    }
    for line in [
        r#"{"zqx":1,"zqx":2}"#,
        r#"{"event":"x","zqx"}"#,
        r#"{"event":"x","ts":1,"data":{"a":"zqx\u0000"}}"#,
        r#"{"event":"x","ts":1,"data":{"zqx\n":1}}"#,
    ] {
        let refusal = refuse(line);
        assert!(!refusal.detail.contains("zqx"), "{line}: {refusal:?}");
    }
}

#[test]
fn a_refusal_names_its_event_as_far_as_it_was_read() {
    for line in [
        r#"{"event":"share_submitted"}"#.to_owned(),
        envelope("share_submitted", r#"{"diff":"x"}"#),
        envelope("share_submitted", r#"{"a":"\n"}"#),
        r#"{"event_type":"share_submitted","ts":true,"payload":{}}"#.to_owned(),
    ] {
        assert_eq!(refuse(&line).event_type, "share_submitted", "{line}");
    }
    assert_eq!(refuse_entry("share_submitted", &[("diff", "x")]).event_type, "share_submitted");
    assert_eq!(refuse("{").event_type, "");
    let long = format!(r#"{{"event":"{}","ts":1}}"#, "é".repeat(100));
    assert_eq!(refuse(long).event_type, "é".repeat(64));
}

// --- round trip

#[test]
fn an_event_survives_the_round_trip_through_its_envelope() {
    let mut events = vec![
        read(SHARE),
        read(&envelope_b("share.accepted", r#"{"address":"A","diff":9,"sdiff":5,"reason":"x"}"#)),
        read(&envelope_b("share.submitted", r#"{"address":"A"}"#)),
        read(&envelope_b("miner.disconnected", r#"{"address":"A","reason":"\"\\/é😀"}"#)),
        read(&format!(r#"{{"event_type":"block_found","ts":"{RFC}","payload":{{"height":9}}}}"#)),
        read(&envelope("odd_event", r#"{"n":-0.0,"big":18446744073709551615,"deep":[[{"a":null}]]}"#)),
        read(&envelope("odd_event", r#"{"event":"x","ts":1,"type":"y","payload":{}}"#)),
        read_entry("hashrate_update", &[("user", "A"), ("hashrate_1m", "19.1M"), ("x", "y")]),
        read_entry("share_submitted", &[("user", "A"), ("accepted", "0"), ("type", "x"), ("payload", "y")]),
        read(r#"{"event":"miner_connected","ts":0}"#),
        read(r#"{"event":"miner_connected","ts":1771804800.000001}"#),
    ];
    events.extend(EventKind::NAMES.map(|name| read(&envelope(name, "{}"))));
    for event in events {
        let line = event.to_envelope();
        assert!(!line.contains('\n'));
        assert_eq!(read(&line), event, "{line}");
        assert_eq!(event_key(&read(&line)), event_key(&event));
    }
}

#[test]
fn the_time_of_an_entry_written_as_text_is_the_same_instant() {
    for micros in [0, 1, 999_999, MICROS, 1_771_804_800_000_000] {
        let event = PoolEvent { ts: at(micros), ..read(SHARE) };
        let back = read_entry("share_submitted", &[("ts", &event.ts_text()), ("data", &event.payload)]);
        assert_eq!(back.ts, event.ts);
    }
    assert_eq!(read(SHARE).ts_text(), TS);
}

#[test]
fn a_difficulty_is_the_double_nearest_to_its_decimal_text() {
    // The key of a share is made of these bits.
    for text in ["29682565950177.886719", "47246422425885.836", "4096.5", "0.1", "1e22", "9007199254740993"] {
        let expected: f64 = text.parse().unwrap();
        let data = format!(r#"{{"user":"A","sdiff":{text}}}"#);
        let json = read(&envelope("share_submitted", &data));
        let flat = read_entry("share_submitted", &[("ts", TS), ("user", "A"), ("sdiff", text)]);
        for event in [&json, &flat, &read(&json.to_envelope()), &read(&flat.to_envelope())] {
            assert_eq!(event.share().unwrap().sdiff.to_bits(), expected.to_bits(), "{text}");
        }
        assert_eq!(event_key(&json), event_key(&flat));
        assert_eq!(event_key(&json).1, KeyRule::Window);
    }
}

// --- whatever arrives

/// Valid lines of every shape.
fn valid_lines() -> Vec<String> {
    let mut lines = vec![
        SHARE.to_owned(),
        envelope_b("share.accepted", r#"{"address":"A","worker":"A.r","diff":512,"sdiff":600.5}"#),
        format!(r#"{{"event_type":"block_found","ts":"{RFC}","source":"proxy","payload":{{"height":9}}}}"#),
        envelope("odd_event", r#"{"a":[1,{"b":"\u00e9"}],"c":null}"#),
        envelope("miner_connected", "{\"user\":\"A\",\"useragent\":\"é\u{a0}😀\"}"),
    ];
    lines.extend(EventKind::NAMES.map(|name| read(&envelope(name, "{}")).to_envelope()));
    lines
}

/// One change of a line.
#[derive(Clone, Debug)]
enum Edit {
    Replace(u8),
    Insert(Vec<u8>),
    Remove,
    Cut,
}

fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, Edit)>> {
    let fragments = prop::sample::select(vec![
        r"\u0000",
        r"\n",
        "\u{7f}",
        "\u{85}",
        "\"",
        "\\",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "-",
        "1e400",
        "0",
        "null",
        "true",
        r#"","user":"x"#,
        r#""},"type":"x","payload":{"y":""#,
        r"\ud800",
        "é",
    ]);
    let edit = prop_oneof![
        any::<u8>().prop_map(Edit::Replace),
        any::<u8>().prop_map(|byte| Edit::Insert(vec![byte])),
        fragments.prop_map(|text| Edit::Insert(text.as_bytes().to_vec())),
        Just(Edit::Remove),
        Just(Edit::Cut),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), edit), 1..4)
}

/// A JSON value as text, good or bad for whatever field gets it.
fn tokens() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-1",
        "1.5",
        "1e308",
        "1e-320",
        "2147483647",
        "2147483648",
        "9223372036854775807",
        "18446744073709551615",
        "99999999999999999999",
        r#""""#,
        r#""x""#,
        r#""1""#,
        r#""\u0000""#,
        r#""a\nb""#,
        "[]",
        "{}",
        r#"{"a":{"a":1}}"#,
        r#"["\u007f"]"#,
    ]);
    prop_oneof![
        odd.prop_map(str::to_owned),
        any::<String>().prop_map(|text| Value::from(text).to_string()),
        prop::num::f64::NORMAL.prop_map(|number| Value::from(number).to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
    ]
}

const FIELDS: [&str; 20] = [
    "user",
    "worker",
    "client_id",
    "diff",
    "sdiff",
    "accepted",
    "reject_reason",
    "ip",
    "nonce",
    "hash",
    "height",
    "reward_sats",
    "useragent",
    "hashrate_1m",
    "hashrate_24h",
    "new_best",
    "new_diff",
    "pool_mask",
    "address",
    "other",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        check_outcome(&decode_line(&bytes));
    }

    #[test]
    fn a_changed_line_never_panics_and_what_decodes_is_clean(
        which in any::<prop::sample::Index>(),
        edits in edits(),
    ) {
        let mut line = which.get(&valid_lines()).clone().into_bytes();
        for (index, edit) in edits {
            if line.is_empty() {
                break;
            }
            let index = index.index(line.len());
            match edit {
                Edit::Replace(byte) => line[index] = byte,
                Edit::Insert(bytes) => drop(line.splice(index..index, bytes)),
                Edit::Remove => drop(line.remove(index)),
                Edit::Cut => line.truncate(index),
            }
        }
        check_outcome(&decode_line(&line));
    }

    #[test]
    fn any_values_in_any_fields_never_panic_and_what_decodes_is_clean(
        name in prop::sample::select(EventKind::NAMES.to_vec()),
        values in prop::collection::btree_map(prop::sample::select(FIELDS.to_vec()), tokens(), 0..6),
    ) {
        let fields: Vec<_> = values.iter().map(|(field, value)| format!(r#""{field}":{value}"#)).collect();
        let data = format!("{{{}}}", fields.join(","));
        check_outcome(&decode_text(&envelope(name, &data)));
        check_outcome(&decode_text(&envelope_b(&name.replace('_', "."), &data)));
        check_outcome(&decode_entry(name, ID, &entry(&[("ts", TS), ("data", &data)])));
    }

    #[test]
    fn any_flat_entry_never_panics_and_what_decodes_is_clean(
        name in prop::sample::select(EventKind::NAMES.to_vec()),
        id in any::<String>(),
        fields in prop::collection::hash_map(
            prop_oneof![
                prop::sample::select(FIELDS.to_vec()).prop_map(str::to_owned),
                prop::sample::select(vec!["ts", "timestamp", "event", "source", "region", "event_id", "data"])
                    .prop_map(str::to_owned),
                any::<String>(),
            ],
            prop_oneof![any::<String>(), any::<f64>().prop_map(|n| n.to_string()), Just("1".to_owned())],
            0..6,
        ),
    ) {
        check_outcome(&decode_entry(name, &id, &fields));
    }

    #[test]
    fn every_instant_is_kept_to_the_microsecond(micros in 0..4_000_000_000_000_000_i64) {
        let ts = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        let number = read(&format!(r#"{{"event":"miner_connected","ts":{ts}}}"#));
        prop_assert_eq!(number.ts, at(micros));
        prop_assert_eq!(number.ts_text(), ts.clone());
        prop_assert_eq!(read_entry("miner_connected", &[("ts", &ts)]).ts, at(micros));
        prop_assert_eq!(decode_text(&number.to_envelope()), Ok(number));
    }

    #[test]
    fn every_share_survives_the_round_trip(
        diff in prop::num::f64::POSITIVE | prop::num::f64::NORMAL | prop::num::f64::ZERO,
        sdiff in prop::num::f64::POSITIVE | prop::num::f64::NORMAL,
        worker in "\\PC{0,40}",
        accepted in any::<bool>(),
    ) {
        let data = json!({"user": "A", "worker": worker, "diff": diff, "sdiff": sdiff, "accepted": accepted});
        let event = read(&envelope("share_submitted", &data.to_string()));
        prop_assert_eq!(event.share().map(|share| share.sdiff.to_bits()), Some(sdiff.to_bits()));
        let back = read(&event.to_envelope());
        prop_assert_eq!(event_key(&back), event_key(&event));
        prop_assert_eq!(back, event);
    }
}
