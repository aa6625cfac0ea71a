//! What is refused, and what a refusal says (contract `mining.md` §3.3).

use serde_json::json;

use super::{SHARE, TS, assert_reason, envelope, payload, read, refuse, refuse_entry};
use crate::decode::{Reason, Refusal, decode_line};

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
