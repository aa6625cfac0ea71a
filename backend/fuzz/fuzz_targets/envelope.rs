//! Any bytes as a line, as the data of a stream entry and as a flat entry: decoding never panics, what
//! was decoded is clean and bounded, and it survives the way through its own envelope.
//!
//! A flat entry is the event, the stream id, then names and values, all with a NUL between them.
#![no_main]

use std::collections::HashMap;

use chrono::DateTime;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tbg_engine::decode::{Refusal, check_age, decode_entry, decode_line, decode_text};
use tbg_engine::key::event_key;
use tbg_engine::{EventKind, PoolEvent};

const STREAM_ID: &str = "1771804900123-0";
/// What "now" is for the age check, in seconds.
const NOW: i64 = 1_771_804_800;
/// From here on, a double of seconds no longer holds the microsecond.
const EXACT_UNTIL: i64 = 1 << 32;

fn is_clean(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn check(outcome: Result<PoolEvent, Refusal>) {
    match outcome {
        Ok(event) => check_event(&event),
        Err(refusal) => {
            assert!(!refusal.detail.is_empty() && is_clean(&refusal.detail), "{refusal:?}");
            assert!(refusal.event_type.chars().count() <= 64 && is_clean(&refusal.event_type), "{refusal:?}");
        }
    }
}

fn check_event(event: &PoolEvent) {
    let id = event.event_id.as_deref().unwrap_or_default();
    let texts = [event.kind.name(), &event.source, &event.region, &event.user, &event.worker, id];
    assert!(texts.into_iter().all(is_clean) && is_clean(&event.payload), "{event:?}");
    assert!(event.user.len() <= 90 && event.worker.chars().count() <= 128, "{event:?}");
    let payload: Result<Value, _> = serde_json::from_str(&event.payload);
    assert!(payload.is_ok_and(|payload| payload.is_object()), "{event:?}");
    if let Some(share) = event.share() {
        assert!(share.diff.is_finite() && share.diff >= 0.0, "{event:?}");
        assert!(share.sdiff.is_finite() && share.sdiff >= 0.0, "{event:?}");
    }
    if let Some(now) = DateTime::from_timestamp(NOW, 0) {
        let _ = check_age(event, now, false);
    }

    let line = event.to_envelope();
    if (0..EXACT_UNTIL).contains(&event.ts.timestamp()) {
        let again = decode_text(&line);
        assert_eq!(again.as_ref(), Ok(event), "{line}");
        assert_eq!(again.as_ref().map(event_key), Ok(event_key(event)), "{line}");
    }
}

fn flat_entry(text: &str) -> (&str, &str, HashMap<String, String>) {
    let mut parts = text.split('\0');
    let event = parts.next().unwrap_or_default();
    let id = parts.next().unwrap_or(STREAM_ID);
    let mut fields = HashMap::new();
    while let Some(name) = parts.next() {
        fields.insert(name.to_owned(), parts.next().unwrap_or_default().to_owned());
    }
    (event, id, fields)
}

fuzz_target!(|bytes: &[u8]| {
    check(decode_line(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };

    let (event, id, fields) = flat_entry(text);
    check(decode_entry(event, id, &fields));

    let data = HashMap::from([("data".to_owned(), text.to_owned())]);
    for event in EventKind::NAMES.into_iter().chain(["other"]) {
        check(decode_entry(event, STREAM_ID, &data));
    }
});
