//! The acceptance examples of the contract on the pure fold; the numbers in names are theirs.

use proptest::prelude::*;

use super::*;
use crate::rules::derive::{Sources, Stored, mend};

const USER: UserId = UserId(1);

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// A player whose transactions follow one another.
struct Course {
    catalogue: Catalogue,
    player: Player,
    all: Outcome,
}

impl Course {
    fn new() -> Self {
        let player = Player { user: USER, has_whole_calendar: true, ..Player::default() };
        Self { catalogue: Catalogue::of_mining(), player, all: Outcome::default() }
    }

    /// One transaction.
    fn batch(&mut self, causes: impl IntoIterator<Item = (DateTime<Utc>, Cause)>) {
        let players = HashMap::from([(USER, self.player.clone())]);
        let mut fold = Fold::new(&self.catalogue, players);
        for (at, cause) in causes {
            fold.apply(USER, at, cause);
        }
        let outcome = fold.finish();
        if let Some(player) = outcome.players.get(&USER) {
            self.player = player.clone();
        }
        self.all.ledger.extend(outcome.ledger);
        self.all.awards.extend(outcome.awards);
        self.all.level_ups.extend(outcome.level_ups);
        self.all.milestones.extend(outcome.milestones);
        self.all.extended.extend(outcome.extended);
    }

    fn share(&mut self, when: &str, difficulty: f64) {
        self.batch([(at(when), Cause::Share { difficulty })]);
    }

    /// A share at noon of the week's Monday.
    fn week(&mut self, week: &str) {
        let monday = IsoWeek::parse(week).unwrap().monday();
        self.share(&format!("{monday}T12:00:00Z"), 1.0);
    }

    fn keys(&self) -> Vec<&str> {
        self.all.ledger.iter().map(|row| row.grant.key.as_str()).collect()
    }

    fn sum(&self) -> i64 {
        self.all.ledger.iter().map(|row| i64::from(row.grant.amount)).sum()
    }

    fn of_source(&self, source: &str) -> i64 {
        let rows = self.all.ledger.iter().filter(|row| row.grant.source == source);
        rows.map(|row| i64::from(row.grant.amount)).sum()
    }

    /// What the database holds afterwards, with the days of the user's blocks.
    fn kept(&self, found_blocks: Vec<chrono::NaiveDate>) -> (Stored, Sources) {
        let level = tbg_core::progress::level_of(self.player.total_xp);
        let stored = Stored {
            player: self.player.clone(),
            level: level.level,
            title: level.title.to_owned(),
            updated_at: at("2027-12-01T00:00:00Z"),
        };
        let of_badge = |badge| self.all.awards.iter().filter(move |row| row.badge == badge);
        let grants = self.all.ledger.iter().filter(|row| row.grant.source == "block").map(|row| row.at);
        let sources = Sources {
            user: USER,
            total_xp: self.sum(),
            xp_entries: i32::try_from(self.all.ledger.len()).unwrap(),
            badges: i32::try_from(self.all.awards.len()).unwrap(),
            first_share_day: of_badge(1).map(|row| row.at.date_naive()).next(),
            paid_blocks: of_badge(4).map(|row| row.at).chain(grants).map(|at| at.date_naive()).collect(),
            found_blocks,
            weeks: self.player.weeks.clone(),
        };
        (stored, sources)
    }

    fn milestones(&self) -> Vec<i32> {
        self.all.milestones.iter().map(|milestone| milestone.weeks).collect()
    }
}

#[test]
fn example_2_a_first_share() {
    let mut course = Course::new();
    course.share("2026-02-25T14:00:00Z", 4096.5);
    assert_eq!(course.keys(), ["badge:first_share:1"]);
    let streak = course.player.streak;
    assert_eq!((streak.current, streak.longest), (1, 1));
    assert_eq!(streak.start, Some("2026-02-23".parse().unwrap()));
    assert_eq!(streak.last_active.unwrap().to_string(), "2026-W09");
    assert_eq!((course.player.total_xp, course.milestones()), (50, vec![1]));
}

#[test]
fn example_3_days_pay_from_the_second_on() {
    let mut course = Course::new();
    course.share("2026-02-25T14:00:00Z", 1_500_000.0);
    assert_eq!(course.player.total_xp, 100);
    assert_eq!((course.all.level_ups[0].old_level, course.all.level_ups[0].title), (1, "Curious Cat"));
    course.share("2026-02-25T23:59:59.999999Z", 1.0);
    assert_eq!(course.player.total_xp, 100);
    course.share("2026-02-26T00:00:00Z", 1.0);
    assert_eq!(course.player.total_xp, 150);
}

#[test]
fn example_4_a_best_without_its_share_is_no_share() {
    let mut course = Course::new();
    course.batch([(at("2026-02-25T14:00:00Z"), Cause::BestDiff { difficulty: 1.5e9 })]);
    assert_eq!(course.keys(), ["badge:diff_1e6:1", "badge:diff_1e9:1"]);
    assert_eq!((course.player.total_xp, course.player.streak.current), (150, 0));
    let mut course = Course::new();
    course.share("2026-02-25T14:00:00Z", 999_999.9);
    assert_eq!(course.keys(), ["badge:first_share:1"]);
    course.share("2026-02-25T14:00:01Z", 1_000_000.0);
    assert_eq!(course.keys(), ["badge:first_share:1", "badge:diff_1e6:1"]);
}

#[test]
fn example_5_a_record_pays_once_a_week_and_never_in_the_first() {
    let mut course = Course::new();
    let mut paid = Vec::new();
    for (when, difficulty) in [
        ("2026-02-16T00:00:00Z", 2e6),
        ("2026-02-17T00:00:00Z", 2.5e6),
        ("2026-02-23T00:00:00Z", 1e6),
        ("2026-02-24T00:00:00Z", 3e6),
        ("2026-02-25T00:00:00Z", 4e6),
        ("2026-03-02T00:00:00Z", 3.5e6),
        ("2026-03-03T00:00:00Z", 4.5e6),
    ] {
        course.share(when, difficulty);
        paid.push(course.of_source("personal_best"));
    }
    assert_eq!(paid, [0, 0, 0, 50, 50, 50, 100]);
}

/// §4.1 asks for a best that was set in an earlier week: which it is, depends on what has been seen until then.
#[test]
fn a_late_record_pays_nothing_once_a_later_week_has_set_one() {
    let (old, late, newer) =
        (("2026-02-16T00:00:00Z", 1.0), ("2026-02-23T00:00:00Z", 3.0), ("2026-03-02T00:00:00Z", 2.0));
    let paid = |order: [(&str, f64); 3]| {
        let mut course = Course::new();
        for (when, difficulty) in order {
            course.share(when, difficulty);
        }
        assert_eq!(
            course.player.best_week,
            IsoWeek::parse("2026-W09"),
            "the best itself is the same in any order"
        );
        let keys = course.keys().into_iter().filter(|key| key.starts_with("personal_best:"));
        keys.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(paid([old, late, newer]), ["personal_best:1:2026-W09"]);
    assert_eq!(paid([old, newer, late]), ["personal_best:1:2026-W10"]);
}

/// 5,760 shares of each day of a week, four a minute.
fn always_on(course: &mut Course, week: IsoWeek) {
    let monday = week.monday().and_time(chrono::NaiveTime::MIN).and_utc();
    let shares = (0..7 * 5_760)
        .map(|n| (monday + chrono::TimeDelta::seconds(15 * n), Cause::Share { difficulty: 1.0 }));
    course.batch(shares);
}

#[test]
fn examples_6_and_7_a_device_that_is_always_on() {
    let mut course = Course::new();
    let mut week = IsoWeek::parse("2026-W10").unwrap();
    always_on(&mut course, week);
    assert_eq!(course.sum(), 750);
    assert_eq!((course.of_source("badge"), course.of_source("share")), (150, 600));
    for _ in 1..12 {
        week = week.next();
        always_on(&mut course, week);
    }
    assert_eq!((course.of_source("badge"), course.of_source("streak")), (450, 275));
    let (daily, volume): (Vec<_>, Vec<_>) = course
        .keys()
        .into_iter()
        .filter(|key| key.contains("share") && !key.contains("badge"))
        .partition(|key| key.starts_with("daily"));
    assert_eq!((daily.len() * 50, volume.len() * 100), (4_150, 3_600));
    assert_eq!(course.sum(), 8_475);
    let level = tbg_core::progress::level_of(course.player.total_xp);
    assert_eq!((level.level, level.xp_into_level, level.xp_for_level), (6, 1_375, 3_500));
    assert_eq!((course.player.streak.current, course.player.streak.freezes), (12, 2));
    assert_eq!(course.milestones(), [1, 4, 12]);
}

#[test]
fn example_8_the_fourth_week_is_a_badge() {
    let mut course = Course::new();
    for week in ["2026-W10", "2026-W11", "2026-W12"] {
        course.week(week);
    }
    assert!(!course.keys().contains(&"badge:streak_4:1"));
    course.week("2026-W13");
    assert!(course.keys().contains(&"badge:streak_4:1"));
    assert_eq!((course.player.streak.current, course.player.streak.freezes), (4, 1));
}

#[test]
fn example_9_a_late_share_mends_a_streak() {
    let mut course = Course::new();
    for week in ["2026-W10", "2026-W11", "2026-W12", "2026-W13", "2026-W16"] {
        course.week(week);
    }
    let broken = course.player.streak;
    assert_eq!((broken.current, broken.longest), (1, 4));
    assert_eq!(broken.start, Some("2026-04-13".parse().unwrap()));
    let before = course.keys().len();
    course.week("2026-W14");
    let mended = course.player.streak;
    assert_eq!(mended.current, 6);
    assert_eq!(mended.start, Some("2026-03-02".parse().unwrap()));
    let frozen = |week: &str| course.player.weeks[&IsoWeek::parse(week).unwrap()].is_frozen;
    assert!(frozen("2026-W15") && !frozen("2026-W14"));
    let new = course.keys().split_off(before);
    assert!(new.contains(&"streak:1:2026-W14") && new.contains(&"streak:1:2026-W16"), "{new:?}");
}

#[test]
fn a_late_week_gives_the_streak_that_it_would_have_given_in_time() {
    let weeks = |first: u32| (first..=12).chain([14, 15, 16, 19, 20]).map(|week| format!("2026-W{week:02}"));
    let (mut late, mut in_time) = (Course::new(), Course::new());
    weeks(2).chain(["2026-W01".to_owned()]).for_each(|week| late.week(&week));
    weeks(1).for_each(|week| in_time.week(&week));
    assert_eq!(late.player.streak, in_time.player.streak);
}

#[test]
fn example_11_a_year_ends_with_its_week() {
    let mut course = Course::new();
    course.share("2026-12-31T00:00:00Z", 1.0);
    course.share("2027-01-03T23:59:59Z", 1.0);
    assert_eq!(course.player.streak.current, 1);
    course.share("2027-01-04T00:00:00Z", 1.0);
    assert_eq!(course.player.streak.current, 2);
}

#[test]
fn example_13_blocks_of_one_day() {
    let mut course = Course::new();
    for (minute, height) in [(0, 900_000), (1, 900_001), (2, 900_002)] {
        let when = at(&format!("2026-02-25T14:0{minute}:00Z"));
        course.batch([(when, Cause::Block { height, reward_sats: 312_500_000 })]);
    }
    assert_eq!(course.keys(), ["badge:block_finder:1", "block:1:2026-02-25"]);
    assert_eq!((course.player.blocks_found, course.player.total_xp), (3, 1_000));
    assert_eq!(course.all.awards[0].metadata, json!({ "blockHeight": "900,000", "reward": "3.125 BTC" }));
}

#[test]
fn an_aged_share_is_a_maximum_and_nothing_else() {
    let mut course = Course::new();
    course.batch([(at("2025-02-25T14:00:00Z"), Cause::AgedBest { difficulty: 2e6 })]);
    assert_eq!(course.keys(), ["badge:diff_1e6:1"]);
    assert_eq!((course.player.total_shares, course.player.weeks.len()), (0, 0));
}

#[test]
fn a_sum_never_falls_below_nothing() {
    let mut course = Course::new();
    let less = |amount, key: &str| {
        Cause::Xp(Grant {
            amount,
            source: "adjustment",
            source_id: String::new(),
            key: key.to_owned(),
            description: "x".repeat(300),
        })
    };
    course.batch([(at("2026-02-25T14:00:00Z"), less(-1, "a"))]);
    assert_eq!((course.player.total_xp, course.keys().len()), (0, 0));
    course.share("2026-02-25T14:00:00Z", 1.0);
    course
        .batch([(at("2026-02-25T14:00:00Z"), less(-50, "b")), (at("2026-02-25T14:00:00Z"), less(-50, "b"))]);
    assert_eq!(course.player.total_xp, 0);
    assert_eq!(course.all.ledger[1].grant.description.len(), 256);
}

#[test]
fn one_grant_may_cross_several_levels_and_each_is_celebrated() {
    let mut course = Course::new();
    let grant = Grant {
        amount: 2_000,
        source: "adjustment",
        source_id: "r".to_owned(),
        key: "adjustment:r".to_owned(),
        description: "for a test".to_owned(),
    };
    course.batch([(at("2026-02-25T14:00:00Z"), Cause::Xp(grant))]);
    let levels: Vec<_> = course.all.level_ups.iter().map(|up| (up.old_level, up.level)).collect();
    assert_eq!(levels, [(1, 2), (2, 3), (3, 4)]);
}

fn correction(amount: i32, key: &str) -> Cause {
    let (source_id, description) = (String::new(), "a test".to_owned());
    Cause::Xp(Grant { amount, source: "adjustment", source_id, key: key.to_owned(), description })
}

#[test]
fn a_level_that_was_lost_is_not_celebrated_again() {
    let mut course = Course::new();
    let when = at("2026-02-25T14:00:00Z");
    for (amount, key) in [(650, "a"), (-600, "b"), (600, "c"), (1_000, "d")] {
        course.batch([(when, correction(amount, key))]);
    }
    let levels: Vec<i32> = course.all.level_ups.iter().map(|up| up.level).collect();
    assert_eq!((course.player.total_xp, levels), (1_650, vec![2, 3, 4]));
}

#[test]
fn of_equal_bests_the_earlier_week_counts_in_any_order() {
    let (early, late) = ("2026-02-22T23:59:59Z", "2026-02-23T00:00:00Z");
    for order in [[early, late], [late, early]] {
        let mut course = Course::new();
        for when in order {
            course.share(when, 5.0);
        }
        assert_eq!(course.player.best_week, IsoWeek::parse("2026-W08"));
        assert_eq!(course.of_source("personal_best"), 0, "an equal best beats nothing");
    }
}

#[test]
fn a_user_with_many_rigs_is_paid_like_one_that_is_always_on() {
    let monday = at("2026-03-02T00:00:00Z");
    let paid = |rigs: i64| {
        let mut course = Course::new();
        let shares = (0..7 * 5_760 * rigs).map(|n| {
            let seconds = 15 * (n / rigs);
            (monday + chrono::TimeDelta::seconds(seconds), Cause::Share { difficulty: 1.0 })
        });
        course.batch(shares);
        let mut keys: Vec<String> = course.keys().into_iter().map(str::to_owned).collect();
        keys.sort_unstable();
        (course.sum(), course.player.held.clone(), keys)
    };
    let one = paid(1);
    assert_eq!(one.0, 750, "example 6");
    assert_eq!(paid(3), one);
}

/// Shares over some weeks, in order of time.
fn sequence() -> impl Strategy<Value = Vec<(DateTime<Utc>, f64)>> {
    let share = (0_i64..20 * 7 * 24, prop_oneof![Just(1.0), Just(2e6), Just(3e9), 1.0..5e6]);
    prop::collection::vec(share, 1..60).prop_map(|mut shares| {
        shares.sort_by_key(|(hour, _)| *hour);
        let start = at("2026-11-16T00:00:00Z");
        shares
            .into_iter()
            .map(|(hour, difficulty)| (start + chrono::TimeDelta::hours(hour), difficulty))
            .collect()
    })
}

proptest! {
    #[test]
    fn example_21_where_a_sequence_is_cut_does_not_matter(shares in sequence(), cut in 1_usize..7) {
        let causes = || shares.iter().map(|(at, difficulty)| (*at, Cause::Share { difficulty: *difficulty }));
        let (mut whole, mut cut_up) = (Course::new(), Course::new());
        whole.batch(causes());
        for chunk in causes().collect::<Vec<_>>().chunks(cut) {
            cut_up.batch(chunk.to_vec());
        }
        prop_assert_eq!(&whole.player, &cut_up.player);
        prop_assert_eq!(&whole.all.ledger, &cut_up.all.ledger);
        prop_assert_eq!(&whole.all.awards, &cut_up.all.awards);
        prop_assert_eq!(&whole.all.level_ups, &cut_up.all.level_ups);
        prop_assert_eq!(&whole.all.milestones, &cut_up.all.milestones);
        prop_assert_eq!(whole.player.total_xp, whole.sum());
    }

    #[test]
    fn late_or_not_the_streak_is_the_calendars(shares in sequence(), seed in any::<u64>()) {
        let mut shuffled = shares.clone();
        let count = shuffled.len();
        for index in 0..count {
            let other = (seed.rotate_left(index as u32 % 64) as usize) % count;
            shuffled.swap(index, other);
        }
        let mut course = Course::new();
        for (at, difficulty) in &shuffled {
            course.batch([(*at, Cause::Share { difficulty: *difficulty })]);
        }
        let active: BTreeSet<IsoWeek> = shares.iter().map(|(at, _)| IsoWeek::of(*at)).collect();
        let folded = fold(active.iter().copied());
        prop_assert_eq!(course.player.streak, folded.streak);
        let frozen: BTreeSet<IsoWeek> =
            course.player.weeks.iter().filter(|(_, row)| row.is_frozen).map(|(week, _)| *week).collect();
        prop_assert_eq!(frozen, folded.frozen);
        let mut keys = course.keys();
        keys.sort_unstable();
        keys.dedup();
        prop_assert_eq!(keys.len(), course.all.ledger.len(), "each key once");
    }

    #[test]
    fn the_state_follows_from_ledger_awards_calendar_and_blocks(
        shares in sequence(),
        seed in any::<u64>(),
        blocks in prop::collection::vec(0_i64..40, 0..6),
        aged in prop::option::of(prop_oneof![Just(2.5e6), Just(7e9)]),
    ) {
        let start = at("2026-11-16T00:00:00Z");
        let mut causes: Vec<_> =
            shares.iter().map(|(at, difficulty)| (*at, Cause::Share { difficulty: *difficulty })).collect();
        let found = |hour: i64| start + chrono::TimeDelta::hours(hour);
        causes.extend(blocks.iter().map(|hour| (found(*hour), Cause::Block { height: 900_000, reward_sats: 1 })));
        causes.extend(aged.map(|difficulty| (at("2025-06-02T00:00:00Z"), Cause::AgedBest { difficulty })));
        causes.push((start, correction(700, "a")));
        let count = causes.len();
        for index in 0..count {
            causes.swap(index, (seed.rotate_left(index as u32 % 64) as usize) % count);
        }
        let mut course = Course::new();
        for cause in causes {
            course.batch([cause]);
        }
        let (stored, sources) = course.kept(blocks.iter().map(|hour| found(*hour).date_naive()).collect());
        let wrong = mend(sources.clone(), &stored).map(|mended| mended.fields);
        prop_assert_eq!(wrong, None);

        // Nothing is left of the row: all comes back but what only a share too late to be counted had made.
        let mended = mend(sources.clone(), &Stored { updated_at: stored.updated_at, ..Stored::default() });
        let mut mended = mended.unwrap().player;
        if aged.is_some() {
            (mended.best_difficulty, mended.best_week) = (stored.player.best_difficulty, stored.player.best_week);
        }
        let again = Stored { player: mended, ..stored };
        prop_assert_eq!(mend(sources, &again).map(|mended| mended.fields), None);
        prop_assert_eq!(again.player.streak, course.player.streak);
        prop_assert_eq!(again.player.blocks_found, course.player.blocks_found);
        prop_assert_eq!(again.player.first_share_day, course.player.first_share_day);
        prop_assert_eq!(again.player.best_week, course.player.best_week);
    }
}
