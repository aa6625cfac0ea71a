//! Values out of range and texts that are dirty or too long (contract `mining.md` §3.3).

use serde_json::Value;

use super::{TS, assert_reason, envelope, envelope_b, payload, read, read_entry, refuse, refuse_entry};
use crate::decode::Reason;

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

/// The greatest difficulty is that of a hash of 1.
#[test]
fn a_difficulty_that_no_hash_can_have_is_a_bad_value() {
    for (name, field) in
        [("share_submitted", "sdiff"), ("share_best_diff", "new_best"), ("block_found", "diff")]
    {
        for bad in ["1e300", "2.696e67"] {
            assert_reason(envelope(name, &format!(r#"{{"{field}":{bad}}}"#)), Reason::BadValue);
        }
        assert_eq!(refuse_entry(name, &[(field, "1e300")]).reason, Reason::BadValue, "{name}.{field}");
    }
    let event = read(&envelope("share_submitted", r#"{"user":"A","sdiff":2.695e67}"#));
    assert_eq!(event.share().unwrap().sdiff, 2.695e67);
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
