//! Live events: what browsers are told the moment it is true (contract `realtime.md` §5, §6).
//!
//! A domain publishes after its commit; every replica's bridge delivers to its own sockets. That is best
//! effort: the facts are in the database. [`LiveEvent`] is the closed list of what may be published, so the
//! bridge's map is complete by its type. What a user must not miss while their phone sleeps
//! ([`LiveEvent::is_kept`]) also goes into a short stream of that user, from which a socket resumes.

use crate::redis::Redis;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast;

use crate::UserId;

/// Entries that a user's stream keeps.
pub const KEPT_ENTRIES: usize = 256;
/// Seconds that a user's stream outlives its newest entry.
pub const KEPT_SECONDS: u64 = 86_400;
/// The key by which a published payload names its place in the user's stream; removed before delivery.
pub const CURSOR_KEY: &str = "_cursor";
/// Messages that wait for local delivery while Redis is away.
const LOCAL_QUEUE: usize = 4096;

/// Keeps the message in the user's stream, then publishes it with its place there. Sent as it is: a Redis that had
/// forgotten it would refuse it among others that it published, and those would be published again with it.
const KEEP: &str = r#"local id = redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[3], '*', 'channel', ARGV[1], 'payload', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return redis.call('PUBLISH', ARGV[1], '{"_cursor":"' .. id .. '",' .. string.sub(ARGV[2], 2))"#;

macro_rules! live_events {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal;)+) => {
        /// Everything that may be published.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum LiveEvent {
            $($(#[doc = $doc])* $variant,)+
        }

        impl LiveEvent {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name on the wire.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The event of a name.
            #[must_use]
            pub fn of_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

live_events! {
    /// A share of the user.
    ShareSubmitted = "share_submitted";
    /// A worker of the user went on- or offline.
    WorkerStatus = "worker_status";
    /// The user's rates changed.
    HashrateUpdate = "hashrate_update";
    /// The user beat a best of theirs.
    BestDiff = "best_diff";
    /// The pool found a block.
    BlockFound = "block_found";
    /// The public feed has a new row.
    FeedItem = "feed_item";
    /// The user's dashboard numbers changed.
    StatsUpdate = "stats_update";
    /// An upcoming event is near; for one user or for all.
    EventReminder = "event_reminder";
    /// A lottery was drawn.
    LotteryDrawn = "lottery_drawn";
    /// The user earned a badge.
    BadgeEarned = "badge_earned";
    /// The user gained experience.
    XpGained = "xp_gained";
    /// The user reached a level.
    LevelUp = "level_up";
    /// The user's streak changed.
    StreakUpdate = "streak_update";
    /// A leaderboard was rebuilt.
    LeaderboardUpdate = "leaderboard_update";
    /// The user's rank changed.
    RankChanged = "rank_changed";
    /// A match of the World Cup changed.
    MatchUpdate = "match_update";
    /// A league changed.
    LeagueUpdate = "league_update";
    /// The user has a notification.
    Notification = "notification";
    /// A passing message for the user; nothing is stored.
    Toast = "toast";
}

impl LiveEvent {
    /// Whether the user's stream keeps it for a socket that resumes.
    #[must_use]
    pub fn is_kept(self) -> bool {
        matches!(
            self,
            Self::BestDiff
                | Self::BlockFound
                | Self::BadgeEarned
                | Self::LevelUp
                | Self::StreakUpdate
                | Self::RankChanged
                | Self::LotteryDrawn
                | Self::Notification
        )
    }

    /// The Redis channel of the event, if it does not travel on the user's own channel.
    #[must_use]
    pub fn redis_channel(self) -> Option<String> {
        match self {
            Self::Notification | Self::Toast => None,
            _ => Some(format!("pubsub:{}", self.name())),
        }
    }
}

/// The Redis channel of a user.
#[must_use]
pub fn user_channel(user: UserId) -> String {
    format!("ws:user:{user}")
}

/// The key of a user's stream.
#[must_use]
pub fn kept_key(user: UserId) -> String {
    format!("ws:kept:{user}")
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveMessage {
    /// What.
    pub event: LiveEvent,
    /// Whose it is: the owner of a personal event; of a global one the user in whose stream it is kept.
    pub user: Option<UserId>,
    /// The fields of the event. Of a personal one on a `pubsub:` channel, `user_id` is added.
    pub fields: Map<String, Value>,
}

impl LiveMessage {
    /// A message of `user`. `fields` is a JSON object.
    #[must_use]
    pub fn personal(event: LiveEvent, user: UserId, fields: Value) -> Self {
        Self { event, user: Some(user), fields: object(fields) }
    }

    /// A message for everybody. `fields` is a JSON object.
    #[must_use]
    pub fn global(event: LiveEvent, fields: Value) -> Self {
        Self { event, user: None, fields: object(fields) }
    }

    /// A message for everybody that is kept for `user`, whom it concerns most: the finder of a block, the
    /// winner of a lottery. `fields` name that user themselves.
    #[must_use]
    pub fn global_kept_for(event: LiveEvent, user: Option<UserId>, fields: Value) -> Self {
        Self { event, user, fields: object(fields) }
    }

    /// The Redis channel and the payload.
    #[must_use]
    pub fn wire(&self) -> (String, Value) {
        match (self.event.redis_channel(), self.user) {
            (Some(channel), Some(user)) if !self.fields.contains_key("finder_user_id") => {
                let mut fields = self.fields.clone();
                fields.insert("user_id".to_owned(), json!(user));
                (channel, Value::Object(fields))
            }
            (Some(channel), _) => (channel, Value::Object(self.fields.clone())),
            (None, user) => (
                user_channel(user.unwrap_or(UserId(0))),
                json!({ "event": self.event.name(), "data": self.fields }),
            ),
        }
    }
}

fn object(fields: Value) -> Map<String, Value> {
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Publishes live events. Clones share everything.
#[derive(Clone)]
pub struct LiveBus {
    redis: Redis,
    local: broadcast::Sender<LiveMessage>,
}

impl LiveBus {
    /// A bus on a Redis connection; connects to nothing yet.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { redis, local: broadcast::channel(LOCAL_QUEUE).0 }
    }

    /// What could not be published: for the sockets of this process.
    #[must_use]
    pub fn local(&self) -> broadcast::Receiver<LiveMessage> {
        self.local.subscribe()
    }

    /// Publishes in one round trip, in order. A failure loses what is live, never a fact: this process's own
    /// sockets still get it.
    pub async fn publish(&self, messages: &[LiveMessage]) {
        if messages.is_empty() {
            return;
        }
        let published = run(&mut self.redis.clone(), pipeline(messages)).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "live events were not published; local sockets get them");
            Vec::new()
        });
        let missed = messages.iter().enumerate().filter(|(number, _)| published.get(*number) != Some(&true));
        for (_, message) in missed {
            // Nobody listens where no sockets are served.
            let _ = self.local.send(message.clone());
        }
    }
}

/// Runs a pipeline of [`pipeline`] or [`add`]: which of its messages were published. A full Redis keeps nothing, and
/// what is to be kept is then not published either.
///
/// # Errors
/// When Redis does not answer.
pub async fn run(
    redis: &mut impl redis::aio::ConnectionLike,
    mut pipe: redis::Pipeline,
) -> redis::RedisResult<Vec<bool>> {
    let replies: Vec<redis::RedisResult<i64>> = pipe.ignore_errors().query_async(redis).await?;
    Ok(replies.iter().map(Result::is_ok).collect())
}

/// The commands that publish `messages`.
#[must_use]
pub fn pipeline(messages: &[LiveMessage]) -> redis::Pipeline {
    let mut pipe = redis::Pipeline::with_capacity(messages.len());
    for message in messages {
        add(&mut pipe, message);
    }
    pipe
}

/// Adds the command that publishes `message`.
pub fn add(pipe: &mut redis::Pipeline, message: &LiveMessage) {
    let (channel, payload) = message.wire();
    match message.user.filter(|_| message.event.is_kept()) {
        Some(user) => {
            // sql-audit: allow(S5) the constant above, for its reason
            pipe.cmd("EVAL")
                .arg(KEEP)
                .arg(1)
                .arg(kept_key(user))
                .arg(channel)
                .arg(payload.to_string())
                .arg(KEPT_ENTRIES)
                .arg(KEPT_SECONDS);
        }
        None => {
            pipe.publish(channel, payload.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_events_are_one_to_one() {
        for event in LiveEvent::ALL {
            assert_eq!(LiveEvent::of_name(event.name()), Some(*event));
        }
        assert_eq!(LiveEvent::of_name("share"), None);
    }

    #[test]
    fn a_personal_event_names_its_owner_and_a_notification_travels_on_his_channel() {
        let badge = LiveMessage::personal(LiveEvent::BadgeEarned, UserId(7), json!({ "badge_slug": "x" }));
        assert_eq!(
            badge.wire(),
            ("pubsub:badge_earned".to_owned(), json!({ "badge_slug": "x", "user_id": 7 }))
        );
        let notice = LiveMessage::personal(LiveEvent::Notification, UserId(7), json!({ "id": "1" }));
        let payload = json!({ "event": "notification", "data": { "id": "1" } });
        assert_eq!(notice.wire(), ("ws:user:7".to_owned(), payload));
        let block = LiveMessage::global_kept_for(
            LiveEvent::BlockFound,
            Some(UserId(7)),
            json!({ "height": 1, "finder_user_id": 7 }),
        );
        assert_eq!(block.wire().1, json!({ "height": 1, "finder_user_id": 7 }));
    }
}
