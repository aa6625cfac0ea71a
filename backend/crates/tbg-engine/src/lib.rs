//! The path of a share (DESIGN, "The path of a share").
//!
//! ```text
//! pool socket ─▶ publisher ─▶ Redis Streams ─▶ reader ─▶ batch ─▶ one PostgreSQL transaction ─▶ ack ─▶ publish
//!                    └▶ spool while Redis is away           └▶ dead letters
//! ```
//!
//! * [`decode`] turns what arrives (envelopes A and B, flat stream entries, raw log lines) into a
//!   [`PoolEvent`] or a [`Refusal`](decode::Refusal) with its reason.
//! * [`source`] brings entries in and acknowledges them: socket receiver, streams, NDJSON, spool.
//! * [`engine`] applies a batch: deduplicates against the ledger, lets each [`Reactor`] load, react
//!   and store, writes the outbox, commits. Delivery is at-least-once, effects are exactly-once.
//! * [`writer`] is the loop of the one active writer of a database, with takeover.
//! * [`push`] publishes to Redis what browsers show live; best effort, after the commit.
//!
//! Tables owned here: `ingest_ledger`, `ingest_dead_letters`; `domain_outbox` through `tbg-core`.
//!
//! Invariants: nothing is acknowledged before its transaction committed; an event that is in the ledger
//! has no further effect; whatever is refused is in `ingest_dead_letters` with its reason.

pub mod batch;
pub mod dead_letters;
pub mod decode;
pub mod engine;
pub mod event;
pub mod key;
pub mod push;
pub mod reactor;
mod settle;
pub mod source;
mod store;
pub mod writer;

/// Makes every ingest counter appear at 0, so that a rate can be taken from the first event on.
pub fn register_metrics() {
    metrics::gauge!(tbg_core::metrics::INGEST_STREAM_PENDING).set(0.0);
    for event in EventKind::NAMES.into_iter().chain(["other"]) {
        for outcome in ["applied", "duplicate", "dead", "lost"] {
            metrics::counter!(tbg_core::metrics::INGEST_EVENTS_TOTAL, "event" => event, "outcome" => outcome)
                .increment(0);
        }
    }
    for reason in decode::Reason::ALL {
        metrics::counter!(tbg_core::metrics::DEAD_LETTERS_TOTAL, "reason" => reason.as_str()).increment(0);
    }
}

pub use batch::{Batch, BatchEvent};
pub use engine::{Engine, Outcome};
pub use event::{EventKind, PoolEvent};
pub use push::Push;
pub use reactor::{AfterCommit, Reaction, Reactor};
pub use settle::BatchReport;
