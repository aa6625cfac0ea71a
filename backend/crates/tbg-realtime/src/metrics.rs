//! The numbers of sockets (contract `realtime.md` §10). All labels come from closed sets.

use tbg_core::live::LiveEvent;

const ACTIVE: &str = "tbg_ws_active_connections";
const SENT: &str = "tbg_ws_messages_sent_total";
const DROPPED: &str = "tbg_ws_messages_dropped_total";
const CLOSES: &str = "tbg_ws_closes_total";
const HANDSHAKES: &str = "tbg_ws_handshakes_total";
const BRIDGE_UP: &str = "tbg_ws_bridge_up";
const BRIDGE_FAULTS: &str = "tbg_ws_bridge_faults_total";

/// How sockets end. A client may close with any code: those that are not here count as `other`.
const CODES: [(u16, &str); 13] = [
    (1000, "1000"),
    (1001, "1001"),
    (1003, "1003"),
    (1005, "1005"),
    (1006, "1006"),
    (1007, "1007"),
    (1009, "1009"),
    (1011, "1011"),
    (1013, "1013"),
    (4001, "4001"),
    (4008, "4008"),
    (4009, "4009"),
    (4029, "4029"),
];
/// What comes of a handshake: `accepted`, or the lower-case code of a refusal.
const RESULTS: [&str; 11] = [
    "accepted",
    "auth_required",
    "auth_token_expired",
    "auth_token_invalid",
    "auth_token_revoked",
    "account_banned",
    "origin_not_allowed",
    "rate_limited",
    "ws_too_many_connections",
    "service_unavailable",
    "other",
];

/// Makes the numbers visible before anything happens.
pub(crate) fn register() {
    metrics::describe_gauge!(ACTIVE, "Open sockets.");
    metrics::describe_counter!(SENT, "Channel messages written to sockets.");
    metrics::describe_counter!(DROPPED, "Channel messages dropped for slow readers.");
    metrics::describe_counter!(CLOSES, "Sockets closed, by code; 1006 for those that broke.");
    metrics::describe_counter!(HANDSHAKES, "Attempts to open a socket.");
    metrics::describe_gauge!(BRIDGE_UP, "1 while this replica hears what is published.");
    metrics::describe_counter!(BRIDGE_FAULTS, "Published payloads that were not delivered.");
    active(0);
    bridge_up(false);
    for event in LiveEvent::ALL.iter().map(|event| event.name()).chain(["other"]) {
        metrics::counter!(SENT, "event_type" => event).absolute(0);
        metrics::counter!(DROPPED, "event_type" => event).absolute(0);
    }
    for code in CODES.map(|(_, label)| label).into_iter().chain(["other"]) {
        metrics::counter!(CLOSES, "code" => code).absolute(0);
    }
    for result in RESULTS {
        metrics::counter!(HANDSHAKES, "result" => result).absolute(0);
    }
    for reason in ["too_large", "invalid_json", "unknown_channel", "no_owner"] {
        metrics::counter!(BRIDGE_FAULTS, "reason" => reason).absolute(0);
    }
}

pub(crate) fn active(count: usize) {
    metrics::gauge!(ACTIVE).set(count as f64);
    tbg_core::told::sockets(count);
}

pub(crate) fn sent(event: &'static str) {
    metrics::counter!(SENT, "event_type" => event).increment(1);
}

pub(crate) fn dropped(event: &'static str) {
    metrics::counter!(DROPPED, "event_type" => event).increment(1);
}

pub(crate) fn closed(code: u16) {
    let label = CODES.into_iter().find(|(known, _)| *known == code).map_or("other", |(_, label)| label);
    metrics::counter!(CLOSES, "code" => label).increment(1);
}

/// `result` is one of [`RESULTS`].
pub(crate) fn handshake(result: &'static str) {
    metrics::counter!(HANDSHAKES, "result" => result).increment(1);
}

pub(crate) fn bridge_up(is_up: bool) {
    metrics::gauge!(BRIDGE_UP).set(f64::from(u8::from(is_up)));
}

pub(crate) fn bridge_fault(reason: String) {
    metrics::counter!(BRIDGE_FAULTS, "reason" => reason).increment(1);
}
