//! The game in words: ledger descriptions, notices (contract `gamification.md` §3.1, §4.4).

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use tbg_core::UserId;
use tbg_core::outbox::{DomainEvent, Notification};
use tbg_core::period::IsoWeek;

use super::catalogue::Badge;

/// Longest description in the ledger, in characters.
const DESCRIPTION_MAX: usize = 256;

/// A description of a grant, cut to its column.
pub(crate) fn description(text: &str) -> String {
    text.chars().take(DESCRIPTION_MAX).collect()
}

/// Where a notice leads.
struct Link(&'static str, &'static str);

const BADGES: Link = Link("/profile/badges", "View Badge");
const LEVEL: Link = Link("/profile/level", "View Level");
const STREAKS: Link = Link("/profile/streaks", "View Streak");

fn notice(
    user_id: UserId,
    subtype: &'static str,
    (title, description): (String, String),
    link: &Link,
    dedupe_key: String,
    created_at: DateTime<Utc>,
) -> Notification {
    Notification {
        user_id,
        kind: "gamification".into(),
        subtype: subtype.into(),
        title,
        description: Some(description),
        action_url: Some(Cow::Borrowed(link.0)),
        action_label: Some(Cow::Borrowed(link.1)),
        dedupe_key,
        created_at,
    }
}

pub(crate) fn badge_earned(user: UserId, badge: &Badge, period: &str, at: DateTime<Utc>) -> Notification {
    let words = (
        format!("Badge Earned: \"{}\"", badge.name),
        format!("+{} XP — {}", badge.xp_reward, badge.description),
    );
    notice(user, "badge_earned", words, &BADGES, format!("badge_earned:{}:{period}", badge.slug), at)
}

pub(crate) fn level_up(user: UserId, level: i32, title: &str, at: DateTime<Utc>) -> Notification {
    let words = ("Level Up!".to_owned(), format!("Level {level} — {title}"));
    notice(user, "level_up", words, &LEVEL, format!("level_up:{level}"), at)
}

pub(crate) fn streak_extended(user: UserId, weeks: i32, week: IsoWeek, at: DateTime<Utc>) -> Notification {
    let words = ("Streak Extended!".to_owned(), format!("{weeks}-week streak"));
    notice(user, "streak_extended", words, &STREAKS, format!("streak_extended:{week}"), at)
}

pub(crate) fn streak_broken(user: UserId, weeks: i32, week: IsoWeek, at: DateTime<Utc>) -> Notification {
    let words = ("Streak Broken".to_owned(), format!("Your {weeks}-week streak has ended"));
    notice(user, "streak_broken", words, &STREAKS, format!("streak_broken:{week}"), at)
}

pub(crate) fn streak_frozen(
    user: UserId,
    week: IsoWeek,
    freezes_left: i16,
    at: DateTime<Utc>,
) -> Notification {
    let left =
        if freezes_left == 1 { "1 freeze left".to_owned() } else { format!("{freezes_left} freezes left") };
    let words = ("Streak Freeze Used".to_owned(), format!("{week} was bridged: {left}"));
    notice(user, "streak_frozen", words, &STREAKS, format!("streak_frozen:{week}"), at)
}

/// Keys of the events by which a user is told what a missed week has done.
pub(crate) fn close_keys(user: UserId, week: IsoWeek) -> [String; 2] {
    let at = DateTime::default();
    [streak_broken(user, 0, week, at), streak_frozen(user, week, 0, at)]
        .map(|notice| DomainEvent::Notify(notice).key())
}

/// A warning is of mining: it ignores preferences.
pub(crate) fn streak_warning(
    user: UserId,
    weeks: i32,
    week: IsoWeek,
    freezes: i16,
    at: DateTime<Utc>,
) -> Notification {
    let deadline = format!("until Monday {} 00:00 UTC", week.next().monday());
    let text = if freezes > 0 {
        format!("Mine a share {deadline}, or a freeze is spent on your {weeks}-week streak")
    } else {
        format!("Mine a share {deadline} to keep your {weeks}-week streak")
    };
    let words = ("Streak Expiring Soon".to_owned(), text);
    let row = notice(user, "streak_warning", words, &STREAKS, format!("streak_warning:{week}"), at);
    Notification { kind: "mining".into(), ..row }
}
