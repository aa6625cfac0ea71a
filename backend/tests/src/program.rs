//! The real program, started on free ports with its own database and Redis.

use std::fs::File;
use std::io::PipeReader;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::app::SIGNING_KEY;
use crate::{TestDb, TestRedis};

/// Longest wait for something that should happen soon.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The binary beside the test's own.
#[must_use]
pub fn binary() -> PathBuf {
    let mut path = std::env::current_exe().expect("own path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let binary = path.join("tbg");
    assert!(binary.is_file(), "{} is missing: cargo build -p tbg", binary.display());
    binary
}

/// A running `tbg serve`.
pub struct Program {
    child: Child,
    /// `http://127.0.0.1:PORT`
    pub base: String,
    /// Where the pool writes.
    pub socket: PathBuf,
    /// Its log.
    pub log: PathBuf,
    dir: TempDir,
}

impl Program {
    /// Starts `tbg serve --role ROLES` on a database and a Redis, with further settings.
    pub async fn start(db: &TestDb, redis: &TestRedis, roles: &str, settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let log = File::create(dir.path().join("log")).expect("log");
        Self::start_in(dir, [Stdio::null(), log.into()], db, redis, roles, settings)
    }

    /// The same on a full disk, as far as the log goes.
    #[must_use]
    pub fn start_without_log(db: &TestDb, redis: &TestRedis, roles: &str, settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let full = File::options().write(true).open("/dev/full").expect("a file that is always full");
        Self::start_in(dir, [Stdio::null(), full.into()], db, redis, roles, settings)
    }

    /// The same with a pipe for output and log that nobody reads: the end to read it by.
    #[must_use]
    pub fn start_unread(
        db: &TestDb,
        redis: &TestRedis,
        roles: &str,
        settings: &[(&str, &str)],
    ) -> (Self, PipeReader) {
        let dir = tempfile::tempdir().expect("folder");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let output = [writer.try_clone().expect("its end").into(), writer.into()];
        (Self::start_in(dir, output, db, redis, roles, settings), reader)
    }

    fn start_in(
        dir: TempDir,
        [output, log]: [Stdio; 2],
        db: &TestDb,
        redis: &TestRedis,
        roles: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let port = free_port();
        let socket = dir.path().join("events.sock");
        let child = Command::new(binary())
            .args(["serve", "--role", roles])
            .env("TBG_ENVIRONMENT", "test")
            .env("TBG_DATABASE_URL", db.url())
            .env("TBG_REDIS_URL", redis.server.url())
            .env("TBG_HTTP_LISTEN", format!("127.0.0.1:{port}"))
            .env("TBG_EVENT_SOCKET_PATH", &socket)
            .env("TBG_SPOOL_DIR", dir.path().join("spool"))
            .env("TBG_DB_MIN_CONNECTIONS", "1")
            .env("TBG_DB_MAX_CONNECTIONS", "5")
            .env("TBG_JWT_PRIVATE_KEY", SIGNING_KEY.as_str())
            .env("TBG_RATE_LIMIT_UNAUTH_PER_MIN", "100000")
            .env("TBG_RATE_LIMIT_USER_PER_MIN", "100000")
            .env("TBG_RATE_LIMIT_AUTH_PER_MIN", "100000")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("tbg starts");
        let log = dir.path().join("log");
        Self { child, base: format!("http://127.0.0.1:{port}"), socket, log, dir }
    }

    /// Its private folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `GET path`: status and body.
    pub async fn get(&self, path: &str) -> Result<(u16, String), reqwest::Error> {
        let response = reqwest::get(format!("{}{path}", self.base)).await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// Waits until `path` answers with `status`.
    pub async fn wait_for(&self, path: &str, status: u16) {
        let reached = until(async || self.get(path).await.is_ok_and(|(got, _)| got == status)).await;
        assert!(reached, "{path} did not answer {status}; log:\n{}", self.log_text());
    }

    /// Waits until the pool can write.
    pub async fn wait_for_socket(&self) {
        assert!(until(async || self.socket.exists()).await, "no socket; log:\n{}", self.log_text());
    }

    /// The log so far.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("kill");
    }

    /// SIGTERM; returns the exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        let pid = self.child.id().expect("it runs").to_string();
        Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill");
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it stops in time");
        ended.expect("exit status").code()
    }
}

/// Asks until the answer is yes; says whether it came in time.
pub async fn until(mut yes: impl AsyncFnMut() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if yes().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// A port that is free now.
#[must_use]
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
