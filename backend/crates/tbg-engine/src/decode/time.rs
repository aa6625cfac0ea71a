//! Instants as the pool writes them: unix seconds with six decimals, or RFC 3339.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Reason, Refusal};

/// Years 1970 to about 2255; a double of seconds keeps the microsecond until 2106.
const MAX_MICROS: i64 = 9_000_000_000_000_000;

pub(super) fn bad(reason: Reason, what: &str) -> Refusal {
    Refusal::new(reason, format!("ts: {what}"))
}

/// Unix seconds as a JSON number.
pub(super) fn of_number(value: &Value) -> Result<DateTime<Utc>, Refusal> {
    let seconds = value.as_f64().ok_or_else(|| bad(Reason::BadType, "expected a number"))?;
    of_micros((seconds * 1e6).round())
}

/// Unix seconds as decimal text, kept to the microsecond.
pub(super) fn of_text(text: &str) -> Result<DateTime<Utc>, Refusal> {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !plain(whole) || !plain(fraction) {
        let seconds: f64 = text.parse().map_err(|_| bad(Reason::BadType, "expected unix seconds"))?;
        return of_micros((seconds * 1e6).round());
    }
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let micros = whole
        .parse::<i64>()
        .ok()
        .zip(digits.parse::<i64>().ok())
        .and_then(|(whole, micros)| whole.checked_mul(1_000_000)?.checked_add(micros))
        .filter(|micros| *micros <= MAX_MICROS)
        .ok_or_else(|| bad(Reason::BadValue, "out of range"))?;
    DateTime::from_timestamp_micros(micros).ok_or_else(|| bad(Reason::BadValue, "out of range"))
}

/// RFC 3339 with an offset.
pub(super) fn of_rfc3339(text: &str) -> Result<DateTime<Utc>, Refusal> {
    let instant = DateTime::parse_from_rfc3339(text)
        .map_err(|_| bad(Reason::BadType, "expected RFC 3339 with an offset"))?
        .with_timezone(&Utc);
    // The database keeps microseconds; so does every comparison.
    Some(instant.timestamp_micros())
        .filter(|micros| (0..=MAX_MICROS).contains(micros))
        .and_then(DateTime::from_timestamp_micros)
        .ok_or_else(|| bad(Reason::BadValue, "out of range"))
}

/// Milliseconds since 1970, as in the first half of a stream entry's id.
pub(super) fn of_stream_id(id: &str) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(id.split('-').next()?.parse().ok()?)
}

#[expect(clippy::cast_possible_truncation, reason = "checked against MAX_MICROS")]
fn of_micros(micros: f64) -> Result<DateTime<Utc>, Refusal> {
    if !(0.0..=MAX_MICROS as f64).contains(&micros) {
        return Err(bad(Reason::BadValue, "out of range"));
    }
    DateTime::from_timestamp_micros(micros as i64).ok_or_else(|| bad(Reason::BadValue, "out of range"))
}
