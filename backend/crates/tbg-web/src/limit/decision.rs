//! From a count to what the client is told. Contract: `production.md` section 3.2.

/// 60 seconds, in the unit of Redis' scores.
pub(super) const WINDOW_US: i64 = 60_000_000;

/// What a window says about one try. Instants in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    /// Whether it was accepted.
    pub(super) allowed: bool,
    /// Accepts of the last 60 seconds, this one included.
    pub(super) count: u32,
    /// When the oldest of them was accepted.
    pub(super) oldest_us: i64,
    /// When this was tried.
    pub(super) now_us: i64,
}

/// Whether a request may pass, and what the headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may pass.
    pub allowed: bool,
    /// `X-RateLimit-Limit`: accepted requests per 60 seconds.
    pub limit: u32,
    /// `X-RateLimit-Remaining`: how many more would be accepted now.
    pub remaining: u32,
    /// `X-RateLimit-Reset`: when the next slot becomes free, in whole seconds since 1970.
    pub reset_epoch_s: i64,
    /// `Retry-After`, in seconds, at least 1; only where `allowed` is false.
    pub retry_after_s: Option<u64>,
}

impl Decision {
    pub(super) fn of(count: Count, limit: u32) -> Self {
        let free_us = count.oldest_us.saturating_add(WINDOW_US);
        let wait_s = seconds_rounded_up(free_us.saturating_sub(count.now_us));
        Self {
            allowed: count.allowed,
            limit,
            remaining: if count.allowed { limit.saturating_sub(count.count) } else { 0 },
            reset_epoch_s: seconds_rounded_up(free_us),
            retry_after_s: (!count.allowed).then(|| u64::try_from(wait_s).unwrap_or(0).max(1)),
        }
    }
}

fn seconds_rounded_up(us: i64) -> i64 {
    us.saturating_add(999_999).div_euclid(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_US: i64 = 1_771_804_800_000_000;

    #[test]
    fn headers_are_those_of_acceptance_1() {
        let oldest_us = START_US + 250_000;
        let first = Count { allowed: true, count: 1, oldest_us, now_us: oldest_us };
        let refused = Count { allowed: false, count: 30, oldest_us, now_us: START_US + 750_000 };

        assert_eq!(
            Decision::of(first, 30),
            Decision {
                allowed: true,
                limit: 30,
                remaining: 29,
                reset_epoch_s: 1_771_804_861,
                retry_after_s: None,
            }
        );
        assert_eq!(
            Decision::of(refused, 30),
            Decision {
                allowed: false,
                limit: 30,
                remaining: 0,
                reset_epoch_s: 1_771_804_861,
                retry_after_s: Some(60),
            }
        );
    }

    #[test]
    fn the_wait_is_rounded_up_and_never_zero() {
        let wait = |now_us| {
            let count = Count { allowed: false, count: 5, oldest_us: START_US, now_us: START_US + now_us };
            Decision::of(count, 5).retry_after_s
        };
        assert_eq!(wait(0), Some(60));
        assert_eq!(wait(10_000_000), Some(50));
        assert_eq!(wait(10_000_001), Some(50));
        assert_eq!(wait(59_999_999), Some(1));
        assert_eq!(wait(60_000_000), Some(1));
    }

    #[test]
    fn a_limit_that_was_lowered_leaves_nothing() {
        let count = Count { allowed: false, count: 120, oldest_us: START_US, now_us: START_US };
        assert_eq!(Decision::of(count, 5).remaining, 0);
    }
}
