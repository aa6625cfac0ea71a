//! Windows of time: charts, rates from work, changes against yesterday (contract `mining.md` §4.1, §4.5, §7).

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::live::HASHES_PER_DIFFICULTY;

/// How far back a chart goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Window {
    /// One hour in steps of five minutes.
    #[serde(rename = "1h")]
    Hour,
    /// A day in steps of five minutes.
    #[default]
    #[serde(rename = "24h")]
    Day,
    /// A week in hours.
    #[serde(rename = "7d")]
    Week,
    /// Thirty days in steps of four hours.
    #[serde(rename = "30d")]
    Month,
}

impl Window {
    /// Its length.
    #[must_use]
    pub fn length(self) -> TimeDelta {
        match self {
            Self::Hour => TimeDelta::hours(1),
            Self::Day => TimeDelta::days(1),
            Self::Week => TimeDelta::days(7),
            Self::Month => TimeDelta::days(30),
        }
    }

    /// Seconds of a step.
    #[must_use]
    pub fn step_seconds(self) -> i32 {
        match self {
            Self::Hour | Self::Day => 300,
            Self::Week => 3_600,
            Self::Month => 14_400,
        }
    }

    /// Points at most.
    #[must_use]
    pub fn points(self) -> i64 {
        self.length().num_seconds() / i64::from(self.step_seconds())
    }
}

/// H/s of `work` (Σ assigned difficulty of accepted shares) done in `seconds`.
#[must_use]
pub fn hashrate(work: f64, seconds: f64) -> f64 {
    if seconds <= 0.0 || work <= 0.0 { 0.0 } else { work * HASHES_PER_DIFFICULTY / seconds }
}

/// Per cent by which `now` is above `before`, with one decimal; 0 where there is nothing to compare with.
#[must_use]
pub fn change(now: f64, before: f64) -> f64 {
    if before == 0.0 { 0.0 } else { (1000.0 * (now - before) / before).round() / 10.0 }
}

/// Which part of the hour of `at` has passed: yesterday's hour counts that far.
#[must_use]
pub fn part_of_hour(at: DateTime<Utc>) -> f64 {
    at.timestamp_micros().rem_euclid(3_600_000_000) as f64 / 3.6e9
}

/// Blocks until the next retarget; nothing before the first block is known.
#[must_use]
pub fn next_retarget_blocks(height: i64) -> Option<i64> {
    (height > 0).then(|| 2016 - height % 2016)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_match_acceptance_example_1() {
        for (work, seconds, expected) in [
            (51_200.0, 300.0, 733_007_751_850.67),
            (100.0, 100.0, 4_294_967_296.0),
            (1_000_000.0, 3600.0, 1_193_046_471_111.11),
        ] {
            let rate = hashrate(work, seconds);
            assert!((rate - expected).abs() <= expected * 1e-6, "{rate}");
        }
        assert_eq!((hashrate(1.0, 0.0), hashrate(-5.0, 60.0)), (0.0, 0.0));
    }

    #[test]
    fn changes_match_acceptance_example_16() {
        assert_eq!(change(48.0, 40.0), 20.0);
        assert_eq!(change(1_210e9, 1_172.5e9), 3.2);
        assert_eq!(change(5.0, 0.0), 0.0);
    }

    #[test]
    fn retargets_match_acceptance_example_18() {
        assert_eq!(next_retarget_blocks(879_500), Some(1492));
        assert_eq!(next_retarget_blocks(2016), Some(2016));
        assert_eq!(next_retarget_blocks(0), None);
    }

    #[test]
    fn windows_have_the_contracts_points() {
        assert_eq!(
            [Window::Hour, Window::Day, Window::Week, Window::Month].map(Window::points),
            [12, 288, 168, 180]
        );
    }
}
