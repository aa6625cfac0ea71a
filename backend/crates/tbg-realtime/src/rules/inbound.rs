//! What a client may say (contract `realtime.md` §2), and the replies that need no more than the message.

use serde_json::{Map, Value, json};

use super::Channel;

/// The longest name that is echoed, in characters.
const ECHO_MAX: usize = 64;
/// Names in one `channels`.
const CHANNELS_MAX: usize = 10;
/// How deep a message may be nested.
const DEPTH_MAX: usize = 8;

/// A place in a user's stream: milliseconds and sequence.
pub(crate) type Since = (u64, u64);

/// A message that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Inbound {
    /// Subscribe (true) or unsubscribe; with the reply.
    Channels { channels: Vec<Channel>, subscribe: bool, reply: Value },
    /// Answered by a pong.
    Ping,
    /// An answer to an application ping; not answered.
    Pong,
    /// Mark a notification as read.
    MarkRead(i64),
    /// Deliver what was missed since a cursor, and name cursors from now on.
    Resume(Option<Since>),
}

/// The message in `text`, or the error to reply.
pub(crate) fn parse(text: &str) -> Result<Inbound, Value> {
    let Ok(Value::Object(message)) = serde_json::from_str(text) else { return Err(invalid_json()) };
    if message.values().any(|value| depth(value) >= DEPTH_MAX) {
        return Err(invalid_json());
    }
    let verb = match message.get("action") {
        None | Some(Value::Null) => message.get("type").filter(|value| !value.is_null()),
        verb => verb,
    };
    match verb.and_then(Value::as_str) {
        Some("subscribe") => channels(&message, true),
        Some("unsubscribe") => channels(&message, false),
        Some("ping") => Ok(Inbound::Ping),
        Some("pong") => Ok(Inbound::Pong),
        Some("mark_read") => match message.get("id").and_then(id) {
            Some(id) => Ok(Inbound::MarkRead(id)),
            None => Err(error("not_found", "No such notification")),
        },
        Some("resume") => match message.get("since") {
            None | Some(Value::Null) => Ok(Inbound::Resume(None)),
            Some(since) => match since.as_str().and_then(cursor) {
                Some(since) => Ok(Inbound::Resume(Some(since))),
                None => Err(error("invalid_cursor", "Invalid cursor")),
            },
        },
        _ => Err(error("unknown_action", &format!("Unknown action: {}", verb.map(echo).unwrap_or_default()))),
    }
}

fn channels(message: &Map<String, Value>, subscribe: bool) -> Result<Inbound, Value> {
    let word = if subscribe { "subscribed" } else { "unsubscribed" };
    match message.get("channels") {
        None => {
            let name = message.get("channel").unwrap_or(&Value::Null);
            let channel = channel(name)?;
            let reply = json!({ "type": word, "channel": channel.name() });
            Ok(Inbound::Channels { channels: vec![channel], subscribe, reply })
        }
        Some(Value::Array(names)) if (1..=CHANNELS_MAX).contains(&names.len()) => {
            let channels = names.iter().map(channel).collect::<Result<Vec<_>, _>>()?;
            let names: Vec<&str> = channels.iter().map(|channel| channel.name()).collect();
            let reply = json!({ "type": word, "channels": names });
            Ok(Inbound::Channels { channels, subscribe, reply })
        }
        Some(_) => Err(invalid_channel("")),
    }
}

fn channel(name: &Value) -> Result<Channel, Value> {
    name.as_str().and_then(Channel::of_name).ok_or_else(|| invalid_channel(&echo(name)))
}

/// The text of a value as it may be repeated to whoever sent it.
fn echo(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars().filter(|letter| !letter.is_control()).take(ECHO_MAX).collect()
}

fn id(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_i64(),
    }
}

/// `milliseconds-sequence`.
pub(super) fn cursor(text: &str) -> Option<Since> {
    let (milliseconds, sequence) = text.split_once('-')?;
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(milliseconds) || !plain(sequence) {
        return None;
    }
    Some((milliseconds.parse().ok()?, sequence.parse().ok()?))
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn invalid_json() -> Value {
    error("invalid_json", "Invalid JSON")
}

fn invalid_channel(name: &str) -> Value {
    error("invalid_channel", &format!("Invalid channel: {name}"))
}

/// An error reply.
pub(crate) fn error(code: &str, message: &str) -> Value {
    json!({ "type": "error", "message": message, "code": code })
}

/// The error reply of a message over the limit.
pub(crate) fn rate_limited(retry_after_s: u64) -> Value {
    let mut reply = error("rate_limited", "Rate limit exceeded");
    reply["retry_after"] = json!(retry_after_s.max(1));
    reply
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_type_stands_in_for_an_absent_action_only() {
        assert_eq!(parse(r#"{"type":"ping"}"#), Ok(Inbound::Ping));
        assert_eq!(parse(r#"{"action":"ping","type":"x"}"#), Ok(Inbound::Ping));
        let refused = parse(r#"{"action":"x","type":"ping"}"#).unwrap_err();
        assert_eq!(refused["message"], "Unknown action: x");
    }

    #[test]
    fn eight_levels_are_deep_enough() {
        let nested = |levels: usize| {
            format!(r#"{{"action":"ping","x":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1))
        };
        assert_eq!(parse(&nested(8)), Ok(Inbound::Ping));
        assert_eq!(parse(&nested(9)).unwrap_err()["code"], "invalid_json");
    }

    #[test]
    fn cursors_are_two_plain_numbers() {
        assert_eq!(cursor("1-2"), Some((1, 2)));
        for bad in ["", "1", "-", "1-", "+1-2", "1-2-3", "x-1", "99999999999999999999-1"] {
            assert_eq!(cursor(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_is_answered_within_bounds(text in "\\PC{0,300}") {
            if let Err(reply) = parse(&text) {
                prop_assert!(reply["message"].as_str().unwrap().chars().count() <= 100);
            }
        }
    }
}
