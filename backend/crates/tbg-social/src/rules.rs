//! Who is told of what, and in which words (contract `social.md` §3.5, §3.6).

use chrono::{DateTime, TimeDelta, Utc};
use tbg_core::UserId;
use tbg_core::outbox::{LotteryResult, Notification};
use tbg_core::text::with_commas;

/// A cause older than this is no news.
pub(crate) const MAX_AGE: TimeDelta = TimeDelta::hours(24);
/// A cause older than this is stored, not pushed.
pub(crate) const MAX_PUSH_AGE: TimeDelta = TimeDelta::seconds(60);
/// A draw later than that after its week is told to nobody.
pub(crate) const RESULTS_ARE_NEWS: TimeDelta = TimeDelta::days(8);
/// New miners in one row of the feed.
const NEW_MINERS_SLOT_SECONDS: i64 = 60;
/// Rare badges of a kind in one row of the feed.
const RARE_BADGES_SLOT_SECONDS: i64 = 600;

/// How a kind of notice passes the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gate {
    /// Ignores all preferences.
    pub is_critical: bool,
    /// The preference that forbids it, with its default.
    pub preference: Option<(&'static str, bool)>,
    /// Whether it goes out by mail too, where mail is wanted.
    pub is_mailed: bool,
}

/// The gate of a kind.
pub(crate) fn gate(subtype: &str) -> Gate {
    let (is_critical, preference, is_mailed) = match subtype {
        "block_found" | "worker_offline" | "streak_warning" | "coop_payout_changed" | "wallet_reclaimed" => {
            (true, None, true)
        }
        "personal_best" => (false, Some(("personalBest", true)), false),
        "badge_earned" => (false, Some(("badgeEarned", true)), false),
        "education_recommendation" => (false, Some(("educationRecommendation", false)), false),
        "lottery_results" => (false, Some(("lotteryResults", true)), true),
        "match_starting" | "match_result" => (false, Some(("worldCupMatch", true)), false),
        "leaderboard_change" => (false, Some(("leaderboardChange", false)), false),
        "block_found_any" => (false, Some(("blockFoundAny", false)), false),
        "coop_member_joined" | "coop_activity" => (false, Some(("coopActivity", false)), false),
        "coop_block_found" | "gift_redeemed" | "maintenance" => (false, None, true),
        _ => (false, None, false),
    };
    Gate { is_critical, preference, is_mailed }
}

/// The gate of a notice: `social/block_found` is not the finder's own `mining/block_found`.
pub(crate) fn gate_of(notice: &Notification) -> Gate {
    match (notice.kind.as_ref(), notice.subtype.as_ref()) {
        ("social", "block_found") => gate("block_found_any"),
        (_, subtype) => gate(subtype),
    }
}

/// The finder is told of his block.
pub(crate) fn own_block(user: UserId, block_id: i64, height: i64, found_at: DateTime<Utc>) -> Notification {
    Notification {
        user_id: user,
        kind: "mining".into(),
        subtype: "block_found".into(),
        title: "You Found a Block!".to_owned(),
        description: Some(format!("Block #{}", with_commas(height.unsigned_abs().into()))),
        action_url: Some("/mining/blocks".into()),
        action_label: Some("View Block".into()),
        dedupe_key: format!("block_found:{block_id}"),
        created_at: found_at,
    }
}

/// Somebody else is told of a block.
pub(crate) fn any_block(
    user: UserId,
    finder: &str,
    block_id: i64,
    height: i64,
    found_at: DateTime<Utc>,
) -> Notification {
    Notification {
        kind: "social".into(),
        title: "Block Found!".to_owned(),
        description: Some(format!("{finder} found block #{}", with_commas(height.unsigned_abs().into()))),
        ..own_block(user, block_id, height, found_at)
    }
}

/// Somebody took part in a lottery.
pub(crate) fn lottery_result(
    result: &LotteryResult,
    week: &str,
    participants: i32,
    at: DateTime<Utc>,
) -> Notification {
    let LotteryResult { rank, xp, .. } = result;
    Notification {
        user_id: UserId(result.user_id),
        kind: "competition".into(),
        subtype: "lottery_results".into(),
        title: "Weekly Lottery Results".to_owned(),
        description: Some(format!("You placed #{rank} of {participants} in {week}: +{xp} XP")),
        action_url: Some("/games".into()),
        action_label: Some("Play Now".into()),
        dedupe_key: format!("lottery_results:{week}"),
        created_at: at,
    }
}

/// The first words to a new user.
pub(crate) fn welcome(user: UserId, at: DateTime<Utc>) -> Notification {
    Notification {
        user_id: user,
        kind: "system".into(),
        subtype: "welcome".into(),
        title: "Welcome to The Bitcoin Game!".to_owned(),
        description: Some("Start mining and earn your first badge".to_owned()),
        action_url: Some("/dashboard".into()),
        action_label: Some("Open Dashboard".into()),
        dedupe_key: "welcome:1".to_owned(),
        created_at: at,
    }
}

/// Key of the feed's row about a badge; none for one that everybody gets, or that has a row of its own. Of rare
/// ones there is one row in ten minutes (contract `gamification.md` §4.4).
pub(crate) fn badge_key(
    user: UserId,
    slug: &str,
    rarity: &str,
    period: &str,
    at: DateTime<Utc>,
) -> Option<String> {
    match (slug, rarity) {
        ("block_finder" | "coop_block", _) | (_, "common") => None,
        (_, "rare") => Some(format!("badge:{slug}:{}", at.timestamp().div_euclid(RARE_BADGES_SLOT_SECONDS))),
        _ => Some(format!("badge:{slug}:{user}:{period}")),
    }
}

/// Text and key of the feed's row about a new miner; of one minute there is one.
pub(crate) fn new_miner(country_code: Option<&str>, at: DateTime<Utc>) -> (String, String) {
    let country = country_code.and_then(rust_iso3166::from_alpha2).map(|country| country.name);
    let text = match country {
        Some(country) => format!("New miner from {country} joined the platform"),
        None => "New miner joined the platform".to_owned(),
    };
    (text, format!("miner:{}", at.timestamp().div_euclid(NEW_MINERS_SLOT_SECONDS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_is_the_contracts() {
        assert!(gate("worker_offline").is_critical && gate("block_found").is_critical);
        assert_eq!(gate("personal_best").preference, Some(("personalBest", true)));
        assert_eq!(gate("worker_online"), Gate { is_critical: false, preference: None, is_mailed: false });
        let at = DateTime::from_timestamp(1_771_804_800, 0).unwrap();
        let any = any_block(UserId(2), "Miner-bc1qexam", 5, 879_234, at);
        assert_eq!(gate_of(&any).preference, Some(("blockFoundAny", false)));
        assert_eq!(any.description.as_deref(), Some("Miner-bc1qexam found block #879,234"));
        assert!(gate_of(&own_block(UserId(1), 5, 1, at)).is_critical);
    }

    #[test]
    fn a_new_miner_comes_from_a_country_or_from_nowhere() {
        let at = DateTime::from_timestamp(1_771_804_859, 0).unwrap();
        assert_eq!(
            new_miner(Some("PT"), at),
            ("New miner from Portugal joined the platform".to_owned(), "miner:29530080".to_owned())
        );
        assert_eq!(new_miner(None, at).0, "New miner joined the platform");
    }
}
