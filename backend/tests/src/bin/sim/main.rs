//! `make sim`: the game as a whole, from a seed: users, weeks, late and doubled events, crashes, two replicas of
//! every consumer and of the lottery. After each seed the invariants must hold:
//!
//! experience is the sum of its ledger; each event's effects are there once; a badge is held once per user and
//! period; a streak is a function of the calendar; every draw follows from its entries and its public file
//! verifies; unread is the count of unread, while notices come and are read. Every tenth seed is played once more undisturbed (no crash, every batch
//! in one piece), and must leave the same rows.
//!
//! A failing seed is replayed by `sim --seed N --seeds 1`.

#![expect(clippy::print_stdout, reason = "a command line tool reports to its terminal")]
#![expect(clippy::unwrap_used, reason = "a simulation fails loudly")]

mod invariants;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tbg_core::consumer::{Consumer, Handle};
use tbg_core::live::LiveBus;
use tbg_core::{Clock, MockClock, UserId};
use tbg_engine::decode::decode_text;
use tbg_engine::{Engine, PoolEvent};
use tbg_games::rules::lottery::SaltKey;
use tbg_games::rules::proof::{draw_head, draw_line, verify};
use tbg_games::{Cycle, CycleConfig, Waits};
use tbg_tests::{TestDb, TestRedis, at, share};

use crate::invariants::{COMPARED, INVARIANTS};

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Plays the game from seeds and checks that it is still one.
#[derive(Parser)]
#[command(name = "sim")]
struct Args {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Users of each
    #[arg(long, default_value_t = 5)]
    users: u64,
    /// Weeks of each
    #[arg(long, default_value_t = 10)]
    weeks: u64,
    /// Play every so-manyth seed undisturbed too, and compare
    #[arg(long, default_value_t = 10)]
    compare: u64,
}

/// How often a consumer is looked after, ten milliseconds apart. Whoever is then still open is a violation in the end.
const MAX_LOOKS: usize = 500;

/// A sequence of numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn one_in(&mut self, chance: u64) -> bool {
        self.below(chance) == 0
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).with_writer(std::io::stderr).init();
    let redis = TestRedis::new().await;
    let bar = ProgressBar::new(args.seeds)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {msg}")?);
    let started = Instant::now();
    let (mut violations, mut crashes, mut compared) = (Vec::new(), 0, 0);
    for seed in args.seed..args.seed + args.seeds {
        let mut world = World::new(seed, &args, &redis, Some(Random(!seed))).await;
        world.play(&args).await?;
        crashes += world.crashes;
        violations.extend(world.violations().await?.into_iter().map(|what| format!("seed {seed}: {what}")));
        if seed.is_multiple_of(args.compare) {
            compared += 1;
            let mut calm = World::new(seed, &args, &redis, None).await;
            calm.play(&args).await?;
            let differing = world.differing(&calm).await;
            violations.extend(differing.into_iter().map(|what| format!("seed {seed}: {what}")));
            calm.end().await;
        }
        world.end().await;
        bar.set_message(format!("{} violations", violations.len()));
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!(
        "{} seeds, {crashes} crashes, {compared} compared with an undisturbed run, {} violations, {:.0} s",
        args.seeds,
        violations.len(),
        started.elapsed().as_secs_f64()
    );
    for violation in violations.iter().take(20) {
        println!("{violation}");
    }
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct World {
    db: TestDb,
    engine: Arc<Engine>,
    bus: LiveBus,
    clock: MockClock,
    /// What happens.
    random: Random,
    /// What breaks, and how work is cut up; nothing does in an undisturbed world.
    trouble: Option<Random>,
    users: Vec<(i64, String)>,
    /// Events that come later than they happened.
    late: Vec<String>,
    crashes: u64,
}

impl World {
    async fn new(seed: u64, args: &Args, redis: &TestRedis, trouble: Option<Random>) -> Self {
        let db = TestDb::new().await;
        let mut random = Random(seed);
        // Anywhere in a few years: leap days, years of 53 weeks.
        let start = at("2023-01-02T00:00:00Z") + TimeDelta::days(i64::try_from(random.below(1_900)).unwrap());
        let mut users = Vec::new();
        for number in 0..args.users {
            let address = format!("bc1qsim{number}");
            users.push((db.user(&address).await, address));
        }
        let bus = LiveBus::new(redis.manager());
        let engine = Arc::new(tbg_tests::engine());
        let clock = MockClock::at(start);
        Self { db, engine, bus, clock, random, trouble, users, late: Vec::new(), crashes: 0 }
    }

    async fn play(&mut self, args: &Args) -> anyhow::Result<()> {
        let steps = args.weeks * 12;
        for _ in 0..steps {
            let hours = 1 + i64::try_from(self.random.below(27)).unwrap();
            self.clock.advance(TimeDelta::hours(hours));
            match self.random.below(10) {
                0 => self.report().await,
                1 => self.lottery().await?,
                2 => self.ban_or_forgive().await?,
                _ => self.mine().await?,
            }
            if self.random.one_in(3) {
                self.consume().await?;
            }
        }
        // What was late comes now, then everything comes to rest.
        let late = std::mem::take(&mut self.late);
        self.apply(late).await?;
        for _ in 0..4 {
            self.clock.advance(TimeDelta::hours(30));
            self.lottery().await?;
        }
        self.consume().await
    }

    /// Some shares of some users, some of them kept back, some doubled.
    async fn mine(&mut self) -> anyhow::Result<()> {
        let now = self.clock.now();
        let mut lines = Vec::new();
        for _ in 0..=self.random.below(6) {
            let back = TimeDelta::seconds(1 + i64::try_from(self.random.below(90_000)).unwrap());
            let line = self.share(now - back);
            match self.random.below(8) {
                0 => self.late.push(line),
                1 => lines.extend([line.clone(), line]),
                _ => lines.push(line),
            }
        }
        if self.random.one_in(5) {
            lines.extend(self.late.pop());
        }
        if self.random.one_in(10) {
            let (_, address) = &self.users[self.random.below(self.users.len() as u64) as usize];
            let best = self.random.below(1 << 24);
            lines.push(format!(
                r#"{{"region":"","event":"share_best_diff","ts":{},"source":"hosted","data":{{"user":"{address}","worker":"{address}.r","new_best":{best}}}}}"#,
                now.timestamp(),
            ));
        }
        if self.random.one_in(12) {
            let (_, address) =
                &self.users[usize::try_from(self.random.below(self.users.len() as u64)).unwrap()];
            lines.push(format!(
                r#"{{"region":"","event":"block_found","ts":{},"source":"hosted","data":{{"user":"{address}","worker":"{address}.r","height":{},"diff":1e13}}}}"#,
                now.timestamp(),
                800_000 + now.timestamp() % 100_000
            ));
        }
        self.apply(lines).await
    }

    fn share(&mut self, when: DateTime<Utc>) -> String {
        let (_, address) = &self.users[usize::try_from(self.random.below(self.users.len() as u64)).unwrap()];
        let address = address.clone();
        let difficulty = (self.random.below(1 << 20) as f64 + 0.5)
            * [1.0, 1.0, 10.0, 5_000.0][usize::try_from(self.random.below(4)).unwrap()];
        let ts = format!("{}.{:06}", when.timestamp(), self.random.below(1_000_000));
        let is_accepted = !self.random.one_in(10);
        share(&address, "r", &ts, 1024.0, difficulty, is_accepted)
    }

    /// Whether something dies now, once in `chance` times, and after how long: up to `micros` microseconds.
    fn crash(&mut self, chance: u64, micros: u64) -> Option<Duration> {
        let random = self.trouble.as_mut()?;
        let patience = random.one_in(chance).then(|| Duration::from_micros(random.below(micros)));
        self.crashes += u64::from(patience.is_some());
        patience
    }

    /// Applies lines in batches of any size; now and then the writer dies before or after its commit, and the
    /// batch comes again.
    async fn apply(&mut self, lines: Vec<String>) -> anyhow::Result<()> {
        let now = self.clock.now();
        let events: Vec<PoolEvent> = lines.iter().map(|line| decode_text(line).unwrap()).collect();
        let size = self.trouble.as_mut().map_or(events.len(), |random| 1 + random.below(8) as usize);
        for batch in events.chunks(size.max(1)) {
            if let Some(patience) = self.crash(6, 9_000) {
                let mut conn = self.db.connect().await;
                // The future is dropped in the middle: its connection breaks, as when the process is killed.
                let _ =
                    tokio::time::timeout(patience, self.engine.apply(&mut conn, batch.to_vec(), &[], now))
                        .await;
            }
            let mut conn = self.db.connect().await;
            self.engine.apply(&mut conn, batch.to_vec(), &[], now).await?;
        }
        Ok(())
    }

    /// Something from another domain, sometimes twice.
    async fn report(&mut self) {
        let user = self.users[usize::try_from(self.random.below(self.users.len() as u64)).unwrap()].0;
        let number = self.random.below(6);
        let now = self.clock.now();
        let (topic, own, payload): (&str, Option<i64>, Value) = match self.random.below(5) {
            0 => (
                "LessonCompleted",
                Some(user),
                json!({ "lesson_id": number, "title": "T", "completed_at": now }),
            ),
            1 => (
                "TrackCompleted",
                Some(user),
                json!({ "track_id": number, "title": "T", "completed_at": now }),
            ),
            2 => ("CoopCreated", Some(user), json!({ "coop_id": number, "name": "C" })),
            3 => (
                "MatchFinished",
                None,
                json!({ "match_id": number, "competition_id": 1, "title": "A vs B", "winner_user_ids": [user] }),
            ),
            _ => {
                let week = tbg_core::period::IsoWeek::of(now).minus(1).to_string();
                (
                    "LeaderboardWeekClosed",
                    None,
                    json!({ "week_iso": week, "champion_user_id": user, "best_difficulty": 5.0 }),
                )
            }
        };
        for _ in 0..=self.random.below(2) {
            let key = format!("{topic}:{}", self.random.next());
            sqlx::query(
                "INSERT INTO domain_outbox (topic, event_key, consumer, user_id, payload, created_at)
                 VALUES ($1, $2, 'gamification', $3, $4, $5)",
            )
            .bind(topic)
            .bind(key)
            .bind(own)
            .bind(&payload)
            .bind(now)
            .execute(&self.db.pool)
            .await
            .unwrap();
        }
    }

    async fn ban_or_forgive(&mut self) -> anyhow::Result<()> {
        let user = self.users[usize::try_from(self.random.below(self.users.len() as u64)).unwrap()].0;
        let banned = self.random.one_in(3);
        let user = UserId(user);
        tbg_identity::roles::ban(&self.db.pool, user, "simulation", banned, self.clock.now()).await?;
        Ok(())
    }

    /// Two replicas drain every consumer at once, until nothing is open: a consumer that died may hold its turn for a
    /// moment longer. The others then find nothing to do, and look again, as they do in the program.
    async fn consume(&mut self) -> anyhow::Result<()> {
        let reader = self.users[usize::try_from(self.random.below(self.users.len() as u64)).unwrap()].0;
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let handlers: [Arc<dyn Handle>; 4] = [
            Arc::new(tbg_mining::MiningEvents::new()),
            Arc::new(tbg_gamification::GameEvents::new()),
            Arc::new(tbg_games::GamesEvents::new()),
            Arc::new(tbg_social::SocialEvents::new()),
        ];
        for handler in handlers {
            let dies_after = self.crash(4, 9_000);
            let consumer = || {
                Consumer::new(
                    self.db.pool.clone(),
                    Arc::clone(&clock),
                    self.bus.clone(),
                    Arc::clone(&handler),
                )
            };
            let (mut a, mut b) = (consumer(), consumer());
            if let Some(patience) = dies_after {
                let pool = self.doomed().await?;
                let mut dying =
                    Consumer::new(pool, Arc::clone(&clock), self.bus.clone(), Arc::clone(&handler));
                let _ = tokio::time::timeout(patience, dying.drain()).await;
            }
            let (a_done, b_done, read) = tokio::join!(a.drain(), b.drain(), self.read(reader));
            a_done?;
            b_done?;
            read?;
            for _ in 0..MAX_LOOKS {
                consumer().drain().await?;
                if !self.is_open(handler.consumer()).await? {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    /// A user reads the oldest notices, each on two devices at once, while new ones come.
    async fn read(&self, user: i64) -> anyhow::Result<()> {
        let oldest = "SELECT id FROM notifications WHERE user_id = $1 AND NOT read ORDER BY id LIMIT 3";
        let unread: Vec<i64> = sqlx::query_scalar(oldest).bind(user).fetch_all(&self.db.pool).await?;
        for notice in unread {
            let mark = || tbg_social::mark_read(&self.db.pool, UserId(user), notice, self.clock.now());
            let (one, other) = tokio::join!(mark(), mark());
            anyhow::ensure!(one? && other?, "a notice of user {user} is not theirs");
        }
        Ok(())
    }

    async fn is_open(&self, consumer: &str) -> anyhow::Result<bool> {
        let open = "SELECT EXISTS (SELECT FROM domain_outbox WHERE consumer = $1 AND done_at IS NULL)";
        Ok(sqlx::query_scalar(open).bind(consumer).fetch_one(&self.db.pool).await?)
    }

    /// Two replicas run the lottery at once; one of them may die.
    async fn lottery(&mut self) -> anyhow::Result<()> {
        let cycle = Cycle {
            pool: self.db.pool.clone(),
            bus: self.bus.clone(),
            key: SaltKey::new([3; 32]),
            config: CycleConfig {
                freeze_grace: TimeDelta::seconds(600),
                reveal_delay: TimeDelta::seconds(300),
                watermark_wait: TimeDelta::seconds(3_600),
            },
        };
        let now = self.clock.now();
        if let Some(patience) = self.crash(3, 20_000) {
            let dying = Cycle { pool: self.doomed().await?, ..cycle.clone() };
            let _ = tokio::time::timeout(patience, dying.run(now, Waits::Kept)).await;
        }
        let (a, b) = tokio::join!(cycle.run(now, Waits::Kept), cycle.run(now, Waits::Kept));
        for outcome in [a, b] {
            if let Err(error) = outcome {
                anyhow::ensure!(format!("{error:#}").contains("could not serialize"), "{error:#}");
            }
        }
        cycle.run(now, Waits::Kept).await?;
        Ok(())
    }

    /// Connections of a process that is going to die: they die with it.
    async fn doomed(&self) -> anyhow::Result<PgPool> {
        Ok(PgPoolOptions::new().max_connections(2).connect_with(self.db.options.clone()).await?)
    }

    async fn violations(&self) -> anyhow::Result<Vec<String>> {
        let mut violations = Vec::new();
        for (what, sql) in INVARIANTS {
            let count: i64 = sqlx::query_scalar(sql).fetch_one(&self.db.pool).await?;
            if count != 0 {
                violations.push(format!("{what}: {count}"));
            }
        }
        let wrong = tbg_gamification::check(&self.db.pool, None).await?;
        if wrong > 0 {
            violations.push(format!("fields that differ from ledger, awards and calendar: {wrong}"));
        }
        let (_, wrong) = tbg_games::check(&self.db.pool).await?;
        violations.extend(wrong.into_iter().map(|week| format!("the draw of {week} does not follow")));
        for (week, file) in self.public_files().await? {
            if !verify(file.as_bytes()).is_ok_and(|report| report.ok) {
                violations.push(format!("the public file of {week} does not verify"));
            }
        }
        Ok(violations)
    }

    /// The public files of all draws, put together as the API does.
    async fn public_files(&self) -> anyhow::Result<Vec<(String, String)>> {
        type Draw = (i64, String, i32, Vec<u8>, Vec<u8>, Vec<u8>);
        let draws: Vec<Draw> = sqlx::query_as(
            "SELECT id, week_iso, total_participants, previous_seal, merkle_root, seal FROM lottery_draws
             WHERE status = 'completed' ORDER BY week_start",
        )
        .fetch_all(&self.db.pool)
        .await?;
        let mut files = Vec::new();
        for (draw, week, count, previous, root, seal) in draws {
            type Line = (Vec<u8>, f64, DateTime<Utc>, i64, i32);
            let lines: Vec<Line> = sqlx::query_as(
                "SELECT e.commitment, e.best_difficulty, e.best_time, e.total_shares, r.rank
                 FROM lottery_entries e JOIN lottery_results r USING (draw_id, user_id)
                 WHERE draw_id = $1 ORDER BY leaf_index",
            )
            .bind(draw)
            .fetch_all(&self.db.pool)
            .await?;
            let lines: Vec<String> = lines
                .iter()
                .map(|(commitment, best, time, shares, rank)| {
                    draw_line(commitment, *best, time.timestamp_micros(), *shares, *rank)
                })
                .collect();
            let head = draw_head(&week, count, &previous, &root, &seal);
            files.push((week, format!("{head}{}]}}", lines.join(","))));
        }
        Ok(files)
    }

    /// The tables whose rows differ from those of an undisturbed world, with the first rows that only one of them has.
    async fn differing(&self, calm: &Self) -> Vec<String> {
        let mut differing = Vec::new();
        for (table, sql) in COMPARED {
            let (rows, expected) = (self.db.rows(sql).await, calm.db.rows(sql).await);
            if rows != expected {
                let lacks = expected.iter().find(|row| !rows.contains(row));
                let has = rows.iter().find(|row| !expected.contains(row));
                differing.push(format!("{table} is not as undisturbed: lacks {lacks:?}, has {has:?}"));
            }
        }
        differing
    }

    async fn end(self) {
        self.db.pool.close().await;
    }
}
