//! The rate limiter on a real Redis: one exact window for all replicas, and what happens when Redis goes
//! away (contract `production.md` §3).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{ToRedisArgs, cmd};
use tbg_core::SystemClock;
use tbg_core::random::SystemEntropy;
use tbg_tests::TestRedis;
use tbg_tests::program::until;
use tbg_web::limit::{Decision, Limiter, Tier};
use tokio::task::JoinSet;

const KEY: &str = "ratelimit:auth:42";
const SECOND_US: i64 = 1_000_000;
/// Waits that are no part of the rule: the tests share the machine.
const GENEROUS: Duration = Duration::from_secs(10);

/// One replica's limiter.
fn limiter(redis: &TestRedis) -> Limiter {
    let manager = tbg_core::redis::manager(&redis.client()).unwrap();
    Limiter::new(manager, Arc::new(SystemClock), Arc::new(SystemEntropy))
}

fn patient_limiter(redis: &TestRedis) -> Limiter {
    limiter(redis).with_deadline(GENEROUS)
}

async fn connect(redis: &TestRedis) -> MultiplexedConnection {
    tbg_core::redis::dedicated(&redis.client()).await.unwrap()
}

async fn decide(limiter: &Limiter, limit: u32) -> Decision {
    limiter.decide(Tier::User, KEY, limit).await
}

/// How many of `tries` pass.
async fn passed(limiter: &Limiter, tries: usize, limit: u32) -> usize {
    let mut passed = 0;
    for _ in 0..tries {
        passed += usize::from(decide(limiter, limit).await.allowed);
    }
    passed
}

/// The clock of Redis, in microseconds.
async fn redis_time(conn: &mut MultiplexedConnection) -> i64 {
    let (seconds, micros): (i64, i64) = cmd("TIME").query_async(conn).await.unwrap();
    seconds * SECOND_US + micros
}

/// Accepts of an earlier time.
async fn seed(conn: &mut MultiplexedConnection, scores: &[i64]) {
    for (number, score) in scores.iter().enumerate() {
        let member = format!("seed{number}");
        cmd("ZADD").arg(KEY).arg(*score).arg(member).query_async::<()>(conn).await.unwrap();
    }
}

async fn entries(conn: &mut MultiplexedConnection) -> Vec<(String, i64)> {
    let range = cmd("ZRANGE").arg(KEY).arg(0).arg(-1).arg("WITHSCORES").query_async(conn).await;
    range.unwrap()
}

async fn set(conn: &mut MultiplexedConnection, setting: &str, value: impl ToRedisArgs) {
    cmd("CONFIG").arg("SET").arg(setting).arg(value).query_async::<()>(conn).await.unwrap();
}

#[tokio::test]
async fn what_is_younger_than_60_seconds_counts_and_what_is_older_goes() {
    let redis = TestRedis::new().await;
    let (limiter, mut conn) = (patient_limiter(&redis), connect(&redis).await);
    let now = redis_time(&mut conn).await;
    // A microsecond past a whole second: the reset shows whether it gets lost on the way.
    let young = (now / SECOND_US - 40) * SECOND_US + 1;
    seed(&mut conn, &[now - 61 * SECOND_US, now - 60 * SECOND_US, young, young + 1]).await;

    let first = decide(&limiter, 4).await;
    let second = decide(&limiter, 4).await;
    let refused = decide(&limiter, 4).await;

    let reset = young / SECOND_US + 61;
    assert_eq!((first.allowed, first.limit, first.remaining), (true, 4, 1));
    assert_eq!((second.allowed, second.remaining), (true, 0));
    assert_eq!((refused.allowed, refused.remaining), (false, 0));
    assert_eq!([first, second, refused].map(|decision| decision.reset_epoch_s), [reset; 3]);
    assert_eq!((first.retry_after_s, second.retry_after_s), (None, None));
    let wait = refused.retry_after_s.unwrap();
    assert!((10..=20).contains(&wait), "{wait}");
    let mut members = entries(&mut conn).await.into_iter().map(|(member, _)| member);
    assert_eq!(members.next().unwrap(), "seed2");
    assert_eq!(members.next().unwrap(), "seed3");
    for member in members {
        assert!(member.len() == 16 && member.bytes().all(|byte| byte.is_ascii_hexdigit()), "{member}");
    }
}

#[tokio::test]
async fn the_next_slot_frees_when_the_oldest_accept_is_60_seconds_old() {
    let redis = TestRedis::new().await;
    let (limiter, mut conn) = (patient_limiter(&redis), connect(&redis).await);
    let oldest = redis_time(&mut conn).await - 57 * SECOND_US;
    seed(&mut conn, &[oldest, oldest + 30 * SECOND_US]).await;
    assert!(!decide(&limiter, 2).await.allowed);

    let free = oldest + 60 * SECOND_US;
    assert!(until(async || decide(&limiter, 2).await.allowed).await);

    let accepted = entries(&mut conn).await.last().unwrap().1;
    assert!(accepted >= free, "{accepted} is before {free}");
    assert!(!decide(&limiter, 2).await.allowed);
}

#[tokio::test]
async fn a_refused_try_adds_nothing_and_keeps_nothing_alive() {
    let redis = TestRedis::new().await;
    let (limiter, mut conn) = (patient_limiter(&redis), connect(&redis).await);
    assert_eq!(passed(&limiter, 5, 5).await, 5);
    let before = entries(&mut conn).await;
    cmd("PEXPIRE").arg(KEY).arg(30_000).query_async::<()>(&mut conn).await.unwrap();

    assert_eq!(passed(&limiter, 20, 5).await, 0);

    assert_eq!(entries(&mut conn).await, before);
    let expires: i64 = cmd("PTTL").arg(KEY).query_async(&mut conn).await.unwrap();
    assert!((1..=30_000).contains(&expires), "{expires}");
}

#[tokio::test]
async fn a_bucket_expires_soon_after_its_window() {
    let redis = TestRedis::new().await;
    let (limiter, mut conn) = (patient_limiter(&redis), connect(&redis).await);
    decide(&limiter, 5).await;
    let expires: i64 = cmd("PTTL").arg(KEY).query_async(&mut conn).await.unwrap();
    assert!((50_000..=61_000).contains(&expires), "{expires}");
}

#[tokio::test]
async fn a_clock_that_was_set_back_an_hour_locks_nobody_out() {
    let redis = TestRedis::new().await;
    let (limiter, mut conn) = (patient_limiter(&redis), connect(&redis).await);
    let future = redis_time(&mut conn).await + 3_600 * SECOND_US;
    seed(&mut conn, &[future, future + 1, future + 2, future + 3, future + 4]).await;

    let next = decide(&limiter, 5).await;

    assert_eq!((next.allowed, next.remaining), (true, 4));
    assert_eq!(entries(&mut conn).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_200_at_once_on_two_replicas_120_pass() {
    let redis = TestRedis::new().await;
    let replicas = [patient_limiter(&redis), patient_limiter(&redis)];
    let mut running = JoinSet::new();
    for number in 0..200 {
        let limiter = replicas[number % 2].clone();
        running.spawn(async move { decide(&limiter, 120).await });
    }

    let decisions = running.join_all().await;

    let left: BTreeSet<u32> =
        decisions.iter().filter(|decision| decision.allowed).map(|decision| decision.remaining).collect();
    assert_eq!(decisions.iter().filter(|decision| decision.allowed).count(), 120);
    assert_eq!(left, (0..120).collect::<BTreeSet<u32>>());
    assert!(replicas.iter().all(Limiter::redis_is_up));
    assert_eq!(entries(&mut connect(&redis).await).await.len(), 120);
}

#[tokio::test]
async fn strange_keys_are_only_keys() {
    let redis = TestRedis::new().await;
    let (limiter, mut conn) = (patient_limiter(&redis), connect(&redis).await);
    let strange =
        ["", r"\", "a\\'\"b", "line\r\nFLUSHALL\r\n", "{x}", "*", "]] .. redis.call('X') --", "é\0😀"];
    for key in strange {
        assert!(limiter.decide(Tier::Unauth, key, 1).await.allowed, "{key:?}");
        assert!(!limiter.decide(Tier::Unauth, key, 1).await.allowed, "{key:?}");
    }
    let mut keys: Vec<String> = cmd("KEYS").arg("*").query_async(&mut conn).await.unwrap();
    keys.sort_unstable();
    let mut expected = strange;
    expected.sort_unstable();
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn without_redis_the_limit_holds_and_a_redis_that_is_back_is_used_within_2_seconds() {
    let mut redis = TestRedis::new().await;
    let limiter = limiter(&redis).with_deadline(Duration::from_secs(1));
    assert!(decide(&limiter, 5).await.allowed);
    assert!(limiter.redis_is_up());

    redis.server.kill().await.unwrap();
    let mut decisions = Vec::new();
    for _ in 0..6 {
        decisions.push(decide(&limiter, 5).await);
    }

    assert!(!limiter.redis_is_up());
    let remaining: Vec<u32> = decisions.iter().map(|decision| decision.remaining).collect();
    assert_eq!(remaining, [4, 3, 2, 1, 0, 0]);
    let refused = decisions.last().unwrap();
    assert!(!refused.allowed && decisions[..5].iter().all(|decision| decision.allowed));
    assert!((55..=60).contains(&refused.retry_after_s.unwrap()), "{refused:?}");
    let now = tbg_tests::now().timestamp();
    assert!((now + 50..=now + 61).contains(&refused.reset_epoch_s), "{refused:?} at {now}");

    redis.server.restart().await.unwrap();
    let started = Instant::now();
    assert!(until(async || limiter.redis_is_up()).await);
    assert!(started.elapsed() <= Duration::from_secs(2), "took {:?}", started.elapsed());
    // A new server knows neither the script nor the bucket.
    assert_eq!(decide(&limiter, 5).await.remaining, 4);
    assert_eq!(entries(&mut connect(&redis).await).await.len(), 1);
}

#[tokio::test]
async fn a_redis_that_does_not_answer_holds_nobody_up() {
    let redis = TestRedis::new().await;
    let (limiter, mut conn) = (limiter(&redis), connect(&redis).await);
    cmd("CLIENT").arg("PAUSE").arg(60_000).arg("ALL").query_async::<()>(&mut conn).await.unwrap();

    let started = Instant::now();
    assert_eq!(passed(&limiter, 20, 5).await, 5);

    assert!(!limiter.redis_is_up());
    // One wait of 100 ms, not twenty.
    assert!(started.elapsed() < Duration::from_millis(1_500), "took {:?}", started.elapsed());
}

#[tokio::test]
async fn a_redis_without_memory_is_left_alone_until_it_has_some() {
    let redis = TestRedis::new().await;
    let (limiter, mut conn) = (patient_limiter(&redis), connect(&redis).await);
    assert!(decide(&limiter, 5).await.allowed);
    cmd("SET").arg("ballast").arg(vec![b'x'; 2_000_000]).query_async::<()>(&mut conn).await.unwrap();
    set(&mut conn, "maxmemory-policy", "noeviction").await;
    set(&mut conn, "maxmemory", "1mb").await;

    assert_eq!(passed(&limiter, 10, 5).await, 5);

    assert!(!limiter.redis_is_up());
    assert_eq!(entries(&mut conn).await.len(), 1);
    set(&mut conn, "maxmemory", 0).await;
    assert!(until(async || limiter.redis_is_up()).await);
    assert_eq!(decide(&limiter, 5).await.remaining, 3);
}
