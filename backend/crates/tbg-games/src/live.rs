//! The live ranking of a week in Redis: a copy that a job, or whoever misses it, makes from `weekly_best_diff`
//! (contract `games.md` §6). While Redis is away a process answers from a copy of its own, as old as the job's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use chrono::{DateTime, Utc};
use redis::{FromRedisValue, RedisResult, Value, from_redis_value};
use sqlx::PgPool;
use tbg_core::UserId;
use tbg_core::period::IsoWeek;
use tbg_core::redis::Redis;
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::store;

/// Seconds that a ranking outlives its newest entry.
const TTL_SECONDS: i64 = 14 * 86_400;
/// Seconds that an unfinished one is kept.
const MAKING_SECONDS: i64 = 300;
/// Participants in one command.
const CHUNK: usize = 1_000;
/// A member below everybody: who finds it knows that the ranking was made from the tables, not only raised.
const MADE: &str = "made";
/// Its score.
const BELOW_ALL: f64 = -1.0;
/// How long a copy in this process is good: as long as the job leaves the one in Redis alone.
const COPY_FOR: Duration = Duration::from_secs(300);

/// How long a ranking is not made again that could not be made, as in a Redis that answers and takes nothing.
const REFUSED_FOR: Duration = Duration::from_secs(60);

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
    /// The same for whoever waits for an answer.
    asking: Redis,
    /// Held while a missing ranking is made: when that failed last.
    making: Arc<Mutex<Option<Instant>>>,
    /// The rankings that were needed while Redis had none; held while one is made.
    copies: Arc<Mutex<HashMap<IsoWeek, Arc<RankingCopy>>>>,
}

/// A ranking in this process.
struct RankingCopy {
    made: Instant,
    /// Who takes part, ascending.
    users: Vec<i64>,
    /// Their bests, ascending.
    bests: Vec<f64>,
}

impl RankingCopy {
    fn of(rows: &[(i64, f64)]) -> Self {
        let mut users: Vec<i64> = rows.iter().map(|(user, _)| *user).collect();
        let mut bests: Vec<f64> = rows.iter().map(|(_, best)| *best).collect();
        users.sort_unstable();
        bests.sort_unstable_by(f64::total_cmp);
        Self { made: Instant::now(), users, bests }
    }

    fn standing(&self, user: UserId, best: f64) -> Standing {
        let is_in = best > 0.0 && self.users.binary_search(&user.0).is_ok();
        let above = self.bests.len() - self.bests.partition_point(|other| *other <= best);
        let participants = i64::try_from(self.bests.len()).unwrap_or(i64::MAX);
        let rank = i64::try_from(above + 1).unwrap_or(i64::MAX);
        Standing { rank: if is_in { rank } else { 0 }, participants, network_difficulty: None }
    }
}

/// Who is asked for: in which week, and their best of it by the tables.
pub(crate) type Asked = (IsoWeek, UserId, f64);

/// The next answer of a pipeline; one that lacks is nil.
fn next<T: FromRedisValue>(answers: &mut impl Iterator<Item = Value>) -> RedisResult<T> {
    Ok(from_redis_value(answers.next().unwrap_or(Value::Nil))?)
}

/// A difficulty as mining writes it.
fn difficulty(text: Option<String>) -> Option<f64> {
    text.and_then(|text| text.parse().ok()).filter(|number: &f64| *number > 0.0)
}

fn key(week: IsoWeek) -> String {
    format!("lottery:live:{week}")
}

impl Ranking {
    /// On a Redis connection.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { asking: redis.hurried(), redis, making: Arc::default(), copies: Arc::default() }
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

    /// The network's difficulty of now, if Redis knows it.
    pub(crate) async fn network_difficulty(&self) -> Option<f64> {
        let known = redis::cmd("GET").arg("network:difficulty").to_owned();
        let known: Option<String> = known.query_async(&mut self.asking.clone()).await.ok()?;
        difficulty(known)
    }

    /// Where a user stands; see [`Self::standings`].
    pub(crate) async fn standing(&self, pool: &PgPool, asked: Asked) -> Standing {
        self.standings(pool, &[asked]).await.pop().unwrap_or_default()
    }

    /// Where users stand, in their order: one round trip. A ranking that Redis forgot is made. Where Redis is away, or
    /// does not take it, a copy in this process answers; without a database to make that from, nobody stands anywhere.
    pub(crate) async fn standings(&self, pool: &PgPool, asked: &[Asked]) -> Vec<Standing> {
        let mut network_difficulty = None;
        if let Ok((standings, forgotten)) = self.ask(asked).await {
            if forgotten.is_empty() {
                return standings;
            }
            network_difficulty = standings.first().and_then(|standing| standing.network_difficulty);
            match self.make_missing(pool, forgotten).await {
                Ok(()) => match self.ask(asked).await {
                    Ok((standings, forgotten)) if forgotten.is_empty() => return standings,
                    _ => tracing::debug!("a ranking in Redis was gone as soon as it was made"),
                },
                Err(error) => tracing::debug!(error = format!("{error:#}"), "no ranking in Redis"),
            }
        }
        let standings = self.by_copies(pool, asked).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "no live ranking");
            vec![Standing::default(); asked.len()]
        });
        standings.into_iter().map(|standing| Standing { network_difficulty, ..standing }).collect()
    }

    /// What Redis says, and the weeks that it does not know whole: one round trip.
    async fn ask(&self, asked: &[Asked]) -> RedisResult<(Vec<Standing>, BTreeSet<IsoWeek>)> {
        let mut pipe = redis::pipe();
        pipe.get("network:difficulty");
        let mut weeks = BTreeMap::<IsoWeek, Vec<(usize, UserId, f64)>>::new();
        for (place, (week, user, best)) in asked.iter().enumerate() {
            weeks.entry(*week).or_default().push((place, *user, *best));
        }
        for (week, users) in &weeks {
            let key = key(*week);
            pipe.zcard(&key).cmd("ZMSCORE").arg(&key).arg(MADE);
            for (_, user, _) in users {
                pipe.arg(user.0);
            }
            for (_, _, best) in users {
                pipe.zcount(&key, format!("({best}"), "+inf");
            }
        }
        let answers: Vec<Value> = pipe.query_async(&mut self.asking.clone()).await?;
        let mut answers = answers.into_iter();
        let network: Option<String> = next(&mut answers)?;
        let network_difficulty = difficulty(network);
        let (mut standings, mut forgotten) = (vec![Standing::default(); asked.len()], BTreeSet::new());
        for (week, users) in weeks {
            let (members, scores): (i64, Vec<Option<f64>>) = (next(&mut answers)?, next(&mut answers)?);
            let is_made = scores.first().is_some_and(Option::is_some);
            for ((place, _, best), score) in users.iter().zip(scores.iter().skip(1)) {
                let above: i64 = next(&mut answers)?;
                if let Some(standing) = standings.get_mut(*place) {
                    *standing = Standing {
                        rank: if score.is_some() && *best > 0.0 { above + 1 } else { 0 },
                        participants: members - i64::from(is_made),
                        network_difficulty,
                    };
                }
            }
            if !is_made {
                forgotten.insert(week);
            }
        }
        Ok((standings, forgotten))
    }

    /// What copies in this process say.
    async fn by_copies(&self, pool: &PgPool, asked: &[Asked]) -> Result<Vec<Standing>, sqlx::Error> {
        let mut standings = Vec::with_capacity(asked.len());
        for (week, user, best) in asked {
            standings.push(self.copy(pool, *week).await?.standing(*user, *best));
        }
        Ok(standings)
    }

    /// The ranking of a week in this process, made once at a time.
    async fn copy(&self, pool: &PgPool, week: IsoWeek) -> Result<Arc<RankingCopy>, sqlx::Error> {
        let mut copies = self.copies.lock().await;
        copies.retain(|_, copy| copy.made.elapsed() < COPY_FOR);
        if let Some(copy) = copies.get(&week) {
            return Ok(Arc::clone(copy));
        }
        let copy = Arc::new(RankingCopy::of(&store::ranking(pool, week.monday()).await?));
        copies.insert(week, Arc::clone(&copy));
        Ok(copy)
    }

    /// Makes the rankings of weeks that are not there, once at a time; not for a while after that failed.
    async fn make_missing(&self, pool: &PgPool, weeks: BTreeSet<IsoWeek>) -> anyhow::Result<()> {
        let mut failed = self.making.lock().await;
        ensure!(failed.is_none_or(|at| at.elapsed() > REFUSED_FOR), "it could not be made a moment ago");
        for week in weeks {
            let made: Option<f64> =
                redis::cmd("ZSCORE").arg(key(week)).arg(MADE).query_async(&mut self.redis.clone()).await?;
            if made.is_none()
                && let Err(error) = self.make(pool, week).await
            {
                *failed = Some(Instant::now());
                return Err(error);
            }
        }
        *failed = None;
        Ok(())
    }

    /// Makes the ranking of a week anew, beside the old one, then puts it in its place: who is banned or gone is in
    /// it no more. A best that is raised meanwhile may be missing until the next time.
    pub(crate) async fn make(&self, pool: &PgPool, week: IsoWeek) -> anyhow::Result<()> {
        let rows = store::ranking(pool, week.monday()).await?;
        let (live, making) = (key(week), format!("{}:{}", key(week), Uuid::new_v4()));
        let mut pipe = redis::pipe();
        pipe.zadd(&making, MADE, BELOW_ALL).ignore();
        pipe.expire(&making, MAKING_SECONDS).ignore();
        for chunk in rows.chunks(CHUNK) {
            let scores: Vec<(f64, i64)> = chunk.iter().map(|(user, best)| (*best, *user)).collect();
            pipe.zadd_multiple(&making, &scores).ignore();
        }
        pipe.rename(&making, &live).ignore();
        pipe.expire(&live, TTL_SECONDS).ignore();
        pipe.query_async::<()>(&mut self.redis.clone()).await?;
        Ok(())
    }
}

/// The job: this week's ranking, and last week's while it may still change.
pub(crate) async fn rebuild(ranking: &Ranking, pool: &PgPool, now: DateTime<Utc>) -> anyhow::Result<()> {
    let week = IsoWeek::of(now);
    ranking.make(pool, week).await?;
    ranking.make(pool, week.minus(1)).await?;
    Ok(())
}
