//! An exact sliding window in memory: the accept times of the last 60 seconds.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The length of the window. An accept that is exactly this old no longer counts.
pub const WINDOW: Duration = Duration::from_secs(60);

/// The accept times of one bucket, at most as many as its limit. Refusals leave no trace.
#[derive(Clone, Debug)]
pub struct Ring {
    limit: u32,
    /// In order, the oldest first.
    accepted: VecDeque<Instant>,
}

impl Ring {
    /// An empty ring that takes `limit` per window.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self { limit, accepted: VecDeque::new() }
    }

    /// Takes one more at `now` if there is room. Says whether it did, how many count now, and the oldest
    /// of them (`now` if there is none): [`WINDOW`] after that the next slot is free.
    pub fn accept(&mut self, now: Instant) -> (bool, u32, Instant) {
        // Callers on several threads may arrive with instants out of order.
        let now = self.accepted.back().map_or(now, |newest| now.max(*newest));
        while self.accepted.front().is_some_and(|oldest| now.saturating_duration_since(*oldest) >= WINDOW) {
            self.accepted.pop_front();
        }
        let allowed = self.count() < self.limit;
        if allowed {
            self.accepted.push_back(now);
        }
        (allowed, self.count(), self.accepted.front().copied().unwrap_or(now))
    }

    pub(super) fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    fn count(&self) -> u32 {
        u32::try_from(self.accepted.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A second of `start`, and microseconds less.
    fn after(start: Instant, seconds: u64, less_us: u64) -> Instant {
        start + Duration::from_micros(seconds * 1_000_000 - less_us)
    }

    #[test]
    fn a_slot_is_free_again_exactly_60_seconds_later() {
        let start = Instant::now();
        let mut ring = Ring::new(5);
        for second in 0..5 {
            assert_eq!(ring.accept(after(start, second, 0)), (true, second as u32 + 1, start));
        }

        assert_eq!(ring.accept(after(start, 10, 0)), (false, 5, start));
        assert_eq!(ring.accept(after(start, 60, 1)), (false, 5, start));
        assert_eq!(ring.accept(after(start, 60, 0)), (true, 5, after(start, 1, 0)));
        assert_eq!(ring.accept(after(start, 60, 0)), (false, 5, after(start, 1, 0)));
    }

    #[test]
    fn a_limit_of_none_takes_none() {
        let now = Instant::now();
        assert_eq!(Ring::new(0).accept(now), (false, 0, now));
    }

    #[test]
    fn an_instant_out_of_order_does_not_open_the_window() {
        let start = Instant::now();
        let mut ring = Ring::new(1);
        assert!(ring.accept(after(start, 61, 0)).0);
        assert!(!ring.accept(start).0);
        assert!(!ring.accept(after(start, 121, 1)).0);
        assert!(ring.accept(after(start, 121, 0)).0);
    }

    /// Pauses between tries in microseconds: bursts, steps, and whole windows to the microsecond.
    fn pauses() -> impl Strategy<Value = Vec<u64>> {
        let pause = prop_oneof![
            4 => 0_u64..1_000,
            4 => 0_u64..8_000_000,
            1 => 59_999_998_u64..60_000_003,
        ];
        prop::collection::vec(pause, 1..300)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_ring_decides_as_a_full_history_would(limit in 0_u32..20, pauses in pauses()) {
            let start = Instant::now();
            let mut ring = Ring::new(limit);
            let mut history: Vec<u64> = Vec::new();
            let mut now_us = 0;
            for pause in pauses {
                now_us += pause;
                let young: Vec<u64> = history.iter().copied().filter(|us| now_us - us < 60_000_000).collect();
                let expected = young.len() < limit as usize;

                let (allowed, count, oldest) = ring.accept(start + Duration::from_micros(now_us));

                prop_assert_eq!(allowed, expected);
                prop_assert_eq!(count as usize, young.len() + usize::from(expected));
                let oldest_us = young.first().copied().unwrap_or(now_us);
                prop_assert_eq!(oldest, start + Duration::from_micros(oldest_us));
                if allowed {
                    history.push(now_us);
                }
            }
        }

        #[test]
        fn no_window_of_60_seconds_accepts_more_than_the_limit(limit in 1_u32..20, pauses in pauses()) {
            let start = Instant::now();
            let mut ring = Ring::new(limit);
            let mut accepted: Vec<u64> = Vec::new();
            let mut now_us = 0;
            for pause in pauses {
                now_us += pause;
                if ring.accept(start + Duration::from_micros(now_us)).0 {
                    accepted.push(now_us);
                }
            }
            // Any limit + 1 neighbours span a window.
            for neighbours in accepted.windows(limit as usize + 1) {
                prop_assert!(neighbours[limit as usize] - neighbours[0] >= 60_000_000);
            }
            prop_assert!(ring.accepted.len() <= limit as usize);
        }
    }
}
