//! What sockets keep in Redis: the ledger of live connections (contract `realtime.md` §1), and what a user's
//! stream kept for a client that resumes. Time is Redis' own, so replicas need not agree about theirs.

use std::sync::LazyLock;

use axum::extract::ws::Utf8Bytes;
use redis::{RedisResult, Script};
use tbg_core::UserId;
use tbg_core::live::{KEPT_ENTRIES, KEPT_SECONDS, kept_key};
use tbg_core::redis::Redis;
use uuid::Uuid;

use crate::rules::{Channel, Since, deliver_kept};

/// Seconds after which a connection that was not seen is none.
const LEDGER_STALE_SECONDS: u64 = 90;
/// Seconds that a user's ledger outlives its newest entry.
const LEDGER_TTL_SECONDS: u64 = 120;
/// Connections that are refreshed in one round trip.
const REFRESH_CHUNK: usize = 500;

/// Forgets the stale, then adds if there is room. Returns 1 if added.
static ADMIT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local now = tonumber(redis.call('TIME')[1])
          redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
          if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
          redis.call('ZADD', KEYS[1], now, ARGV[1])
          redis.call('EXPIRE', KEYS[1], ARGV[4])
          return 1",
    )
});

/// Notes that connections are alive. One user's key, any number of members.
static REFRESH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local now = redis.call('TIME')[1]
          for index = 2, #ARGV do redis.call('ZADD', KEYS[1], now, ARGV[index]) end
          redis.call('EXPIRE', KEYS[1], ARGV[1])",
    )
});

/// Entries after a place, with what is needed to tell whether any are missing: whether the stream is there,
/// the first and the last place, entries ever added, length, now.
static KEPT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local time = redis.call('TIME')
          local now = time[1] .. string.format('%03d', math.floor(time[2] / 1000))
          if redis.call('EXISTS', KEYS[1]) == 0 then return { 0, '', '', 0, 0, now, {} } end
          local info, facts = redis.call('XINFO', 'STREAM', KEYS[1]), {}
          for index = 1, #info, 2 do facts[info[index]] = info[index + 1] end
          local first = facts['first-entry'] and facts['first-entry'][1] or ''
          local entries = {}
          if ARGV[1] ~= '' then
            entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
          end
          return { 1, first, facts['last-generated-id'], facts['entries-added'], facts['length'], now, entries }",
    )
});

/// An entry of a stream as Redis gives it: its place, then names and values in turn.
type RawEntry = (String, Vec<String>);
type RawKept = (u8, String, String, u64, u64, String, Vec<RawEntry>);

/// What the stream of a user has for a client.
#[derive(Debug, PartialEq)]
pub(crate) struct Kept {
    pub entries: Vec<KeptEntry>,
    /// Where to resume from next time.
    pub cursor: String,
    /// Whether nothing between the client's cursor and now is missing.
    pub is_complete: bool,
}

/// A message that was kept.
#[derive(Debug, PartialEq)]
pub(crate) struct KeptEntry {
    pub channel: Channel,
    pub frame: Utf8Bytes,
    pub cursor: Since,
}

impl Kept {
    /// Nothing could be asked.
    pub(crate) fn unknown(since: Option<Since>) -> Self {
        let (milliseconds, sequence) = since.unwrap_or_default();
        Self { entries: Vec::new(), cursor: format!("{milliseconds}-{sequence}"), is_complete: false }
    }
}

/// The Redis side of sockets.
#[derive(Clone)]
pub(crate) struct Store {
    redis: Redis,
}

impl Store {
    pub(crate) fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// Enters a connection into its user's ledger, unless `max` are there already.
    pub(crate) async fn admit(&self, user: UserId, id: Uuid, max: usize) -> RedisResult<bool> {
        let admitted: u8 = ADMIT
            .key(ledger_key(user))
            .arg(id.to_string())
            .arg(max)
            .arg(LEDGER_STALE_SECONDS)
            .arg(LEDGER_TTL_SECONDS)
            .invoke_async(&mut self.redis.clone())
            .await?;
        Ok(admitted == 1)
    }

    /// Takes a connection out.
    pub(crate) async fn leave(&self, user: UserId, id: Uuid) -> RedisResult<()> {
        let mut redis = self.redis.clone();
        redis::cmd("ZREM").arg(ledger_key(user)).arg(id.to_string()).query_async(&mut redis).await
    }

    /// Takes many out: a process that ends does not wait for each.
    pub(crate) async fn leave_all(&self, gone: &[(UserId, Uuid)]) -> RedisResult<()> {
        for chunk in gone.chunks(REFRESH_CHUNK) {
            let mut pipe = redis::pipe();
            for (user, id) in chunk {
                pipe.zrem(ledger_key(*user), id.to_string()).ignore();
            }
            pipe.query_async::<()>(&mut self.redis.clone()).await?;
        }
        Ok(())
    }

    /// Notes that these connections, by user, are alive.
    pub(crate) async fn refresh(&self, alive: &[(UserId, Vec<Uuid>)]) -> RedisResult<()> {
        let mut redis = self.redis.clone();
        for chunk in alive.chunks(REFRESH_CHUNK) {
            // A script that Redis forgot fails the whole pipeline.
            REFRESH.load_async(&mut redis).await?;
            let mut pipe = redis::pipe();
            for (user, ids) in chunk {
                pipe.cmd("EVALSHA").arg(REFRESH.get_hash()).arg(1).arg(ledger_key(*user));
                pipe.arg(LEDGER_TTL_SECONDS);
                for id in ids {
                    pipe.arg(id.to_string());
                }
                pipe.ignore();
            }
            pipe.query_async::<()>(&mut redis).await?;
        }
        Ok(())
    }

    /// What was kept for the user since a place; without one, only the place to start from.
    pub(crate) async fn kept(&self, user: UserId, since: Option<Since>) -> RedisResult<Kept> {
        let after = since.map(|(milliseconds, sequence)| format!("{milliseconds}-{sequence}"));
        let raw: RawKept = KEPT
            .key(kept_key(user))
            .arg(after.unwrap_or_default())
            .arg(KEPT_ENTRIES)
            .invoke_async(&mut self.redis.clone())
            .await?;
        Ok(read(raw, since))
    }
}

fn ledger_key(user: UserId) -> String {
    format!("ws:conns:{user}")
}

fn read(raw: RawKept, since: Option<Since>) -> Kept {
    let (exists, first, last, added, length, now, raw_entries) = raw;
    let now_ms = now.parse().unwrap_or_default();
    if exists == 0 {
        return read_absent(now_ms, since);
    }
    let is_whole = added == length;
    let reaches_back = since.is_none_or(|since| place(&first).is_some_and(|first| since >= first));
    let entries = raw_entries.into_iter().filter_map(|(id, fields)| entry(&id, &fields)).collect();
    Kept { entries, cursor: last, is_complete: is_whole || reaches_back }
}

/// Without a stream nothing was published for as long as streams are kept. The place to start from is the
/// last one of the millisecond before, which no entry has: it tells later that it was made for an absent
/// stream, while the place of an entry whose stream is gone says that something may be lost.
fn read_absent(now_ms: u64, since: Option<Since>) -> Kept {
    let is_complete = since.is_none_or(|(milliseconds, sequence)| {
        sequence == u64::MAX && now_ms.saturating_sub(milliseconds) < KEPT_SECONDS * 1000
    });
    let cursor = format!("{}-{}", now_ms.saturating_sub(1), u64::MAX);
    Kept { entries: Vec::new(), cursor, is_complete }
}

/// An entry that cannot be read is one that nobody can be shown.
fn entry(id: &str, fields: &[String]) -> Option<KeptEntry> {
    let field =
        |name: &str| fields.chunks_exact(2).find(|pair| pair.first().is_some_and(|key| key == name))?.get(1);
    let (channel, frame) = deliver_kept(field("channel")?, field("payload")?).ok()?;
    Some(KeptEntry { channel, frame, cursor: place(id)? })
}

fn place(id: &str) -> Option<Since> {
    let (milliseconds, sequence) = id.split_once('-')?;
    Some((milliseconds.parse().ok()?, sequence.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(first: &str, added: u64, length: u64) -> RawKept {
        (1, first.to_owned(), "9-0".to_owned(), added, length, "10".to_owned(), Vec::new())
    }

    #[test]
    fn a_stream_is_complete_when_it_lost_nothing_after_the_cursor() {
        assert!(read(stream("5-0", 4, 4), Some((1, 0))).is_complete, "nothing was ever lost");
        assert!(!read(stream("5-0", 9, 4), Some((4, 9))).is_complete);
        assert!(read(stream("5-0", 9, 4), Some((5, 0))).is_complete);
        assert!(read(stream("5-0", 9, 4), None).is_complete);
    }

    #[test]
    fn an_absent_stream_is_complete_for_who_started_without_one() {
        let absent = || (0, String::new(), String::new(), 0, 0, "1000".to_owned(), Vec::new());
        let start = read(absent(), None);
        assert_eq!((start.cursor.as_str(), start.is_complete), ("999-18446744073709551615", true));
        assert!(read(absent(), Some((999, u64::MAX))).is_complete);
        assert!(!read(absent(), Some((999, 0))).is_complete, "an entry was there and is gone");
    }
}
