//! Statistics of users, kept for some seconds: one computation at a time per user in this process, and one
//! text in Redis for all replicas (contract `mining.md` §5.2, §7).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use moka::sync::Cache;
use serde_json::Value;
use tbg_core::UserId;
use tbg_core::period::IsoWeek;
use tbg_web::ApiError;
use tokio::sync::OnceCell;

use crate::Mining;
use crate::routes::summary::Stats;
use crate::store::summary as store;

const CAPACITY: u64 = 50_000;
/// The one that runs, and the one before while a request of it is on its way.
const WEEKS: u64 = 2;

/// Statistics with the two bodies that are answered from them.
pub(crate) struct Kept {
    pub stats: Stats,
    /// Body of `/stats`.
    pub stats_body: Bytes,
    /// Body of `/summary`.
    pub summary_body: Bytes,
}

impl Kept {
    pub(crate) fn of(stats: Stats) -> Result<Self, ApiError> {
        let stats_body = serde_json::to_vec(&stats).map_err(ApiError::internal)?.into();
        let summary_body = serde_json::to_vec(&stats.summary).map_err(ApiError::internal)?.into();
        Ok(Self { stats, stats_body, summary_body })
    }
}

type Slot = Arc<OnceCell<Arc<Kept>>>;

/// What this process keeps.
pub(crate) struct StatsCache {
    ttl: Duration,
    slots: Cache<UserId, Slot>,
    /// Everybody's bests by week, ascending: where one stands among them is looked up and not counted in the database.
    bests: Cache<IsoWeek, Arc<OnceCell<Arc<[f64]>>>>,
}

impl StatsCache {
    pub(crate) fn new(ttl: Duration) -> Self {
        // An entry that was not computed here may be as old as the time to live when it comes in.
        Self {
            ttl,
            slots: Cache::builder().max_capacity(CAPACITY).time_to_live(ttl).build(),
            bests: Cache::builder().max_capacity(WEEKS).time_to_live(ttl).build(),
        }
    }

    pub(crate) fn clear(&self) {
        self.slots.invalidate_all();
        self.bests.invalidate_all();
    }
}

/// The statistics of a user, at most as old as the time to live.
pub(crate) async fn stats(mining: &Mining, user: UserId) -> Result<Arc<Kept>, ApiError> {
    let cache = &mining.0.stats;
    if cache.ttl.is_zero() {
        return Ok(Arc::new(Kept::of(Stats::compute(mining, user).await?)?));
    }
    let slot = cache.slots.get_with(user, Slot::default);
    let kept = Arc::clone(slot.get_or_try_init(|| fetch(mining, user)).await?);
    if is_fresh(mining, user, kept.stats.updated_at) {
        return Ok(kept);
    }
    // It came from Redis and has aged since: whoever asks next starts anew.
    cache.slots.invalidate(&user);
    fetch(mining, user).await
}

/// Everybody's bests of the week of `now`, ascending; as old as the statistics may be.
pub(crate) async fn bests_of_week(mining: &Mining, now: DateTime<Utc>) -> Result<Arc<[f64]>, ApiError> {
    let cache = &mining.0.stats;
    let read = async || -> Result<Arc<[f64]>, ApiError> {
        let mut conn = mining.pool.acquire().await?;
        Ok(store::bests_of_week(&mut conn, now).await?.into())
    };
    if cache.ttl.is_zero() {
        return read().await;
    }
    let slot = cache.bests.get_with(IsoWeek::of(now), Arc::default);
    slot.get_or_try_init(read).await.cloned()
}

/// At most the time to live, and for some users up to a quarter less: else all who came at once, as after a deployment,
/// would come back at once whenever it is over.
fn is_fresh(mining: &Mining, user: UserId, computed_at: DateTime<Utc>) -> bool {
    let ttl = TimeDelta::from_std(mining.config.cache_ttl).unwrap_or_default();
    let sixteenth = i32::try_from(user.0.rem_euclid(16)).unwrap_or_default();
    mining.clock.now() - computed_at < ttl - ttl / 64 * sixteenth
}

/// From Redis, else computed. Redis that is away costs a computation, never an answer.
async fn fetch(mining: &Mining, user: UserId) -> Result<Arc<Kept>, ApiError> {
    let key = format!("mining:stats:{user}");
    if let Some(stats) = read::<Stats>(mining, &key).await
        && is_fresh(mining, user, stats.updated_at)
    {
        return Ok(Arc::new(Kept::of(stats)?));
    }
    let kept = Arc::new(Kept::of(Stats::compute(mining, user).await?)?);
    write(mining, &key, &kept.stats_body, mining.config.cache_ttl).await;
    Ok(kept)
}

/// A cached JSON text.
pub(crate) async fn read<T: serde::de::DeserializeOwned>(mining: &Mining, key: &str) -> Option<T> {
    let text: Option<String> =
        redis::cmd("GET").arg(key).query_async(&mut mining.redis.clone()).await.ok().flatten();
    serde_json::from_str::<Value>(&text?).and_then(serde_json::from_value).ok()
}

/// Caches a JSON text; best effort.
pub(crate) async fn write(mining: &Mining, key: &str, json: &[u8], ttl: Duration) {
    let mut set = redis::cmd("SET");
    set.arg(key).arg(json).arg("PX").arg(u64::try_from(ttl.as_millis()).unwrap_or(1).max(1));
    if let Err(error) = set.query_async::<()>(&mut mining.redis.clone()).await {
        tracing::debug!(%error, "statistics were not cached");
    }
}
