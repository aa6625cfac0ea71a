//! The weekly streak (contract `gamification.md` §3.3): a pure function of the set of active weeks, kept
//! incrementally.

use std::collections::BTreeSet;

use chrono::NaiveDate;
use tbg_core::period::IsoWeek;

/// Freezes that may be held.
const MAX_FREEZES: i16 = 2;
/// Every that many weeks a freeze is earned.
const FREEZE_EVERY: i32 = 4;
/// A missed stretch longer than that is never bridged; bounds every loop over weeks.
const NEVER_BRIDGED: i64 = MAX_FREEZES as i64;

/// Weeks with their names that are celebrated, once per user.
pub(crate) const MILESTONES: [(i32, &str); 5] = [
    (1, "First Week"),
    (4, "Month Strong"),
    (12, "Quarter Master"),
    (26, "Half Year Hero"),
    (52, "Year of Mining"),
];

/// A streak as of its last active week.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Streak {
    pub current: i32,
    pub longest: i32,
    pub start: Option<NaiveDate>,
    pub last_active: Option<IsoWeek>,
    pub freezes: i16,
}

/// What becomes of a streak at the end of a week that was missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// A freeze was spent on it.
    Bridged {
        /// What is left of them.
        freezes_left: i16,
    },
    /// It was the first for which there was no freeze, and there was something to break.
    Broken,
}

impl Streak {
    /// What the week before `week` has done to it, if that is later than the last active one.
    pub(crate) fn closed_before(&self, week: IsoWeek) -> Option<Missed> {
        let missed = week.weeks_since(self.last_active?) - 1;
        let freezes = i64::from(self.freezes);
        if (1..=freezes).contains(&missed) {
            return Some(Missed::Bridged { freezes_left: i16::try_from(freezes - missed).unwrap_or(0) });
        }
        (missed == freezes + 1 && self.current >= 2).then_some(Missed::Broken)
    }

    /// Takes in the next active week, which is later than the last. Returns the weeks that are frozen by it.
    pub(crate) fn advance(&mut self, week: IsoWeek) -> Vec<IsoWeek> {
        let missed = self.last_active.map_or(0, |last| (week.weeks_since(last) - 1).max(0));
        // Freezes are spent week by week, also on a stretch that turns out too long.
        let spent = missed.min(self.freezes.into()).min(NEVER_BRIDGED);
        let frozen = match self.last_active {
            Some(last) => (1..=spent).filter_map(|n| u32::try_from(n).ok()).map(|n| last.plus(n)).collect(),
            None => Vec::new(),
        };
        if self.current > 0 && spent == missed {
            self.freezes -= i16::try_from(spent).unwrap_or(self.freezes);
            self.current += 1;
        } else {
            self.current = 1;
            self.freezes = 0;
            self.start = Some(week.monday());
        }
        if self.current % FREEZE_EVERY == 0 {
            self.freezes = (self.freezes + 1).min(MAX_FREEZES);
        }
        self.longest = self.longest.max(self.current);
        self.last_active = Some(week);
        frozen
    }
}

/// What folding a whole calendar gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Folded {
    pub streak: Streak,
    /// Each active week with the streak's length in it, in order.
    pub lengths: Vec<(IsoWeek, i32)>,
    /// Missed weeks that were bridged.
    pub frozen: BTreeSet<IsoWeek>,
}

/// The streak of active weeks in their order.
pub(crate) fn fold(active: impl IntoIterator<Item = IsoWeek>) -> Folded {
    let mut folded = Folded::default();
    for week in active {
        folded.frozen.extend(folded.streak.advance(week));
        folded.lengths.push((week, folded.streak.current));
    }
    folded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn week(number: u32) -> IsoWeek {
        IsoWeek::parse(&format!("2026-W{number:02}")).unwrap()
    }

    fn folded(weeks: &[u32]) -> Folded {
        fold(weeks.iter().map(|number| week(*number)))
    }

    #[test]
    fn example_8_a_freeze_is_earned_in_the_fourth_week() {
        let Streak { current, freezes, .. } = folded(&[10, 11, 12, 13]).streak;
        assert_eq!((current, freezes), (4, 1));
    }

    #[test]
    fn example_9_a_missed_week_is_bridged_once() {
        let bridged = folded(&[10, 11, 12, 13, 15]);
        assert_eq!((bridged.streak.current, bridged.streak.freezes), (5, 0));
        assert_eq!(bridged.streak.start, Some("2026-03-02".parse().unwrap()));
        assert_eq!(bridged.frozen, BTreeSet::from([week(14)]));
        let broken = folded(&[10, 11, 12, 13, 16]).streak;
        assert_eq!((broken.current, broken.longest, broken.freezes), (1, 4, 0));
        assert_eq!(broken.start, Some("2026-04-13".parse().unwrap()));
        let mended = folded(&[10, 11, 12, 13, 14, 16]);
        assert_eq!((mended.streak.current, mended.frozen.contains(&week(15))), (6, true));
    }

    #[test]
    fn example_10_two_freezes_bridge_two_weeks() {
        let weeks: Vec<u32> = (10..=17).collect();
        assert_eq!((folded(&weeks).streak.current, folded(&weeks).streak.freezes), (8, 2));
        let later: Vec<u32> = (10..=17).chain([20]).collect();
        assert_eq!((folded(&later).streak.current, folded(&later).streak.freezes), (9, 0));
    }

    #[test]
    fn example_11_a_streak_crosses_the_53rd_week() {
        let weeks = [IsoWeek::parse("2026-W53").unwrap(), IsoWeek::parse("2027-W01").unwrap()];
        assert_eq!(fold(weeks).streak.current, 2);
    }

    /// Of 12 weeks the last freeze is one too many to hold; of 11 it comes after the first gap, and bridges more.
    /// So one week more can make a streak shorter, also its longest: the set of weeks decides, nothing else.
    #[test]
    fn another_week_can_move_a_freeze_to_where_it_is_lost() {
        let later = [14, 15, 16, 19, 20];
        let weeks = |first: u32| (first..=12).chain(later).collect::<Vec<u32>>();
        let (without, with) = (folded(&weeks(2)).streak, folded(&weeks(1)).streak);
        assert_eq!((without.current, without.longest), (16, 16));
        assert_eq!((with.current, with.longest), (2, 15));
    }

    /// The definition, week by week, as the contract writes it.
    fn by_definition(active: &BTreeSet<u32>, last: u32) -> (i32, i32, i16, BTreeSet<IsoWeek>) {
        let (mut streak, mut longest, mut freezes, mut frozen) = (0, 0, 0_i16, BTreeSet::new());
        for number in 1..=last {
            if active.contains(&number) {
                streak += 1;
                longest = longest.max(streak);
                if streak % 4 == 0 {
                    freezes = (freezes + 1).min(2);
                }
            } else if freezes > 0 {
                freezes -= 1;
                frozen.insert(week(number));
            } else {
                streak = 0;
            }
        }
        (streak, longest, freezes, frozen)
    }

    proptest! {
        #[test]
        fn week_by_week_and_incrementally_are_one(active in prop::collection::btree_set(1_u32..53, 1..53)) {
            let last = *active.last().unwrap();
            let folded = fold(active.iter().map(|number| week(*number)));
            let (current, longest, freezes, frozen) = by_definition(&active, last);
            prop_assert_eq!(
                (folded.streak.current, folded.streak.longest, folded.streak.freezes),
                (current, longest, freezes)
            );
            prop_assert_eq!(folded.frozen, frozen);
        }

    }
}
