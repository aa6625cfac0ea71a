//! The round trip through the envelope, and whatever else arrives.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ID, MICROS, RFC, SHARE, TS, at, entry, envelope, envelope_b, payload, read, read_entry};
use crate::decode::fields::MAX_DIFFICULTY;
use crate::decode::{Refusal, decode_entry, decode_line, decode_text};
use crate::event::{EventKind, PoolEvent};
use crate::key::{KeyRule, event_key};

/// A difficulty that a hash can have.
fn possible(difficulty: f64) -> f64 {
    if difficulty > MAX_DIFFICULTY { difficulty.sqrt() / 1e90 } else { difficulty }
}

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
        diff in (prop::num::f64::POSITIVE | prop::num::f64::ZERO).prop_map(possible),
        sdiff in prop::num::f64::POSITIVE.prop_map(possible),
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
