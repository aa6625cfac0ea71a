//! Domain events: how domains tell each other what happened (contract `README.md` (c), `mining.md` §3.5).
//!
//! An event is written in the transaction that caused it, one row per consuming domain. Its key is
//! unique per consumer, so writing it again changes nothing.

use std::borrow::Cow;
use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::UserId;
use crate::metrics::Counts;

/// Something that happened in one domain and that others react to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum DomainEvent {
    /// Ingest has given a block to its finder.
    BlockAttributed {
        /// Row in `blocks`.
        block_id: i64,
        /// Block height.
        height: i32,
        /// The finder.
        user_id: UserId,
        /// When the block was found.
        found_at: DateTime<Utc>,
        /// Reward in satoshi: as published, else the subsidy.
        reward_sats: i64,
    },
    /// A user was created.
    UserRegistered {
        /// The new user.
        user_id: UserId,
        /// ISO 3166-1 alpha-2, if given.
        country_code: Option<String>,
    },
    /// The user's current address became proven: made by [`DomainEvent::address_proven`].
    AddressProven {
        /// The holder.
        user_id: UserId,
        /// The address.
        btc_address: String,
        /// Tells two proofs of one user apart; part of the key only.
        #[serde(skip)]
        occurrence: Uuid,
    },
    /// Privacy settings changed, or a ban ended: made by [`DomainEvent::privacy_changed`].
    PrivacyChanged {
        /// Whose.
        user_id: UserId,
        /// Tells two changes of one user apart; part of the key only.
        #[serde(skip)]
        occurrence: Uuid,
    },
    /// A user was banned: made by [`DomainEvent::user_banned`].
    UserBanned {
        /// Who.
        user_id: UserId,
        /// Tells two bans of one user apart; part of the key only.
        #[serde(skip)]
        occurrence: Uuid,
    },
    /// An account was deleted: every domain clears its own rows.
    UserDeleted {
        /// Who it was.
        user_id: UserId,
        /// The former address.
        btc_address: Option<String>,
    },
    /// The user earned a badge.
    BadgeEarned {
        /// Who.
        user_id: UserId,
        /// Which badge.
        slug: String,
        /// Its name.
        name: String,
        /// common, rare, epic or legendary.
        rarity: String,
        /// What it paid.
        xp_reward: i32,
        /// Of a badge that can be earned again, the period; else empty.
        period_key: String,
        /// When.
        earned_at: DateTime<Utc>,
    },
    /// The user gave a miner to somebody new.
    GiftRedeemed {
        /// The giver.
        user_id: UserId,
        /// The gift, or an operator's reference.
        gift_id: String,
    },
    /// An operator verified the user's node.
    NodeVerified {
        /// Whose.
        user_id: UserId,
        /// full, pruned or archival.
        kind: Cow<'static, str>,
        /// The operator's reference.
        reference: String,
    },
    /// A week's lottery was drawn; a large draw is several events.
    LotteryDrawn {
        /// Row in `lottery_draws`.
        draw_id: i64,
        /// The week.
        week_iso: String,
        /// The first instant after it.
        week_end: DateTime<Utc>,
        /// When it was drawn.
        drawn_at: DateTime<Utc>,
        /// Entries of the whole draw.
        total_participants: i32,
        /// Results of this event's part.
        results: Vec<LotteryResult>,
        /// Which part, from 0; part of the key only.
        #[serde(skip)]
        chunk: usize,
    },
    /// A game was played for the first time in a week.
    GamePlayed {
        /// Who.
        user_id: UserId,
        /// Row in `game_sessions`.
        session_id: i64,
        /// As it is stored.
        game_type: Cow<'static, str>,
        /// The week.
        week_iso: String,
        /// The player's rank at that moment: the live one in a week that runs, else the draw's; 0 without one.
        weekly_rank: i32,
    },
    /// An operator corrected the user's experience.
    XpAdjusted {
        /// Whose.
        user_id: UserId,
        /// How much; may be negative.
        amount: i32,
        /// The operator's reference.
        reference: String,
        /// Why, in words.
        reason: String,
    },
    /// A row for `notifications`, written by the domain that owns them.
    Notify(Notification),
}

/// A participant's result in a draw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LotteryResult {
    /// Who.
    pub user_id: i64,
    /// From 1.
    pub rank: i32,
    /// Per cent of the participants who are behind.
    pub percentile: f64,
    /// Experience.
    pub xp: i32,
}

/// A row of `notifications` (contract `social.md` §1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// Who is told.
    pub user_id: UserId,
    /// mining, gamification, competition, social or system.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// What happened, within its kind.
    pub subtype: Cow<'static, str>,
    /// At most 256 characters.
    pub title: String,
    /// At most 1,000 characters.
    pub description: Option<String>,
    /// A path of the dashboard.
    pub action_url: Option<Cow<'static, str>>,
    /// The words on its button.
    pub action_label: Option<Cow<'static, str>>,
    /// One notification per user and key.
    pub dedupe_key: String,
    /// The instant of the cause.
    pub created_at: DateTime<Utc>,
}

impl DomainEvent {
    /// The current address of `user_id` became proven.
    #[must_use]
    pub fn address_proven(user_id: UserId, btc_address: String) -> Self {
        Self::AddressProven { user_id, btc_address, occurrence: Uuid::now_v7() }
    }

    /// Privacy settings of `user_id` changed, or a ban ended.
    #[must_use]
    pub fn privacy_changed(user_id: UserId) -> Self {
        Self::PrivacyChanged { user_id, occurrence: Uuid::now_v7() }
    }

    /// `user_id` was banned.
    #[must_use]
    pub fn user_banned(user_id: UserId) -> Self {
        Self::UserBanned { user_id, occurrence: Uuid::now_v7() }
    }

    /// The event's name.
    #[must_use]
    pub fn topic(&self) -> &'static str {
        match self {
            Self::BlockAttributed { .. } => "BlockAttributed",
            Self::UserRegistered { .. } => "UserRegistered",
            Self::AddressProven { .. } => "AddressProven",
            Self::PrivacyChanged { .. } => "PrivacyChanged",
            Self::UserBanned { .. } => "UserBanned",
            Self::UserDeleted { .. } => "UserDeleted",
            Self::BadgeEarned { .. } => "BadgeEarned",
            Self::GiftRedeemed { .. } => "GiftRedeemed",
            Self::NodeVerified { .. } => "NodeVerified",
            Self::XpAdjusted { .. } => "XpAdjusted",
            Self::LotteryDrawn { .. } => "LotteryDrawn",
            Self::GamePlayed { .. } => "GamePlayed",
            Self::Notify(_) => "Notify",
        }
    }

    /// `<Name>:<id>`, unique for the fact.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::BlockAttributed { block_id, .. } => format!("{}:{block_id}", self.topic()),
            Self::UserRegistered { user_id, .. } | Self::UserDeleted { user_id, .. } => {
                format!("{}:{user_id}", self.topic())
            }
            Self::AddressProven { user_id, occurrence, .. }
            | Self::PrivacyChanged { user_id, occurrence }
            | Self::UserBanned { user_id, occurrence } => {
                format!("{}:{user_id}:{}", self.topic(), occurrence.simple())
            }
            Self::BadgeEarned { user_id, slug, period_key, .. } => {
                format!("{}:{slug}:{user_id}:{period_key}", self.topic())
            }
            Self::GiftRedeemed { gift_id, .. } => format!("{}:{gift_id}", self.topic()),
            Self::NodeVerified { reference, .. } | Self::XpAdjusted { reference, .. } => {
                format!("{}:{reference}", self.topic())
            }
            Self::LotteryDrawn { draw_id, chunk, .. } => format!("{}:{draw_id}:{chunk}", self.topic()),
            Self::GamePlayed { session_id, .. } => format!("{}:{session_id}", self.topic()),
            Self::Notify(row) => format!("{}:{}:{}", self.topic(), row.user_id, row.dedupe_key),
        }
    }

    /// The user whom the event is about, if it is about one.
    #[must_use]
    pub fn user_id(&self) -> Option<UserId> {
        match self {
            Self::BlockAttributed { user_id, .. }
            | Self::UserRegistered { user_id, .. }
            | Self::AddressProven { user_id, .. }
            | Self::PrivacyChanged { user_id, .. }
            | Self::UserBanned { user_id, .. }
            | Self::UserDeleted { user_id, .. }
            | Self::BadgeEarned { user_id, .. }
            | Self::GiftRedeemed { user_id, .. }
            | Self::NodeVerified { user_id, .. }
            | Self::XpAdjusted { user_id, .. }
            | Self::GamePlayed { user_id, .. } => Some(*user_id),
            Self::LotteryDrawn { .. } => None,
            Self::Notify(row) => Some(row.user_id),
        }
    }

    /// The domains that consume it from the outbox. (Gamification sees `BlockAttributed` inside the
    /// batch's own transaction.)
    #[must_use]
    pub fn consumers(&self) -> &'static [&'static str] {
        match self {
            Self::BlockAttributed { .. }
            | Self::UserRegistered { .. }
            | Self::BadgeEarned { .. }
            | Self::Notify(_) => &["social"],
            Self::GiftRedeemed { .. } | Self::NodeVerified { .. } | Self::XpAdjusted { .. } => {
                &["gamification"]
            }
            Self::AddressProven { .. } => &["mining"],
            Self::PrivacyChanged { .. } | Self::UserBanned { .. } => &["competition", "social"],
            Self::LotteryDrawn { .. } => &["gamification", "social"],
            // Personal activity will want it.
            Self::GamePlayed { .. } => &[],
            Self::UserDeleted { .. } => {
                &["mining", "gamification", "games", "competition", "social", "education"]
            }
        }
    }
}

/// The consumers that run; events for the others wait for their domain.
pub const CONSUMERS: &[&str] = &["games", "gamification", "mining", "social"];

/// Events as they are written: an array per column, and who consumes which.
#[derive(Default)]
pub struct Rows {
    topics: Vec<&'static str>,
    keys: Vec<String>,
    users: Vec<Option<i64>>,
    payloads: Vec<String>,
    numbers: Vec<i64>,
    consumers: Vec<&'static str>,
}

impl Rows {
    /// The rows of events.
    ///
    /// # Errors
    /// When an event cannot be serialised.
    pub fn of(events: &[DomainEvent]) -> Result<Self, sqlx::Error> {
        let mut rows = Self::default();
        for (number, event) in (1_i64..).zip(events) {
            rows.topics.push(event.topic());
            rows.keys.push(event.key());
            rows.users.push(event.user_id().map(|user| user.0));
            let payload = serde_json::to_string(event);
            rows.payloads.push(payload.map_err(|error| sqlx::Error::Encode(Box::new(error)))?);
            for consumer in event.consumers() {
                rows.numbers.push(number);
                rows.consumers.push(*consumer);
            }
        }
        Ok(rows)
    }

    /// Writes them in one statement. An event that is already there is skipped.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn write(&self, conn: &mut PgConnection) -> Result<u64, sqlx::Error> {
        if self.topics.is_empty() {
            return Ok(0);
        }
        // A payload is sent and parsed once, however many consume it.
        let done = sqlx::query!(
            "WITH event AS MATERIALIZED (
                 SELECT number, topic, key, user_id, payload::JSONB AS payload
                 FROM unnest($1::TEXT[], $2::TEXT[], $3::BIGINT[], $4::TEXT[]) WITH ORDINALITY
                      AS e (topic, key, user_id, payload, number)
             )
             INSERT INTO domain_outbox (topic, event_key, consumer, user_id, payload)
             SELECT e.topic, e.key, c.consumer, e.user_id, e.payload
             FROM unnest($5::BIGINT[], $6::TEXT[]) AS c (number, consumer) JOIN event e USING (number)
             ORDER BY number, consumer
             ON CONFLICT (event_key, consumer) DO NOTHING",
            &self.topics as &[&str],
            &self.keys,
            &self.users as &[Option<i64>],
            &self.payloads,
            &self.numbers,
            &self.consumers as &[&str]
        )
        .execute(conn)
        .await?;
        Ok(done.rows_affected())
    }
}

/// Writes events for all their consumers in one statement. An event that is already there is skipped.
///
/// # Errors
/// When an event cannot be serialised or the database does not answer.
pub async fn write(conn: &mut PgConnection, events: &[DomainEvent]) -> Result<u64, sqlx::Error> {
    Rows::of(events)?.write(conn).await
}

/// Which of these keys belong to events that were written before.
///
/// # Errors
/// When the database does not answer.
pub async fn written(conn: &mut PgConnection, keys: &[String]) -> Result<HashSet<String>, sqlx::Error> {
    let rows =
        sqlx::query_scalar!("SELECT DISTINCT event_key FROM domain_outbox WHERE event_key = ANY($1)", keys);
    Ok(rows.fetch_all(conn).await?.into_iter().collect())
}

/// An event as its consumer reads it.
#[derive(Debug)]
pub struct Pending {
    /// Row id.
    pub id: i64,
    /// The event's name.
    pub topic: String,
    /// Its key.
    pub event_key: String,
    /// The user whom it is about, if it is about one.
    pub user_id: Option<UserId>,
    /// Its fields.
    pub payload: serde_json::Value,
    /// When it was written.
    pub created_at: DateTime<Utc>,
    /// What its consumer counts once its effects are committed.
    pub counts: Counts,
}

/// The consumer's oldest open event after row `after`, locked until the end of the transaction. `None` when
/// there is none or another replica is at work for this consumer: events of one consumer are taken in
/// their order, one after the other.
///
/// # Errors
/// When the database does not answer.
pub async fn take(
    conn: &mut PgConnection,
    consumer: &str,
    after: i64,
) -> Result<Option<Pending>, sqlx::Error> {
    let is_alone = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_xact_lock(hashtextextended('tbg_outbox:' || $1, 0)) AS "is_alone!""#,
        consumer
    )
    .fetch_one(&mut *conn)
    .await?;
    if !is_alone {
        return Ok(None);
    }
    let row = sqlx::query!(
        "SELECT id, topic, event_key, user_id, payload, created_at FROM domain_outbox
         WHERE consumer = $1 AND done_at IS NULL AND id > $2
         ORDER BY id LIMIT 1 FOR UPDATE",
        consumer,
        after
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Pending {
        id: row.id,
        topic: row.topic,
        event_key: row.event_key,
        user_id: row.user_id.map(UserId),
        payload: row.payload,
        created_at: row.created_at,
        counts: Counts::default(),
    }))
}

/// Marks an event as consumed, in the transaction of its effects.
///
/// # Errors
/// When the database does not answer.
pub async fn done(conn: &mut PgConnection, id: i64, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE domain_outbox SET done_at = $2 WHERE id = $1", id, now).execute(conn).await?;
    Ok(())
}

/// What operators do. Their events stay for good, and with them the knowledge of which references were used.
const KEPT_TOPICS: [&str; 3] = ["GiftRedeemed", "NodeVerified", "XpAdjusted"];

/// Deletes up to `at_most` rows that were consumed before `before`, but for what operators did.
///
/// # Errors
/// When the database does not answer.
pub async fn prune_done(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
    at_most: i64,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        "DELETE FROM domain_outbox WHERE id IN
           (SELECT id FROM domain_outbox WHERE done_at < $1 AND topic <> ALL ($3) ORDER BY done_at LIMIT $2)",
        before,
        at_most,
        &KEPT_TOPICS as &[&str]
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
