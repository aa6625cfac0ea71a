//! Notices that ingest causes (texts: contract `social.md` §3.5).

use chrono::{DateTime, Utc};
use tbg_core::UserId;
use tbg_core::outbox::{DomainEvent, Notification};

/// Records closer together than this are told once.
const SLOT_SECONDS: i64 = 600;

/// The hardest share ever of a user who had one before.
pub(super) fn personal_best(user: UserId, difficulty: f64, ts: DateTime<Utc>) -> DomainEvent {
    DomainEvent::Notify(Notification {
        user_id: user,
        kind: "mining".into(),
        subtype: "personal_best".into(),
        title: "New Best Difficulty!".to_owned(),
        description: Some(format!("{} — your highest ever", thousands(difficulty))),
        action_url: Some("/mining/difficulty".into()),
        action_label: Some("View Difficulty".into()),
        dedupe_key: format!("personal_best:{}", ts.timestamp().div_euclid(SLOT_SECONDS)),
        created_at: ts,
    })
}

/// The whole part with commas between thousands.
fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.floor());
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_told_in_thousands() {
        assert_eq!(thousands(4_231_847_293.9), "4,231,847,293");
        assert_eq!(thousands(999.0), "999");
    }
}
