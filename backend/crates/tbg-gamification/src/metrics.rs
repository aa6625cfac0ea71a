//! The game's numbers (contract `gamification.md` §6). All labels come from closed sets.

use tbg_core::metrics::Counts;

use crate::rules::catalogue::Catalogue;
use crate::rules::causes::Outcome;

const XP: &str = "tbg_gamification_xp_awarded_total";
const BADGES: &str = "tbg_gamification_badges_awarded_total";
const LEVELS: &str = "tbg_gamification_level_ups_total";
const BROKEN: &str = "tbg_gamification_streaks_broken_total";
const DRIFT: &str = "tbg_gamification_drift_total";

/// Sources of experience (constraint `xp_ledger_source_check`).
const SOURCES: [&str; 8] =
    ["badge", "share", "personal_best", "streak", "block", "education", "competition", "adjustment"];

/// What of a player's state may differ from its sources (`rules::derive`).
const FIELDS: [&str; 10] = [
    "total_xp",
    "level",
    "xp_entries",
    "badges_earned",
    "streak",
    "total_shares",
    "best_difficulty",
    "blocks_found",
    "first_share_day",
    "is_frozen",
];

/// Makes every counter appear at 0, so that a rate can be taken from the first award on.
pub(crate) fn register(catalogue: &Catalogue) {
    for source in SOURCES {
        metrics::counter!(XP, "source" => source).increment(0);
    }
    for slug in catalogue.slugs() {
        metrics::counter!(BADGES, "badge_id" => slug.to_owned()).increment(0);
    }
    metrics::counter!(LEVELS).increment(0);
    metrics::counter!(BROKEN).increment(0);
    for field in FIELDS {
        metrics::counter!(DRIFT, "field" => field).increment(0);
    }
}

/// Counts what an outcome gives, once it is committed.
pub(crate) fn count(outcome: &Outcome, counts: &Counts) {
    for row in outcome.ledger.iter().filter(|row| row.grant.amount > 0) {
        let counter = metrics::counter!(XP, "source" => row.grant.source);
        counts.add(counter, row.grant.amount.unsigned_abs().into());
    }
    for earned in &outcome.earned {
        counts.add(metrics::counter!(BADGES, "badge_id" => earned.badge.slug.clone()), 1);
    }
    counts.add(metrics::counter!(LEVELS), outcome.level_ups.len() as u64);
    counts.add(metrics::counter!(BROKEN), outcome.broken().count() as u64);
}

pub(crate) fn streaks_broken(count: usize) {
    metrics::counter!(BROKEN).increment(count as u64);
}

pub(crate) fn drift(field: &'static str) {
    metrics::counter!(DRIFT, "field" => field).increment(1);
}
