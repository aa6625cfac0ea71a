//! A private PostgreSQL server.
//!
//! The server is started directly, not through `pg_ctl`, so that it is our child: we see it end, and
//! it cannot outlive us unnoticed. Nobody but the owner of the socket's folder can connect, which is
//! why there are no passwords.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use tokio::process::Command;
use tokio::time::sleep;

use crate::Durability;
use crate::place::{Place, percent_encode, private_folder};
use crate::server::{Server, clear_out, serves};
use crate::tools::{PgTools, output_of};

/// Nothing listens on this port; it only names the socket file.
const PORT: &str = "54320";
const SOCKET: &str = ".s.PGSQL.54320";
const SUPERUSER: &str = "tbg";

/// How long a starting server may be silent. Crash recovery reports its progress every ten seconds.
const STARTUP_SILENCE: Duration = Duration::from_secs(30);
/// How long a start may take altogether.
const STARTUP_LIMIT: Duration = Duration::from_secs(300);
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// A PostgreSQL server with its data in a private folder.
///
/// Dropping it stops the server at once, as a crash would; use [`Postgres::stop`] to end in order.
#[derive(Debug)]
pub struct Postgres {
    tools: PgTools,
    place: Place,
    sockets: PathBuf,
    durability: Durability,
    server: Server,
}

impl Postgres {
    /// Starts the server of `dir`, creating its data the first time, and waits until it is ready.
    ///
    /// Whatever a crash left behind is put in order first. A server still running there is stopped,
    /// so hold a [`DirLock`](crate::DirLock) on folders that others may be using.
    pub async fn start(dir: &Path, durability: Durability) -> anyhow::Result<Postgres> {
        let mut postgres = Postgres::at(dir, durability).await?;
        postgres.launch().await?;
        Ok(postgres)
    }

    async fn at(dir: &Path, durability: Durability) -> anyhow::Result<Postgres> {
        let tools = PgTools::find()?;
        let place = Place::prepare(dir).await?;
        let server = Server::new(place.dir.join("postgres.log"));
        Ok(Postgres { tools, place, sockets: PathBuf::new(), durability, server })
    }

    /// Stops what an earlier run may have left running on `dir` and deletes the data.
    pub(crate) async fn erase(dir: &Path) -> anyhow::Result<()> {
        let postgres = Postgres::at(dir, Durability::Throwaway).await?;
        let data = &postgres.place.data;
        if data.exists() {
            postgres.heal().await?;
            fs::remove_dir_all(data).with_context(|| format!("cannot delete {}", data.display()))?;
        }
        Ok(())
    }

    /// The address of a database on this server, in the form sqlx and libpq read.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://{SUPERUSER}@localhost:{PORT}/{}?host={}",
            percent_encode(database.as_bytes(), false),
            percent_encode(self.sockets.as_os_str().as_bytes(), false)
        )
    }

    /// Creates a database, unless it exists.
    pub async fn create_database(&self, name: &str) -> anyhow::Result<()> {
        if self.has_database(name).await? {
            return Ok(());
        }
        // sql-audit: allow(S1) CREATE DATABASE takes no parameters; the name is quoted
        let create = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
        let created = self.run_sql("postgres", &create).await;
        // Somebody else may have created it in the meantime.
        if created.is_err() && self.has_database(name).await? {
            return Ok(());
        }
        created.map(drop)
    }

    /// Runs SQL through `psql` and returns the result's rows, columns separated by `|`.
    pub async fn run_sql(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let mut psql = self.command("psql", &self.place.data);
        psql.args(["-XAtq", "--no-password", "-v", "ON_ERROR_STOP=1"])
            .arg("-h")
            .arg(&self.sockets)
            .args(["-p", PORT, "-U", SUPERUSER, "-d", database, "-c", sql]);
        let mut output = output_of(psql, "psql").await?;
        output.truncate(output.trim_end_matches('\n').len());
        Ok(output)
    }

    /// Stops the server in order: clients are disconnected and everything is written to disk.
    ///
    /// A server that does not obey within 30 seconds is stopped as by a crash.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.server.signal(Signal::SIGINT);
        if !self.server.exits_within(STOP_PATIENCE).await {
            tracing::warn!("PostgreSQL does not stop, forcing it");
            self.server.signal(Signal::SIGQUIT);
            self.server.exits_within(Duration::from_secs(6)).await;
        }
        self.kill().await?;
        self.remove_far_sockets();
        Ok(())
    }

    /// Kills the server at once, as a crash would, and returns when its last process is gone.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.server.signal(Signal::SIGKILL);
        self.server.wait_exit().await;
        // The server's own children notice its death and end; one that is busy may not notice.
        let patience = Duration::from_secs(5);
        clear_out("postgres", &self.place.data, None, patience).await
    }

    /// Starts the server again on the same data; a running one is stopped first.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        if self.is_running() {
            self.stop().await?;
        }
        self.launch().await
    }

    /// Whether the server process is running.
    pub fn is_running(&mut self) -> bool {
        self.server.is_running()
    }

    /// Resolves when the server process ends, at once if none is running. May be cancelled.
    pub async fn wait_exit(&mut self) {
        self.server.wait_exit().await;
    }

    /// The process id of the server, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    async fn has_database(&self, name: &str) -> anyhow::Result<bool> {
        // sql-audit: allow(S1) psql runs it, without parameters; the name is quoted
        let query = format!("SELECT 1 FROM pg_database WHERE datname = '{}'", name.replace('\'', "''"));
        Ok(self.run_sql("postgres", &query).await? == "1")
    }

    async fn launch(&mut self) -> anyhow::Result<()> {
        self.ensure_data().await?;
        self.heal().await?;
        self.sockets = self.place.socket_folder(SOCKET).await?;
        for name in [SOCKET.to_owned(), format!("{SOCKET}.lock")] {
            remove_file(&self.sockets.join(name))?;
        }
        let compression = self.best_compression().await;
        let started = Instant::now();
        loop {
            self.server.spawn(self.server_command(compression))?;
            match self.wait_ready().await {
                Ok(()) => break,
                // Without /proc, kill() cannot wait for the children of the server it killed.
                Err(error)
                    if error.to_string().contains("still in use") && started.elapsed() < STARTUP_SILENCE =>
                {
                    sleep(Duration::from_millis(300)).await;
                }
                Err(error) => return Err(error),
            }
        }
        tracing::debug!(pid = self.pid(), took = ?started.elapsed(), "PostgreSQL is ready");
        Ok(())
    }

    /// Makes a database cluster where there is none yet.
    async fn ensure_data(&mut self) -> anyhow::Result<()> {
        let data = self.place.data.clone();
        if !data.join("PG_VERSION").exists() {
            // Only a finished cluster gets the final name, so an interrupted start leaves no wreck.
            let unfinished = data.with_file_name("pgdata.new");
            match fs::remove_dir_all(&unfinished) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", unfinished.display()));
                }
                _ => {}
            }
            private_folder(&unfinished, self.place.user)?;
            let mut initdb = self.command("initdb", &unfinished);
            initdb
                .arg("-D")
                .arg(&unfinished)
                .args(["-U", SUPERUSER, "--auth=trust", "--encoding=UTF8"])
                .args(["--locale=C.UTF-8", "--data-checksums"]);
            if self.durability == Durability::Throwaway {
                initdb.arg("--no-sync");
            }
            output_of(initdb, "initdb").await?;
            fs::rename(&unfinished, &data)
                .with_context(|| format!("{} exists without a database: remove it", data.display()))?;
        }
        let metadata = fs::metadata(&data)
            .with_context(|| format!("cannot look at {}: check its owner", data.display()))?;
        let owner = self.place.user.map_or(geteuid().as_raw(), |user| user.uid);
        if metadata.uid() != owner {
            bail!("{} belongs to another user: run as that user or remove it", data.display());
        }
        self.place.data = fs::canonicalize(&data)?;
        Ok(())
    }

    /// Puts in order what a crash of the server or of its supervisor left behind.
    async fn heal(&self) -> anyhow::Result<()> {
        let data = &self.place.data;
        let pid_file = data.join("postmaster.pid");
        if let Some(pid) = pid_in(&pid_file)
            && serves(pid, "postgres", data)
        {
            tracing::info!(pid, "stopping the PostgreSQL server of an earlier run");
            let mut pg_ctl = self.command("pg_ctl", data);
            pg_ctl.args(["stop", "-m", "fast", "-w", "-t", "30", "-D"]);
            pg_ctl.arg(data);
            if let Err(error) = output_of(pg_ctl, "pg_ctl stop").await {
                tracing::warn!("{error:#}");
            }
        }
        let patience = Duration::from_secs(5);
        clear_out("postgres", data, Some(Signal::SIGINT), patience).await?;
        // PostgreSQL refuses a pid file whose number belongs to any process of the same user.
        match pid_in(&pid_file) {
            Some(pid) if serves(pid, "postgres", data) => {
                bail!("PostgreSQL process {pid} does not stop: kill it")
            }
            _ => remove_file(&pid_file),
        }
    }

    /// LZ4 for the write-ahead log where PostgreSQL was built with it.
    async fn best_compression(&self) -> &'static str {
        let mut probe = self.command("postgres", &self.place.data);
        probe.arg("-D").arg(&self.place.data).args(["-C", "wal_compression", "-c", "wal_compression=lz4"]);
        match output_of(probe, "postgres").await {
            Ok(_) => "lz4",
            Err(_) => "on",
        }
    }

    fn server_command(&self, compression: &str) -> Command {
        let mut sockets = OsString::from("unix_socket_directories=\"");
        sockets.push(&self.sockets);
        sockets.push("\"");
        let sync = match self.durability {
            Durability::Production => "on",
            Durability::Throwaway => "off",
        };
        let mut command = self.command("postgres", &self.place.data);
        command.arg("-D").arg(&self.place.data);
        command.arg("-c").arg(sockets);
        for (name, value) in [
            ("listen_addresses", ""),
            ("port", PORT),
            ("max_connections", "200"),
            ("shared_buffers", "1GB"),
            ("max_wal_size", "4GB"),
            ("checkpoint_timeout", "15min"),
            ("wal_compression", compression),
            ("jit", "off"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("log_destination", "stderr"),
            ("logging_collector", "off"),
            ("fsync", sync),
            ("synchronous_commit", sync),
            ("full_page_writes", sync),
        ] {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command
    }

    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut log_len = self.server.log_len();
        let mut last_word = started;
        loop {
            if !self.server.is_running() {
                bail!("PostgreSQL ended while starting; {}", self.server.log_tail());
            }
            if self.is_ready() {
                return Ok(());
            }
            if self.server.log_len() != log_len {
                log_len = self.server.log_len();
                last_word = Instant::now();
            }
            if last_word.elapsed() > STARTUP_SILENCE || started.elapsed() > STARTUP_LIMIT {
                let tail = self.server.log_tail();
                self.kill().await?;
                bail!("PostgreSQL does not get ready, giving up; {tail}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Reads the server's state where `pg_ctl` does: line 8 of the pid file, if line 1 is our child.
    fn is_ready(&self) -> bool {
        let Ok(text) = fs::read_to_string(self.place.data.join("postmaster.pid")) else {
            return false;
        };
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let pid = lines.first().and_then(|line| line.parse().ok());
        pid.is_some() && pid == self.pid() && lines.get(7) == Some(&"ready")
    }

    fn command(&self, name: &str, cwd: &Path) -> Command {
        self.tools.command(name, cwd, self.place.user)
    }

    /// Removes a socket folder outside of the caller's; only an empty one, so nothing can get lost.
    fn remove_far_sockets(&self) {
        if !self.sockets.starts_with(&self.place.dir) {
            let _ = fs::remove_dir(&self.sockets);
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.server.end_now(Signal::SIGQUIT);
        self.remove_far_sockets();
    }
}

/// The process id a pid file names. In single-user mode PostgreSQL writes it negated.
fn pid_in(file: &Path) -> Option<i32> {
    let text = fs::read_to_string(file).ok()?;
    let pid: i32 = text.lines().next()?.trim().parse().ok()?;
    pid.checked_abs()
}

/// Removes a file that may be missing.
fn remove_file(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
