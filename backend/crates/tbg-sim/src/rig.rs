//! The state of one connected (or absent) worker and the pool's vardiff for it.

use crate::config::{DiffBounds, SimConfig};
use crate::identity::Miner;
use crate::random::{Purpose, Random};

/// Hashes per share of difficulty 1.
const HASHES_PER_DIFF: f64 = 4_294_967_296.0;
/// Largest step of vardiff, as a factor.
const MAX_STEP: f64 = 4.0;
/// One in so many miners starts at the pool's start difficulty, the others at the right one.
const UNKNOWN_ONE_IN: u32 = 4;

/// What a worker does and what the pool remembers of it.
#[derive(Clone, Debug)]
pub(crate) struct Rig {
    /// The stream of everything that this worker does.
    pub random: Random,
    /// Whether it is connected.
    pub online: bool,
    /// Number of the current or last connection, from 1; 0 before the first.
    pub session: u32,
    /// When the current connection began, in unix microseconds.
    pub connected_us: i64,
    /// Accepted shares of this connection.
    pub shares_session: u64,
    /// Best difficulty ever; 0 before the first share.
    pub best: f64,
    /// The difficulty that the pool assigns to it.
    pub vardiff: Vardiff,
}

impl Rig {
    /// The worker number `index`, not yet connected.
    pub(crate) fn new(config: &SimConfig, index: u32, miner: &Miner) -> Self {
        let mut random = Random::new(config.seed ^ config.run, Purpose::Behaviour, index);
        let bounds = config.bounds();
        let grain = if random.chance(0.5) { Grain::PowerOfTwo } else { Grain::TwoDigits };
        let diff = if random.below(UNKNOWN_ONE_IN) == 0 {
            bounds.start
        } else {
            let right = miner.hashrate_hs * config.target_share_seconds / HASHES_PER_DIFF;
            grain.round(right.max(bounds.min), f64::round).max(bounds.min)
        };
        let vardiff = Vardiff::new(diff, bounds, grain, &mut random);
        Self { random, online: false, session: 0, connected_us: 0, shares_session: 0, best: 0.0, vardiff }
    }

    /// Seconds to the next share of a worker with `hashrate_hs` at the assigned difficulty: the
    /// gaps of a Poisson process.
    pub(crate) fn share_gap(&mut self, hashrate_hs: f64) -> f64 {
        self.random.exponential(self.vardiff.diff * HASHES_PER_DIFF / hashrate_hs)
    }

    /// A value near `truth`, off by a normal error of relative size `noise`; whole and never
    /// below 0.
    pub(crate) fn near(&mut self, truth: f64, noise: f64) -> f64 {
        (truth * (1.0 + noise * self.random.normal())).max(0.0).round()
    }
}

/// How the pool rounds the difficulty of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grain {
    /// To powers of two.
    PowerOfTwo,
    /// To two leading digits.
    TwoDigits,
}

impl Grain {
    /// `value` (at least 1) in this grain, rounded as `how` (`f64::round`, `floor` or `ceil`).
    fn round(self, value: f64, how: fn(f64) -> f64) -> f64 {
        match self {
            Self::PowerOfTwo => 2_f64.powi(how(value.log2()) as i32),
            Self::TwoDigits => {
                let unit = 10_f64.powi((value.log10().floor() as i32 - 1).max(0));
                how(value / unit) * unit
            }
        }
    }
}

/// The difficulty of one worker: looked at anew after every 8 to 16 accepted shares.
#[derive(Clone, Debug)]
pub(crate) struct Vardiff {
    /// The assigned difficulty.
    pub diff: f64,
    min: f64,
    grain: Grain,
    window_start_us: i64,
    window_shares: u32,
    window_length: u32,
    stable_intervals: u32,
    adjustments: u32,
}

/// A change of the assigned difficulty, as `diff_updated` reports it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct DiffChange {
    /// Assigned difficulty before.
    pub old: f64,
    /// Assigned difficulty from now on.
    pub new: f64,
    /// Shares per second that led to it.
    pub share_rate: f64,
    /// How many looks before this one left the difficulty alone.
    pub stable_intervals: u32,
    /// How many changes there were, with this one.
    pub adjustments: u32,
}

impl Vardiff {
    fn new(diff: f64, bounds: DiffBounds, grain: Grain, random: &mut Random) -> Self {
        Self {
            diff,
            min: bounds.min,
            grain,
            window_start_us: 0,
            window_shares: 0,
            window_length: window_length(random),
            stable_intervals: 0,
            adjustments: 0,
        }
    }

    /// Starts to count anew at `now_us`, for instance because the worker connected.
    pub(crate) fn restart(&mut self, now_us: i64) {
        self.window_start_us = now_us;
        self.window_shares = 0;
    }

    /// Counts an accepted share; the change to make, if it is time and the rate is off by more
    /// than a factor of two.
    pub(crate) fn count(
        &mut self,
        now_us: i64,
        target_seconds: f64,
        random: &mut Random,
    ) -> Option<DiffChange> {
        self.window_shares += 1;
        if self.window_shares < self.window_length {
            return None;
        }
        let seconds = (now_us - self.window_start_us).max(1) as f64 / 1e6;
        let share_rate = f64::from(self.window_shares) / seconds;
        self.restart(now_us);
        self.window_length = window_length(random);

        let off = share_rate * target_seconds;
        let new = if (0.5..=2.0).contains(&off) { self.diff } else { self.step(off) };
        if new == self.diff {
            self.stable_intervals = self.stable_intervals.saturating_add(1);
            return None;
        }
        self.adjustments = self.adjustments.saturating_add(1);
        let change = DiffChange {
            old: self.diff,
            new,
            share_rate,
            stable_intervals: self.stable_intervals,
            adjustments: self.adjustments,
        };
        self.stable_intervals = 0;
        self.diff = new;
        Some(change)
    }

    /// The difficulty after a step by `off`, limited to the largest step also after rounding.
    fn step(&self, off: f64) -> f64 {
        let (low, high) = (self.diff / MAX_STEP, self.diff * MAX_STEP);
        let wanted = (self.diff * off).clamp(low, high).max(self.min);
        let rounded = self.grain.round(wanted, f64::round);
        let within = if rounded > high {
            self.grain.round(wanted, f64::floor)
        } else if rounded < low {
            self.grain.round(wanted, f64::ceil)
        } else {
            rounded
        };
        within.max(self.min)
    }
}

fn window_length(random: &mut Random) -> u32 {
    8 + random.below(9)
}
