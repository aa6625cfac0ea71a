//! What was refused, kept where an operator finds it (contract `mining.md` §3.2, §3.3).
//!
//! A letter is a row in `ingest_dead_letters`, unique per stream entry, and an entry of `mining:dlq`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::decode::{Refusal, decode_entry, decode_text};
use crate::event::PoolEvent;
use crate::source::STREAM_PREFIX;

/// Stream of dead letters, for consumers that do not read the database.
pub const DEAD_LETTER_STREAM: &str = "mining:dlq";
/// About how many entries that stream keeps.
pub const DEAD_LETTER_STREAM_MAXLEN: usize = 10_000;
/// Most of a payload that is kept, in bytes.
const MAX_PAYLOAD_BYTES: usize = 64 * 1024;

/// A refused entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Stream, or `replay:<file name>`.
    pub stream: String,
    /// Entry id, or what identifies the line.
    pub stream_id: String,
    /// Why.
    pub refusal: Refusal,
    /// What arrived; cut to 64 KiB, NUL bytes replaced.
    pub payload: String,
    /// How often it was delivered.
    pub deliveries: i32,
}

impl DeadLetter {
    /// A letter about `payload`, as it arrived.
    #[must_use]
    pub fn new(stream: &str, stream_id: &str, refusal: Refusal, payload: &[u8]) -> Self {
        let mut payload = String::from_utf8_lossy(payload).replace('\0', "\u{fffd}");
        if payload.len() > MAX_PAYLOAD_BYTES {
            payload.truncate(payload.floor_char_boundary(MAX_PAYLOAD_BYTES));
        }
        Self { stream: stream.to_owned(), stream_id: stream_id.to_owned(), refusal, payload, deliveries: 1 }
    }
}

/// A stored letter.
#[derive(Clone, Debug)]
pub struct StoredLetter {
    /// Row id.
    pub id: i64,
    /// Stream, or `replay:<file name>`.
    pub stream: String,
    /// Entry id, or what identifies the line.
    pub stream_id: String,
    /// Name of the event, if it could be read.
    pub event_type: String,
    /// What arrived.
    pub payload: String,
    /// Why it was refused.
    pub reason: String,
    /// Which field, and what was expected.
    pub detail: String,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
}

impl StoredLetter {
    /// Reads the event again: from a datagram or line as it came, or from a stream entry.
    ///
    /// # Errors
    /// The refusal, if it is still refused.
    pub fn decode(&self) -> Result<PoolEvent, Refusal> {
        let entry: Result<HashMap<String, String>, _> = serde_json::from_str(&self.payload);
        match entry {
            Ok(entry) => {
                let event = self.stream.strip_prefix(STREAM_PREFIX).unwrap_or(&self.stream);
                decode_entry(event, &self.stream_id, &entry)
            }
            Err(_) => decode_text(&self.payload),
        }
    }
}

/// The newest letters, at most `limit`, optionally of one reason.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    conn: &mut PgConnection,
    reason: Option<&str>,
    limit: i64,
) -> Result<Vec<StoredLetter>, sqlx::Error> {
    crate::store::letters(conn, reason, None, limit).await
}

/// The oldest letters after row `after`, at most `limit`, optionally of one reason: in the order in which they are to be
/// applied.
///
/// # Errors
/// When the database does not answer.
pub async fn oldest(
    conn: &mut PgConnection,
    reason: Option<&str>,
    after: i64,
    limit: i64,
) -> Result<Vec<StoredLetter>, sqlx::Error> {
    crate::store::letters(conn, reason, Some(after), limit).await
}

/// Removes letters that were dealt with.
///
/// # Errors
/// When the database does not answer.
pub async fn remove(conn: &mut PgConnection, ids: &[i64]) -> Result<u64, sqlx::Error> {
    crate::store::remove_letters(conn, ids).await
}

/// Deletes up to `at_most` letters from before `before`.
///
/// # Errors
/// When the database does not answer.
pub async fn prune(conn: &mut PgConnection, before: DateTime<Utc>, at_most: i64) -> Result<u64, sqlx::Error> {
    crate::store::prune_letters(conn, before, at_most).await
}
