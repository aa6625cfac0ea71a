//! The rate limiter: an exact sliding window of 60 seconds per client, shared by all replicas.
//!
//! [`Limiter::decide`] asks Redis, in one round trip of one script. While Redis is away (silent for 100 ms,
//! broken, out of memory) it counts in this process instead: the same window, the same headers, the limit
//! per replica. One task then knocks once a second; nobody else waits for a Redis that is away.
//!
//! Invariants: no window of 60 seconds accepts more than the limit, in Redis or in this process; a refused
//! request leaves no trace, so who keeps trying gets back in as soon as who waits; there is always a
//! decision, never an error and never an open door. Contract: `production.md` section 3.

mod client_key;
mod decision;
mod ring;
mod rings;
mod script;
mod tier;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::Context as _;
use tbg_core::random::Entropy;
use tbg_core::redis::Redis;
use tbg_core::{Clock, random};
use tokio::time::Instant;

pub use self::client_key::client_key;
pub use self::decision::Decision;
pub use self::ring::{Ring, WINDOW};
pub use self::tier::{Limits, Subject, Tier, redis_key};

use self::decision::Count;
use self::rings::Rings;
use self::script::Script;

/// How long a decision waits for Redis.
const DEADLINE: Duration = Duration::from_millis(100);
/// How often a Redis that is away is tried.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Tries of one probe. The first may be told how an old attempt to connect ended, and starts a new one.
const TRIES: usize = 2;
/// The bucket of the probes: the real script on a bucket of one, so that a Redis without memory fails it.
const PROBE_KEY: &str = "ratelimit:probe";

/// Counts denials, by `tier`.
const HITS_TOTAL: &str = "tbg_rate_limit_hits_total";
/// 1 while this process counts by itself.
const FALLBACK_ACTIVE: &str = "tbg_rate_limit_fallback_active";

/// Makes the limiter's numbers visible before the first denial. Called once, after the recorder is there.
pub fn register_metrics() {
    metrics::describe_counter!(HITS_TOTAL, "Requests and messages over their limit.");
    metrics::describe_gauge!(FALLBACK_ACTIVE, "1 while limits are counted in this process.");
    for tier in Tier::ALL {
        metrics::counter!(HITS_TOTAL, "tier" => tier.metric_label()).absolute(0);
    }
    metrics::gauge!(FALLBACK_ACTIVE).set(0.0);
}

/// Counts a denial that was decided elsewhere, such as by a ring of a socket or after a [`Limiter::peek`].
pub fn count_denial(tier: Tier) {
    metrics::counter!(HITS_TOTAL, "tier" => tier.metric_label()).increment(1);
}

/// Decides who may pass. Clones share everything.
#[derive(Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
    deadline: Duration,
}

impl Limiter {
    /// A limiter on a Redis that is taken to be up until it fails.
    pub fn new(redis: Redis, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let shared = Shared {
            redis,
            clock,
            entropy,
            script: Script::new(),
            redis_is_up: AtomicBool::new(true),
            rings: Mutex::default(),
            rings_in_use: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared), deadline: DEADLINE }
    }

    /// The same limiter with another patience than 100 ms, for machines that are busy with something else.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Whether the bucket `key` (see [`redis_key`]) takes one more at `limit` per 60 seconds. Counts a
    /// denial under `tier`. Runs inside a Tokio runtime; may be cancelled, at worst the request is counted.
    pub async fn decide(&self, tier: Tier, key: &str, limit: u32) -> Decision {
        let count = match self.count_in_redis(key, limit).await {
            Some(count) => count,
            None => self.shared.count_in_process(key, limit),
        };
        let decision = Decision::of(count, limit);
        if !decision.allowed {
            count_denial(tier);
        }
        decision
    }

    /// What [`Limiter::decide`] would say, without counting anything.
    pub async fn peek(&self, key: &str, limit: u32) -> Decision {
        // A limit of none takes none, and still says what is there.
        let count = match self.count_in_redis(key, 0).await {
            Some(count) => count,
            None => self.shared.count_in_process(key, 0),
        };
        Decision::of(Count { allowed: count.count < limit, ..count }, limit)
    }

    /// Whether Redis answered last time. While it does not, others had better not wait for it either.
    #[must_use]
    pub fn redis_is_up(&self) -> bool {
        self.shared.redis_is_up.load(Ordering::Acquire)
    }

    async fn count_in_redis(&self, key: &str, limit: u32) -> Option<Count> {
        if !self.redis_is_up() {
            return None;
        }
        match self.shared.ask_redis(key, limit, self.deadline).await {
            Ok(count) => {
                self.shared.forget_idle_rings();
                Some(count)
            }
            Err(error) => {
                self.fall_back(&error);
                None
            }
        }
    }

    /// Counts in this process from now on, until a probe succeeds.
    fn fall_back(&self, error: &anyhow::Error) {
        if !self.shared.redis_is_up.swap(false, Ordering::AcqRel) {
            return;
        }
        metrics::gauge!(FALLBACK_ACTIVE).set(1.0);
        tracing::warn!(error = format!("{error:#}"), "Redis is away: limits are counted in this process");
        tokio::spawn(probe(Arc::downgrade(&self.shared), self.deadline));
    }
}

/// Tries Redis once a second until it answers or the limiter is gone.
async fn probe(limiter: Weak<Shared>, deadline: Duration) {
    loop {
        tokio::time::sleep(PROBE_INTERVAL).await;
        let Some(limiter) = limiter.upgrade() else { return };
        for _ in 0..TRIES {
            if limiter.ask_redis(PROBE_KEY, 1, deadline).await.is_ok() {
                metrics::gauge!(FALLBACK_ACTIVE).set(0.0);
                tracing::info!("Redis is back: limits are shared again");
                limiter.redis_is_up.store(true, Ordering::Release);
                return;
            }
        }
    }
}

struct Shared {
    redis: Redis,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    script: Script,
    redis_is_up: AtomicBool,
    rings: Mutex<Rings>,
    /// Whether there are rings left to forget; spares the lock where there never was a fallback.
    rings_in_use: AtomicBool,
}

impl Shared {
    async fn ask_redis(&self, key: &str, limit: u32, deadline: Duration) -> anyhow::Result<Count> {
        let member = format!("{:016x}", u64::from_be_bytes(random::bytes(&*self.entropy)));
        let mut redis = self.redis.clone();
        let answer = self.script.run(&mut redis, key, limit, &member);
        let count = tokio::time::timeout(deadline, answer).await.context("no answer in time")??;
        Ok(count)
    }

    fn count_in_process(&self, key: &str, limit: u32) -> Count {
        let now_us = self.clock.now().timestamp_micros();
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that instants enter a ring in order.
        let now = Instant::now();
        let (allowed, count, oldest) = rings.accept(key, limit, now);
        self.rings_in_use.store(true, Ordering::Relaxed);
        drop(rings);
        let age = now.saturating_duration_since(oldest).as_micros();
        let age_us = i64::try_from(age).unwrap_or(i64::MAX);
        Count { allowed, count, oldest_us: now_us.saturating_sub(age_us), now_us }
    }

    /// Rings outlive a fallback until they are a window old: a Redis that comes and goes must not hand out
    /// the limit each time. Then they go, a few with each decision.
    fn forget_idle_rings(&self) {
        if self.rings_in_use.load(Ordering::Relaxed)
            && let Ok(mut rings) = self.rings.try_lock()
        {
            rings.forget_idle(Instant::now());
            self.rings_in_use.store(!rings.is_empty(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
