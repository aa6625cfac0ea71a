//! The keys of live state in Redis.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::LazyLock;

use chrono::{DateTime, SecondsFormat, Utc};
use redis::{ErrorKind, RedisResult, Script, ServerErrorKind};
use tbg_core::redis::Redis;

use crate::rules::live::{Averages, LiveWorker};

/// Seconds that a worker's hash outlives its last sign of life.
const WORKER_TTL_SECONDS: i64 = 86_400;
/// Seconds that the rates of a user outlive their last computation.
const USER_RATES_TTL_SECONDS: i64 = 3_600;
/// Sorted set of `<address>:<worker>` by last activity: what sweeps go through instead of scanning keys.
const INDEX: &str = "workers:online";
const POOL_STATS: &str = "tbg:pool:stats";

/// Writes a hash if nobody has written it since it was read. Keys: the hash, the address's set, the index.
static SAVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"if tonumber(redis.call('HGET', KEYS[1], 'rev') or '0') ~= tonumber(ARGV[1]) then return 0 end
          local fields = {}
          for i = 6, #ARGV do fields[#fields + 1] = ARGV[i] end
          redis.call('HSET', KEYS[1], unpack(fields))
          if ARGV[5] == '1' then
            redis.call('EXPIRE', KEYS[1], ARGV[2])
            redis.call('SADD', KEYS[2], ARGV[3])
            redis.call('EXPIRE', KEYS[2], ARGV[2])
          end
          redis.call('ZADD', KEYS[3], 'GT', ARGV[4], KEYS[1]:sub(8))
          return 1",
    )
});

/// Which worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerKey {
    /// The miner's address.
    pub address: String,
    /// The worker's short name.
    pub name: String,
}

impl WorkerKey {
    fn hash(&self) -> String {
        format!("worker:{}:{}", self.address, self.name)
    }

    /// From a member of the index. An address has no colon.
    fn of_member(member: &str) -> Option<Self> {
        let (address, name) = member.split_once(':')?;
        Some(Self { address: address.to_owned(), name: name.to_owned() })
    }
}

/// A write that depends on the revision that was read.
pub(crate) struct Change<'a> {
    pub key: &'a WorkerKey,
    pub worker: &'a LiveWorker,
    /// Whether the worker gave a sign of life, which keeps the hash alive.
    pub is_alive: bool,
}

/// The rates of all workers of an address, H/s.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UserRates {
    /// Over one minute, five minutes, an hour and a day.
    pub rates: [f64; 4],
    /// Workers online.
    pub workers_online: i64,
}

/// The network as the pool last saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LiveNetwork {
    /// Network difficulty.
    pub difficulty: f64,
    /// Height that is being mined.
    pub height: i64,
}

impl LiveNetwork {
    /// From the texts of difficulty and height.
    fn of(texts: &[Option<String>]) -> Option<Self> {
        let text = |index: usize| texts.get(index)?.as_deref();
        Some(Self { difficulty: text(0)?.parse().ok()?, height: text(1)?.parse().ok()? })
    }
}

/// Live state in Redis. Clones share the connection.
#[derive(Clone)]
pub struct LiveStore {
    redis: Redis,
}

impl LiveStore {
    /// On a connection that is made when first used.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// The hashes of workers, in one round trip; none where there is none.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn load(&self, keys: &[WorkerKey]) -> RedisResult<Vec<Option<LiveWorker>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::Pipeline::with_capacity(keys.len());
        for key in keys {
            pipe.hgetall(key.hash());
        }
        let hashes: Vec<HashMap<String, String>> = pipe.query_async(&mut self.redis.clone()).await?;
        Ok(hashes.iter().map(read).collect())
    }

    /// Writes hashes whose revision is still the one read; says which were written.
    pub(crate) async fn save(&self, changes: &[Change<'_>]) -> RedisResult<Vec<bool>> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::Pipeline::with_capacity(changes.len());
        for Change { key, worker, is_alive } in changes {
            pipe.cmd("EVALSHA")
                .arg(SAVE.get_hash())
                .arg(3)
                .arg(key.hash())
                .arg(format!("workers:{}", key.address))
                .arg(INDEX)
                .arg(worker.rev)
                .arg(WORKER_TTL_SECONDS)
                .arg(&key.name)
                .arg(worker.last_activity().map_or(0, |at| at.timestamp()))
                .arg(u8::from(*is_alive))
                .arg(write(worker));
        }
        let mut redis = self.redis.clone();
        match pipe.query_async(&mut redis).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                SAVE.load_async(&mut redis).await?;
                pipe.query_async(&mut redis).await
            }
            written => written,
        }
    }

    /// The workers of an address, by name; names without a hash are forgotten.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn workers_of(&self, address: &str) -> RedisResult<Vec<(String, LiveWorker)>> {
        let mut redis = self.redis.clone();
        let set = format!("workers:{address}");
        let names: Vec<String> = redis::cmd("SMEMBERS").arg(&set).query_async(&mut redis).await?;
        let keys: Vec<WorkerKey> =
            names.into_iter().map(|name| WorkerKey { address: address.to_owned(), name }).collect();
        let loaded = self.load(&keys).await?;
        let (mut workers, mut gone) = (Vec::with_capacity(keys.len()), Vec::new());
        for (key, worker) in keys.into_iter().zip(loaded) {
            match worker {
                Some(worker) => workers.push((key.name, worker)),
                None => gone.push(key.name),
            }
        }
        if !gone.is_empty() {
            redis::cmd("SREM").arg(&set).arg(gone).query_async::<()>(&mut redis).await?;
        }
        workers.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(workers)
    }

    /// The workers of an address and the network, in two round trips.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn overview(
        &self,
        address: &str,
    ) -> RedisResult<(Vec<(String, LiveWorker)>, Option<LiveNetwork>)> {
        let mut pipe = redis::pipe();
        pipe.smembers(format!("workers:{address}"));
        pipe.mget(&["network:difficulty", "network:height"]);
        let (names, network): (Vec<String>, Vec<Option<String>>) =
            pipe.query_async(&mut self.redis.clone()).await?;
        let keys: Vec<WorkerKey> =
            names.into_iter().map(|name| WorkerKey { address: address.to_owned(), name }).collect();
        let loaded = self.load(&keys).await?;
        let mut workers: Vec<(String, LiveWorker)> =
            keys.into_iter().zip(loaded).filter_map(|(key, worker)| Some((key.name, worker?))).collect();
        workers.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok((workers, LiveNetwork::of(&network)))
    }

    /// One worker, if it has a hash.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn worker(&self, address: &str, name: &str) -> RedisResult<Option<LiveWorker>> {
        let key = WorkerKey { address: address.to_owned(), name: name.to_owned() };
        Ok(self.load(std::slice::from_ref(&key)).await?.pop().flatten())
    }

    /// The rates of an address as the last sweep summed them up.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn user_rates(&self, address: &str) -> RedisResult<Option<UserRates>> {
        Ok(self.user_rates_of(&[address]).await?.pop().flatten())
    }

    /// The same for many addresses in one round trip.
    pub(crate) async fn user_rates_of(&self, addresses: &[&str]) -> RedisResult<Vec<Option<UserRates>>> {
        let mut pipe = redis::Pipeline::with_capacity(addresses.len());
        for address in addresses {
            pipe.hgetall(format!("user_hashrate:{address}"));
        }
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        let hashes: Vec<HashMap<String, String>> = pipe.query_async(&mut self.redis.clone()).await?;
        let of = |hash: &HashMap<String, String>| UserRates {
            rates: RATE_FIELDS.map(|field| number(hash, field)),
            workers_online: number(hash, "workers_online"),
        };
        Ok(hashes.iter().map(|hash| (!hash.is_empty()).then(|| of(hash))).collect())
    }

    /// Stores the rates of addresses in one round trip.
    pub(crate) async fn save_user_rates(&self, sums: &[(&str, UserRates)]) -> RedisResult<()> {
        if sums.is_empty() {
            return Ok(());
        }
        let mut pipe = redis::Pipeline::with_capacity(sums.len() * 2);
        for (address, sum) in sums {
            let key = format!("user_hashrate:{address}");
            let mut fields: Vec<(&str, String)> = RATE_FIELDS
                .into_iter()
                .zip(sum.rates)
                .map(|(field, rate)| (field, rate.to_string()))
                .collect();
            fields.push(("workers_online", sum.workers_online.to_string()));
            pipe.hset_multiple(&key, &fields).ignore();
            pipe.expire(&key, USER_RATES_TTL_SECONDS).ignore();
        }
        pipe.query_async(&mut self.redis.clone()).await
    }

    /// The network, if the pool has published it.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn network(&self) -> RedisResult<Option<LiveNetwork>> {
        let network: Vec<Option<String>> = redis::cmd("MGET")
            .arg(&["network:difficulty", "network:height"])
            .query_async(&mut self.redis.clone())
            .await?;
        Ok(LiveNetwork::of(&network))
    }

    /// Stores the network. The keys never expire: a block may take an hour.
    pub(crate) async fn save_network(&self, network: LiveNetwork, hash: &str) -> RedisResult<()> {
        redis::cmd("MSET")
            .arg("network:difficulty")
            .arg(network.difficulty)
            .arg("network:height")
            .arg(network.height)
            .arg("network:block_hash")
            .arg(hash)
            .query_async(&mut self.redis.clone())
            .await
    }

    /// Stores the pool's own numbers.
    pub(crate) async fn save_pool(&self, fields: &[(&str, String)]) -> RedisResult<()> {
        redis::pipe().hset_multiple(POOL_STATS, fields).ignore().query_async(&mut self.redis.clone()).await
    }

    /// Up to `count` members of the index from `from` on, with the place of the next; entries whose hash is
    /// gone are removed on the way.
    pub(crate) async fn scan(
        &self,
        from: isize,
        count: isize,
    ) -> RedisResult<(Vec<(WorkerKey, LiveWorker)>, Option<isize>)> {
        let mut redis = self.redis.clone();
        let members: Vec<String> =
            redis::cmd("ZRANGE").arg(INDEX).arg(from).arg(from + count - 1).query_async(&mut redis).await?;
        let read = isize::try_from(members.len()).unwrap_or(isize::MAX);
        let keys: Vec<WorkerKey> = members.iter().filter_map(|member| WorkerKey::of_member(member)).collect();
        let loaded = self.load(&keys).await?;
        let (mut workers, mut gone) = (Vec::with_capacity(keys.len()), Vec::new());
        for (key, worker) in keys.into_iter().zip(loaded) {
            match worker {
                Some(worker) => workers.push((key, worker)),
                None => gone.push(key),
            }
        }
        self.forget(&gone).await?;
        let removed = isize::try_from(gone.len()).unwrap_or(0);
        Ok((workers, (read == count).then_some(from + read - removed)))
    }

    async fn forget(&self, gone: &[WorkerKey]) -> RedisResult<()> {
        if gone.is_empty() {
            return Ok(());
        }
        let mut pipe = redis::Pipeline::with_capacity(gone.len() * 2);
        for key in gone {
            pipe.zrem(INDEX, format!("{}:{}", key.address, key.name)).ignore();
            pipe.srem(format!("workers:{}", key.address), &key.name).ignore();
        }
        pipe.query_async(&mut self.redis.clone()).await
    }

    /// Notes that users mined in minutes: `(user, minute)` with the minute's start.
    pub(crate) async fn note_uptime(&self, minutes: &[(i64, DateTime<Utc>)]) -> RedisResult<()> {
        if minutes.is_empty() {
            return Ok(());
        }
        let mut pipe = redis::Pipeline::with_capacity(minutes.len() * 2);
        for (user, minute) in minutes {
            let key = uptime_key(*user, *minute);
            let bit = usize::try_from(minute.timestamp().rem_euclid(86_400) / 60).unwrap_or(0);
            pipe.setbit(&key, bit, true).ignore();
            pipe.expire(&key, 3 * 86_400).ignore();
        }
        pipe.query_async(&mut self.redis.clone()).await
    }

    /// Minutes in which users mined on the day of `day`.
    pub(crate) async fn uptime(&self, users: &[i64], day: DateTime<Utc>) -> RedisResult<Vec<i32>> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::Pipeline::with_capacity(users.len());
        for user in users {
            pipe.cmd("BITCOUNT").arg(uptime_key(*user, day));
        }
        pipe.query_async(&mut self.redis.clone()).await
    }
}

fn uptime_key(user: i64, day: DateTime<Utc>) -> String {
    format!("uptime:{user}:{}", day.format("%Y%m%d"))
}

const RATE_FIELDS: [&str; 4] = ["hashrate_1m", "hashrate_5m", "hashrate_1h", "hashrate_24h"];
const AVERAGE_FIELDS: [&str; 4] = ["dsps1", "dsps5", "dsps60", "dsps1440"];

/// Whatever does not parse counts as absent: the pool's own bridge writes into these hashes too.
fn number<T: FromStr + Default>(hash: &HashMap<String, String>, field: &str) -> T {
    hash.get(field).and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn read(hash: &HashMap<String, String>) -> Option<LiveWorker> {
    if hash.is_empty() {
        return None;
    }
    let time = |field: &str| {
        hash.get(field).and_then(|text| DateTime::parse_from_rfc3339(text).ok()).map(|time| time.to_utc())
    };
    let text = |field: &str| hash.get(field).filter(|text| !text.is_empty()).cloned();
    let flag = |field: &str| hash.get(field).is_some_and(|text| text == "1");
    Some(LiveWorker {
        is_online: flag("is_online"),
        state_ts: time("state_ts"),
        last_share: time("last_share"),
        connected_at: time("connected_at"),
        current_diff: number(hash, "current_diff"),
        best_diff: number(hash, "best_diff"),
        valid_shares: number(hash, "valid_shares"),
        invalid_shares: number(hash, "invalid_shares"),
        shares_session: number(hash, "shares_session"),
        ip: text("ip"),
        useragent: text("useragent"),
        rates: RATE_FIELDS.map(|field| number(hash, field)),
        averages: Averages {
            dsps: AVERAGE_FIELDS.map(|field| number(hash, field)),
            last_decay: number(hash, "last_decay"),
            unadded: number(hash, "uadiff"),
        },
        hr_ts: time("hr_ts").filter(|_| hash.get("hr_source").is_some_and(|source| source == "pool")),
        asicboost: flag("asicboost"),
        offline_noticed: flag("offline_noticed"),
        rev: number(hash, "rev"),
    })
}

/// Field and value in turns; the revision is one further.
fn write(worker: &LiveWorker) -> Vec<String> {
    let time = |time: Option<DateTime<Utc>>| {
        time.map_or_else(String::new, |time| time.to_rfc3339_opts(SecondsFormat::Micros, true))
    };
    let flag = |flag: bool| if flag { "1" } else { "0" }.to_owned();
    let mut fields: Vec<String> = Vec::with_capacity(46);
    let mut put = |field: &str, value: String| fields.extend([field.to_owned(), value]);
    put("rev", (worker.rev + 1).to_string());
    put("is_online", flag(worker.is_online));
    put("state_ts", time(worker.state_ts));
    put("last_share", time(worker.last_share));
    put("connected_at", time(worker.connected_at));
    put("current_diff", worker.current_diff.to_string());
    put("best_diff", worker.best_diff.to_string());
    put("valid_shares", worker.valid_shares.to_string());
    put("invalid_shares", worker.invalid_shares.to_string());
    put("shares_session", worker.shares_session.to_string());
    put("ip", worker.ip.clone().unwrap_or_default());
    put("useragent", worker.useragent.clone().unwrap_or_default());
    for (field, rate) in RATE_FIELDS.into_iter().zip(worker.rates) {
        put(field, rate.to_string());
    }
    for (field, rate) in AVERAGE_FIELDS.into_iter().zip(worker.averages.dsps) {
        put(field, rate.to_string());
    }
    put("last_decay", worker.averages.last_decay.to_string());
    put("uadiff", worker.averages.unadded.to_string());
    put("hr_source", if worker.hr_ts.is_some() { "pool" } else { "" }.to_owned());
    put("hr_ts", time(worker.hr_ts));
    put("asicboost", flag(worker.asicboost));
    put("offline_noticed", flag(worker.offline_noticed));
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_read_as_it_was_written() {
        let now = DateTime::from_timestamp_micros(1_771_804_800_250_000);
        let worker = LiveWorker {
            is_online: true,
            state_ts: now,
            last_share: now,
            current_diff: 0.1 + 0.2,
            valid_shares: 7,
            useragent: Some("esp-miner".to_owned()),
            rates: [1.5e12, 2.0, 3.0, 4.0],
            averages: Averages { dsps: [1e-15, 2.0, 3.0, 4.0], last_decay: 1_771_804_800.25, unadded: 5.0 },
            hr_ts: now,
            rev: 3,
            ..LiveWorker::default()
        };
        let fields = write(&worker);
        let hash: HashMap<String, String> =
            fields.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        assert_eq!(read(&hash), Some(LiveWorker { rev: 4, ..worker }));
    }

    #[test]
    fn garbage_of_others_is_as_good_as_nothing() {
        let hash = HashMap::from([
            ("is_online".to_owned(), "yes".to_owned()),
            ("last_share".to_owned(), "just now".to_owned()),
            ("hashrate_1m".to_owned(), "fast".to_owned()),
        ]);
        assert_eq!(read(&hash), Some(LiveWorker::default()));
    }
}
