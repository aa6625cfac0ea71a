//! What identifies an event, and what a worker is called (contract `mining.md` §1, §3.4).

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::event::{EventKind, PoolEvent};

/// Longest short worker name, in characters.
const MAX_WORKER_CHARS: usize = 128;
/// Name of a worker that did not give one.
pub const DEFAULT_WORKER: &str = "default";

/// The short name of a worker: what storage, Redis keys and the API call it.
#[must_use]
pub fn short_worker_name(user: &str, worker: &str) -> String {
    let rest = if worker.is_empty() || worker == user {
        ""
    } else if let Some(rest) = worker.strip_prefix(user).filter(|_| !user.is_empty())
        && let Some(rest) = rest.strip_prefix(['.', '_'])
    {
        rest
    } else {
        worker.rsplit_once('.').map_or(worker, |(_, last)| last)
    };
    if rest.is_empty() {
        return DEFAULT_WORKER.to_owned();
    }
    rest.chars().take(MAX_WORKER_CHARS).collect()
}

/// How two events with the same key relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRule {
    /// The same key is the same event.
    Exact,
    /// The same key is the same event when the two are less than two seconds apart: the pool may emit
    /// one share several times within microseconds, while a later share may reach the same difficulty.
    Window,
}

/// An event with its identity. Cheap to clone; made where events are decoded, beside the writer.
#[derive(Clone, Debug)]
pub struct Identified {
    /// The identity.
    pub key: Uuid,
    /// How events with the same identity relate.
    pub rule: KeyRule,
    /// The event.
    pub event: Arc<PoolEvent>,
}

impl From<PoolEvent> for Identified {
    fn from(event: PoolEvent) -> Self {
        let (key, rule) = event_key(&event);
        Self { key, rule, event: Arc::new(event) }
    }
}

/// The identity of an event: the first 16 bytes of SHA-256 over its identifying fields.
#[must_use]
pub fn event_key(event: &PoolEvent) -> (Uuid, KeyRule) {
    const SEPARATOR: &str = "\u{1f}";
    let (text, rule) = match (&event.event_id, &event.kind) {
        (Some(id), _) => (["id", id].join(SEPARATOR), KeyRule::Exact),
        (None, EventKind::ShareSubmitted(share)) if share.sdiff > 0.0 => {
            let sdiff = format!("{:016x}", share.sdiff.to_bits());
            let accepted = if share.accepted { "1" } else { "0" };
            let fields = ["share_submitted", &event.user, &event.worker, &sdiff, accepted];
            (fields.join(SEPARATOR), KeyRule::Window)
        }
        (None, kind) => {
            let micros = event.ts.timestamp_micros().to_string();
            ([kind.name(), &micros, &event.user, &event.worker].join(SEPARATOR), KeyRule::Exact)
        }
    };
    let digest = Sha256::digest(text.as_bytes());
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    (Uuid::from_bytes(bytes), rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Connected, Share};
    use chrono::DateTime;

    #[test]
    fn worker_names_match_acceptance_example_5() {
        for (worker, short) in [
            ("A.rig1", "rig1"),
            ("A_rig1", "rig1"),
            ("A.rig.1", "rig.1"),
            ("A", "default"),
            ("", "default"),
            ("rig1", "rig1"),
            ("B.x", "x"),
            ("A.", "default"),
            ("B.", "default"),
            ("Arig", "Arig"),
        ] {
            assert_eq!(short_worker_name("A", worker), short, "{worker}");
        }
        assert_eq!(short_worker_name("A", &format!("A.{}", "é".repeat(200))).chars().count(), 128);
        assert_eq!(short_worker_name("", ".x"), "x");
    }

    fn event(kind: EventKind, event_id: Option<&str>) -> PoolEvent {
        PoolEvent {
            ts: DateTime::from_timestamp_micros(1_771_804_800_250_000).unwrap(),
            kind,
            source: "hosted".to_owned(),
            region: String::new(),
            event_id: event_id.map(str::to_owned),
            user: "bc1qexample".to_owned(),
            worker: "rig1".to_owned(),
            payload: "{}".to_owned(),
        }
    }

    #[test]
    fn event_keys_match_acceptance_example_3() {
        let share = Share { sdiff: 4096.5, accepted: true, ..Share::default() };
        let share = event(EventKind::ShareSubmitted(share), None);
        let connected = event(EventKind::MinerConnected(Connected::default()), None);
        let with_id = event(EventKind::AsicboostDetected, Some("0190a3b4-7c8d-7000-b123-456789abcdef"));
        for (event, key, rule) in [
            (share, "72e557a4b12b784258a19f3a23c79628", KeyRule::Window),
            (connected, "7eb93400ebe0b6f7307d0a1c724e2f7b", KeyRule::Exact),
            (with_id, "f5621042735786f69d66ad25183bb578", KeyRule::Exact),
        ] {
            let (uuid, found) = event_key(&event);
            assert_eq!((uuid.simple().to_string().as_str(), found), (key, rule));
        }
    }

    #[test]
    fn a_share_without_achieved_difficulty_is_told_apart_by_its_time() {
        let share = event(EventKind::ShareSubmitted(Share::default()), None);
        assert_eq!(event_key(&share).1, KeyRule::Exact);
    }
}
