//! What the database says about a user and a session, kept for a moment.

use std::time::Duration;

use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tbg_core::UserId;
use tbg_core::redis::Redis;
use uuid::Uuid;

use super::store;
use crate::limit::Limiter;

/// How old a state may be in this process: an ended session is refused everywhere within a second.
const MAX_AGE: Duration = Duration::from_secs(1);
/// How old it may be in Redis (contract `auth-users.md` §11).
const REDIS_TTL_SECONDS: u64 = 30;
/// How long the denylist keeps a session: longer than its last access token lives.
const REVOKED_TTL_SECONDS: u64 = 3660;
/// How long Redis may take before the database is asked.
const REDIS_DEADLINE: Duration = Duration::from_millis(100);
const CAPACITY: u64 = 200_000;

/// What decides whether a user may ask at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UserState {
    pub banned: bool,
    pub admin: bool,
    pub deleted: bool,
    /// Unix seconds; tokens issued before are void.
    pub tokens_valid_from: i64,
}

impl UserState {
    /// Nobody has this id.
    pub(super) const GONE: Self = Self { banned: false, admin: false, deleted: true, tokens_valid_from: 0 };
}

/// States by user, and which sessions were ended.
pub(super) struct States {
    pool: PgPool,
    redis: Redis,
    limiter: Limiter,
    users: Cache<UserId, UserState>,
    revoked: Cache<Uuid, bool>,
}

impl States {
    pub(super) fn new(pool: PgPool, redis: Redis, limiter: Limiter) -> Self {
        Self {
            pool,
            redis,
            limiter,
            users: Cache::builder().max_capacity(CAPACITY).time_to_live(MAX_AGE).build(),
            revoked: Cache::builder().max_capacity(CAPACITY).time_to_live(MAX_AGE).build(),
        }
    }

    /// The user's state, and whether the session was ended.
    pub(super) async fn of(&self, user: UserId, sid: Option<Uuid>) -> Result<(UserState, bool), sqlx::Error> {
        let known = self.users.get(&user);
        let revoked = sid.map_or(Some(false), |sid| self.revoked.get(&sid));
        if let (Some(state), Some(revoked)) = (known, revoked) {
            return Ok((state, revoked));
        }
        // Once a second per user. Boxed, so that the future of every request does not carry the room for it.
        Box::pin(self.fetch(user, sid)).await
    }

    async fn fetch(&self, user: UserId, sid: Option<Uuid>) -> Result<(UserState, bool), sqlx::Error> {
        let (shared, revoked) = self.ask_redis(user, sid).await;
        let state = match shared {
            Some(state) => state,
            None => {
                let state = store::user_state(&self.pool, user).await?;
                self.share(user, state).await;
                state
            }
        };
        self.users.insert(user, state);
        let Some(sid) = sid else { return Ok((state, revoked)) };
        // Meanwhile the session may have been ended here.
        let revoked = revoked || self.revoked.get(&sid).unwrap_or(false);
        self.revoked.insert(sid, revoked);
        Ok((state, revoked))
    }

    async fn ask_redis(&self, user: UserId, sid: Option<Uuid>) -> (Option<UserState>, bool) {
        if !self.limiter.redis_is_up() {
            return (None, false);
        }
        let mut keys = vec![user_key(user)];
        keys.extend(sid.map(sid_key));
        let mut redis = self.redis.clone();
        let mget = redis::cmd("MGET").arg(keys).to_owned();
        let answer = async { mget.query_async::<Vec<Option<String>>>(&mut redis).await };
        match tokio::time::timeout(REDIS_DEADLINE, answer).await {
            Ok(Ok(values)) => {
                let state = values.first().cloned().flatten();
                let state = state.and_then(|json| serde_json::from_str(&json).ok());
                (state, values.get(1).is_some_and(Option::is_some))
            }
            _ => (None, false),
        }
    }

    /// `NX`: whoever read earlier does not overwrite what was read later.
    async fn share(&self, user: UserId, state: UserState) {
        let Ok(json) = serde_json::to_string(&state) else { return };
        let mut set = redis::cmd("SET");
        set.arg(user_key(user)).arg(json).arg("EX").arg(REDIS_TTL_SECONDS).arg("NX");
        self.best_effort(&set).await;
    }

    pub(super) async fn forget_user(&self, user: UserId) {
        let mut delete = redis::cmd("DEL");
        delete.arg(user_key(user));
        self.best_effort(&delete).await;
        self.users.invalidate(&user);
    }

    /// Ends sessions everywhere: the denylist for requests, the channel for open sockets.
    pub(super) async fn revoke(&self, user: UserId, sids: &[Uuid]) {
        for chunk in sids.chunks(500) {
            let mut pipe = redis::pipe();
            for sid in chunk {
                pipe.cmd("SET").arg(sid_key(*sid)).arg(1).arg("EX").arg(REVOKED_TTL_SECONDS).ignore();
                let message = serde_json::json!({ "user_id": user.0, "sid": sid }).to_string();
                pipe.cmd("PUBLISH").arg("auth:revoked").arg(message).ignore();
                self.revoked.insert(*sid, true);
            }
            let mut redis = self.redis.clone();
            if self.limiter.redis_is_up()
                && let Err(error) = pipe.query_async::<()>(&mut redis).await
            {
                tracing::warn!(%error, "ended sessions could not be announced; tokens end by their age");
            }
        }
    }

    async fn best_effort(&self, command: &redis::Cmd) {
        if !self.limiter.redis_is_up() {
            return;
        }
        let mut redis = self.redis.clone();
        let answer = async { command.query_async::<()>(&mut redis).await };
        match tokio::time::timeout(REDIS_DEADLINE, answer).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "Redis did not take a user's state"),
            Err(_) => tracing::warn!("Redis did not take a user's state in time"),
        }
    }
}

fn user_key(user: UserId) -> String {
    format!("auth:user_state:{user}")
}

fn sid_key(sid: Uuid) -> String {
    format!("auth:sid_revoked:{sid}")
}
