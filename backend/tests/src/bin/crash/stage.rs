//! What is killed: PostgreSQL, Redis and the program, with their folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tbg_core::{db, users};
use tbg_local::{Durability, Postgres, Redis};
use tbg_tests::program::binary;
use tokio::process::{Child, Command};

/// The database of the program.
pub const CRASHED: &str = "crashed";
/// Entries that a stream keeps: all.
pub const MAXLEN: usize = 10_000_000;
/// How long the program may take to stop in order.
const STOP_PATIENCE: Duration = Duration::from_secs(40);
/// Lines of the program's log that an error quotes.
const QUOTED_LINES: usize = 20;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// The program.
    Ingest,
    /// The database server.
    Postgres,
    /// The Redis server.
    Redis,
}

impl Kill {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ingest, Self::Postgres, Self::Redis];

    /// As the report calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Postgres => "PostgreSQL",
            Self::Redis => "Redis",
        }
    }
}

/// Both servers and the program.
pub struct Stage {
    dir: PathBuf,
    postgres: Postgres,
    redis: Redis,
    /// Of the Redis server.
    pub client: redis::Client,
    program: Option<Child>,
}

impl Stage {
    /// Starts both servers; not the program.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let postgres = Postgres::start(dir, Durability::Production).await?;
        let redis = Redis::start(dir, Durability::Production).await?;
        let client = redis::Client::open(redis.url())?;
        keep_what_is_accepted(&client).await?;
        Ok(Self { dir: dir.to_owned(), postgres, redis, client, program: None })
    }

    /// A migrated database where `addresses` are registered in their order, so that ids agree between
    /// databases, with partitions from `start` on.
    pub async fn database(
        &self,
        name: &str,
        start: DateTime<Utc>,
        addresses: &[String],
    ) -> anyhow::Result<PgPool> {
        self.postgres.create_database(name).await?;
        let options: PgConnectOptions = self.postgres.url(name).parse()?;
        db::migrate(&options).await?;
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options)
            .await?;
        tbg_mining::jobs::keep_partitions(&pool, start).await?;
        let mut tx = pool.begin().await?;
        for address in addresses {
            users::register_all(&mut tx, std::slice::from_ref(address)).await?;
        }
        tx.commit().await?;
        Ok(pool)
    }

    /// Starts the program on the database [`CRASHED`].
    pub fn start_program(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let child = Command::new(binary())
            .args(["serve", "--role", "ingest"])
            .env("TBG_HTTP_LISTEN", "127.0.0.1:0")
            .env("TBG_ENVIRONMENT", "test")
            .env("TBG_DATABASE_URL", self.postgres.url(CRASHED))
            .env("TBG_REDIS_URL", self.redis.url())
            .env("TBG_INGEST_MODE", "embedded")
            .env("TBG_EVENT_SOCKET_PATH", self.dir.join("events.sock"))
            .env("TBG_SPOOL_DIR", self.dir.join("spool"))
            .env("TBG_REDIS_STREAM_MAXLEN", MAXLEN.to_string())
            .env("TBG_DB_MIN_CONNECTIONS", "1")
            .env("TBG_DB_MAX_CONNECTIONS", "5")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("the program does not start")?;
        self.program = Some(child);
        Ok(())
    }

    /// Kills with SIGKILL and starts again: the program at once, a server after `down`.
    pub async fn strike(&mut self, kill: Kill, down: Duration) -> anyhow::Result<()> {
        self.program_runs()?;
        match kill {
            Kill::Ingest => {
                if let Some(child) = &mut self.program {
                    child.kill().await.context("the program cannot be killed")?;
                }
                self.start_program()
            }
            Kill::Postgres => {
                self.postgres.kill().await?;
                tokio::time::sleep(down).await;
                self.postgres.restart().await
            }
            Kill::Redis => {
                self.redis.kill().await?;
                tokio::time::sleep(down).await;
                self.redis.restart().await?;
                keep_what_is_accepted(&self.client).await
            }
        }
    }

    /// No kill of a server may take the program with it.
    fn program_runs(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.program
            && let Some(status) = child.try_wait()?
        {
            bail!("the program ended by itself ({status}); its log ends with:\n{}", self.log_tail());
        }
        Ok(())
    }

    /// SIGTERM; returns the exit code.
    pub async fn stop_program(&mut self) -> anyhow::Result<Option<i32>> {
        self.program_runs()?;
        let Some(mut child) = self.program.take() else { return Ok(None) };
        let pid = child.id().context("the program has no process id")?.to_string();
        Command::new("kill").args(["-TERM", &pid]).status().await.context("kill -TERM")?;
        let Ok(ended) = tokio::time::timeout(STOP_PATIENCE, child.wait()).await else {
            bail!("the program does not stop; its log ends with:\n{}", self.log_tail());
        };
        Ok(ended?.code())
    }

    /// Stops everything and removes what lies outside of the folder.
    pub async fn end(mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.program.take() {
            child.kill().await?;
        }
        self.postgres.stop().await?;
        self.redis.stop().await?;
        // PostgreSQL's data lie elsewhere when its user cannot reach the folder, as for root.
        if let Ok(data) = fs::read_to_string(self.dir.join("pgdata.location"))
            && let Some(home) = Path::new(data.trim_end_matches('\n')).parent()
        {
            fs::remove_dir_all(home).with_context(|| format!("cannot remove {}", home.display()))?;
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.dir.join("program.log")
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
    }
}

/// Makes Redis write an entry to its file before it says that it has it.
///
/// The kernel keeps what a killed process has written, so a SIGKILL could only take what was not written
/// yet. With `appendfsync everysec`, which production runs, that is possible: while a background fsync is
/// under way, Redis answers but puts its write off, for up to two seconds. Such an entry is lost by Redis
/// and never reached the program. The subject here is the program, so what Redis accepted must stay.
/// (A server that was just started runs without this for an instant. What it put off in that instant is
/// written before it answers here, and nobody kills it earlier.)
async fn keep_what_is_accepted(client: &redis::Client) -> anyhow::Result<()> {
    let mut conn = tbg_core::redis::dedicated(client).await?;
    redis::cmd("CONFIG")
        .arg("SET")
        .arg("appendfsync")
        .arg("always")
        .query_async::<()>(&mut conn)
        .await
        .context("CONFIG SET appendfsync always")
}
