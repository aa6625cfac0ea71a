//! The servers of a run, and on them an empty deployment for each measurement.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sqlx::PgPool;
use tbg_core::config::Settings;
use tbg_core::{Clock as _, SystemClock, db, users};
use tbg_engine::BatchReport;
use tbg_engine::source::publisher::StreamPublisher;
use tbg_engine::source::spool::Spool;
pub use tbg_engine::source::streams::READS_PER_BATCH;
use tbg_engine::source::streams::ReadLimits;
use tbg_engine::source::{QUEUE_CAPACITY, socket};
use tbg_engine::writer::Writer;
use tbg_local::{Durability, Postgres, Redis};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::load::Sent;

/// Longest wait for the next batch.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often progress is looked at while there is no batch.
const TICK: Duration = Duration::from_millis(100);

/// The servers. Fields are dropped in this order: the folder last.
pub struct World {
    /// The database server.
    pub postgres: Postgres,
    redis: Redis,
    dir: TempDir,
}

impl World {
    /// Starts both servers with the durability of production.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("cannot create a temporary folder")?;
        let (postgres, redis) = tokio::try_join!(
            Postgres::start(dir.path(), Durability::Production),
            Redis::start(dir.path(), Durability::Production),
        )?;
        Ok(Self { postgres, redis, dir })
    }

    /// Stops the servers and removes their data.
    ///
    /// # Errors
    /// When something stays behind.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Self { mut postgres, mut redis, dir } = self;
        redis.stop().await?;
        postgres.stop().await?;
        // Where PostgreSQL's user could not reach the folder, its data lie elsewhere.
        if let Ok(data) = std::fs::read_to_string(dir.path().join("pgdata.location"))
            && let Some(home) = Path::new(data.trim_end_matches('\n')).parent()
        {
            std::fs::remove_dir_all(home).with_context(|| format!("cannot remove {}", home.display()))?;
        }
        dir.close().context("cannot remove the temporary folder")
    }

    /// Writes everything out and gives WAL files back for use again.
    ///
    /// # Errors
    /// When PostgreSQL does not answer.
    pub async fn checkpoint(&self) -> anyhow::Result<()> {
        self.postgres.run_sql("postgres", "CHECKPOINT").await.map(|_| ())
    }

    /// A value of Redis' `INFO`.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn redis_info(&self, section: &str, name: &str) -> anyhow::Result<String> {
        redis_info(&redis::Client::open(self.redis.url())?, section, name).await
    }

    /// A migrated, empty database with partitions, and empty streams.
    ///
    /// # Errors
    /// When a server refuses.
    pub async fn fresh(&self, name: &str, batch: usize) -> anyhow::Result<Deployment> {
        self.postgres.create_database(name).await?;
        let settings = Settings::from_texts(&[
            ("database_url", self.postgres.url(name)),
            ("redis_url", self.redis.url()),
        ])?;
        db::migrate(&db::connect_options(&settings)?).await?;
        let pool = db::pool(&settings)?;
        tbg_mining::jobs::keep_partitions(&pool, SystemClock.now()).await?;
        let client = tbg_core::redis::client(&settings)?;
        let mut conn = tbg_core::redis::dedicated(&client).await?;
        redis::cmd("FLUSHALL").query_async::<()>(&mut conn).await?;
        let path = self.dir.path().join(name);
        Ok(Deployment { settings, pool, client, batch, path })
    }
}

async fn redis_info(client: &redis::Client, section: &str, name: &str) -> anyhow::Result<String> {
    let mut conn = tbg_core::redis::dedicated(client).await?;
    let text: String = redis::cmd("INFO").arg(section).query_async(&mut conn).await?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.unwrap_or("unknown").trim().to_owned())
}

/// What one measurement runs on.
pub struct Deployment {
    settings: Settings,
    pool: PgPool,
    /// The streams and the pushes.
    pub client: redis::Client,
    batch: usize,
    /// Its files: this name with endings.
    path: PathBuf,
}

impl Deployment {
    /// Gives each address a user, so that there are rows and pushes for them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn register(&self, addresses: &[String]) -> anyhow::Result<()> {
        let mut conn = self.pool.acquire().await?;
        for chunk in addresses.chunks(10_000) {
            users::register_all(&mut conn, chunk).await?;
        }
        Ok(())
    }

    /// Waits until Redis has finished the rewrites and snapshots that the preparation caused.
    ///
    /// # Errors
    /// When it does not finish.
    pub async fn redis_is_calm(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let mut busy = false;
            for name in ["aof_rewrite_scheduled", "aof_rewrite_in_progress", "rdb_bgsave_in_progress"] {
                busy |= redis_info(&self.client, "persistence", name).await? == "1";
            }
            if !busy {
                return Ok(());
            }
            tokio::time::sleep(TICK).await;
        }
        bail!("Redis does not finish saving")
    }

    /// Starts the writer as `tbg serve --role ingest` does, in a task of its own.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn start_writer(&self) -> anyhow::Result<Running> {
        let (sender, reports) = mpsc::unbounded_channel();
        let writer = Writer {
            database: db::connect_options(&self.settings)?,
            redis: self.client.clone(),
            manager: tbg_core::redis::manager(&self.client)?,
            engine: Arc::new(tbg_tests::engine()),
            clock: Arc::new(SystemClock),
            consumer: "bench".to_owned(),
            limits: ReadLimits {
                count: self.batch,
                reads: READS_PER_BATCH,
                collect: Duration::from_millis(self.settings.ingest_flush_ms),
            },
            after_commit: Arc::new([]),
            on_batch: Some(sender),
        };
        let stop = CancellationToken::new();
        let started = Instant::now();
        let task = tokio::spawn(writer.run(stop.clone()));
        Ok(Running { started, reports, stop, task })
    }

    /// Starts the receiver and the publisher as `tbg serve --role ingest` does, and waits until the pool
    /// can write.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub async fn start_receiver(&self) -> anyhow::Result<Receiver> {
        let path = self.path.with_extension("sock");
        let spool = Spool::open(&self.path.with_extension("spool"), self.settings.spool_max_bytes)?;
        let spool = Arc::new(Mutex::new(spool));
        let (sender, queue) = mpsc::channel(QUEUE_CAPACITY);
        let manager = tbg_core::redis::manager(&self.client)?;
        let publisher = StreamPublisher::new(manager, Arc::clone(&spool), self.settings.redis_stream_maxlen);
        let publishing = tokio::spawn(publisher.run(queue));
        let stop = CancellationToken::new();
        let (at, spill, until) = (path.clone(), Arc::clone(&spool), stop.clone());
        std::thread::Builder::new()
            .name("pool-socket".to_owned())
            .spawn(move || socket::receive(&at, &sender, &spill, &until))
            .context("cannot start the receiver's thread")?;
        let started = Instant::now();
        while !path.exists() {
            if started.elapsed() > Duration::from_secs(10) {
                bail!("the receiver does not bind {}", path.display());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Receiver { path, spool, stop, publishing })
    }

    /// Compares what the database holds with what was sent and what the writer reported. Only shares are
    /// ever sent twice, so every duplicate is a share less.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn wrong_counts(&self, sent: Sent, tally: &Tally) -> anyhow::Result<Vec<String>> {
        let shares = self.number("SELECT count(*) FROM shares").await?;
        let archived = self.number("SELECT count(*) FROM mining_events").await?;
        let archived_shares =
            self.number("SELECT count(*) FROM mining_events WHERE event_type = 'share_submitted'").await?;
        let hourly = self.number("SELECT coalesce(sum(total), 0)::BIGINT FROM hourly_shares").await?;
        let letters = self.number("SELECT count(*) FROM ingest_dead_letters").await?;
        let checks = [
            ("events committed against sent", tally.events, sent.events),
            ("rows of mining_events against events applied", archived, tally.applied),
            ("rows of shares against distinct shares sent", shares, tally.distinct_shares(sent)),
            ("rows of shares against share_submitted in mining_events", shares, archived_shares),
            ("sum of hourly_shares against rows of shares", hourly, shares),
            ("dead letters", letters, 0),
        ];
        Ok(checks
            .into_iter()
            .filter(|(_, found, expected)| found != expected)
            .map(|(what, found, expected)| format!("{what}: {found}, expected {expected}"))
            .collect())
    }

    async fn number(&self, sql: &'static str) -> anyhow::Result<usize> {
        let number: i64 = sqlx::query_scalar(sql).fetch_one(&self.pool).await?;
        Ok(usize::try_from(number)?)
    }

    /// Closes the connections.
    pub async fn close(self) {
        self.pool.close().await;
    }
}

/// A writer at work.
pub struct Running {
    /// When it was started.
    pub started: Instant,
    reports: mpsc::UnboundedReceiver<BatchReport>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Adds batches up until `goal` events are committed; the goal may come down on the way. Tells `each`
    /// how many there are so far, some times a second.
    ///
    /// # Errors
    /// When the writer ends or commits nothing for a minute.
    pub async fn until(&mut self, goal: &AtomicUsize, mut each: impl FnMut(usize)) -> anyhow::Result<Tally> {
        let mut tally = Tally::new();
        while tally.events < goal.load(Ordering::Relaxed) {
            match tokio::time::timeout(TICK, self.reports.recv()).await {
                Ok(Some(report)) => tally.add(report),
                Ok(None) => bail!("the writer ended"),
                Err(_) if tally.finished.elapsed() > PATIENCE => {
                    bail!("nothing was committed for a minute; {} events were, before", tally.events)
                }
                Err(_) => {}
            }
            each(tally.events);
        }
        Ok(tally)
    }

    /// Stops the writer.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.task.await.context("the writer panicked")
    }
}

/// What the batches of a writer add up to.
pub struct Tally {
    /// Events committed, duplicates included.
    pub events: usize,
    /// Events applied.
    pub applied: usize,
    /// Transactions.
    pub batches: usize,
    /// Time per stage, in the order of the stages.
    pub stages: Vec<(&'static str, &'static str, Duration)>,
    /// When the last batch was committed, acknowledged and published.
    pub finished: Instant,
}

impl Tally {
    fn new() -> Self {
        Self { events: 0, applied: 0, batches: 0, stages: Vec::new(), finished: Instant::now() }
    }

    fn add(&mut self, report: BatchReport) {
        self.events += report.events;
        self.applied += report.applied;
        self.batches += 1;
        for (who, what, time) in report.stages {
            match self.stages.iter_mut().find(|stage| (stage.0, stage.1) == (who, what)) {
                Some(stage) => stage.2 += time,
                None => self.stages.push((who, what, time)),
            }
        }
        self.finished = Instant::now();
    }

    /// Events that had been applied before.
    #[must_use]
    pub fn duplicates(&self) -> usize {
        self.events.saturating_sub(self.applied)
    }

    /// Shares of which there is a row, if every duplicate was a share.
    #[must_use]
    pub fn distinct_shares(&self, sent: Sent) -> usize {
        sent.shares.saturating_sub(self.duplicates())
    }
}

/// The pool's socket with the publisher behind it.
pub struct Receiver {
    /// Where the pool writes.
    pub path: PathBuf,
    spool: Arc<Mutex<Spool>>,
    stop: CancellationToken,
    publishing: JoinHandle<()>,
}

impl Receiver {
    /// A look into the spool, for whoever watches: how many events wait there.
    pub fn spooled(&self) -> impl Fn() -> u64 + use<> {
        let spool = Arc::clone(&self.spool);
        move || spool.lock().unwrap_or_else(PoisonError::into_inner).events()
    }

    /// Stops both; the publisher ends when the receiver's thread has.
    ///
    /// # Errors
    /// When the publisher panicked.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.publishing.await.context("the publisher panicked")
    }
}
