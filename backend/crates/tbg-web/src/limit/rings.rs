//! A ring per bucket for as long as Redis is away, and a bound on how many.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use super::ring::{Ring, WINDOW};

/// Buckets that are kept. Where there are more clients, those that have been quiet longest are forgotten:
/// who hammers stays known, and nobody is locked out because others are many.
const MAX_KEYS: usize = 50_000;
/// Idle buckets that one call forgets. More than one call can add, so that they become fewer.
const FORGOTTEN_PER_CALL: usize = 4;

/// Rings by key. Every map is bounded by `max_keys`.
pub(super) struct Rings {
    max_keys: usize,
    by_key: HashMap<Arc<str>, Known>,
    /// The same keys by their last try, the quietest first.
    by_turn: BTreeMap<u64, (Instant, Arc<str>)>,
    /// Counts tries: instants alone may be equal.
    turn: u64,
}

struct Known {
    ring: Ring,
    /// Its place in `by_turn`.
    turn: u64,
}

impl Default for Rings {
    fn default() -> Self {
        Self::with_room_for(MAX_KEYS)
    }
}

impl Rings {
    fn with_room_for(max_keys: usize) -> Self {
        Self { max_keys, by_key: HashMap::new(), by_turn: BTreeMap::new(), turn: 0 }
    }

    /// [`Ring::accept`] of the ring of `key`.
    pub(super) fn accept(&mut self, key: &str, limit: u32, now: Instant) -> (bool, u32, Instant) {
        self.forget_idle(now);
        self.turn += 1;
        let turn = self.turn;
        if let Some(known) = self.by_key.get_mut(key) {
            if let Some((_, name)) = self.by_turn.remove(&known.turn) {
                self.by_turn.insert(turn, (now, name));
            }
            known.turn = turn;
            known.ring.set_limit(limit);
            return known.ring.accept(now);
        }
        if self.by_key.len() >= self.max_keys {
            self.forget_quietest();
        }
        let name: Arc<str> = key.into();
        let mut ring = Ring::new(limit);
        let outcome = ring.accept(now);
        self.by_turn.insert(turn, (now, Arc::clone(&name)));
        self.by_key.insert(name, Known { ring, turn });
        outcome
    }

    /// Forgets some of the buckets that nobody has tried for a window: they are as good as new.
    pub(super) fn forget_idle(&mut self, now: Instant) {
        for _ in 0..FORGOTTEN_PER_CALL {
            let quietest = self.by_turn.first_key_value();
            let idle =
                quietest.is_some_and(|(_, (tried, _))| now.saturating_duration_since(*tried) >= WINDOW);
            if !idle {
                return;
            }
            self.forget_quietest();
        }
    }

    /// Whether there is nothing to forget.
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    fn forget_quietest(&mut self) {
        if let Some((_, (_, name))) = self.by_turn.pop_first() {
            self.by_key.remove(&name);
        }
        if self.by_key.is_empty() {
            // An outage must not leave its memory behind.
            self.by_key.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn second(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn each_key_has_a_window_of_its_own() {
        let now = Instant::now();
        let mut rings = Rings::default();
        assert!(rings.accept("a", 1, now).0);
        assert!(rings.accept("b", 1, now).0);
        assert!(!rings.accept("a", 1, now).0);
        assert!(!rings.accept("b", 1, now).0);
    }

    #[test]
    fn a_full_house_forgets_who_has_been_quiet_longest_and_never_denies_all() {
        let start = Instant::now();
        let mut rings = Rings::with_room_for(3);
        for (seconds, key) in ["a", "b", "c"].into_iter().enumerate() {
            assert!(rings.accept(key, 1, second(start, seconds as u64)).0);
        }
        // A refused try is a sign of life too.
        assert!(!rings.accept("a", 1, second(start, 4)).0);

        assert!(rings.accept("d", 1, second(start, 5)).0);

        assert_eq!(rings.by_key.len(), 3);
        assert!(!rings.accept("a", 1, second(start, 6)).0);
        assert!(!rings.accept("c", 1, second(start, 6)).0);
        assert!(rings.accept("b", 1, second(start, 6)).0);
    }

    #[test]
    fn there_are_never_more_keys_than_allowed_and_all_go_in_the_end() {
        let start = Instant::now();
        let mut rings = Rings::default();
        for number in 0..MAX_KEYS + 1_000 {
            assert!(rings.accept(&number.to_string(), 5, start).0);
        }
        assert_eq!(rings.by_key.len(), MAX_KEYS);
        assert_eq!(rings.by_turn.len(), MAX_KEYS);

        for _ in 0..=MAX_KEYS / FORGOTTEN_PER_CALL {
            rings.forget_idle(second(start, 60));
        }

        assert!(rings.is_empty() && rings.by_turn.is_empty());
    }

    #[test]
    fn who_was_tried_within_the_window_is_kept() {
        let start = Instant::now();
        let mut rings = Rings::default();
        rings.accept("a", 1, start);
        rings.forget_idle(second(start, 59));
        assert!(!rings.is_empty());
        assert!(!rings.accept("a", 1, second(start, 59)).0);
        assert!(rings.accept("a", 1, second(start, 60)).0);
    }
}
