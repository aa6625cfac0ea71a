//! What a transaction is about: applied events in order, and who holds their addresses.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tbg_core::users::Holder;
use uuid::Uuid;

use crate::event::PoolEvent;

/// One event of a batch; it is not a duplicate.
#[derive(Clone, Debug)]
pub struct BatchEvent {
    /// Its identity, see [`event_key`](crate::key::event_key).
    pub key: Uuid,
    /// The event.
    pub pool: Arc<PoolEvent>,
    /// Older than the ledger can vouch for (`replay --allow-old`): takes part in maxima only, never in
    /// counters or raw rows.
    pub aged: bool,
}

/// The events of one transaction, by (time, key), so that batch boundaries decide nothing.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The events.
    pub events: Vec<BatchEvent>,
    /// The holders of the addresses in the batch, at the time of processing.
    pub holders: HashMap<String, Holder>,
    /// When the batch is processed; an argument, so that reactors need no clock.
    pub processed_at: DateTime<Utc>,
}

impl Batch {
    /// Who holds `address`; nobody for an unregistered one.
    #[must_use]
    pub fn holder(&self, address: &str) -> Option<&Holder> {
        self.holders.get(address)
    }

    /// The first and last instant of the batch.
    #[must_use]
    pub fn time_range(&self) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        Some((self.events.first()?.pool.ts, self.events.last()?.pool.ts))
    }
}
