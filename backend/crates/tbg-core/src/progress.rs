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
    /// Missed weeks that freezes were spent on since the last active one, also where they were not enough.
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
    let frozen = u32::try_from(missed.min(freezes.into())).unwrap_or(0);
    let is_active_this_week = last >= this;
    if missed > i64::from(freezes) || stored == 0 {
        return LiveStreak { frozen, is_active_this_week, ..LiveStreak::default() };
    }
    let end = last.plus(u32::from(freezes.unsigned_abs()) + 2).monday();
    LiveStreak {
        current: stored,
        freezes: freezes - i16::try_from(missed).unwrap_or(0),
        frozen,
        is_active_this_week,
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
            let LevelState { level, xp_into_level, xp_for_level, next_level, .. } = level_of(xp);
            (level, xp_into_level, xp_for_level, next_level)
        };
        for (xp, expected) in [
            (0, (1, 0, 100, 2)),
            (99, (1, 99, 100, 2)),
            (100, (2, 0, 500, 3)),
            (10_800, (7, 200, 4_000, 8)),
            (29_599, (9, 9_999, 10_000, 10)),
            (29_600, (10, 0, 50_000, 15)),
            (4_929_599, (30, 3_999_999, 4_000_000, 50)),
            (4_929_600, (50, 1, 1, 50)),
            (10_000_000, (50, 1, 1, 50)),
        ] {
            assert_eq!(state(xp), expected, "example 1: {xp}");
        }
        let titles = |xp| (level_of(xp).title, level_of(xp).next_title);
        assert_eq!(titles(99), ("Nocoiner", "Curious Cat"));
        assert_eq!(titles(4_929_599), ("Cypherpunk", "Timechain Guardian"));
        assert_eq!(titles(4_929_600), ("Timechain Guardian", "Timechain Guardian"));
    }

    #[test]
    fn example_10_two_freezes_keep_a_streak_for_two_missed_weeks() {
        let live = |now| live_streak(8, 2, Some("2026-W17"), at(now));
        for now in ["2026-05-04T00:00:00Z", "2026-05-11T00:00:00Z", "2026-05-17T23:59:59.999999Z"] {
            assert_eq!((live(now).current, live(now).expires_at), (8, Some(at("2026-05-18T00:00:00Z"))));
        }
        let over = live("2026-05-18T00:00:00Z");
        assert_eq!((over.current, over.freezes, over.expires_at), (0, 0, None));
    }

    #[test]
    fn example_12_each_freeze_is_a_week_more() {
        let now = at("2026-02-25T14:00:00Z");
        let ends = [0, 1, 2].map(|freezes| live_streak(5, freezes, Some("2026-W09"), now).expires_at);
        let expected = ["2026-03-09T00:00:00Z", "2026-03-16T00:00:00Z", "2026-03-23T00:00:00Z"];
        assert_eq!(ends, expected.map(|end| Some(at(end))));
    }

    #[test]
    fn freezes_were_spent_although_they_were_not_enough() {
        let frozen = |freezes, now| live_streak(5, freezes, Some("2026-W09"), at(now)).frozen;
        assert_eq!([frozen(1, "2026-03-02T00:00:00Z"), frozen(1, "2026-03-09T00:00:00Z")], [0, 1]);
        assert_eq!([frozen(1, "2026-03-16T00:00:00Z"), frozen(2, "2026-04-20T00:00:00Z")], [1, 2]);
        assert_eq!(frozen(0, "2026-03-16T00:00:00Z"), 0);
    }

    #[test]
    fn a_streak_lives_as_long_as_its_freezes() {
        let monday = at("2026-02-23T00:00:00Z");
        let streak = live_streak(5, 1, Some("2026-W09"), monday);
        assert_eq!((streak.current, streak.is_active_this_week), (5, true));
        assert_eq!(streak.expires_at, Some(at("2026-03-16T00:00:00Z")));
        assert_eq!(live_streak(5, 1, Some("2026-W08"), monday).current, 5, "the running week is not missed");
        assert_eq!(live_streak(5, 1, Some("2026-W07"), monday).current, 5, "one freeze, one week");
        assert_eq!(live_streak(5, 1, Some("2026-W06"), monday).current, 0);
        assert_eq!(live_streak(5, 1, None, monday), LiveStreak::default());
        assert_eq!(next_monday(at("2026-03-01T23:59:59Z")), at("2026-03-02T00:00:00Z"));
    }
}
