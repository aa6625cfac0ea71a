//! From a Redis channel and its payload to frames and who gets them (contract `realtime.md` §6).
//!
//! `type` is always the event of the channel, whatever a payload calls itself; keys that only the bridge needs
//! are taken out; a personal event without an owner is a fault, never a broadcast.

use axum::extract::ws::Utf8Bytes;
use serde_json::{Map, Value, json};
use tbg_core::UserId;
use tbg_core::live::{CURSOR_KEY, LiveEvent};

use super::inbound::cursor;
use super::{Channel, Since};

/// The largest payload and the largest frame.
pub(crate) const RENDERED_MAX_BYTES: usize = 64 * 1024;
/// Room for what a frame adds to the fields of its payload.
const ENVELOPE_BYTES: usize = 256;

/// Keys by which the bridge finds who is meant; nobody else reads them.
const BRIDGE_ONLY: [&str; 6] = ["user_id", "user_ids", "finder_user_id", "user", "btc_address", CURSOR_KEY];
/// What only the finder of a block reads beside his address.
const FINDERS_OWN: [&str; 2] = ["worker", "celebration_id"];

/// Why a payload is not delivered. The words are the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("too_large")]
    TooLarge,
    #[error("invalid_json")]
    InvalidJson,
    #[error("unknown_channel")]
    UnknownChannel,
    #[error("no_owner")]
    NoOwner,
}

/// Whose an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    User(UserId),
    /// As older publishers name it; known for connected users only.
    Address(String),
}

/// Who gets which frame.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Audience {
    /// The owner's sockets.
    Owner(Owner, Utf8Bytes),
    /// All sockets; the owner's, if there is one, get their own frame.
    Everyone { frame: Utf8Bytes, own: Option<(Owner, Utf8Bytes)> },
}

/// What is to be done about a payload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Delivery {
    pub channel: Channel,
    /// None for an event that is on nobody's list.
    pub event: Option<LiveEvent>,
    pub audience: Audience,
    /// Its place in the owner's stream, if it is kept.
    pub cursor: Option<Since>,
}

/// What `payload`, published on the Redis channel `topic`, means.
pub(crate) fn deliver(topic: &str, payload: &[u8]) -> Result<Delivery, Fault> {
    if payload.len() > RENDERED_MAX_BYTES - ENVELOPE_BYTES {
        return Err(Fault::TooLarge);
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice(payload) else { return Err(Fault::InvalidJson) };
    if let Some(name) = topic.strip_prefix("pubsub:") {
        return flat(LiveEvent::of_name(name).ok_or(Fault::UnknownChannel)?, fields);
    }
    if let Some(suffix) = topic.strip_prefix("ws:user:") {
        return on_users_channel(owner_of_suffix(suffix)?, fields);
    }
    if topic == "ws:global" { on_global_channel(fields) } else { Err(Fault::UnknownChannel) }
}

/// The owner's frame of a message of their own stream.
pub(crate) fn deliver_kept(topic: &str, payload: &str) -> Result<(Channel, Utf8Bytes), Fault> {
    let delivery = deliver(topic, payload.as_bytes())?;
    let frame = match delivery.audience {
        Audience::Owner(_, frame) | Audience::Everyone { own: Some((_, frame)), .. } => frame,
        Audience::Everyone { frame, own: None } => frame,
    };
    Ok((delivery.channel, frame))
}

fn flat(event: LiveEvent, mut fields: Map<String, Value>) -> Result<Delivery, Fault> {
    let owner = owner(&fields);
    let cursor = fields.get(CURSOR_KEY).and_then(Value::as_str).and_then(cursor);
    let address = fields.get("user").filter(|user| user.is_string()).cloned();
    strip(&mut fields);
    let audience = match event {
        LiveEvent::ShareSubmitted
        | LiveEvent::WorkerStatus
        | LiveEvent::HashrateUpdate
        | LiveEvent::BestDiff
        | LiveEvent::StatsUpdate
        | LiveEvent::BadgeEarned
        | LiveEvent::XpGained
        | LiveEvent::LevelUp
        | LiveEvent::StreakUpdate
        | LiveEvent::RankChanged
        | LiveEvent::Notification
        | LiveEvent::Toast => Audience::Owner(owner.ok_or(Fault::NoOwner)?, frame(event, fields)),
        LiveEvent::EventReminder => match owner {
            Some(owner) => Audience::Owner(owner, frame(event, fields)),
            None => Audience::Everyone { frame: frame(event, fields), own: None },
        },
        LiveEvent::BlockFound => block_found(owner, address, fields),
        LiveEvent::LotteryDrawn => {
            let with = |is_winner: bool| {
                let mut fields = fields.clone();
                fields.insert("is_winner".to_owned(), json!(is_winner));
                frame(event, fields)
            };
            Audience::Everyone { frame: with(false), own: owner.map(|owner| (owner, with(true))) }
        }
        LiveEvent::FeedItem
        | LiveEvent::LeaderboardUpdate
        | LiveEvent::MatchUpdate
        | LiveEvent::LeagueUpdate => Audience::Everyone { frame: frame(event, fields), own: None },
    };
    Ok(Delivery { channel: Channel::of(event), event: Some(event), audience, cursor })
}

fn block_found(owner: Option<Owner>, address: Option<Value>, fields: Map<String, Value>) -> Audience {
    let mut others = fields.clone();
    for key in FINDERS_OWN {
        others.remove(key);
    }
    others.insert("is_mine".to_owned(), json!(false));
    let own = owner.map(|owner| {
        let mut own = fields;
        own.insert("is_mine".to_owned(), json!(true));
        own.extend(address.map(|address| ("user".to_owned(), address)));
        (owner, frame(LiveEvent::BlockFound, own))
    });
    Audience::Everyone { frame: frame(LiveEvent::BlockFound, others), own }
}

fn on_users_channel(owner: Owner, mut fields: Map<String, Value>) -> Result<Delivery, Fault> {
    if fields.get("event").is_none() && fields.get("type").and_then(Value::as_str) == Some("share") {
        let share = Map::from_iter([
            ("worker".to_owned(), fields.remove("worker").unwrap_or_default()),
            ("share_diff".to_owned(), fields.remove("diff").unwrap_or_default()),
            ("accepted".to_owned(), fields.remove("accepted").unwrap_or_default()),
            ("time".to_owned(), fields.remove("time").unwrap_or_default()),
        ]);
        let event = LiveEvent::ShareSubmitted;
        let audience = Audience::Owner(owner, frame(event, share));
        return Ok(Delivery { channel: Channel::Mining, event: Some(event), audience, cursor: None });
    }
    let cursor = fields.get(CURSOR_KEY).and_then(Value::as_str).and_then(cursor);
    let (channel, name, data) = addressed(&mut fields, Some(Channel::Notifications))?;
    let audience = Audience::Owner(owner, frame_on(channel, &name, data));
    Ok(Delivery { channel, event: LiveEvent::of_name(&name), audience, cursor })
}

fn on_global_channel(mut fields: Map<String, Value>) -> Result<Delivery, Fault> {
    let (channel, name, data) = addressed(&mut fields, None)?;
    let audience = Audience::Everyone { frame: frame_on(channel, &name, data), own: None };
    Ok(Delivery { channel, event: LiveEvent::of_name(&name), audience, cursor: None })
}

/// Channel, event and data of a payload that names them.
fn addressed(
    fields: &mut Map<String, Value>,
    default: Option<Channel>,
) -> Result<(Channel, String, Map<String, Value>), Fault> {
    let channel = match fields.get("channel") {
        None => default.ok_or(Fault::UnknownChannel)?,
        Some(name) => name.as_str().and_then(Channel::of_name).ok_or(Fault::UnknownChannel)?,
    };
    let (Some(Value::String(name)), Some(Value::Object(mut data))) =
        (fields.remove("event"), fields.remove("data"))
    else {
        return Err(Fault::InvalidJson);
    };
    strip(&mut data);
    Ok((channel, name, data))
}

fn owner_of_suffix(suffix: &str) -> Result<Owner, Fault> {
    if suffix.bytes().all(|byte| byte.is_ascii_digit()) {
        return suffix
            .parse()
            .ok()
            .filter(|id| *id > 0)
            .map(|id| Owner::User(UserId(id)))
            .ok_or(Fault::NoOwner);
    }
    Ok(Owner::Address(suffix.to_owned()))
}

/// The user if named by id, else by address.
fn owner(fields: &Map<String, Value>) -> Option<Owner> {
    let by_id = ["user_id", "finder_user_id"]
        .into_iter()
        .find_map(|key| fields.get(key).and_then(Value::as_i64).filter(|id| *id > 0));
    let by_address =
        || ["user", "btc_address"].into_iter().find_map(|key| fields.get(key).and_then(Value::as_str));
    by_id
        .map(|id| Owner::User(UserId(id)))
        .or_else(|| by_address().map(|text| Owner::Address(text.to_owned())))
}

fn strip(fields: &mut Map<String, Value>) {
    for key in BRIDGE_ONLY {
        fields.remove(key);
    }
}

/// A frame on the event's own channel.
fn frame(event: LiveEvent, fields: Map<String, Value>) -> Utf8Bytes {
    frame_on(Channel::of(event), event.name(), fields)
}

fn frame_on(channel: Channel, name: &str, mut fields: Map<String, Value>) -> Utf8Bytes {
    if channel == Channel::Notifications {
        fields = Map::from_iter([("payload".to_owned(), Value::Object(fields))]);
    }
    fields.insert("type".to_owned(), json!(name));
    json!({ "channel": channel.name(), "data": fields }).to_string().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tbg_core::live::LiveMessage;

    use super::*;

    fn json_of(frame: &Utf8Bytes) -> Value {
        serde_json::from_str(frame).unwrap()
    }

    #[test]
    fn whatever_is_published_has_a_place() {
        for event in LiveEvent::ALL {
            let (topic, payload) = LiveMessage::personal(*event, UserId(7), json!({ "x": 1 })).wire();
            let delivery = deliver(&topic, payload.to_string().as_bytes()).unwrap();
            assert_eq!((delivery.channel, delivery.event), (Channel::of(*event), Some(*event)));
        }
    }

    #[test]
    fn a_personal_event_without_owner_is_a_fault() {
        assert_eq!(deliver("pubsub:best_diff", br#"{"new_best":5}"#), Err(Fault::NoOwner));
        assert_eq!(deliver("pubsub:best_diff", br#"{"user_id":0}"#), Err(Fault::NoOwner));
        assert_eq!(deliver("ws:user:0", br#"{"event":"x","data":{}}"#), Err(Fault::NoOwner));
        assert_eq!(deliver("pubsub:x", b"{}"), Err(Fault::UnknownChannel));
        assert_eq!(deliver("pubsub:best_diff", b"[]"), Err(Fault::InvalidJson));
        assert_eq!(deliver("pubsub:best_diff", &[b' '; 70_000]), Err(Fault::TooLarge));
    }

    #[test]
    fn a_kept_message_names_its_place_and_nobody_reads_it() {
        let payload = br#"{"_cursor":"5-1","user_id":7,"badge_slug":"x"}"#;
        let delivery = deliver("pubsub:badge_earned", payload).unwrap();
        assert_eq!(delivery.cursor, Some((5, 1)));
        let Audience::Owner(owner, frame) = delivery.audience else { panic!("personal") };
        assert_eq!(owner, Owner::User(UserId(7)));
        assert_eq!(json_of(&frame)["data"], json!({ "type": "badge_earned", "badge_slug": "x" }));
    }

    proptest! {
        #[test]
        fn no_frame_of_others_tells_who_found(worker in "[a-z]{1,8}", id in 1_i64..1000, celebration in 1_i64..9) {
            let block = json!({
                "finder_user_id": id, "user": "bc1qx", "worker": worker, "celebration_id": celebration,
                "height": 1, "finder": "A",
            });
            let delivery = deliver("pubsub:block_found", block.to_string().as_bytes()).unwrap();
            let Audience::Everyone { frame, own: Some((owner, own)) } = delivery.audience else {
                panic!("both")
            };
            prop_assert_eq!(owner, Owner::User(UserId(id)));
            prop_assert_eq!(
                json_of(&frame)["data"].clone(),
                json!({ "type": "block_found", "height": 1, "finder": "A", "is_mine": false })
            );
            prop_assert_eq!(&json_of(&own)["data"]["worker"], &json!(worker));
        }
    }
}
