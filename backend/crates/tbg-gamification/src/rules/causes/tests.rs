//! The acceptance examples of the contract on the pure fold; the numbers in names are theirs.

use proptest::prelude::*;

use super::*;
use crate::rules::catalogue::Badge;

const USER: UserId = UserId(1);

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The badges of mining, as the migration seeds them.
fn catalogue() -> Catalogue {
    let badge = |id, slug: &str, xp_reward, trigger| Badge {
        id,
        slug: slug.to_owned(),
        name: slug.to_owned(),
        description: String::new(),
        rarity: "common".to_owned(),
        xp_reward,
        trigger,
        repeatable: id == 8,
    };
    Catalogue::new(vec![
        badge(1, "first_share", 50, Trigger::ShareCount(1)),
        badge(2, "shares_1k", 100, Trigger::ShareCount(1_000)),
        badge(3, "shares_1m", 200, Trigger::ShareCount(1_000_000)),
        badge(4, "block_finder", 500, Trigger::BlockFound),
        badge(5, "diff_1e6", 50, Trigger::BestDiff(1e6)),
        badge(6, "diff_1e9", 100, Trigger::BestDiff(1e9)),
        badge(7, "diff_1e12", 200, Trigger::BestDiff(1e12)),
        badge(8, "weekly_diff_champion", 300, Trigger::Event),
        badge(9, "streak_4", 100, Trigger::Streak(4)),
        badge(10, "streak_12", 200, Trigger::Streak(12)),
        badge(11, "streak_52", 500, Trigger::Streak(52)),
    ])
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
        Self { catalogue: catalogue(), player, all: Outcome::default() }
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
}
