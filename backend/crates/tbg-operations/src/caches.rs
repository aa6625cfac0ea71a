//! Clearing caches (contract `production.md` §9): which keys are only copies, and how they go.
//!
//! Keys are found by their prefix. What is no cache (sessions, limits, the pool's own keys, streams, live
//! state) can therefore be reached only through a prefix that is wrong, and a wrong one cannot be registered:
//! [`CacheRegistry::with`] refuses it in every build with debug assertions, and a test holds [`CACHES`].

use std::sync::LazyLock;
use std::time::Instant;

use redis::{RedisResult, Script, cmd};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tbg_core::UserId;
use tbg_core::audit::{Action, Entry, Origin, record_refusal};
use tbg_core::redis::Redis;
use tbg_web::{ApiError, ErrorCode};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::routes::{Operations, record};

/// Only its holder clears caches.
const LOCK: &str = "admin:cache_clear:lock";
/// After this, the holder is taken for dead.
const LOCK_SECONDS: u64 = 60;
/// Tells every replica to drop what it holds in its own memory.
const CHANNEL: &str = "cache:cleared";
/// Keys per step of a scan, and per deletion.
const BATCH: usize = 500;

/// Gives the lock back, unless it has gone to somebody else meanwhile.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"if redis.call('GET', KEYS[1]) == ARGV[1] then
            return redis.call('DEL', KEYS[1])
          end
          return 0",
    )
});

/// Whose caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = CacheScope)]
pub enum Scope {
    /// Everybody's.
    #[default]
    All,
    /// Statistics of mining.
    Mining,
    /// The dashboard's.
    Dashboard,
    /// Sums of experience.
    Gamification,
    /// The live lottery.
    Games,
    /// Leaderboards.
    Competition,
    /// Public profiles.
    Social,
    /// The administrators' own.
    Admin,
}

impl Scope {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Mining => "mining",
            Self::Dashboard => "dashboard",
            Self::Gamification => "gamification",
            Self::Games => "games",
            Self::Competition => "competition",
            Self::Social => "social",
            Self::Admin => "admin",
        }
    }
}

/// The caches of all domains: every key that begins so is a copy of something and may go at any time.
pub const CACHES: &[(Scope, &[&str])] = &[
    (Scope::Mining, &["mining:stats:", "mining:dist:"]),
    (Scope::Dashboard, &["dashboard:stats:"]),
    (Scope::Gamification, &["gam:xpsum:"]),
    (Scope::Games, &["lottery:live:"]),
    (Scope::Competition, &["leaderboard:"]),
    (Scope::Social, &["public:profile:"]),
    (Scope::Admin, &["admin:stats"]),
];

/// Beginnings of keys that are no cache. The streams stand here one by one, because `mining:` is also how
/// two caches begin.
const NEVER: &[&str] = &[
    "auth:",
    "email_rate:",
    "ratelimit:",
    "user_coinbase:",
    "vardiff:",
    "mining:share_submitted",
    "mining:share_best_diff",
    "mining:block_found",
    "mining:miner_connected",
    "mining:miner_disconnected",
    "mining:diff_updated",
    "mining:hashrate_update",
    "mining:new_block_network",
    "mining:asicboost_detected",
    "mining:other",
    "mining:refused",
    "mining:dlq",
    "worker",
    "user_hashrate:",
    "network:",
    "uptime:",
    "ws:",
    "tbg:",
    LOCK,
];

/// Whether no key that is no cache can begin with `prefix`.
fn is_cache(prefix: &str) -> bool {
    !prefix.is_empty() && NEVER.iter().all(|never| !never.starts_with(prefix) && !prefix.starts_with(never))
}

/// Which prefixes belong to which scope; by default those of all domains, [`CACHES`].
#[derive(Clone, Debug)]
pub struct CacheRegistry(Vec<(Scope, &'static str)>);

impl Default for CacheRegistry {
    fn default() -> Self {
        CACHES.iter().fold(Self::new(), |registry, (scope, prefixes)| registry.with(*scope, prefixes))
    }
}

impl CacheRegistry {
    /// No caches.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The same with more caches of a domain.
    #[must_use]
    pub fn with(mut self, scope: Scope, prefixes: &[&'static str]) -> Self {
        debug_assert!(prefixes.iter().all(|prefix| is_cache(prefix)), "not a cache: {prefixes:?}");
        self.0.extend(prefixes.iter().map(|prefix| (scope, *prefix)));
        self
    }

    /// How the keys of a scope begin.
    fn prefixes(&self, scope: Scope) -> Vec<&'static str> {
        self.0
            .iter()
            .filter(|(of, _)| scope == Scope::All || scope == *of)
            .map(|(_, prefix)| *prefix)
            .collect()
    }

    /// What the keys of a scope match, as an administrator reads it.
    fn patterns(&self, scope: Scope) -> Vec<String> {
        self.prefixes(scope).into_iter().map(pattern).collect()
    }
}

/// Matches every key that begins with `prefix`, and no other.
fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for char in prefix.chars() {
        if matches!(char, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(char);
    }
    pattern.push('*');
    pattern
}

/// What clearing did.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = CacheCleared)]
pub struct Cleared {
    /// Always `cleared`.
    pub status: &'static str,
    /// Whose caches went.
    #[schema(value_type = String)]
    pub scope: Scope,
    /// Keys that were there and are gone.
    pub deleted_keys: u64,
    /// What they matched.
    pub patterns: Vec<String>,
    /// How long it took.
    pub duration_ms: u64,
}

/// Deletes the cached keys of `scope` and tells every replica. One at a time; who does it is in the audit log.
///
/// # Errors
/// 409 `CACHE_CLEAR_RUNNING` while another one runs; 503 when Redis is away or it cannot be recorded.
pub async fn clear_caches(
    operations: &Operations,
    admin: UserId,
    origin: &Origin,
    scope: Scope,
) -> Result<Cleared, ApiError> {
    let started = Instant::now();
    let mut redis = operations.redis.clone();
    let token = Uuid::new_v4().simple().to_string();
    if !lock(&mut redis, &token).await.map_err(ApiError::unavailable_because)? {
        return Err(ApiError::new(ErrorCode::CacheClearRunning, "The cache is being cleared already"));
    }
    let patterns = operations.caches.patterns(scope);
    let cleared = clear(&mut redis, &operations.caches.prefixes(scope), scope).await;
    unlock(&mut redis, &token).await;
    let entry = Entry::new(Action::AdminCacheCleared, "cache").by(admin).on(scope.as_str()).from(origin);
    let deleted_keys = match cleared {
        Ok(deleted_keys) => deleted_keys,
        Err(error) => {
            // Some keys may be gone.
            record_refusal(&operations.pool, &entry.failed()).await;
            return Err(ApiError::unavailable_because(error));
        }
    };
    record(operations, &entry.details(json!({ "deleted_keys": deleted_keys }))).await?;
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Cleared { status: "cleared", scope, deleted_keys, patterns, duration_ms })
}

async fn lock(redis: &mut Redis, token: &str) -> RedisResult<bool> {
    let set: Option<String> =
        cmd("SET").arg(LOCK).arg(token).arg("NX").arg("EX").arg(LOCK_SECONDS).query_async(redis).await?;
    Ok(set.is_some())
}

/// A lock that cannot be given back ends by itself.
async fn unlock(redis: &mut Redis, token: &str) {
    let released: RedisResult<i64> = RELEASE.key(LOCK).arg(token).invoke_async(redis).await;
    if let Err(error) = released {
        tracing::warn!(%error, "the lock of cache clearing stays until it expires");
    }
}

async fn clear(redis: &mut Redis, prefixes: &[&str], scope: Scope) -> RedisResult<u64> {
    let deleted = unlink(redis, prefixes).await?;
    let message = json!({ "scope": scope }).to_string();
    cmd("PUBLISH").arg(CHANNEL).arg(message).query_async::<()>(redis).await?;
    Ok(deleted)
}

/// Scans once for all prefixes, so that Redis answers others meanwhile, and unlinks, so that it frees memory
/// aside.
async fn unlink(redis: &mut Redis, prefixes: &[&str]) -> RedisResult<u64> {
    let (mut cursor, mut deleted) = (0_u64, 0_u64);
    loop {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("COUNT").arg(BATCH);
        let (next, mut keys): (u64, Vec<Vec<u8>>) = scan.query_async(redis).await?;
        keys.retain(|key| prefixes.iter().any(|prefix| key.starts_with(prefix.as_bytes())));
        if !keys.is_empty() {
            deleted += cmd("UNLINK").arg(&keys).query_async::<u64>(redis).await?;
        }
        if next == 0 {
            return Ok(deleted);
        }
        cursor = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_registered_prefix_reaches_what_is_no_cache() {
        let prefixes: Vec<&str> = CACHES.iter().flat_map(|(_, prefixes)| prefixes.iter().copied()).collect();
        assert_eq!(prefixes.len(), 8);
        for prefix in prefixes {
            for never in NEVER {
                assert!(!never.starts_with(prefix) && !prefix.starts_with(never), "{prefix} and {never}");
            }
        }
        for wrong in
            ["", "mining:", "m", "admin:", "auth:user_state:", "workers:", "ws:conns:", "tbg:pool:stats"]
        {
            assert!(!is_cache(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_scope_has_its_own_caches_and_all_has_all() {
        let registry = CacheRegistry::default();
        assert_eq!(registry.patterns(Scope::Mining), ["mining:stats:*", "mining:dist:*"]);
        assert_eq!(registry.patterns(Scope::Admin), ["admin:stats*"]);
        assert_eq!(registry.patterns(Scope::All).len(), 8);
        for (scope, prefixes) in CACHES {
            assert_eq!(registry.patterns(*scope).len(), prefixes.len(), "{}", scope.as_str());
        }
    }

    #[test]
    fn a_prefix_is_taken_literally() {
        assert_eq!(pattern(r"a*b?[c]\:"), r"a\*b\?\[c\]\\:*");
    }

    #[test]
    fn the_words_are_those_of_the_wire() {
        for (scope, _) in CACHES.iter().chain([&(Scope::All, [].as_slice())]) {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
        assert_eq!(Scope::default(), Scope::All);
    }
}
