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
        self.plus(1)
    }

    /// The week that many later.
    #[must_use]
    pub fn plus(self, weeks: u32) -> Self {
        let days = Days::new(7 * u64::from(weeks));
        Self::of_day(self.monday().checked_add_days(days).unwrap_or(NaiveDate::MAX))
    }

    /// The week that many earlier.
    #[must_use]
    pub fn minus(self, weeks: u32) -> Self {
        let days = Days::new(7 * u64::from(weeks));
        Self::of_day(self.monday().checked_sub_days(days).unwrap_or(NaiveDate::MIN))
    }

    /// How many weeks later it is than `earlier`; negative if it is before.
    #[must_use]
    pub fn weeks_since(self, earlier: Self) -> i64 {
        (self.monday() - earlier.monday()).num_weeks()
    }

    /// The week of a text `YYYY-Www`, exactly so written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (year, week) = text.split_once("-W")?;
        let is_exact = year.len() == 4 && week.len() == 2;
        let monday = NaiveDate::from_isoywd_opt(year.parse().ok()?, week.parse().ok()?, Weekday::Mon)?;
        let parsed = Self::of_day(monday);
        (is_exact && parsed.to_string() == text).then_some(parsed)
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
    fn weeks_are_counted_across_years_and_read_exactly() {
        let (last, first) = (IsoWeek::parse("2026-W53").unwrap(), IsoWeek::parse("2027-W01").unwrap());
        assert_eq!((last.next(), first.minus(1), first.weeks_since(last)), (first, last, 1));
        for bad in ["2025-W53", "2026-W00", "2026-W5", "2026-w05", "26-W05", "2026-W+5", ""] {
            assert_eq!(IsoWeek::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_week_starts_on_its_monday() {
        let week = IsoWeek::of(at(1_771_804_800));
        assert_eq!(week.monday().to_string(), "2026-02-23");
        assert_eq!(IsoWeek::of_day(week.monday()), week);
    }
}
