//! Statistics of users, kept for some seconds: one computation at a time per user in this process, and one
//! text in Redis for all replicas (contract `mining.md` §5.2, §7).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use moka::sync::Cache;
use serde_json::Value;
use tbg_core::UserId;
use tbg_web::ApiError;
use tokio::sync::OnceCell;

use crate::Mining;
use crate::routes::summary::Stats;

const CAPACITY: u64 = 50_000;

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
}

impl StatsCache {
    pub(crate) fn new(ttl: Duration) -> Self {
        // An entry that was not computed here may be as old as the time to live when it comes in.
        Self { ttl, slots: Cache::builder().max_capacity(CAPACITY).time_to_live(ttl).build() }
    }

    pub(crate) fn clear(&self) {
        self.slots.invalidate_all();
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
    if is_fresh(mining, kept.stats.updated_at) {
        return Ok(kept);
    }
    // It came from Redis and has aged since: whoever asks next starts anew.
    cache.slots.invalidate(&user);
    fetch(mining, user).await
}

fn is_fresh(mining: &Mining, computed_at: DateTime<Utc>) -> bool {
    let ttl = TimeDelta::from_std(mining.config.cache_ttl).unwrap_or_default();
    mining.clock.now() - computed_at < ttl
}

/// From Redis, else computed. Redis that is away costs a computation, never an answer.
async fn fetch(mining: &Mining, user: UserId) -> Result<Arc<Kept>, ApiError> {
    let key = format!("mining:stats:{user}");
    if let Some(stats) = read::<Stats>(mining, &key).await
        && is_fresh(mining, stats.updated_at)
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
