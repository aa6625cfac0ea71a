//! What is known of a player while a transaction decides about them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{Datelike as _, NaiveDate};
use tbg_core::UserId;
use tbg_core::period::IsoWeek;

use super::streak::Streak;

/// A row of `user_gamification`, with the badges that are held and the weeks that are touched.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Player {
    pub user: UserId,
    /// Test users are in no statistics.
    pub is_test: bool,
    pub total_xp: i64,
    pub xp_entries: i32,
    /// The highest level that was celebrated: a correction may take it away, and nothing celebrates it again.
    pub peak_level: i32,
    pub badges_earned: i32,
    pub streak: Streak,
    pub total_shares: i64,
    pub best_difficulty: f64,
    pub best_week: Option<IsoWeek>,
    pub blocks_found: i32,
    pub first_share_day: Option<NaiveDate>,
    /// Periods of each badge that is held; one empty text for a badge that is earned once.
    pub held: HashMap<i32, HashSet<String>>,
    /// Weeks of the calendar: those of the transaction, or all when [`Player::has_whole_calendar`].
    pub weeks: BTreeMap<IsoWeek, Week>,
    /// Whether `weeks` is the whole calendar: then a late share can refold it.
    pub has_whole_calendar: bool,
    /// Keys of grants that may have been given before.
    pub granted: HashSet<String>,
    /// Missed weeks that have been told.
    pub told: BTreeSet<IsoWeek>,
}

/// A row of `streak_calendar`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Week {
    /// Accepted shares.
    pub shares: i64,
    pub best_diff: f64,
    /// Bit 0 is Monday.
    pub active_days: i16,
    pub is_frozen: bool,
}

impl Week {
    pub(crate) fn is_active(self) -> bool {
        self.shares > 0
    }

    pub(crate) fn has_day(self, day: NaiveDate) -> bool {
        self.active_days & bit(day) != 0
    }

    pub(crate) fn add_day(&mut self, day: NaiveDate) {
        self.active_days |= bit(day);
    }
}

fn bit(day: NaiveDate) -> i16 {
    1 << day.weekday().num_days_from_monday()
}

impl Player {
    /// Whether the badge is held, in any period.
    pub(crate) fn holds(&self, badge: i32) -> bool {
        self.held.contains_key(&badge)
    }

    pub(crate) fn holds_in(&self, badge: i32, period: &str) -> bool {
        self.held.get(&badge).is_some_and(|periods| periods.contains(period))
    }
}
