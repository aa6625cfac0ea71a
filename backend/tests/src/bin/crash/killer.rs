//! Kills at random points, and watches whether work goes on afterwards.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::ProgressBar;
use sqlx::PgPool;
use tbg_core::redis::Redis;
use tbg_engine::source::streams;
use tokio::time::sleep;

use crate::pour::Gate;
use crate::stage::{Kill, Stage};

/// After a start, the next kill waits for progress this long: a program that is killed too early every
/// time is tested too.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same after a kill of a server, and after the last kill.
const SERVER_PATIENCE: Duration = Duration::from_secs(15);
/// How much later than the first progress a kill comes at most.
const LATEST_MS: u64 = 400;
/// How long a server stays away at most.
const LONGEST_DOWN_MS: u64 = 300;
const POLL: Duration = Duration::from_millis(40);
/// How long the rest may take once nobody is killed any more.
const DRAIN_LIMIT: Duration = Duration::from_secs(180);
/// Nothing more comes when the ledger has not grown for this long.
const STABLE_FOR: Duration = Duration::from_secs(2);

/// Splitmix64: small, seeded, good enough to choose moments.
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn up_to_ms(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.draw() % (most + 1))
    }
}

/// So many kills of each of [`Kill::ALL`], in random order.
pub fn plan(counts: [usize; 3], random: &mut Random) -> Vec<Kill> {
    let mut plan: Vec<Kill> = Kill::ALL
        .into_iter()
        .zip(counts)
        .flat_map(|(kill, count)| std::iter::repeat_n(kill, count))
        .collect();
    for last in (1..plan.len()).rev() {
        let other = random.draw() % (last as u64 + 1);
        plan.swap(last, usize::try_from(other).unwrap_or(0));
    }
    plan
}

/// What the kills of one of [`Kill::ALL`] led to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recovery {
    /// Kills done.
    pub kills: usize,
    /// Longest time from the restart to the first growth of the ledger.
    pub longest: Duration,
    /// Restarts after which there was no progress within the patience, before the next kill.
    pub without_progress: usize,
}

/// In the order of [`Kill::ALL`].
pub type Recoveries = [Recovery; 3];

/// Carries out the plan. The program is running.
pub async fn run(
    stage: &mut Stage,
    pool: &PgPool,
    plan: &[Kill],
    random: &mut Random,
    gate: &Gate,
    bar: &ProgressBar,
) -> anyhow::Result<Recoveries> {
    let mut recoveries = Recoveries::default();
    progress(pool, Instant::now(), SERVER_PATIENCE).await?;
    for (index, kill) in plan.iter().enumerate() {
        sleep(random.up_to_ms(LATEST_MS)).await;
        let down = random.up_to_ms(LONGEST_DOWN_MS);
        stage.strike(*kill, down).await.with_context(|| format!("kill {} of {}", index + 1, kill.name()))?;
        let restarted = Instant::now();
        gate.open();
        bar.inc(1);
        let is_last = index + 1 == plan.len();
        let patience = if *kill == Kill::Ingest && !is_last { PATIENCE } else { SERVER_PATIENCE };
        let recovery = &mut recoveries[*kill as usize];
        recovery.kills += 1;
        match progress(pool, restarted, patience).await? {
            Some(took) => recovery.longest = recovery.longest.max(took),
            None => recovery.without_progress += 1,
        }
    }
    Ok(recoveries)
}

/// Waits until the ledger grows; the time since `started` until it did, if it did within `patience`.
async fn progress(pool: &PgPool, started: Instant, patience: Duration) -> anyhow::Result<Option<Duration>> {
    let before = ledger_rows(pool).await?;
    while started.elapsed() < patience {
        sleep(POLL).await;
        if ledger_rows(pool).await? > before {
            return Ok(Some(started.elapsed()));
        }
    }
    Ok(None)
}

/// Rows of the ledger: events applied. Asked again a few times, since a connection of the pool may still
/// be one of a server that was killed.
pub async fn ledger_rows(pool: &PgPool) -> anyhow::Result<i64> {
    let mut tries = 0;
    loop {
        match sqlx::query_scalar("SELECT count(*) FROM ingest_ledger").fetch_one(pool).await {
            Ok(count) => return Ok(count),
            Err(error) if tries >= 20 => return Err(error).context("counting the ledger"),
            Err(_) => {
                tries += 1;
                sleep(POLL).await;
            }
        }
    }
}

/// Waits until the consumer group has nothing pending and nothing unread and the ledger is at rest; says
/// whether that came in time.
pub async fn drain(pool: &PgPool, redis: &mut Redis) -> anyhow::Result<bool> {
    let started = Instant::now();
    let mut rows = ledger_rows(pool).await?;
    let mut changed = Instant::now();
    while started.elapsed() < DRAIN_LIMIT {
        let is_empty = streams::backlog(redis).await.is_ok_and(|backlog| backlog.total == 0);
        let now_rows = ledger_rows(pool).await?;
        if now_rows != rows || !is_empty {
            rows = now_rows;
            changed = Instant::now();
        }
        if changed.elapsed() >= STABLE_FOR {
            return Ok(true);
        }
        sleep(Duration::from_millis(250)).await;
    }
    Ok(false)
}
