//! Reads the streams for the active writer and acknowledges after the commit (contract `mining.md` §3.2).
//!
//! Everything that an earlier writer took but did not acknowledge is claimed first: only the holder of
//! the writer lock reads, so whoever else had entries is dead. Entries that were trimmed while pending
//! are counted as lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{RedisResult, Value, cmd, pipe};
use tbg_core::metrics::INGEST_EVENTS_TOTAL;

use super::{Entry, EntryId, GROUP, REFUSED_STREAM, STREAM_PREFIX, stream_names};
use crate::dead_letters::{DEAD_LETTER_STREAM, DEAD_LETTER_STREAM_MAXLEN, DeadLetter};
use crate::decode::{Reason, Refusal, decode_entry};
use crate::event::{EventKind, PoolEvent};
use crate::key::Identified;

/// Longest wait for entries in one read.
const BLOCK: Duration = Duration::from_secs(5);
/// A pending entry that nobody touched for this long is claimed.
const CLAIM_IDLE: Duration = Duration::from_secs(60);
/// A consumer that holds nothing and has not asked for this many milliseconds is gone.
const CONSUMER_GONE_MS: usize = 3_600_000;
/// How often abandoned entries are looked for.
const CLAIM_EVERY: Duration = Duration::from_secs(30);

/// Reads that a backlog may add to one transaction: rollups have one upsert per miner and batch, so large
/// batches are cheap batches.
pub const READS_PER_BATCH: usize = 32;

/// How much is read.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Entries from each stream in one read.
    pub count: usize,
    /// Reads that a backlog may add to one batch.
    pub reads: usize,
    /// Longest time that a batch is collected for.
    pub collect: Duration,
}

/// Reads entries for one consumer.
pub struct StreamReader {
    conn: MultiplexedConnection,
    consumer: String,
    limits: ReadLimits,
    streams: Arc<[String]>,
    claimed: Instant,
}

/// An entry as Redis gave it: the stream's index and `[id, [field, value, …]]`.
type RawEntry = (usize, Value);

impl StreamReader {
    /// A reader; makes the consumer groups where they are missing.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn start(
        conn: MultiplexedConnection,
        consumer: String,
        limits: ReadLimits,
    ) -> RedisResult<Self> {
        let mut reader =
            Self { conn, consumer, limits, streams: stream_names().into(), claimed: Instant::now() };
        reader.create_groups().await?;
        reader.forget_consumers().await?;
        Ok(reader)
    }

    /// Entries that were taken but not acknowledged, by anybody, in rounds; empty when there are none left.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn abandoned(&mut self, idle: Duration) -> RedisResult<Vec<Entry>> {
        let raw = self.claim_all(idle).await?;
        Ok(self.decode(raw).await)
    }

    async fn claim_all(&mut self, idle: Duration) -> RedisResult<Vec<RawEntry>> {
        let mut entries = Vec::new();
        for stream in 0..self.streams.len() {
            let mut cursor = "0-0".to_owned();
            loop {
                let (next, claimed) = self.claim(stream, idle, &cursor).await?;
                entries.extend(claimed);
                if next == "0-0" {
                    break;
                }
                cursor = next;
            }
        }
        self.claimed = Instant::now();
        Ok(entries)
    }

    /// The next entries; empty when there were none for five seconds.
    ///
    /// # Errors
    /// When Redis does not answer. A lost consumer group is made again.
    pub async fn next(&mut self) -> RedisResult<Vec<Entry>> {
        let mut entries = Vec::new();
        if self.claimed.elapsed() >= CLAIM_EVERY {
            entries = self.claim_all(CLAIM_IDLE).await?;
        }
        let started = Instant::now();
        for read in 0..self.limits.reads {
            let block = (read == 0 && entries.is_empty()).then_some(BLOCK);
            let (got, more) = match self.read(block).await {
                Err(error) if error.code() == Some("NOGROUP") => {
                    tracing::warn!("a consumer group is gone (was Redis flushed?): making it again");
                    self.create_groups().await?;
                    continue;
                }
                read => read?,
            };
            entries.extend(got);
            if !more || started.elapsed() >= self.limits.collect {
                break;
            }
        }
        Ok(self.decode(entries).await)
    }

    /// Decodes on a thread of its own: thousands of entries would keep a worker of the runtime, and with
    /// it the writer's conversation with the database, waiting.
    async fn decode(&self, raw: Vec<RawEntry>) -> Vec<Entry> {
        if raw.is_empty() {
            return Vec::new();
        }
        let streams = Arc::clone(&self.streams);
        let decoding = tokio::task::spawn_blocking(move || {
            raw.into_iter().filter_map(|(stream, item)| decode_item(&streams, stream, item)).collect()
        });
        match decoding.await {
            Ok(entries) => entries,
            Err(_) => {
                // Not acknowledged, so the entries come again; after five times they are tried alone.
                tracing::error!("decoding crashed");
                Vec::new()
            }
        }
    }

    /// One read; says whether a stream had as many entries as were asked for.
    async fn read(&mut self, block: Option<Duration>) -> RedisResult<(Vec<RawEntry>, bool)> {
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.consumer).arg("COUNT").arg(self.limits.count);
        if let Some(block) = block {
            command.arg("BLOCK").arg(u64::try_from(block.as_millis()).unwrap_or(u64::MAX));
        }
        command.arg("STREAMS").arg(&*self.streams);
        self.streams.iter().for_each(|_| {
            command.arg(">");
        });
        let reply: Value = command.query_async(&mut self.conn).await?;
        let mut entries = Vec::new();
        let mut more = false;
        for (name, items) in pairs(reply) {
            let Some(stream) = text(&name).and_then(|name| self.streams.iter().position(|s| *s == name))
            else {
                continue;
            };
            let before = entries.len();
            entries.extend(items_of(items).into_iter().map(|item| (stream, item)));
            more |= entries.len() - before >= self.limits.count;
        }
        Ok((entries, more))
    }

    async fn claim(
        &mut self,
        stream: usize,
        idle: Duration,
        cursor: &str,
    ) -> RedisResult<(String, Vec<RawEntry>)> {
        let reply: Value = cmd("XAUTOCLAIM")
            .arg(self.streams.get(stream))
            .arg(GROUP)
            .arg(&self.consumer)
            .arg(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX))
            .arg(cursor)
            .arg("COUNT")
            .arg(self.limits.count)
            .query_async(&mut self.conn)
            .await?;
        let mut parts = items_of(reply).into_iter();
        let next = parts.next().as_ref().and_then(text).unwrap_or_else(|| "0-0".to_owned());
        let claimed = parts.next().map(items_of).unwrap_or_default();
        let deleted = parts.next().map(items_of).unwrap_or_default();
        if !deleted.is_empty() {
            let event = label_of_stream(&self.streams, stream);
            tracing::error!(event, count = deleted.len(), "entries were trimmed before they were read");
            metrics::counter!(INGEST_EVENTS_TOTAL, "event" => event, "outcome" => "lost")
                .increment(deleted.len() as u64);
        }
        Ok((next, claimed.into_iter().map(|item| (stream, item)).collect()))
    }

    /// Removes consumers of processes that ended long ago; each start has a name of its own.
    async fn forget_consumers(&mut self) -> RedisResult<()> {
        for stream in self.streams.iter() {
            let mut command = cmd("XINFO");
            command.arg("CONSUMERS").arg(stream).arg(GROUP);
            let consumers: Value = command.query_async(&mut self.conn).await?;
            for consumer in items_of(consumers).into_iter().map(named) {
                let idle = number(&consumer, "idle").unwrap_or(0);
                let gone = number(&consumer, "pending") == Some(0) && idle > CONSUMER_GONE_MS;
                if let Some(name) = consumer.get("name").and_then(text).filter(|_| gone) {
                    let mut command = cmd("XGROUP");
                    command.arg("DELCONSUMER").arg(stream).arg(GROUP).arg(name);
                    command.query_async::<()>(&mut self.conn).await?;
                }
            }
        }
        Ok(())
    }

    async fn create_groups(&mut self) -> RedisResult<()> {
        for stream in self.streams.iter() {
            let created = cmd("XGROUP")
                .arg("CREATE")
                .arg(stream)
                .arg(GROUP)
                .arg("0")
                .arg("MKSTREAM")
                .query_async::<()>(&mut self.conn)
                .await;
            match created {
                Err(error) if error.code() == Some("BUSYGROUP") => {}
                result => result?,
            }
        }
        Ok(())
    }
}

/// Decodes one `[id, [field, value, …]]`.
fn decode_item(streams: &[String], stream: usize, item: Value) -> Option<Entry> {
    let mut parts = items_of(item).into_iter();
    let id = parts.next().as_ref().and_then(text)?;
    let fields = items_of(parts.next()?);
    let content = decode_fields(streams.get(stream)?, &id, fields).map(Identified::from);
    Some(Entry { stream, id, content })
}

fn decode_fields(stream: &str, id: &str, fields: Vec<Value>) -> Result<PoolEvent, Box<DeadLetter>> {
    if stream == REFUSED_STREAM {
        return Err(Box::new(letter_of_refused(id, fields)));
    }
    let refuse = |refusal, payload: &[u8]| Box::new(DeadLetter::new(stream, id, refusal, payload));
    let mut entry = HashMap::with_capacity(fields.len() / 2);
    for (name, value) in flat_pairs(Value::Array(fields)) {
        let (Some(name), Some(value)) = (text(&name), text(&value)) else {
            let raw = if let Value::BulkString(bytes) = value { bytes } else { Vec::new() };
            return Err(refuse(Refusal::new(Reason::MalformedJson, "a field is not valid UTF-8"), &raw));
        };
        if entry.insert(name, value).is_some() {
            return Err(refuse(Refusal::new(Reason::MalformedJson, "a field appears twice"), b""));
        }
    }
    let event = stream.strip_prefix(STREAM_PREFIX).unwrap_or(stream);
    // The letter keeps the whole entry, so that it can be tried again.
    decode_entry(event, id, &entry)
        .map_err(|refusal| refuse(refusal, serde_json::json!(entry).to_string().as_bytes()))
}

/// The letter of a datagram that the receiver refused, with the receiver's reason.
fn letter_of_refused(id: &str, fields: Vec<Value>) -> DeadLetter {
    let mut refusal = Refusal::new(Reason::MalformedJson, "");
    let mut payload = Vec::new();
    for (name, value) in flat_pairs(Value::Array(fields)) {
        let (Some(name), Value::BulkString(bytes)) = (text(&name), value) else { continue };
        let value = || String::from_utf8_lossy(&bytes).into_owned();
        match name.as_str() {
            "event" => refusal.event_type = value(),
            "detail" => refusal.detail = value(),
            "reason" => refusal.reason = Reason::of_text(&value()),
            "data" => payload = bytes,
            _ => {}
        }
    }
    DeadLetter::new(REFUSED_STREAM, id, refusal, &payload)
}

/// The event label of a stream, for metrics.
#[must_use]
pub fn label_of_stream(streams: &[String], index: usize) -> &'static str {
    let name = streams.get(index).and_then(|stream| stream.strip_prefix(STREAM_PREFIX));
    EventKind::NAMES.into_iter().find(|known| Some(*known) == name).unwrap_or("other")
}

/// Acknowledges entries and adds dead letters to their stream, in one round trip.
///
/// # Errors
/// When Redis does not answer; then the entries come again and are duplicates.
pub async fn acknowledge(
    redis: &mut impl ConnectionLike,
    entries: &[EntryId],
    letters: &[DeadLetter],
    now_ts: &str,
) -> RedisResult<()> {
    let streams = stream_names();
    let mut pipeline = pipe();
    for letter in letters {
        pipeline
            .cmd("XADD")
            .arg(DEAD_LETTER_STREAM)
            .arg("MAXLEN")
            .arg("~")
            .arg(DEAD_LETTER_STREAM_MAXLEN)
            .arg("*");
        for (name, value) in [
            ("stream", letter.stream.as_str()),
            ("id", &letter.stream_id),
            ("event", &letter.refusal.event_type),
            ("data", &letter.payload),
            ("reason", letter.refusal.reason.as_str()),
            ("deliveries", &letter.deliveries.to_string()),
            ("ts", now_ts),
        ] {
            pipeline.arg(name).arg(value);
        }
        pipeline.ignore();
    }
    for (index, stream) in streams.iter().enumerate() {
        let ids: Vec<&str> =
            entries.iter().filter(|(of, _)| *of == index).map(|(_, id)| id.as_str()).collect();
        if !ids.is_empty() {
            pipeline.cmd("XACK").arg(stream).arg(GROUP).arg(&ids).ignore();
        }
    }
    pipeline.query_async(redis).await
}

/// How often one entry has been delivered.
///
/// # Errors
/// When Redis does not answer.
pub async fn deliveries(redis: &mut impl ConnectionLike, stream: usize, id: &str) -> RedisResult<i32> {
    let reply: Value = cmd("XPENDING")
        .arg(stream_names().get(stream))
        .arg(GROUP)
        .arg(id)
        .arg(id)
        .arg(1)
        .query_async(redis)
        .await?;
    let count = items_of(reply).pop().map(items_of).and_then(|mut item| item.pop());
    Ok(match count {
        Some(Value::Int(count)) => i32::try_from(count).unwrap_or(i32::MAX),
        _ => 1,
    })
}

/// Entries that the group has not acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// In all streams.
    pub total: usize,
    /// In the stream that has most.
    pub longest: usize,
}

/// How far the consumer group is behind.
///
/// # Errors
/// When Redis does not answer.
pub async fn backlog(redis: &mut impl ConnectionLike) -> RedisResult<Backlog> {
    let streams = stream_names();
    let mut pipeline = pipe();
    for stream in &streams {
        pipeline.cmd("XINFO").arg("STREAM").arg(stream);
        pipeline.cmd("XINFO").arg("GROUPS").arg(stream);
    }
    // Asking about a stream that does not exist is an error of that one command only.
    pipeline.ignore_errors();
    let replies: Vec<RedisResult<Value>> = pipeline.query_async(redis).await?;
    let mut backlog = Backlog::default();
    for pair in replies.chunks(2) {
        let (stream, groups) = match pair {
            [Ok(stream), Ok(groups)] => (stream, groups),
            [Err(error), _] | [_, Err(error)] if error.detail() != Some("no such key") => {
                return Err(error.clone());
            }
            _ => continue,
        };
        let behind = behind(stream.clone(), groups.clone());
        backlog.total += behind;
        backlog.longest = backlog.longest.max(behind);
    }
    Ok(backlog)
}

/// Pending plus unread entries of our group; all of a stream that no group reads. Redis' own `lag` counts
/// too many after a restart from the append-only file, so a group that has been given the newest entry is
/// not behind, whatever it says; and it is unknown after entries were deleted by hand.
fn behind(stream: Value, groups: Value) -> usize {
    let stream = named(stream);
    for group in items_of(groups) {
        let group = named(group);
        if group.get("name").and_then(text).as_deref() != Some(GROUP) {
            continue;
        }
        let has_read_all = group.get("last-delivered-id") == stream.get("last-generated-id");
        let unread = if has_read_all { 0 } else { number(&group, "lag").unwrap_or(0) };
        return number(&group, "pending").unwrap_or(0) + unread;
    }
    number(&stream, "length").unwrap_or(0)
}

/// The fields of a reply by their names.
fn named(value: Value) -> HashMap<String, Value> {
    flat_pairs(value).into_iter().filter_map(|(name, value)| Some((text(&name)?, value))).collect()
}

fn number(fields: &HashMap<String, Value>, name: &str) -> Option<usize> {
    match fields.get(name) {
        Some(Value::Int(number)) => usize::try_from(*number).ok(),
        _ => None,
    }
}

fn items_of(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// The `[name, items]` pairs of a reply, in RESP2 or RESP3.
fn pairs(value: Value) -> Vec<(Value, Value)> {
    match value {
        Value::Map(pairs) => pairs,
        Value::Array(items) => items
            .into_iter()
            .filter_map(|item| {
                let mut parts = items_of(item).into_iter();
                Some((parts.next()?, parts.next()?))
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn flat_pairs(value: Value) -> Vec<(Value, Value)> {
    match value {
        Value::Map(pairs) => pairs,
        Value::Array(items) => {
            let mut items = items.into_iter();
            let mut pairs = Vec::new();
            while let (Some(name), Some(value)) = (items.next(), items.next()) {
                pairs.push((name, value));
            }
            pairs
        }
        _ => Vec::new(),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}
