//! Sums and maxima (contract `mining.md` §3.5, §4.3). All of them commute: the order of events decides
//! nothing, ties go to the earlier share.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, NaiveDate, Timelike as _, Utc};
use tbg_core::UserId;
use tbg_core::period::{IsoWeek, Month};
use tbg_engine::event::Share;

/// The time frames of personal bests, narrow to broad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timeframe {
    /// An ISO week.
    Week,
    /// A calendar month.
    Month,
    /// Ever.
    Alltime,
}

impl Timeframe {
    /// All of them, narrow to broad.
    pub const ALL: [Self; 3] = [Self::Week, Self::Month, Self::Alltime];

    /// The text that the table and the wire use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Week => "week",
            Self::Month => "month",
            Self::Alltime => "alltime",
        }
    }

    /// The period of `ts`: `YYYY-Www`, `YYYY-MM`, or none.
    #[must_use]
    pub fn period_key(self, ts: DateTime<Utc>) -> Option<String> {
        match self {
            Self::Week => Some(IsoWeek::of(ts).to_string()),
            Self::Month => Some(Month::of(ts).to_string()),
            Self::Alltime => None,
        }
    }
}

/// The start of the hour of `ts`.
#[must_use]
pub fn hour_of(ts: DateTime<Utc>) -> DateTime<Utc> {
    let into = i64::from(ts.minute() * 60 + ts.second());
    DateTime::from_timestamp(ts.timestamp() - into, 0).unwrap_or(ts)
}

/// What shares add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    /// Accepted shares.
    pub accepted: i64,
    /// Rejected shares.
    pub rejected: i64,
    /// Σ assigned difficulty of accepted shares.
    pub work: f64,
    /// Σ achieved difficulty of accepted shares.
    pub sum_share_diff: f64,
    /// Highest achieved difficulty of accepted shares.
    pub best_diff: f64,
}

impl Sum {
    /// Adds a share.
    pub fn add(&mut self, share: &Share) {
        if share.accepted {
            self.accepted += 1;
            self.work += share.diff;
            self.sum_share_diff += share.sdiff;
            self.best_diff = self.best_diff.max(share.sdiff);
        } else {
            self.rejected += 1;
        }
    }

    /// All shares.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.accepted + self.rejected
    }
}

/// A best: the hardest share, at equal difficulty the earlier one.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    /// Achieved difficulty.
    pub difficulty: f64,
    /// When.
    pub share_time: DateTime<Utc>,
    /// By which worker.
    pub worker: String,
}

impl Best {
    /// Whether this replaces `other`.
    #[must_use]
    pub fn beats(&self, other: &Self) -> bool {
        self.difficulty > other.difficulty
            || (self.difficulty == other.difficulty && self.share_time < other.share_time)
    }
}

/// Shares of an address in an hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hour {
    /// Who holds the address; only a new row takes it over.
    pub user_id: Option<UserId>,
    /// What the shares add up to.
    pub sum: Sum,
}

/// Accepted shares of an address in a week.
#[derive(Clone, Debug, PartialEq)]
pub struct Week {
    /// Who holds the address; only a new row takes it over.
    pub user_id: Option<UserId>,
    /// Accepted shares.
    pub shares: i64,
    /// The hardest share, if there was one.
    pub best: Option<(f64, DateTime<Utc>)>,
}

/// The rows that a batch adds to.
#[derive(Clone, Debug, Default)]
pub struct Rollups {
    /// By address and hour.
    pub hourly: BTreeMap<String, BTreeMap<DateTime<Utc>, Hour>>,
    /// By user and day.
    pub daily: BTreeMap<(UserId, NaiveDate), Sum>,
    /// By address and Monday.
    pub weekly: BTreeMap<String, BTreeMap<NaiveDate, Week>>,
    /// By user, time frame and period: bests that changed.
    pub bests: BTreeMap<(UserId, Timeframe, Option<String>), Best>,
}

impl Rollups {
    /// Counts a share of `address`, held by `user`.
    pub fn count(&mut self, address: &str, user: Option<UserId>, ts: DateTime<Utc>, share: &Share) {
        let hour = self.hourly.entry(address.to_owned()).or_default().entry(hour_of(ts));
        hour.or_insert(Hour { user_id: user, sum: Sum::default() }).sum.add(share);
        if let Some(user) = user {
            self.daily.entry((user, ts.date_naive())).or_default().add(share);
        }
        if share.accepted {
            self.week(address, user, ts).shares += 1;
        }
    }

    /// Raises the best of the address's week.
    pub fn raise_week(&mut self, address: &str, user: Option<UserId>, ts: DateTime<Utc>, difficulty: f64) {
        let week = self.week(address, user, ts);
        let raises =
            week.best.is_none_or(|(best, time)| difficulty > best || (difficulty == best && ts < time));
        if raises {
            week.best = Some((difficulty, ts));
        }
    }

    fn week(&mut self, address: &str, user: Option<UserId>, ts: DateTime<Utc>) -> &mut Week {
        let week = self.weekly.entry(address.to_owned()).or_default().entry(IsoWeek::of(ts).monday());
        week.or_insert(Week { user_id: user, shares: 0, best: None })
    }
}

/// What is known of the users of a batch before it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Current bests.
    pub bests: HashMap<(UserId, Timeframe, Option<String>), Best>,
    /// Accepted shares and Σ achieved difficulty of the days of the batch.
    pub daily: HashMap<(UserId, NaiveDate), (i64, f64)>,
}

/// A record: what was beaten, in which time frames (narrow to broad).
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The time frames.
    pub timeframes: Vec<Timeframe>,
    /// The best of the broadest one before; 0 without.
    pub previous: f64,
}

impl Known {
    /// Raises the bests of `user` where `best` beats them, notes the changes in `rollups`, and tells
    /// whether that was a record (strictly greater).
    pub fn raise_bests(&mut self, rollups: &mut Rollups, user: UserId, best: &Best) -> Option<Record> {
        let mut record: Option<Record> = None;
        for timeframe in Timeframe::ALL {
            let key = (user, timeframe, timeframe.period_key(best.share_time));
            let current = self.bests.get(&key);
            if current.is_some_and(|current| !best.beats(current)) {
                continue;
            }
            let previous = current.map_or(0.0, |current| current.difficulty);
            if best.difficulty > previous {
                let record = record.get_or_insert_with(|| Record { timeframes: Vec::new(), previous });
                record.timeframes.push(timeframe);
                record.previous = previous;
            }
            self.bests.insert(key.clone(), best.clone());
            rollups.bests.insert(key, best.clone());
        }
        record
    }

    /// Whether an accepted share is above the day's average before it, then counts it.
    pub fn above_average(&mut self, user: UserId, ts: DateTime<Utc>, share: &Share) -> bool {
        let day = self.daily.entry((user, ts.date_naive())).or_default();
        let above = day.0 > 0 && share.sdiff > day.1 / day.0 as f64;
        day.0 += 1;
        day.1 += share.sdiff;
        above
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn best(difficulty: f64, seconds: i64) -> Best {
        Best { difficulty, share_time: at(seconds), worker: "rig".to_owned() }
    }

    #[test]
    fn a_rejected_share_counts_in_totals_only() {
        let mut sum = Sum::default();
        sum.add(&Share { diff: 512.0, sdiff: 1e9, accepted: false, ..Share::default() });
        assert_eq!(sum, Sum { rejected: 1, ..Sum::default() });
        let mut rollups = Rollups::default();
        rollups.count("a", Some(UserId(1)), at(0), &Share { sdiff: 9.0, ..Share::default() });
        assert!(rollups.weekly.is_empty());
    }

    #[test]
    fn hours_start_on_the_hour() {
        assert_eq!(hour_of(at(1_771_804_799)), at(1_771_801_200));
        assert_eq!(hour_of(at(1_771_804_800)), at(1_771_804_800));
    }

    #[test]
    fn a_record_names_what_it_beat_and_a_tie_goes_to_the_earlier_share() {
        let (mut known, mut rollups) = (Known::default(), Rollups::default());
        let user = UserId(1);
        let monday = 1_771_804_800;
        let first = known.raise_bests(&mut rollups, user, &best(100.0, monday)).unwrap();
        assert_eq!((first.timeframes.len(), first.previous), (3, 0.0));
        assert_eq!(known.raise_bests(&mut rollups, user, &best(100.0, monday + 5)), None);
        assert_eq!(
            known.raise_bests(&mut rollups, user, &best(100.0, monday - 5)),
            Some(Record { timeframes: vec![Timeframe::Week], previous: 0.0 })
        );
        let key = (user, Timeframe::Alltime, None);
        assert_eq!(rollups.bests[&key].share_time, at(monday - 5));
        let later = known.raise_bests(&mut rollups, user, &best(50.0, monday + 7 * 86_400)).unwrap();
        assert_eq!(later.timeframes, [Timeframe::Week, Timeframe::Month]);
    }

    #[test]
    fn above_average_looks_at_the_day_before_the_share() {
        let mut known = Known::default();
        let share = |sdiff| Share { sdiff, accepted: true, ..Share::default() };
        let mut above = |sdiff| known.above_average(UserId(1), at(1_771_804_800), &share(sdiff));
        assert!(!above(10.0));
        assert!(above(20.0));
        assert!(!above(15.0));
    }
}
