//! Notices that ingest causes (texts: contract `social.md` §3.5).

use chrono::{DateTime, Utc};
use tbg_core::UserId;
use tbg_core::outbox::{DomainEvent, Notification};
use tbg_core::text::with_commas;

/// Records closer together than this are told once.
const SLOT_SECONDS: i64 = 600;

/// The hardest share ever of a user who had one before.
pub(super) fn personal_best(user: UserId, difficulty: f64, ts: DateTime<Utc>) -> DomainEvent {
    DomainEvent::Notify(Notification {
        user_id: user,
        kind: "mining".into(),
        subtype: "personal_best".into(),
        title: "New Best Difficulty!".to_owned(),
        description: Some(format!("{} — your highest ever", with_commas(difficulty as u128))),
        action_url: Some("/mining/difficulty".into()),
        action_label: Some("View Difficulty".into()),
        dedupe_key: format!("personal_best:{}", ts.timestamp().div_euclid(SLOT_SECONDS)),
        created_at: ts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_ten_minutes_share_a_key() {
        let told = |second: i64| {
            let ts = DateTime::from_timestamp(1_771_804_800 + second, 0).unwrap();
            let DomainEvent::Notify(notice) = personal_best(UserId(1), 4_231_847_293.9, ts) else {
                panic!("a notice")
            };
            (notice.description.unwrap(), notice.dedupe_key)
        };
        assert_eq!(told(0).0, "4,231,847,293 — your highest ever");
        assert_eq!(told(0).1, told(599).1);
        assert_ne!(told(599).1, told(600).1);
    }
}
