//! The instant of an event and its age.

use chrono::TimeDelta;

use super::{ID, MICROS, SHARE, assert_reason, at, entry, envelope_b, read, read_entry, refuse_entry};
use crate::decode::{Reason, check_age, decode_entry, decode_text};

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
