//! What causes do to players: grants, awards, celebrations (contract `gamification.md` §3, §4).
//!
//! One fold for all paths: the engine's batches and the events of other domains. It looks at nothing but its
//! arguments, so a replay gives the same, and where a sequence is cut into batches does not matter.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tbg_core::UserId;
use tbg_core::period::IsoWeek;
use tbg_core::progress::LEVELS;
use tbg_core::text::with_commas;

use super::catalogue::{Badge, Catalogue, Changed, Trigger};
use super::player::Player;
use super::streak::{MILESTONES, Missed, fold};
use super::words;

const DAILY_XP: i32 = 50;
const VOLUME_XP: i32 = 100;
const VOLUME_STEP: i64 = 10_000;
const VOLUME_STEPS: i64 = 3;
const BEST_XP: i32 = 50;
const STREAK_XP: i32 = 25;
const BLOCK_XP: i32 = 500;
const SATS_PER_BTC: f64 = 100_000_000.0;

/// Why something is granted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cause {
    /// An accepted share.
    Share { difficulty: f64 },
    /// A best that the pool reports without its share.
    BestDiff { difficulty: f64 },
    /// A share or best too old to be counted: a maximum only.
    AgedBest { difficulty: f64 },
    /// A block was attributed to the user.
    Block { height: i32, reward_sats: i64 },
    /// A badge of an event.
    Award { slug: &'static str, period: String, metadata: Value },
    /// Experience of another domain.
    Xp(Grant),
}

/// A row of `xp_ledger` to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub amount: i32,
    pub source: &'static str,
    pub source_id: String,
    pub key: String,
    pub description: String,
}

/// A grant with whom and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LedgerRow {
    pub user: UserId,
    pub grant: Grant,
    pub at: DateTime<Utc>,
}

/// A row of `user_badges` to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AwardRow {
    pub user: UserId,
    pub badge: i32,
    pub period: String,
    pub metadata: Value,
    pub at: DateTime<Utc>,
    /// Whether it counts as another holder in the statistics.
    pub counts: bool,
}

/// A level that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LevelUp {
    pub user: UserId,
    pub old_level: i32,
    pub level: i32,
    pub title: &'static str,
    pub at: DateTime<Utc>,
}

/// A longest streak that is celebrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Milestone {
    pub user: UserId,
    pub weeks: i32,
    pub name: &'static str,
    pub at: DateTime<Utc>,
}

/// An award as others hear of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Earned {
    pub user: UserId,
    pub badge: Badge,
    pub period: String,
    pub at: DateTime<Utc>,
}

/// A week that made a streak of two or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extended {
    pub user: UserId,
    pub weeks: i32,
    pub week: IsoWeek,
    pub at: DateTime<Utc>,
}

/// What the week before an active one has done to a streak, of which the user is told as its close tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub user: UserId,
    /// The missed week.
    pub week: IsoWeek,
    /// The freezes that are left where it was bridged; else the streak is broken.
    pub freezes_left: Option<i16>,
    /// The length until then.
    pub weeks: i32,
    pub at: DateTime<Utc>,
}

/// What a transaction writes and tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// Players that changed, as they are afterwards.
    pub players: BTreeMap<UserId, Player>,
    /// Weeks of them that changed.
    pub weeks: BTreeSet<(UserId, IsoWeek)>,
    pub ledger: Vec<LedgerRow>,
    pub awards: Vec<AwardRow>,
    pub level_ups: Vec<LevelUp>,
    pub milestones: Vec<Milestone>,
    pub earned: Vec<Earned>,
    pub extended: Vec<Extended>,
    pub closed: Vec<Closed>,
}

impl Outcome {
    /// The streaks that turned out to be broken.
    pub(crate) fn broken(&self) -> impl Iterator<Item = &Closed> {
        self.closed.iter().filter(|closed| closed.freezes_left.is_none())
    }
}

/// The key of a week's record.
pub(crate) fn best_key(user: UserId, week: IsoWeek) -> String {
    format!("personal_best:{user}:{week}")
}

/// The key of an operator's correction: a reference is used once, for whomever.
pub(crate) fn adjustment_key(reference: &str) -> String {
    format!("adjustment:{reference}")
}

/// Folds causes, in their order, into players.
pub(crate) struct Fold<'a> {
    catalogue: &'a Catalogue,
    players: HashMap<UserId, Player>,
    touched: BTreeSet<UserId>,
    out: Outcome,
}

impl<'a> Fold<'a> {
    pub(crate) fn new(catalogue: &'a Catalogue, players: HashMap<UserId, Player>) -> Self {
        Self { catalogue, players, touched: BTreeSet::new(), out: Outcome::default() }
    }

    /// Applies a cause of `user` at `at`. Who was not loaded gets nothing: banned, deleted, or nobody.
    pub(crate) fn apply(&mut self, user: UserId, at: DateTime<Utc>, cause: Cause) {
        let Some(mut player) = self.players.remove(&user) else { return };
        self.touched.insert(user);
        match cause {
            Cause::Share { difficulty } => self.share(&mut player, at, difficulty),
            Cause::BestDiff { difficulty } => self.best_diff(&mut player, at, difficulty),
            Cause::AgedBest { difficulty } => {
                Self::raise_best(&mut player, at, difficulty);
                self.badges(&mut player, at, &[Changed::Best], None);
            }
            Cause::Block { height, reward_sats } => self.block(&mut player, at, height, reward_sats),
            Cause::Award { slug, period, metadata } => {
                if let Some(badge) = self.catalogue.by_slug(slug) {
                    self.award(&mut player, at, badge, period, metadata);
                }
            }
            Cause::Xp(grant) => self.grant(&mut player, at, grant),
        }
        self.players.insert(user, player);
    }

    /// What is to be written.
    pub(crate) fn finish(mut self) -> Outcome {
        for user in self.touched {
            self.out.players.extend(self.players.remove(&user).map(|player| (user, player)));
        }
        self.out
    }

    fn share(&mut self, player: &mut Player, at: DateTime<Utc>, difficulty: f64) {
        let (week, day) = (IsoWeek::of(at), at.date_naive());
        let row = player.weeks.entry(week).or_default();
        let is_new_week = !row.is_active();
        let is_new_day = !row.has_day(day);
        row.shares += 1;
        row.best_diff = row.best_diff.max(difficulty);
        row.add_day(day);
        row.is_frozen = false;
        let week_shares = row.shares;
        self.out.weeks.insert((player.user, week));
        player.total_shares += 1;
        let is_first_day = *player.first_share_day.get_or_insert(day) == day;
        let beats_earlier_week = Self::raise_best(player, at, difficulty);
        let before = player.streak.longest;
        let paid_weeks = if is_new_week { self.active_week(player, week, at) } else { Vec::new() };

        self.badges(player, at, &[Changed::Shares, Changed::Best, Changed::Streak], Some(week));
        if is_new_day && !is_first_day {
            self.grant_share(
                player,
                at,
                DAILY_XP,
                format!("daily-{day}"),
                format!("daily_share:{}:{day}", player.user),
                "Daily share submitted".to_owned(),
            );
        }
        if week_shares % VOLUME_STEP == 0 && week_shares / VOLUME_STEP <= VOLUME_STEPS {
            let n = week_shares / VOLUME_STEP;
            let words = format!("{} shares this week", with_commas(week_shares.unsigned_abs().into()));
            self.grant_share(
                player,
                at,
                VOLUME_XP,
                format!("volume-{week}-{n}"),
                format!("share_volume:{}:{week}:{n}", player.user),
                words,
            );
        }
        if beats_earlier_week {
            self.personal_best(player, at);
        }
        for (week, length) in paid_weeks {
            self.streak_week(player, at, week, length);
        }
        self.milestones(player, before, at);
    }

    fn best_diff(&mut self, player: &mut Player, at: DateTime<Utc>, difficulty: f64) {
        let week = IsoWeek::of(at);
        let row = player.weeks.entry(week).or_default();
        if difficulty > row.best_diff {
            row.best_diff = difficulty;
            self.out.weeks.insert((player.user, week));
        }
        let beats_earlier_week = Self::raise_best(player, at, difficulty);
        self.badges(player, at, &[Changed::Best], None);
        if beats_earlier_week {
            self.personal_best(player, at);
        }
    }

    fn block(&mut self, player: &mut Player, at: DateTime<Utc>, height: i32, reward_sats: i64) {
        player.blocks_found += 1;
        let earned_before = self.out.earned.len();
        let height_words = with_commas(height.unsigned_abs().into());
        if let Some(badge) = self.catalogue.of(&[Changed::Blocks]).find(|badge| !player.holds(badge.id)) {
            let reward = format!("{} BTC", reward_sats as f64 / SATS_PER_BTC);
            let metadata = json!({ "blockHeight": height_words, "reward": reward });
            self.award(player, at, badge, String::new(), metadata);
        }
        if self.out.earned.len() == earned_before {
            let grant = Grant {
                amount: BLOCK_XP,
                source: "block",
                source_id: height.to_string(),
                key: format!("block:{}:{}", player.user, at.date_naive()),
                description: format!("Found block #{height_words}"),
            };
            self.grant(player, at, grant);
        }
    }

    /// Takes in a difficulty. Says whether it beats a best that was set in an earlier week. Of equal bests the
    /// earlier week counts, so that the order in which they come does not matter.
    fn raise_best(player: &mut Player, at: DateTime<Utc>, difficulty: f64) -> bool {
        let week = IsoWeek::of(at);
        let is_equal = difficulty == player.best_difficulty;
        let is_earlier = player.best_week.is_some_and(|best| week < best);
        if difficulty < player.best_difficulty || (is_equal && !is_earlier) {
            return false;
        }
        let beats = player.best_week.is_some_and(|best| week > best);
        player.best_difficulty = difficulty;
        player.best_week = Some(week);
        beats
    }

    /// A week has become active. Returns the weeks, with the streak's length, that are paid for it.
    fn active_week(&mut self, player: &mut Player, week: IsoWeek, at: DateTime<Utc>) -> Vec<(IsoWeek, i32)> {
        if player.streak.last_active.is_some_and(|last| week < last) {
            return self.late_week(player, week);
        }
        // Whoever mines before the job that closes weeks is not found by it any more.
        if let Some(outcome) = player.streak.closed_before(week)
            && !player.told.contains(&week.minus(1))
        {
            let (user, weeks) = (player.user, player.streak.current);
            let freezes_left = match outcome {
                Missed::Bridged { freezes_left } => Some(freezes_left),
                Missed::Broken => None,
            };
            self.out.closed.push(Closed { user, week: week.minus(1), freezes_left, weeks, at });
        }
        let frozen = player.streak.advance(week);
        for frozen in frozen {
            let row = player.weeks.entry(frozen).or_default();
            row.is_frozen = !row.is_active();
            self.out.weeks.insert((player.user, frozen));
        }
        let weeks = player.streak.current;
        if weeks >= 2 {
            self.out.extended.push(Extended { user: player.user, weeks, week, at });
        }
        vec![(week, weeks)]
    }

    /// A share came for a week before the last active one: the whole calendar is folded anew.
    fn late_week(&mut self, player: &mut Player, week: IsoWeek) -> Vec<(IsoWeek, i32)> {
        debug_assert!(player.has_whole_calendar, "a late week needs the calendar");
        let folded = fold(player.weeks.iter().filter(|(_, row)| row.is_active()).map(|(week, _)| *week));
        player.streak = folded.streak;
        for frozen in &folded.frozen {
            player.weeks.entry(*frozen).or_default();
        }
        for (of, row) in player.weeks.range_mut(week..) {
            let is_frozen = folded.frozen.contains(of);
            if row.is_frozen != is_frozen {
                row.is_frozen = is_frozen;
                self.out.weeks.insert((player.user, *of));
            }
        }
        folded.lengths.into_iter().filter(|(of, _)| *of >= week).collect()
    }

    /// Awards what is reached and not held.
    fn badges(&mut self, player: &mut Player, at: DateTime<Utc>, changed: &[Changed], week: Option<IsoWeek>) {
        let catalogue = self.catalogue;
        for badge in catalogue.of(changed) {
            let metadata = match badge.trigger {
                Trigger::ShareCount(count) if player.total_shares >= count => json!({}),
                Trigger::BestDiff(difficulty) if player.best_difficulty >= difficulty => {
                    json!({ "difficulty": with_commas(player.best_difficulty as u128) })
                }
                Trigger::Streak(weeks) if player.streak.longest >= weeks => {
                    let week = week.unwrap_or_else(|| IsoWeek::of(at));
                    json!({ "week": week.to_string() })
                }
                _ => continue,
            };
            if !player.holds(badge.id) {
                self.award(player, at, badge, String::new(), metadata);
            }
        }
    }

    fn award(
        &mut self,
        player: &mut Player,
        at: DateTime<Utc>,
        badge: &Badge,
        period: String,
        metadata: Value,
    ) {
        let period = if badge.repeatable { period } else { String::new() };
        if player.holds_in(badge.id, &period) {
            return;
        }
        let is_first = !player.holds(badge.id);
        player.held.entry(badge.id).or_default().insert(period.clone());
        player.badges_earned += i32::from(is_first);
        self.out.awards.push(AwardRow {
            user: player.user,
            badge: badge.id,
            period: period.clone(),
            metadata,
            at,
            counts: is_first && !player.is_test,
        });
        self.out.earned.push(Earned { user: player.user, badge: badge.clone(), period: period.clone(), at });
        let mut key = format!("badge:{}:{}", badge.slug, player.user);
        if badge.repeatable {
            key.push(':');
            key.push_str(&period);
        }
        let grant = Grant {
            amount: badge.xp_reward,
            source: "badge",
            source_id: badge.slug.clone(),
            key,
            description: format!("Earned badge: {}", badge.name),
        };
        self.grant(player, at, grant);
    }

    fn personal_best(&mut self, player: &mut Player, at: DateTime<Utc>) {
        let week = IsoWeek::of(at);
        let grant = Grant {
            amount: BEST_XP,
            source: "personal_best",
            source_id: format!("best-{week}"),
            key: best_key(player.user, week),
            description: "Best difficulty record broken".to_owned(),
        };
        self.grant(player, at, grant);
    }

    fn streak_week(&mut self, player: &mut Player, at: DateTime<Utc>, week: IsoWeek, length: i32) {
        if length < 2 {
            return;
        }
        let grant = Grant {
            amount: STREAK_XP,
            source: "streak",
            source_id: format!("streak-{week}"),
            key: format!("streak:{}:{week}", player.user),
            description: format!("Streak bonus ({length} weeks)"),
        };
        self.grant(player, at, grant);
    }

    fn milestones(&mut self, player: &Player, before: i32, at: DateTime<Utc>) {
        let reached =
            MILESTONES.iter().filter(|(weeks, _)| before < *weeks && player.streak.longest >= *weeks);
        let user = player.user;
        self.out.milestones.extend(reached.map(|(weeks, name)| Milestone { user, weeks: *weeks, name, at }));
    }

    fn grant_share(
        &mut self,
        player: &mut Player,
        at: DateTime<Utc>,
        amount: i32,
        source_id: String,
        key: String,
        description: String,
    ) {
        self.grant(player, at, Grant { amount, source: "share", source_id, key, description });
    }

    /// The one way to experience: once per key, levels follow.
    fn grant(&mut self, player: &mut Player, at: DateTime<Utc>, mut grant: Grant) {
        let after = player.total_xp + i64::from(grant.amount);
        if after < 0 || !player.granted.insert(grant.key.clone()) {
            return;
        }
        for pair in LEVELS.windows(2) {
            let [(old_level, ..), (level, title, from)] = pair else { continue };
            if player.total_xp < *from && *from <= after && player.peak_level < *level {
                player.peak_level = *level;
                self.out.level_ups.push(LevelUp {
                    user: player.user,
                    old_level: *old_level,
                    level: *level,
                    title,
                    at,
                });
            }
        }
        player.total_xp = after;
        player.xp_entries += 1;
        grant.description = words::description(&grant.description);
        self.out.ledger.push(LedgerRow { user: player.user, grant, at });
    }
}

#[cfg(test)]
mod tests;
