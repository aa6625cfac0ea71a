//! Every shape an event arrives in (contract `mining.md` §2.2 to §2.5).

use serde_json::json;

use super::{
    MICROS, RFC, TS, assert_reason, at, envelope, envelope_b, other, payload, read, read_entry, refuse_entry,
};
use crate::decode::Reason;
use crate::event::{Connected, EventKind, Share};

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
