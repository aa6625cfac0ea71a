//! What the social domain does with the events of others.

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tbg_core::UserId;
use tbg_core::consumer::Handle;
use tbg_core::live::{LiveEvent, LiveMessage};
use tbg_core::outbox::{LotteryResult, Notification, Pending};

use crate::rules::{self, MAX_AGE, MAX_PUSH_AGE};
use crate::store::{self, Stored};

/// Users told of a block in one statement.
const LISTENERS: i64 = 500;

/// Consumes what becomes notifications and rows of the feed.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocialEvents;

impl SocialEvents {
    /// The consumer.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Handle for SocialEvents {
    fn consumer(&self) -> &'static str {
        "social"
    }

    async fn handle(
        &self,
        conn: &mut PgConnection,
        event: &Pending,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Vec<LiveMessage>> {
        if event.topic == "LotteryDrawn" {
            return lottery(conn, &event.payload, now).await;
        }
        let user = event.user_id.context("the event names no user")?;
        match event.topic.as_str() {
            "Notify" => {
                let notice: Notification =
                    serde_json::from_value(event.payload.clone()).context("a notice that does not read")?;
                deliver(conn, vec![notice], now).await
            }
            "BlockAttributed" => block(conn, user, &event.payload, now).await,
            "BadgeEarned" => badge(conn, user, &event.payload, now).await,
            "UserRegistered" => newcomer(conn, user, event.created_at, now).await,
            "PrivacyChanged" | "UserBanned" => {
                let name = store::public_name(conn, user).await?;
                store::apply_privacy(conn, user, name.as_deref()).await?;
                Ok(Vec::new())
            }
            "UserDeleted" => {
                store::apply_privacy(conn, user, None).await?;
                store::forget(conn, user).await?;
                Ok(Vec::new())
            }
            // Perhaps of a newer release: it waits for a process that knows it.
            topic => bail!("{topic} is not an event for social"),
        }
    }
}

/// Stores notices of one kind; what is fresh is pushed.
async fn deliver(
    conn: &mut PgConnection,
    mut notices: Vec<Notification>,
    now: DateTime<Utc>,
) -> anyhow::Result<Vec<LiveMessage>> {
    notices.retain(|notice| notice.created_at >= now - MAX_AGE);
    store_and_push(conn, notices, now).await
}

/// Stores notices of any age; what is fresh is pushed.
async fn store_and_push(
    conn: &mut PgConnection,
    notices: Vec<Notification>,
    now: DateTime<Utc>,
) -> anyhow::Result<Vec<LiveMessage>> {
    let stored = store::deliver(conn, &notices, now).await?;
    Ok(stored.into_iter().filter(|row| row.created_at >= now - MAX_PUSH_AGE).map(push).collect())
}

fn push(row: Stored) -> LiveMessage {
    let fields = json!({
        "id": row.id.to_string(),
        "type": row.kind,
        "subtype": row.subtype,
        "title": row.title,
        "description": row.description,
        "timestamp": row.created_at,
        "read": false,
        "actionUrl": row.action_url,
        "actionLabel": row.action_label,
    });
    LiveMessage::personal(LiveEvent::Notification, UserId(row.user_id), fields)
}

/// The finder is told, and whoever asked to hear of any block.
async fn block(
    conn: &mut PgConnection,
    finder: UserId,
    payload: &Value,
    now: DateTime<Utc>,
) -> anyhow::Result<Vec<LiveMessage>> {
    let number = |field: &str| payload.get(field).and_then(Value::as_i64).context("a block without numbers");
    let (block_id, height) = (number("block_id")?, number("height")?);
    let found_at: DateTime<Utc> =
        payload.get("found_at").and_then(Value::as_str).context("a block without a time")?.parse()?;
    let own = rules::own_block(finder, block_id, height, found_at);
    let mut messages = deliver(conn, vec![own], now).await?;
    let name = store::public_name(conn, finder).await?.unwrap_or_else(|| store::ANONYMOUS.to_owned());
    let mut after = 0;
    loop {
        let listeners = store::any_block_listeners(conn, after, LISTENERS).await?;
        let Some(last) = listeners.last() else { return Ok(messages) };
        after = *last;
        let notices = listeners
            .into_iter()
            .filter(|listener| *listener != finder.0)
            .map(|listener| rules::any_block(UserId(listener), &name, block_id, height, found_at))
            .collect();
        messages.extend(deliver(conn, notices, now).await?);
    }
}

/// A drawn week, as far as it is told.
#[derive(Deserialize)]
struct Drawn {
    week_iso: String,
    week_end: DateTime<Utc>,
    drawn_at: DateTime<Utc>,
    total_participants: i32,
    results: Vec<LotteryResult>,
}

/// Every participant is told of their place, unless the week is long over.
async fn lottery(
    conn: &mut PgConnection,
    payload: &Value,
    now: DateTime<Utc>,
) -> anyhow::Result<Vec<LiveMessage>> {
    let drawn: Drawn = serde_json::from_value(payload.clone()).context("a draw that does not read")?;
    // Results are news by the age of their week, however long this event has waited.
    if drawn.drawn_at > drawn.week_end + rules::RESULTS_ARE_NEWS {
        return Ok(Vec::new());
    }
    let notices = drawn
        .results
        .iter()
        .map(|result| {
            rules::lottery_result(result, &drawn.week_iso, drawn.total_participants, drawn.drawn_at)
        })
        .collect();
    store_and_push(conn, notices, now).await
}

/// A badge that is rare enough is told to everybody.
async fn badge(
    conn: &mut PgConnection,
    user: UserId,
    payload: &Value,
    now: DateTime<Utc>,
) -> anyhow::Result<Vec<LiveMessage>> {
    let text = |field: &str| payload.get(field).and_then(Value::as_str).context("a badge without words");
    let (slug, badge, rarity, period) = (text("slug")?, text("name")?, text("rarity")?, text("period_key")?);
    let at: DateTime<Utc> = text("earned_at")?.parse()?;
    let Some(key) = rules::badge_key(user, slug, rarity, period, at).filter(|_| at >= now - MAX_AGE) else {
        return Ok(Vec::new());
    };
    let Some(name) = store::public_name(conn, user).await? else { return Ok(Vec::new()) };
    let text = format!("{name} earned the {badge} badge");
    let metadata = json!({ "key": key, "badge_slug": slug, "rarity": rarity });
    let Some(id) = store::add_feed_row(conn, user, "badge", &text, &metadata, &key, at).await? else {
        return Ok(Vec::new());
    };
    let item = json!({
        "id": id, "type": "badge", "text": text, "description": null, "time": at, "metadata": metadata,
    });
    let message = LiveMessage::global(LiveEvent::FeedItem, json!({ "item": item }));
    Ok(if at >= now - MAX_PUSH_AGE { vec![message] } else { Vec::new() })
}

/// A newcomer is welcomed, and the others hear of it.
async fn newcomer(
    conn: &mut PgConnection,
    user: UserId,
    at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> anyhow::Result<Vec<LiveMessage>> {
    let mut messages = deliver(conn, vec![rules::welcome(user, at)], now).await?;
    let Some(country) = store::newcomer(conn, user).await? else { return Ok(messages) };
    if at < now - MAX_AGE {
        return Ok(messages);
    }
    let (text, key) = rules::new_miner(country.as_deref(), at);
    let metadata = json!({ "key": key, "kind": "new_miners", "link": "/dashboard", "country_code": country });
    let added = store::add_feed_row(conn, user, "miner", &text, &metadata, &key, at).await?;
    if let Some(id) = added.filter(|_| at >= now - MAX_PUSH_AGE) {
        let item = json!({
            "id": id, "type": "miner", "text": text, "description": null, "time": at, "metadata": metadata,
        });
        messages.push(LiveMessage::global(LiveEvent::FeedItem, json!({ "item": item })));
    }
    Ok(messages)
}
