//! Notices about workers that went missing or came back (texts: contract `social.md` §3.5).

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use tbg_core::UserId;
use tbg_core::outbox::{DomainEvent, Notification};

/// A worker is back after ten minutes or more.
pub(super) fn back(user: UserId, worker: &str, ts: DateTime<Utc>) -> DomainEvent {
    DomainEvent::Notify(Notification {
        user_id: user,
        kind: "mining".into(),
        subtype: "worker_online".into(),
        title: "Worker Online".to_owned(),
        description: Some(format!("{worker} reconnected")),
        action_url: Some("/mining/workers".into()),
        action_label: Some("View Workers".into()),
        dedupe_key: format!("worker_online:{}:{}", short_hash(worker), ts.timestamp_micros()),
        created_at: ts,
    })
}

/// A worker has been missing for thirty minutes since `since`.
pub(super) fn missing(user: UserId, worker: &str, since: DateTime<Utc>) -> DomainEvent {
    DomainEvent::Notify(Notification {
        user_id: user,
        kind: "mining".into(),
        subtype: "worker_offline".into(),
        title: "Worker Offline".to_owned(),
        description: Some(format!("{worker} has been offline for 30 minutes")),
        action_url: Some("/mining/workers".into()),
        action_label: Some("Check Workers".into()),
        dedupe_key: format!("worker_offline:{}:{}", short_hash(worker), since.timestamp_micros()),
        created_at: since + chrono::TimeDelta::minutes(30),
    })
}

/// The first 32 hexadecimal digits of the name's SHA-256: names are long, keys are not.
fn short_hash(worker: &str) -> String {
    Sha256::digest(worker).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_has_one_key() {
        let since = DateTime::from_timestamp_micros(1_771_804_800_250_000).unwrap();
        let DomainEvent::Notify(notice) = missing(UserId(1), "rig1", since) else { panic!("a notice") };
        assert_eq!(notice.description.as_deref(), Some("rig1 has been offline for 30 minutes"));
        let (kind, rest) = notice.dedupe_key.split_once(':').unwrap();
        assert_eq!((kind, rest.len()), ("worker_offline", 32 + 1 + 16));
        assert!(rest.ends_with(":1771804800250000"), "{rest}");
    }
}
