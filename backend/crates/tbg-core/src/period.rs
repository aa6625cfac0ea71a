//! The game's calendar, always UTC: ISO weeks (Monday 00:00 inclusive to the next Monday exclusive)
//! and months, with the texts by which tables and the wire name them (contract `mining.md`, head).

use std::fmt;

use chrono::{DateTime, Datelike, Days, NaiveDate, Utc, Weekday};

/// An ISO week; displays as `YYYY-Www`, and orders as that text does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IsoWeek {
    year: i32,
    week: u32,
}

impl IsoWeek {
    /// The week that contains `day`.
    #[must_use]
    pub fn of_day(day: NaiveDate) -> Self {
        let week = day.iso_week();
        Self { year: week.year(), week: week.week() }
    }

    /// The week that contains `instant`.
    #[must_use]
    pub fn of(instant: DateTime<Utc>) -> Self {
        Self::of_day(instant.date_naive())
    }

    /// The Monday on which the week starts.
    #[must_use]
    pub fn monday(self) -> NaiveDate {
        NaiveDate::from_isoywd_opt(self.year, self.week, Weekday::Mon).unwrap_or_default()
    }

    /// The next week.
    #[must_use]
    pub fn next(self) -> Self {
        Self::of_day(self.monday().checked_add_days(Days::new(7)).unwrap_or(NaiveDate::MAX))
    }
}

impl fmt::Display for IsoWeek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-W{:02}", self.year, self.week)
    }
}

/// A calendar month; displays as `YYYY-MM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Month {
    year: i32,
    month: u32,
}

impl Month {
    /// The month that contains `instant`.
    #[must_use]
    pub fn of(instant: DateTime<Utc>) -> Self {
        Self { year: instant.year(), month: instant.month() }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn period_keys_match_acceptance_example_6() {
        assert_eq!(IsoWeek::of(at(1_771_804_799)).to_string(), "2026-W08");
        assert_eq!(IsoWeek::of(at(1_771_804_800)).to_string(), "2026-W09");
        assert_eq!(Month::of(at(1_771_804_800)).to_string(), "2026-02");
        assert_eq!(IsoWeek::of(at(1_767_225_599)).to_string(), "2026-W01");
        assert_eq!(Month::of(at(1_767_225_599)).to_string(), "2025-12");
        let january: DateTime<Utc> = "2027-01-03T12:00:00Z".parse().unwrap();
        assert_eq!(IsoWeek::of(january).to_string(), "2026-W53");
        assert_eq!(IsoWeek::of(january).next().to_string(), "2027-W01");
    }

    #[test]
    fn a_week_starts_on_its_monday() {
        let week = IsoWeek::of(at(1_771_804_800));
        assert_eq!(week.monday().to_string(), "2026-02-23");
        assert_eq!(IsoWeek::of_day(week.monday()), week);
    }
}
