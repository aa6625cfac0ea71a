//! Domain events: how domains tell each other what happened (contract `README.md` (c), `mining.md` §3.5).
//!
//! An event is written in the transaction that caused it, one row per consuming domain. Its key is
//! unique per consumer, so writing it again changes nothing.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;

use crate::UserId;

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
}

impl DomainEvent {
    /// The event's name.
    #[must_use]
    pub fn topic(&self) -> &'static str {
        match self {
            Self::BlockAttributed { .. } => "BlockAttributed",
        }
    }

    /// `<Name>:<id>`, unique for the fact.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::BlockAttributed { block_id, .. } => format!("{}:{block_id}", self.topic()),
        }
    }

    /// The user whom the event is about, if it is about one.
    #[must_use]
    pub fn user_id(&self) -> Option<UserId> {
        match self {
            Self::BlockAttributed { user_id, .. } => Some(*user_id),
        }
    }

    /// The domains that consume it from the outbox. (Gamification sees `BlockAttributed` inside the
    /// batch's own transaction.)
    #[must_use]
    pub fn consumers(&self) -> &'static [&'static str] {
        match self {
            Self::BlockAttributed { .. } => &["social"],
        }
    }
}

/// Writes events for all their consumers in one statement. An event that is already there is skipped.
///
/// # Errors
/// When the database does not answer.
pub async fn write(conn: &mut PgConnection, events: &[DomainEvent]) -> Result<u64, sqlx::Error> {
    if events.is_empty() {
        return Ok(0);
    }
    let (mut topics, mut keys, mut consumers, mut users, mut payloads) =
        (vec![], vec![], vec![], vec![], vec![]);
    for event in events {
        let payload = serde_json::to_value(event).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
        for consumer in event.consumers() {
            topics.push(event.topic().to_owned());
            keys.push(event.key());
            consumers.push((*consumer).to_owned());
            users.push(event.user_id().map(|user| user.0));
            payloads.push(payload.clone());
        }
    }
    let done = sqlx::query!(
        "INSERT INTO domain_outbox (topic, event_key, consumer, user_id, payload)
         SELECT * FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[], $4::BIGINT[], $5::JSONB[])
         ON CONFLICT (event_key, consumer) DO NOTHING",
        &topics,
        &keys,
        &consumers,
        &users as &[Option<i64>],
        &payloads
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes up to `at_most` rows that were consumed before `before`.
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
           (SELECT id FROM domain_outbox WHERE done_at < $1 ORDER BY done_at LIMIT $2)",
        before,
        at_most
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
