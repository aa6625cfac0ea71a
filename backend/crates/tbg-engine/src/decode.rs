//! From bytes to a validated [`PoolEvent`] (contract `mining.md` §2, §3.3).
//!
//! Nothing is repaired: an object with duplicate keys is refused, because a quote in a worker name can
//! inject fields into the pool's unescaped JSON (pitfall 21). Every refusal has one of a closed set of
//! reasons and a detail that names the field, never its value.

mod envelope;
mod fields;
mod json;
mod kinds;
mod time;

use chrono::{DateTime, TimeDelta, Utc};

pub use self::envelope::{decode_entry, decode_line, decode_text};
use crate::event::PoolEvent;

/// Largest datagram that the pool sends, in bytes (`mining.md` §2.1).
pub const MAX_DATAGRAM_BYTES: usize = 4096;
/// Largest NDJSON line, in bytes (`mining.md` §2.5).
pub const MAX_LINE_BYTES: usize = 64 * 1024;
/// How far an event may lie in the future.
const MAX_FUTURE: TimeDelta = TimeDelta::seconds(300);
/// How old an event may be; the ledger is kept longer, so nothing acceptable can count twice.
pub const MAX_AGE: TimeDelta = TimeDelta::days(90);

/// Why an event was refused: the `reason` of its dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not one JSON object, invalid UTF-8, or duplicate keys.
    MalformedJson,
    /// A required field is absent.
    MissingField,
    /// A field has another JSON type.
    BadType,
    /// More than five minutes ahead.
    FutureTs,
    /// More than ninety days old.
    TooOld,
    /// A value out of its range, or a text with control characters or over its limit.
    BadValue,
    /// Valid, but the database refuses its effects, five times.
    ApplyFailed,
}

impl Reason {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::MalformedJson,
        Self::MissingField,
        Self::BadType,
        Self::FutureTs,
        Self::TooOld,
        Self::BadValue,
        Self::ApplyFailed,
    ];

    /// The reason of that text; an unknown text counts as malformed.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        let known = Self::ALL.into_iter().find(|reason| reason.as_str() == text);
        known.unwrap_or(Self::MalformedJson)
    }

    /// The text that the table, the dead-letter stream and metrics use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::MissingField => "missing_field",
            Self::BadType => "bad_type",
            Self::FutureTs => "future_ts",
            Self::TooOld => "too_old",
            Self::BadValue => "bad_value",
            Self::ApplyFailed => "apply_failed",
        }
    }
}

/// A refused event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Which field, and what was expected of it.
    pub detail: String,
    /// Name of the event, as far as it could be read.
    pub event_type: String,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), event_type: String::new() }
    }

    fn of_event(mut self, event_type: &str) -> Self {
        self.event_type = event_type.chars().filter(|c| !c.is_control()).take(64).collect();
        self
    }
}

/// Checks that an event is of an age that can be applied.
///
/// # Errors
/// `future_ts`, or `too_old` unless `allow_old`.
pub fn check_age(event: &PoolEvent, now: DateTime<Utc>, allow_old: bool) -> Result<(), Refusal> {
    if event.ts > now + MAX_FUTURE {
        let refusal = Refusal::new(Reason::FutureTs, "ts: more than 300 s ahead");
        return Err(refusal.of_event(event.kind.name()));
    }
    if event.ts < now - MAX_AGE && !allow_old {
        let refusal = Refusal::new(Reason::TooOld, "ts: more than 90 days old");
        return Err(refusal.of_event(event.kind.name()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
