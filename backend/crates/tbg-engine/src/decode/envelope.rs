//! The outer shapes: envelope A, envelope B, raw log lines, stream entries (contract `mining.md` §2.2–2.5).

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::fields::Fields;
use super::{Reason, Refusal, json, kinds, time};
use crate::event::{EventKind, PoolEvent};

/// An envelope before its data is read.
struct Envelope {
    event: String,
    ts: chrono::DateTime<chrono::Utc>,
    source: String,
    region: String,
    event_id: Option<String>,
    data: Fields,
}

/// Decodes one datagram or line of bytes.
///
/// # Errors
/// The refusal with its reason.
pub fn decode_line(bytes: &[u8]) -> Result<PoolEvent, Refusal> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| Refusal::new(Reason::MalformedJson, "not valid UTF-8"))?;
    decode_text(text)
}

/// Decodes an envelope A, an envelope B or a raw log line.
///
/// # Errors
/// The refusal with its reason.
pub fn decode_text(text: &str) -> Result<PoolEvent, Refusal> {
    let object = json::parse_object(text)?;
    let name = ["event", "type", "event_type"].iter().find_map(|key| object.get(*key)?.as_str());
    let name = name.unwrap_or("").to_owned();
    if json::has_control_characters(text, &object) {
        return Err(Refusal::new(Reason::BadValue, "a text holds control characters").of_event(&name));
    }
    let envelope = if object.contains_key("type") && object.contains_key("payload") {
        envelope_b(object)
    } else if object.contains_key("event_type") && object.contains_key("payload") {
        raw_line(object)
    } else {
        envelope_a(object)
    };
    envelope.and_then(finish).map_err(|refusal| refusal.of_event(&name))
}

/// Decodes an entry of a Redis stream: with a `data` field as our receiver and the external collector
/// write it, or flat.
///
/// # Errors
/// The refusal with its reason.
pub fn decode_entry(
    stream_event: &str,
    id: &str,
    entry: &HashMap<String, String>,
) -> Result<PoolEvent, Refusal> {
    let event = entry.get("event").map_or(stream_event, String::as_str);
    entry_envelope(event, id, entry).and_then(finish).map_err(|refusal| refusal.of_event(event))
}

fn entry_envelope(event: &str, id: &str, entry: &HashMap<String, String>) -> Result<Envelope, Refusal> {
    let field = |name: &str| entry.get(name).cloned().unwrap_or_default();
    let ts = match entry.get("ts").or_else(|| entry.get("timestamp")) {
        Some(text) => time::of_text(text.trim())?,
        None => time::of_stream_id(id).ok_or_else(|| missing("ts"))?,
    };
    let data = match entry.get("data") {
        Some(text) => {
            let object = json::parse_data(text)?;
            if json::has_control_characters(text, &object) {
                return Err(Refusal::new(Reason::BadValue, "data: a text holds control characters"));
            }
            Fields::new(object, false)
        }
        None => Fields::new(flat_data(entry)?, true),
    };
    Ok(Envelope {
        event: event.to_owned(),
        ts,
        source: field("source"),
        region: field("region"),
        event_id: entry.get("event_id").filter(|id| !id.is_empty()).cloned(),
        data,
    })
}

/// The data of a flat entry: all its fields but those of the envelope.
fn flat_data(entry: &HashMap<String, String>) -> Result<Map<String, Value>, Refusal> {
    const ENVELOPE: [&str; 6] = ["event", "ts", "timestamp", "source", "region", "event_id"];
    if entry.iter().any(|(name, text)| json::is_dirty(name) || json::is_dirty(text)) {
        return Err(Refusal::new(Reason::BadValue, "a text holds control characters"));
    }
    Ok(entry
        .iter()
        .filter(|(name, _)| !ENVELOPE.contains(&name.as_str()))
        .map(|(name, text)| (name.clone(), Value::String(text.clone())))
        .collect())
}

fn envelope_a(mut object: Map<String, Value>) -> Result<Envelope, Refusal> {
    let event = required_text(&mut object, "event")?;
    let ts = object.remove("ts").ok_or_else(|| missing("ts"))?;
    let data = match object.remove("data") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(data)) => data,
        Some(_) => return Err(Refusal::new(Reason::BadType, "data: expected an object")),
    };
    Ok(Envelope {
        event,
        ts: time::of_number(&ts)?,
        source: optional_text(&mut object, "source")?.unwrap_or_default(),
        region: optional_text(&mut object, "region")?.unwrap_or_default(),
        event_id: event_id(&mut object)?,
        data: known_only(&object).map(|()| Fields::new(data, false))?,
    })
}

/// A line of the raw log: `{"ts", "event_type", "source", "payload"}`.
fn raw_line(mut object: Map<String, Value>) -> Result<Envelope, Refusal> {
    let event = required_text(&mut object, "event_type")?;
    let ts = match object.remove("ts") {
        Some(Value::String(text)) => time::of_rfc3339(&text)?,
        Some(number) => time::of_number(&number)?,
        None => return Err(missing("ts")),
    };
    Ok(Envelope {
        event,
        ts,
        source: optional_text(&mut object, "source")?.unwrap_or_default(),
        region: optional_text(&mut object, "region")?.unwrap_or_default(),
        event_id: event_id(&mut object)?,
        data: Fields::new(payload_object(&mut object)?, false),
    })
}

/// Envelope B, whose names are mapped to those of envelope A (`mining.md` §2.3).
fn envelope_b(mut object: Map<String, Value>) -> Result<Envelope, Refusal> {
    let kind = required_text(&mut object, "type")?;
    let ts = required_text(&mut object, "timestamp")?;
    let mut data = Fields::new(payload_object(&mut object)?, false);
    for (from, to) in [("address", "user"), ("ip_address", "ip"), ("user_agent", "useragent")] {
        data.rename(from, to);
    }
    let event = match kind.as_str() {
        "share.accepted" => {
            data.map.insert("accepted".to_owned(), Value::Bool(true));
            order_difficulties(&mut data)?;
            "share_submitted"
        }
        "share.submitted" => "share_attempt",
        "block.found" => {
            data.rename("reward_sat", "reward_sats");
            "block_found"
        }
        "miner.connected" => "miner_connected",
        "miner.disconnected" => {
            data.rename("session_duration_sec", "session_duration");
            data.rename("shares_accepted", "shares_session");
            "miner_disconnected"
        }
        "difficulty.update" => "diff_updated",
        "hashrate.update" => "hashrate_update",
        "bestdiff.update" => {
            data.rename("scope", "timeframe");
            data.rename("previous_best", "prev_best");
            "share_best_diff"
        }
        // Only the names above count; another that happens to be one of ours would skip the mapping.
        other if EventKind::NAMES.contains(&other.replace('.', "_").as_str()) => {
            return Err(Refusal::new(Reason::BadValue, "type: not a name of this envelope"));
        }
        other => other,
    };
    Ok(Envelope {
        event: event.replace('.', "_"),
        ts: time::of_rfc3339(&ts)?,
        source: String::new(),
        region: optional_text(&mut object, "pool_instance")?.unwrap_or_default(),
        event_id: event_id(&mut object)?,
        data,
    })
}

/// Envelope B publishes the roles of the two difficulties inconsistently; a hash that was accepted
/// reached at least what was asked for.
fn order_difficulties(data: &mut Fields) -> Result<(), Refusal> {
    let (diff, sdiff) = (data.number("diff", 0.0)?, data.number("sdiff", 0.0)?);
    data.map.insert("diff".to_owned(), Value::from(diff.min(sdiff)));
    data.map.insert("sdiff".to_owned(), Value::from(diff.max(sdiff)));
    Ok(())
}

/// Checks what all envelopes share, then reads the data by the event's name.
fn finish(envelope: Envelope) -> Result<PoolEvent, Refusal> {
    let Envelope { event, ts, source, region, event_id, mut data } = envelope;
    if !is_event_name(&event) {
        return Err(Refusal::new(Reason::BadValue, "event: expected ^[a-z][a-z0-9_]{0,63}$"));
    }
    let source = if source.is_empty() { "hosted".to_owned() } else { source };
    if !matches!(source.as_str(), "hosted" | "proxy" | "self-hosted") {
        return Err(Refusal::new(Reason::BadValue, "source: expected hosted, proxy or self-hosted"));
    }
    if region.chars().count() > 32 || json::is_dirty(&region) {
        return Err(Refusal::new(Reason::BadValue, "region: expected at most 32 characters"));
    }
    if event_id.as_ref().is_some_and(|id| id.chars().count() > 64 || json::is_dirty(id)) {
        return Err(Refusal::new(Reason::BadValue, "event_id: expected at most 64 characters"));
    }
    let kinds::Read { kind, user, worker } = kinds::read(&event, &mut data)?;
    let payload = Value::Object(data.map).to_string();
    Ok(PoolEvent { ts, kind, source, region, event_id, user, worker, payload })
}

fn is_event_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn payload_object(object: &mut Map<String, Value>) -> Result<Map<String, Value>, Refusal> {
    match object.remove("payload") {
        Some(Value::Object(data)) => Ok(data),
        Some(_) => Err(Refusal::new(Reason::BadType, "payload: expected an object")),
        None => Err(missing("payload")),
    }
}

fn required_text(object: &mut Map<String, Value>, name: &str) -> Result<String, Refusal> {
    optional_text(object, name)?.ok_or_else(|| missing(name))
}

fn optional_text(object: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match object.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::new(Reason::BadType, format!("{name}: expected a text"))),
    }
}

/// An empty id is no id: it would make all events the same one.
fn event_id(object: &mut Map<String, Value>) -> Result<Option<String>, Refusal> {
    Ok(optional_text(object, "event_id")?.filter(|id| !id.is_empty()))
}

/// Envelope A has no field but those that were taken out. A worker name with quotes can close `data`
/// early and push the true fields into one of its own making (pitfall 21): that is refused.
fn known_only(rest: &Map<String, Value>) -> Result<(), Refusal> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(Reason::BadValue, "a field beside event, ts, source, region, event_id and data"))
}

fn missing(name: &str) -> Refusal {
    Refusal::new(Reason::MissingField, format!("{name}: required"))
}

impl PoolEvent {
    /// The event as an envelope A on one line: what the spool keeps and `blocks:found` carries.
    #[must_use]
    pub fn to_envelope(&self) -> String {
        use std::fmt::Write as _;
        let micros = self.ts.timestamp_micros();
        let text = |value: &str| Value::from(value).to_string();
        let mut line = String::with_capacity(self.payload.len() + 160);
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            r#"{{"event":{},"ts":{}.{:06},"source":{},"region":{}"#,
            text(self.kind.name()),
            micros.div_euclid(1_000_000),
            micros.rem_euclid(1_000_000),
            text(&self.source),
            text(&self.region)
        );
        if let Some(id) = &self.event_id {
            let _ = write!(line, r#","event_id":{}"#, text(id));
        }
        let _ = write!(line, r#","data":{}}}"#, self.payload);
        line
    }

    /// Unix seconds with six decimals: the `ts` of a stream entry.
    #[must_use]
    pub fn ts_text(&self) -> String {
        let micros = self.ts.timestamp_micros();
        format!("{}.{:06}", micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000))
    }

    /// The stream into which the event goes: its own, or the one for events that are only archived.
    #[must_use]
    pub fn stream(&self) -> String {
        match &self.kind {
            EventKind::Other(_) => crate::source::OTHER_STREAM.to_owned(),
            kind => format!("{}{}", crate::source::STREAM_PREFIX, kind.name()),
        }
    }
}
