//! What others hear of an outcome: domain events in its transaction, live events after the commit (contract
//! `gamification.md` §4.4).

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tbg_core::UserId;
use tbg_core::live::{LiveEvent, LiveMessage};
use tbg_core::outbox::DomainEvent;

use crate::rules::causes::{Closed, LedgerRow, Outcome};
use crate::rules::words;

/// A cause older than this is not told live.
const MAX_LIVE_AGE: TimeDelta = TimeDelta::seconds(60);

/// Something to tell a user live.
pub(crate) struct Told {
    pub event: LiveEvent,
    pub user: UserId,
    pub cause: DateTime<Utc>,
    pub fields: Value,
}

impl Told {
    /// The message, while its cause is news.
    pub(crate) fn fresh(self, now: DateTime<Utc>) -> Option<LiveMessage> {
        (self.cause >= now - MAX_LIVE_AGE).then(|| LiveMessage::personal(self.event, self.user, self.fields))
    }
}

/// Domain events of an outcome.
pub(crate) fn events(outcome: &Outcome) -> Vec<DomainEvent> {
    let mut events = Vec::new();
    for earned in &outcome.earned {
        let notice = words::badge_earned(earned.user, &earned.badge, &earned.period, earned.at);
        events.push(DomainEvent::Notify(notice));
        events.push(DomainEvent::BadgeEarned {
            user_id: earned.user,
            slug: earned.badge.slug.clone(),
            name: earned.badge.name.clone(),
            rarity: earned.badge.rarity.clone(),
            xp_reward: earned.badge.xp_reward,
            period_key: earned.period.clone(),
            earned_at: earned.at,
        });
    }
    for up in &outcome.level_ups {
        events.push(DomainEvent::Notify(words::level_up(up.user, up.level, up.title, up.at)));
    }
    for closed in &outcome.closed {
        let Closed { user, week, freezes_left, weeks, at } = *closed;
        events.push(DomainEvent::Notify(match freezes_left {
            Some(left) => words::streak_frozen(user, week, left, at),
            None => words::streak_broken(user, weeks, week, at),
        }));
    }
    for extended in &outcome.extended {
        let notice = words::streak_extended(extended.user, extended.weeks, extended.week, extended.at);
        events.push(DomainEvent::Notify(notice));
    }
    events
}

/// Live events of an outcome.
pub(crate) fn live(outcome: &Outcome) -> Vec<Told> {
    let mut told = Vec::new();
    for earned in &outcome.earned {
        let fields = json!({
            "badge_slug": earned.badge.slug, "badge_name": earned.badge.name,
            "rarity": earned.badge.rarity, "xp_reward": earned.badge.xp_reward,
        });
        told.push(Told { event: LiveEvent::BadgeEarned, user: earned.user, cause: earned.at, fields });
    }
    for up in &outcome.level_ups {
        let fields = json!({ "old_level": up.old_level, "new_level": up.level, "title": up.title });
        told.push(Told { event: LiveEvent::LevelUp, user: up.user, cause: up.at, fields });
    }
    for closed in outcome.broken() {
        let fields = json!({ "event": "streak_broken", "streak_length": closed.weeks });
        told.push(Told { event: LiveEvent::StreakUpdate, user: closed.user, cause: closed.at, fields });
    }
    for extended in &outcome.extended {
        let fields = json!({ "event": "streak_extended", "streak_length": extended.weeks });
        told.push(Told { event: LiveEvent::StreakUpdate, user: extended.user, cause: extended.at, fields });
    }
    for milestone in &outcome.milestones {
        let fields = json!({
            "event": "streak_milestone", "streak_length": milestone.weeks,
            "streak_weeks": milestone.weeks, "milestone": milestone.name,
        });
        told.push(Told { event: LiveEvent::StreakUpdate, user: milestone.user, cause: milestone.at, fields });
    }
    told.extend(gains(outcome));
    told
}

/// One per user: the sum, named after the largest grant.
fn gains(outcome: &Outcome) -> impl Iterator<Item = Told> + '_ {
    let mut by_user: BTreeMap<UserId, (i64, &LedgerRow, DateTime<Utc>)> = BTreeMap::new();
    for row in &outcome.ledger {
        by_user
            .entry(row.user)
            .and_modify(|(sum, largest, last)| {
                *sum += i64::from(row.grant.amount);
                *last = (*last).max(row.at);
                if row.grant.amount > largest.grant.amount {
                    *largest = row;
                }
            })
            .or_insert((row.grant.amount.into(), row, row.at));
    }
    by_user.into_iter().map(|(user, (sum, largest, cause))| {
        let total = outcome.players.get(&user).map_or(0, |player| player.total_xp);
        let fields = json!({ "amount": sum, "source": largest.grant.source, "total_xp": total });
        Told { event: LiveEvent::XpGained, user, cause, fields }
    })
}
