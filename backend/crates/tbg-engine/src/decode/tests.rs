//! The rules of the wire formats, one sentence each (contract `mining.md` §1, §2, §3.3).

mod envelopes;
mod events;
mod limits;
mod properties;
mod refusals;
mod times;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Reason, Refusal, decode_entry, decode_line, decode_text};
use crate::event::{EventKind, PoolEvent};

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
