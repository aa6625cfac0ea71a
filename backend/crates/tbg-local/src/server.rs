//! A server process: starting it, watching it, ending it, and finding the ones left over.
//!
//! Left-over processes are recognised by their program name and their working folder, which for both
//! servers is the data folder. That is more reliable than a number in a pid file, which may by now
//! belong to somebody else. Where there is no `/proc` to look this up, pid files have to do.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// How many lines of a log an error quotes.
const QUOTED_LINES: usize = 10;

/// One server of ours, running or not, with its log file.
#[derive(Debug)]
pub(crate) struct Server {
    child: Option<Child>,
    log: PathBuf,
    /// Where in the log the present run begins.
    log_start: u64,
}

impl Server {
    /// A server that is not running yet and will log to `log`.
    pub(crate) fn new(log: PathBuf) -> Server {
        Server { child: None, log, log_start: 0 }
    }

    /// Starts `command`, appending what it prints to the log.
    pub(crate) fn spawn(&mut self, mut command: Command) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.log)
            .with_context(|| format!("cannot open {}: check its owner", self.log.display()))?;
        self.log_start = log.metadata()?.len();
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("cannot start the server: check its installation")?;
        self.child = Some(child);
        Ok(())
    }

    pub(crate) fn is_running(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => false,
        }
    }

    /// The process id, as long as the process has not been seen to end.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Waits for the end of the process; returns at once if there is none.
    pub(crate) async fn wait_exit(&mut self) {
        if let Some(child) = &mut self.child
            && let Err(error) = child.wait().await
        {
            tracing::warn!(%error, "cannot wait for a server process");
        }
    }

    /// Waits for the end of the process and says whether it came in time.
    pub(crate) async fn exits_within(&mut self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.wait_exit()).await.is_ok()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            send(pid, signal);
        }
    }

    /// Sends `signal` and waits a moment, blocking: the last thing to do for a dropped server.
    ///
    /// The wait lets the server let go of its folder, which may be about to be deleted.
    pub(crate) fn end_now(&mut self, signal: Signal) {
        if !self.is_running() {
            return;
        }
        self.signal(signal);
        let asked = Instant::now();
        while self.is_running() && asked.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How far the log has grown, to see whether a starting server still makes progress.
    pub(crate) fn log_len(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }

    /// What the present run has logged last, for quoting in an error.
    pub(crate) fn log_tail(&self) -> String {
        let mut text = Vec::new();
        let read = File::open(&self.log).and_then(|mut log| {
            let recent = self.log_len().saturating_sub(64 * 1024);
            log.seek(SeekFrom::Start(self.log_start.max(recent)))?;
            log.read_to_end(&mut text)
        });
        if let Err(error) = read {
            return format!("(cannot read {}: {error})", self.log.display());
        }
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let quoted = lines.len().saturating_sub(QUOTED_LINES);
        format!("the end of {} says:\n{}", self.log.display(), lines[quoted..].join("\n"))
    }
}

/// Sends `signal` to a process; one that has just ended is no error.
pub(crate) fn send(pid: i32, signal: Signal) {
    if let Err(error) = kill(Pid::from_raw(pid), signal) {
        tracing::debug!(pid, %signal, %error, "signal not delivered");
    }
}

/// Whether process `pid` runs `program` (by the beginning of its name) for the data in `dir`.
pub(crate) fn serves(pid: i32, program: &str, dir: &Path) -> bool {
    if pid <= 1 {
        return false;
    }
    if !has_proc() {
        // The caller got the pid from a pid file in `dir`; the program's name is all we can add.
        return std::process::Command::new("ps")
            .args(["-o", "comm=", "-p", &pid.to_string()])
            .output()
            .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(program));
    }
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let Ok(stat) = fs::read_to_string(proc.join("stat")) else {
        return false;
    };
    // "pid (name) state …", where the name may contain anything, parentheses included.
    let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else {
        return false;
    };
    // A zombie has ended; only its parent has not taken note yet.
    let ended = matches!(rest.trim_start().chars().next(), None | Some('Z' | 'X'));
    !ended && name.starts_with(program) && fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd == dir)
}

/// Ends every process that runs `program` for the data in `dir`.
///
/// They get `first`, if given, then have `patience` to end by themselves, and are killed after that.
pub(crate) async fn clear_out(
    program: &str,
    dir: &Path,
    first: Option<Signal>,
    patience: Duration,
) -> anyhow::Result<()> {
    if let Some(signal) = first {
        for pid in all_serving(program, dir) {
            tracing::info!(pid, program, "stopping a left-over process");
            send(pid, signal);
        }
    }
    let started = Instant::now();
    loop {
        let left = all_serving(program, dir);
        if left.is_empty() {
            return Ok(());
        }
        if started.elapsed() > patience + Duration::from_secs(10) {
            bail!("processes of {} do not end: kill {left:?}", dir.display());
        }
        if started.elapsed() >= patience {
            for pid in left {
                send(pid, Signal::SIGKILL);
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// All processes that run `program` for the data in `dir`. Always empty where there is no `/proc`.
fn all_serving(program: &str, dir: &Path) -> Vec<i32> {
    if !has_proc() {
        return Vec::new();
    }
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| serves(*pid, program, dir))
        .collect()
}

fn has_proc() -> bool {
    Path::new("/proc/self/stat").exists()
}
