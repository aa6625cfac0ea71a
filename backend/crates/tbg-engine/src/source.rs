//! Where events come from, and how they are acknowledged (contract `mining.md` §2, §3.1–3.2).
//!
//! In `embedded` mode the pool's datagrams go through [`socket`] and [`publisher`] into Redis Streams; an
//! external collector may fill the same streams instead. [`streams`] reads them for the writer. [`ndjson`]
//! reads files. [`spool`] keeps datagrams on disk while Redis is away.

pub mod ndjson;
pub mod publisher;
pub mod socket;
pub mod spool;
pub mod streams;

pub use self::socket::QUEUE_CAPACITY;
use crate::dead_letters::DeadLetter;
use crate::event::EventKind;
use crate::key::Identified;

/// Prefix of all streams.
pub const STREAM_PREFIX: &str = "mining:";
/// Events that only the archive keeps: names that have no stream of their own.
pub const OTHER_STREAM: &str = "mining:other";
/// Datagrams that were refused; the consumer makes dead letters of them, so that the receiver needs no
/// database.
pub const REFUSED_STREAM: &str = "mining:refused";
/// The consumer group of this program.
pub const GROUP: &str = "tbg-api-consumers";

/// The streams that are consumed, in a fixed order.
#[must_use]
pub fn stream_names() -> Vec<String> {
    EventKind::NAMES
        .iter()
        .map(|event| format!("{STREAM_PREFIX}{event}"))
        .chain([OTHER_STREAM.to_owned(), REFUSED_STREAM.to_owned()])
        .collect()
}

/// Names an entry: index into [`stream_names`], and its id there.
pub type EntryId = (usize, String);

/// An entry of a stream, decoded.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Index into [`stream_names`].
    pub stream: usize,
    /// Entry id.
    pub id: String,
    /// The event, or why there is none.
    pub content: Result<Identified, Box<DeadLetter>>,
}
