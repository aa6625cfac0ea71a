//! `users.last_seen` and `api_keys.last_used_at`: at most one write per row and minute, many rows at once.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tbg_core::UserId;
use uuid::Uuid;

/// Between two writes for one row.
const INTERVAL: Duration = Duration::from_secs(60);
/// Rows that are remembered; beyond, some are written a little more often.
const CAPACITY: u64 = 200_000;

/// Who was seen since the last flush.
pub(super) struct Seen {
    recent: Cache<Who, ()>,
    pending: Mutex<Pending>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    User(UserId),
    Key(Uuid),
}

/// What the next flush writes.
#[derive(Default)]
pub(super) struct Pending {
    pub users: HashSet<i64>,
    pub keys: HashSet<Uuid>,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self {
            recent: Cache::builder().max_capacity(CAPACITY).time_to_live(INTERVAL).build(),
            pending: Mutex::default(),
        }
    }

    pub(super) fn note(&self, user: UserId, key: Option<Uuid>) {
        if self.is_due(Who::User(user)) {
            self.pending.lock().unwrap_or_else(PoisonError::into_inner).users.insert(user.0);
        }
        if let Some(key) = key.filter(|key| self.is_due(Who::Key(*key))) {
            self.pending.lock().unwrap_or_else(PoisonError::into_inner).keys.insert(key);
        }
    }

    fn is_due(&self, who: Who) -> bool {
        let due = !self.recent.contains_key(&who);
        if due {
            self.recent.insert(who, ());
        }
        due
    }

    pub(super) fn take(&self) -> Pending {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
