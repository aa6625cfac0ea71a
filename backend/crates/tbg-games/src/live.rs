//! The live ranking of a week in Redis: a copy that a job, or whoever misses it, makes from `weekly_best_diff`
//! (contract `games.md` §6).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use redis::RedisResult;
use sqlx::PgPool;
use tbg_core::UserId;
use tbg_core::period::IsoWeek;
use tbg_core::redis::Redis;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::store;

/// Seconds that a ranking outlives its newest entry.
const TTL_SECONDS: i64 = 14 * 86_400;
/// Participants in one command.
const CHUNK: usize = 1_000;
/// How long a week without participants is not looked up again.
const EMPTY_FOR: Duration = Duration::from_secs(60);

/// Where somebody stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Standing {
    pub rank: i64,
    pub participants: i64,
    /// Of the network, as the pool last heard it.
    pub network_difficulty: Option<f64>,
}

/// The live rankings. Clones share everything.
#[derive(Clone)]
pub struct Ranking {
    redis: Redis,
    /// When the ranking of a week was last found empty here; held while it is made.
    empty: Arc<Mutex<HashMap<IsoWeek, Instant>>>,
}

fn key(week: IsoWeek) -> String {
    format!("lottery:live:{week}")
}

impl Ranking {
    /// On a Redis connection.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { redis, empty: Arc::default() }
    }

    /// Raises bests. A failure leaves a rank low until the job has run.
    pub(crate) async fn raise(&self, bests: &HashMap<(IsoWeek, UserId), f64>) {
        if bests.is_empty() {
            return;
        }
        let mut pipe = redis::pipe();
        for ((week, user), best) in bests {
            pipe.cmd("ZADD").arg(key(*week)).arg("GT").arg(*best).arg(user.0).ignore();
            pipe.cmd("EXPIRE").arg(key(*week)).arg(TTL_SECONDS).ignore();
        }
        if let Err(error) = pipe.query_async::<()>(&mut self.redis.clone()).await {
            tracing::debug!(%error, "live ranks were not raised");
        }
    }

    /// Where a user stands: one round trip. `best` is what the tables say.
    pub(crate) async fn standing(&self, week: IsoWeek, user: UserId, best: f64) -> RedisResult<Standing> {
        let mut pipe = redis::pipe();
        pipe.get("network:difficulty").zcard(key(week)).zscore(key(week), user.0);
        pipe.zcount(key(week), format!("({best}"), "+inf");
        let (network, participants, score, above): (Option<String>, i64, Option<f64>, i64) =
            pipe.query_async(&mut self.redis.clone()).await?;
        Ok(Standing {
            rank: if score.is_some() && best > 0.0 { above + 1 } else { 0 },
            participants,
            network_difficulty: network
                .and_then(|text| text.parse().ok())
                .filter(|number: &f64| *number > 0.0),
        })
    }

    /// Makes the ranking of a week if it is not there, once at a time; says whether it may be there now.
    pub(crate) async fn make_if_missing(&self, pool: &PgPool, week: IsoWeek) -> anyhow::Result<bool> {
        let mut empty = self.empty.lock().await;
        if empty.get(&week).is_some_and(|since| since.elapsed() < EMPTY_FOR) {
            return Ok(false);
        }
        let made = self.make(pool, week).await? > 0;
        empty.retain(|_, since| since.elapsed() < EMPTY_FOR);
        if !made {
            empty.insert(week, Instant::now());
        }
        Ok(made)
    }

    /// Makes the ranking of a week anew, beside the old one, then puts it in its place. Returns how many take part.
    pub(crate) async fn make(&self, pool: &PgPool, week: IsoWeek) -> anyhow::Result<usize> {
        let rows = store::ranking(pool, week.monday()).await?;
        let (live, making) = (key(week), format!("{}:making", key(week)));
        let mut redis = self.redis.clone();
        let mut pipe = redis::pipe();
        pipe.del(&making).ignore();
        for chunk in rows.chunks(CHUNK) {
            let scores: Vec<(f64, i64)> = chunk.iter().map(|(user, best)| (*best, *user)).collect();
            pipe.zadd_multiple(&making, &scores).ignore();
        }
        if !rows.is_empty() {
            // What was raised meanwhile stays: the greater of the two counts.
            pipe.cmd("ZUNIONSTORE")
                .arg(&making)
                .arg(2)
                .arg(&making)
                .arg(&live)
                .arg("AGGREGATE")
                .arg("MAX")
                .ignore();
            pipe.rename(&making, &live).ignore();
            pipe.expire(&live, TTL_SECONDS).ignore();
        }
        pipe.query_async::<()>(&mut redis).await?;
        Ok(rows.len())
    }
}

/// The job: this week's ranking, and last week's while it may still change.
pub(crate) async fn rebuild(ranking: &Ranking, pool: &PgPool, now: DateTime<Utc>) -> anyhow::Result<()> {
    let week = IsoWeek::of(now);
    ranking.make(pool, week).await?;
    ranking.make(pool, week.minus(1)).await?;
    Ok(())
}
