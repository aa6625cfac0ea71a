//! A private Redis server.
//!
//! It listens on a Unix socket in a folder nobody else can enter, and is configured on its command
//! line alone, so there is no configuration file to keep in step.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::Durability;
use crate::place::{absolute, percent_encode, private_folder, socket_folder};
use crate::server::{Server, clear_out};
use crate::tools::{clean_command, redis_server};

const SOCKET: &str = "redis.sock";
/// The beginning of the name of the server's process and of its helpers.
const PROCESS: &str = "redis";

/// How long a starting server may take before it answers at all.
const STARTUP_SILENCE: Duration = Duration::from_secs(30);
/// How long it may take altogether, loading its data included.
const STARTUP_LIMIT: Duration = Duration::from_secs(300);
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// A Redis server with its data in a private folder.
///
/// Dropping it tells the server to stop; use [`Redis::stop`] to wait until it has.
#[derive(Debug)]
pub struct Redis {
    program: PathBuf,
    dir: PathBuf,
    data: PathBuf,
    socket: PathBuf,
    durability: Durability,
    server: Server,
}

impl Redis {
    /// Starts the server of `dir` and waits until it is ready.
    ///
    /// A server that an earlier run left behind there is stopped first, so hold a
    /// [`DirLock`](crate::DirLock) on folders that others may be using.
    pub async fn start(dir: &Path, durability: Durability) -> anyhow::Result<Redis> {
        let mut redis = Redis::at(dir, durability)?;
        redis.launch().await?;
        Ok(redis)
    }

    fn at(dir: &Path, durability: Durability) -> anyhow::Result<Redis> {
        let program = redis_server()?;
        let dir = absolute(dir)?;
        let data = dir.join("redis");
        let server = Server::new(dir.join("redis.log"));
        Ok(Redis { program, dir, data, socket: PathBuf::new(), durability, server })
    }

    /// Stops what an earlier run may have left running on `dir` and deletes the data.
    pub(crate) async fn erase(dir: &Path) -> anyhow::Result<()> {
        let mut redis = Redis::at(dir, Durability::Throwaway)?;
        if redis.data.exists() {
            // A start takes over from whoever is left; then nobody is.
            redis.launch().await?;
            redis.kill().await?;
            fs::remove_dir_all(&redis.data)
                .with_context(|| format!("cannot delete {}", redis.data.display()))?;
        }
        Ok(())
    }

    /// The address of the server, in the form the redis crate reads.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", percent_encode(self.socket.as_os_str().as_bytes(), true))
    }

    /// Stops the server in order, saving what it is meant to keep; kills it after 30 seconds.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.server.signal(Signal::SIGTERM);
        if !self.server.exits_within(STOP_PATIENCE).await {
            tracing::warn!("Redis does not stop, killing it");
        }
        self.kill().await?;
        self.remove_far_socket();
        Ok(())
    }

    /// Kills the server at once, as a crash would, and returns when its last process is gone.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.server.signal(Signal::SIGKILL);
        self.server.wait_exit().await;
        // A helper that writes a snapshot would carry on without its parent.
        clear_out(PROCESS, &self.data, None, Duration::ZERO).await
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

    async fn launch(&mut self) -> anyhow::Result<()> {
        private_folder(&self.data, None)?;
        self.socket = socket_folder(&self.data, SOCKET, None).await?.join(SOCKET);
        self.heal().await?;
        self.server.spawn(self.server_command())?;
        self.wait_ready().await?;
        tracing::debug!(pid = self.pid(), "Redis is ready");
        Ok(())
    }

    /// Stops a server that an earlier run left behind and removes its socket.
    async fn heal(&self) -> anyhow::Result<()> {
        if let Ok(mut stream) = UnixStream::connect(&self.socket).await {
            tracing::info!("stopping the Redis server of an earlier run");
            if stream.write_all(b"SHUTDOWN\r\n").await.is_ok() {
                // The server closes the connection when it ends; an answer means that it refuses.
                let mut answer = [0; 256];
                let _ = timeout(Duration::from_secs(10), stream.read(&mut answer)).await;
            }
        }
        // Whatever has not ended by now, or listens on a socket we do not know of.
        let patience = Duration::from_secs(5);
        clear_out(PROCESS, &self.data, Some(Signal::SIGTERM), patience).await?;
        if UnixStream::connect(&self.socket).await.is_ok() {
            bail!("another Redis server answers at {}: stop it", self.socket.display());
        }
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.socket.display()))
            }
            _ => Ok(()),
        }
    }

    fn server_command(&self) -> Command {
        let mut command = clean_command(self.program.as_os_str(), &self.data, None);
        command.args(["--port", "0", "--unixsocket"]);
        command.arg(&self.socket);
        command.args(["--unixsocketperm", "700", "--daemonize", "no", "--dir"]);
        command.arg(&self.data);
        match self.durability {
            Durability::Production => command.args(["--appendonly", "yes", "--appendfsync", "everysec"]),
            Durability::Throwaway => command.args(["--appendonly", "no", "--save", ""]),
        };
        command
    }

    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut last_word = started;
        loop {
            if !self.server.is_running() {
                bail!("Redis ended while starting; {}", self.server.log_tail());
            }
            match ping(&self.socket).await {
                Some(answer) if answer.starts_with("+PONG") => return Ok(()),
                // It is loading its data.
                Some(_) => last_word = Instant::now(),
                None => {}
            }
            if last_word.elapsed() > STARTUP_SILENCE || started.elapsed() > STARTUP_LIMIT {
                let tail = self.server.log_tail();
                self.kill().await?;
                bail!("Redis does not get ready, giving up; {tail}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Removes a socket folder outside of the caller's; only an empty one, so nothing can get lost.
    fn remove_far_socket(&self) {
        if let Some(folder) = self.socket.parent()
            && !folder.starts_with(&self.dir)
        {
            let _ = fs::remove_dir(folder);
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.server.end_now(Signal::SIGTERM);
        self.remove_far_socket();
    }
}

/// What the server at `socket` answers to a PING, if anything.
async fn ping(socket: &Path) -> Option<String> {
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await.ok()?;
        stream.write_all(b"PING\r\n").await.ok()?;
        let mut answer = [0; 64];
        let length = stream.read(&mut answer).await.ok()?;
        (length > 0).then(|| String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    timeout(Duration::from_secs(1), exchange).await.ok()?
}
