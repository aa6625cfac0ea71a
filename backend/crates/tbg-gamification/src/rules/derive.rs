//! A player's state anew, from what it follows from: ledger, awards, calendar, blocks.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use tbg_core::UserId;
use tbg_core::period::IsoWeek;
use tbg_core::progress::level_of;
use tbg_engine::decode::MAX_AGE;

use super::player::{Player, Week};
use super::streak::fold;

/// What a player's state follows from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    pub user: UserId,
    /// Sum and length of the ledger.
    pub total_xp: i64,
    pub xp_entries: i32,
    /// Distinct badges.
    pub badges: i32,
    /// The day of the award for the first share.
    pub first_share_day: Option<NaiveDate>,
    /// Days of the grants and of the award for a block.
    pub paid_blocks: Vec<NaiveDate>,
    /// Days of the blocks that are the user's now.
    pub found_blocks: Vec<NaiveDate>,
    pub weeks: BTreeMap<IsoWeek, Week>,
}

/// A row of `user_gamification` as it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    pub player: Player,
    pub level: i32,
    pub title: String,
    pub updated_at: DateTime<Utc>,
}

/// A player whose state is not what it should be.
#[derive(Clone, Debug)]
pub(crate) struct Mended {
    /// As it should be, with the whole calendar.
    pub player: Player,
    /// What differed.
    pub fields: Vec<&'static str>,
    /// Weeks of the calendar that differed.
    pub weeks: BTreeSet<IsoWeek>,
}

/// Derives the state anew. `None` if the stored one is right.
pub(crate) fn mend(sources: Sources, stored: &Stored) -> Option<Mended> {
    let mut weeks = sources.weeks;
    let folded = fold(weeks.iter().filter(|(_, row)| row.is_active()).map(|(week, _)| *week));
    for week in &folded.frozen {
        weeks.entry(*week).or_default();
    }
    let mut changed = BTreeSet::new();
    for (week, row) in &mut weeks {
        let is_frozen = folded.frozen.contains(week);
        if row.is_frozen != is_frozen {
            row.is_frozen = is_frozen;
            changed.insert(*week);
        }
    }
    let (best_difficulty, best_week) = best(&weeks, stored);
    let player = Player {
        user: sources.user,
        total_xp: sources.total_xp,
        xp_entries: sources.xp_entries,
        badges_earned: sources.badges,
        streak: folded.streak,
        total_shares: weeks.values().map(|row| row.shares).sum(),
        best_difficulty,
        best_week,
        blocks_found: blocks(&sources.paid_blocks, &sources.found_blocks, stored.player.blocks_found),
        first_share_day: sources.first_share_day,
        weeks,
        ..Player::default()
    };
    let mut fields = differences(stored, &player);
    if !changed.is_empty() {
        fields.push("is_frozen");
    }
    (!fields.is_empty()).then_some(Mended { player, fields, weeks: changed })
}

/// The greatest difficulty with the earliest week that has it. A share that came too late to be counted is in no
/// week: a stored best that only such a share can have made is kept.
fn best(weeks: &BTreeMap<IsoWeek, Week>, stored: &Stored) -> (f64, Option<IsoWeek>) {
    let mut best = (0.0, None);
    for (week, row) in weeks {
        if row.best_diff > best.0 {
            best = (row.best_diff, Some(*week));
        }
    }
    let Player { best_difficulty, best_week, .. } = stored.player;
    let is_aged = best_week
        .is_some_and(|week| week.monday().and_time(NaiveTime::MIN).and_utc() + MAX_AGE < stored.updated_at);
    if is_aged && best_difficulty > best.0 { (best_difficulty, best_week) } else { best }
}

/// How many blocks were counted: those that were paid, and those found on a day that paid as often as it may. Of
/// these, one may have been adopted or found under a ban, which nothing tells: a stored number between is kept.
fn blocks(paid: &[NaiveDate], found: &[NaiveDate], stored: i32) -> i32 {
    let count = |days: &[NaiveDate], day| days.iter().filter(|of| **of == day).count();
    let days: BTreeSet<NaiveDate> = paid.iter().copied().collect();
    let most: usize = days.into_iter().map(|day| count(paid, day).max(count(found, day))).sum();
    let most = i32::try_from(most).unwrap_or(i32::MAX);
    let least = i32::try_from(paid.len()).unwrap_or(i32::MAX);
    if (least..=most).contains(&stored) { stored } else { most }
}

fn differences(stored: &Stored, right: &Player) -> Vec<&'static str> {
    let Stored { player, level, title, .. } = stored;
    let right_level = level_of(right.total_xp);
    let wrong = [
        ("total_xp", player.total_xp != right.total_xp),
        ("level", *level != right_level.level || title != right_level.title),
        ("xp_entries", player.xp_entries != right.xp_entries),
        ("badges_earned", player.badges_earned != right.badges_earned),
        ("streak", player.streak != right.streak),
        ("total_shares", player.total_shares != right.total_shares),
        (
            "best_difficulty",
            (player.best_difficulty, player.best_week) != (right.best_difficulty, right.best_week),
        ),
        ("blocks_found", player.blocks_found != right.blocks_found),
        ("first_share_day", player.first_share_day != right.first_share_day),
    ];
    wrong.into_iter().filter(|(_, is_wrong)| *is_wrong).map(|(field, _)| field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn week(number: u32) -> IsoWeek {
        IsoWeek::parse(&format!("2026-W{number:02}")).unwrap()
    }

    /// A calendar of active weeks with their bests.
    fn calendar(weeks: &[(u32, f64)]) -> BTreeMap<IsoWeek, Week> {
        let row = |best_diff| Week { shares: 1, best_diff, active_days: 1, is_frozen: false };
        weeks.iter().map(|(number, best)| (week(*number), row(*best))).collect()
    }

    fn stored(best: f64, best_week: u32, updated_at: &str) -> Stored {
        let player = Player { best_difficulty: best, best_week: Some(week(best_week)), ..Player::default() };
        Stored { player, updated_at: updated_at.parse().unwrap(), ..Stored::default() }
    }

    #[test]
    fn a_best_is_the_calendars_and_of_equal_ones_the_first() {
        let weeks = calendar(&[(9, 1.0), (10, 7.0), (11, 7.0), (12, 3.0)]);
        let right = (7.0, Some(week(10)));
        assert_eq!(best(&weeks, &Stored::default()), right);
        for (wrong, wrong_week) in [(3.0, 12), (9e99, 12), (7.0, 11)] {
            assert_eq!(best(&weeks, &stored(wrong, wrong_week, "2026-03-20T00:00:00Z")), right);
        }
        let nothing = best(&BTreeMap::new(), &stored(5.0, 12, "2026-03-20T00:00:00Z"));
        assert_eq!(nothing, (0.0, None));
    }

    #[test]
    fn a_best_of_a_share_that_came_too_late_to_be_counted_is_kept() {
        let weeks = calendar(&[(30, 5.0)]);
        let aged = stored(9.0, 2, "2026-07-20T00:00:00Z");
        assert_eq!(best(&weeks, &aged), (9.0, Some(week(2))));
        assert_eq!(best(&calendar(&[(30, 11.0)]), &aged), (11.0, Some(week(30))));
    }

    #[test]
    fn blocks_are_those_of_days_that_paid() {
        let (one, two) = (day("2026-03-02"), day("2026-03-03"));
        // The badge and the grant of one day, a third block on it, and one that was adopted on another.
        assert_eq!(blocks(&[one, one], &[one, one, one, two], 0), 3);
        assert_eq!(blocks(&[one, one], &[one, one, one, two], 77), 3);
        // The third may have been found under a ban.
        assert_eq!(blocks(&[one, one], &[one, one, one, two], 2), 2);
        // A block that somebody else adopted later was counted nevertheless.
        assert_eq!(blocks(&[one, two], &[one], 0), 2);
        assert_eq!(blocks(&[], &[one], 1), 0);
    }

    #[test]
    fn frozen_weeks_are_marked_also_those_without_a_row() {
        let mut weeks = calendar(&[(10, 1.0), (11, 1.0), (12, 1.0), (13, 1.0), (15, 1.0)]);
        weeks.insert(week(9), Week { is_frozen: true, ..Week::default() });
        let sources = Sources { user: UserId(1), weeks, ..Sources::default() };
        let mended = mend(sources, &Stored { title: "Nocoiner".to_owned(), level: 1, ..Stored::default() });
        let mended = mended.unwrap();
        assert_eq!(mended.fields, ["streak", "total_shares", "best_difficulty", "is_frozen"]);
        assert_eq!(mended.weeks, BTreeSet::from([week(9), week(14)]));
        assert!(mended.player.weeks[&week(14)].is_frozen && !mended.player.weeks[&week(9)].is_frozen);
        assert_eq!((mended.player.streak.current, mended.player.streak.freezes), (5, 0));
    }

    #[test]
    fn who_never_played_lacks_nothing() {
        let nobody = Stored { title: "Nocoiner".to_owned(), level: 1, ..Stored::default() };
        assert!(mend(Sources::default(), &nobody).is_none());
    }
}
