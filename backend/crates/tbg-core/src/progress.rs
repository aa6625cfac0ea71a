//! Levels and the live streak (contract `gamification.md` §3.2, §3.3): whoever shows them uses these.

use crate::period::IsoWeek;
use chrono::{DateTime, NaiveTime, TimeDelta, Utc};

/// Levels with their titles and the experience from which they hold.
pub const LEVELS: [(i32, &str, i64); 15] = [
    (1, "Nocoiner", 0),
    (2, "Curious Cat", 100),
    (3, "Hash Pupil", 600),
    (4, "Solo Miner", 1_600),
    (5, "Difficulty Hunter", 4_100),
    (6, "Share Collector", 7_100),
    (7, "Hash Veteran", 10_600),
    (8, "Block Chaser", 14_600),
    (9, "Nonce Grinder", 19_600),
    (10, "Hashrate Warrior", 29_600),
    (15, "Diff Hunter", 79_600),
    (20, "Mining Veteran", 179_600),
    (25, "Satoshi's Apprentice", 429_600),
    (30, "Cypherpunk", 929_600),
    (50, "Timechain Guardian", 4_929_600),
];

/// Where somebody stands between two levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelState {
    /// The level.
    pub level: i32,
    /// Its title.
    pub title: &'static str,
    /// Experience since it was reached.
    pub xp_into_level: i64,
    /// Experience from it to the next.
    pub xp_for_level: i64,
    /// The next level, and its title; the last level is its own next.
    pub next_level: i32,
    /// See `next_level`.
    pub next_title: &'static str,
}

/// The level of `total_xp`. At the last level the bar is full: 1 of 1.
#[must_use]
pub fn level_of(total_xp: i64) -> LevelState {
    let index = LEVELS.iter().rposition(|(_, _, from)| *from <= total_xp).unwrap_or(0);
    let (level, title, from) = LEVELS[index];
    match LEVELS.get(index + 1) {
        Some((next_level, next_title, next)) => LevelState {
            level,
            title,
            xp_into_level: total_xp.max(0) - from,
            xp_for_level: next - from,
            next_level: *next_level,
            next_title,
        },
        None => LevelState {
            level,
            title,
            xp_into_level: 1,
            xp_for_level: 1,
            next_level: level,
            next_title: title,
        },
    }
}

/// The streak as it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveStreak {
    /// Weeks.
    pub current: i32,
    /// Missed weeks that can still be bridged.
    pub freezes: i16,
    /// Missed weeks that were bridged since the last active one.
    pub frozen: u32,
    /// Whether this week counts already.
    pub is_active_this_week: bool,
    /// When it ends if nothing is mined; none without a streak.
    pub expires_at: Option<DateTime<Utc>>,
}

/// The streak of a stored state at `now`: missed weeks use up freezes, the running week is never missed.
#[must_use]
pub fn live_streak(
    stored: i32,
    freezes: i16,
    last_active_week: Option<&str>,
    now: DateTime<Utc>,
) -> LiveStreak {
    let Some(last) = last_active_week.and_then(IsoWeek::parse) else { return LiveStreak::default() };
    let this = IsoWeek::of(now);
    let missed = (this.weeks_since(last) - 1).max(0);
    if missed > i64::from(freezes) || stored == 0 {
        return LiveStreak { is_active_this_week: last >= this, ..LiveStreak::default() };
    }
    let end = last.plus(u32::from(freezes.unsigned_abs()) + 2).monday();
    LiveStreak {
        current: stored,
        freezes: freezes - i16::try_from(missed).unwrap_or(0),
        frozen: u32::try_from(missed).unwrap_or(0),
        is_active_this_week: last >= this,
        expires_at: Some(end.and_time(NaiveTime::MIN).and_utc()),
    }
}

/// The end of the running ISO week: next Monday, 00:00.
#[must_use]
pub fn next_monday(now: DateTime<Utc>) -> DateTime<Utc> {
    IsoWeek::of(now).monday().and_time(NaiveTime::MIN).and_utc() + TimeDelta::weeks(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn levels_span_from_one_sum_to_the_next() {
        let state = |xp| {
            let LevelState { level, title, xp_into_level, xp_for_level, .. } = level_of(xp);
            (level, title, xp_into_level, xp_for_level)
        };
        assert_eq!(state(0), (1, "Nocoiner", 0, 100));
        assert_eq!(state(99), (1, "Nocoiner", 99, 100));
        assert_eq!(state(100), (2, "Curious Cat", 0, 500));
        assert_eq!(state(29_600), (10, "Hashrate Warrior", 0, 50_000));
        assert_eq!(state(5_000_000), (50, "Timechain Guardian", 1, 1));
    }

    #[test]
    fn a_streak_lives_as_long_as_its_freezes() {
        let monday = at("2026-02-23T00:00:00Z");
        let streak = live_streak(5, 1, Some("2026-W09"), monday);
        assert_eq!((streak.current, streak.is_active_this_week), (5, true));
        assert_eq!(streak.expires_at, Some(at("2026-03-16T00:00:00Z")));
        assert_eq!(live_streak(5, 1, Some("2026-W08"), monday).current, 5, "the running week is not missed");
        assert_eq!(live_streak(5, 1, Some("2026-W07"), monday).current, 5, "one freeze, one week");
        assert_eq!(live_streak(5, 1, Some("2026-W06"), monday), LiveStreak::default());
        assert_eq!(live_streak(5, 1, None, monday), LiveStreak::default());
        assert_eq!(next_monday(at("2026-03-01T23:59:59Z")), at("2026-03-02T00:00:00Z"));
    }
}
