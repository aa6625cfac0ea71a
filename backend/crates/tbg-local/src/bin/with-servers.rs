//! Runs a command with a private PostgreSQL and Redis at hand.
//!
//! `with-servers [--dir DIR] -- COMMAND ARGS…` starts both servers, without durability, under DIR or
//! under a temporary folder that is removed at the end. The command finds them through
//! `TBG_TEST_POSTGRES_URL` (the database `postgres`), `DATABASE_URL` (an empty database `tbg_test`)
//! and `TBG_TEST_REDIS_URL`, and its exit code becomes that of `with-servers`.

#![expect(clippy::print_stderr, reason = "a command line tool reports to its terminal")]

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{IsTerminal, stdin};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tbg_local::{DirLock, Durability, Postgres, Redis};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

const USAGE: &str = "usage: with-servers [--dir DIR] -- COMMAND ARGS…";
const DATABASE: &str = "tbg_test";

struct Arguments {
    dir: Option<PathBuf>,
    command: Vec<OsString>,
}

struct Signals {
    interrupt: SignalStream,
    terminate: SignalStream,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("with-servers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<u8> {
    let arguments = parse(env::args_os().skip(1))?;
    let mut signals =
        Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? };
    let (dir, temporary) = match arguments.dir {
        Some(dir) => (dir, None),
        None => {
            let temporary = tempfile::tempdir().context("cannot create a temporary folder")?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    let _lock = DirLock::acquire(&dir)?;

    let started = tokio::select! {
        started = start(&dir) => Some(started),
        _ = signals.interrupt.recv() => None,
        _ = signals.terminate.recv() => None,
    };
    let outcome = match started {
        Some(Ok((mut postgres, mut redis))) => {
            let outcome = run_command(&arguments.command, &postgres, &redis, &mut signals).await;
            for stopped in [postgres.stop().await, redis.stop().await] {
                if let Err(error) = stopped {
                    eprintln!("with-servers: {error:#}");
                }
            }
            outcome
        }
        Some(Err(error)) => Err(error),
        None => Err(anyhow::anyhow!("interrupted while starting the servers")),
    };

    if let Some(temporary) = temporary {
        remove_far_data(temporary.path());
        if let Err(error) = temporary.close() {
            eprintln!("with-servers: cannot remove the temporary folder: {error}");
        }
    }
    outcome
}

fn parse(mut words: impl Iterator<Item = OsString>) -> anyhow::Result<Arguments> {
    let mut dir = None;
    loop {
        let word = words.next().context(USAGE)?;
        match word.to_str() {
            Some("--dir") => dir = Some(PathBuf::from(words.next().context(USAGE)?)),
            Some("--") => break,
            _ => bail!("{USAGE}"),
        }
    }
    let command: Vec<OsString> = words.collect();
    if command.is_empty() {
        bail!("{USAGE}");
    }
    Ok(Arguments { dir, command })
}

async fn start(dir: &Path) -> anyhow::Result<(Postgres, Redis)> {
    let (postgres, redis) = tokio::try_join!(
        Postgres::start(dir, Durability::Throwaway),
        Redis::start(dir, Durability::Throwaway),
    )?;
    postgres.create_database(DATABASE).await?;
    Ok((postgres, redis))
}

async fn run_command(
    command: &[OsString],
    postgres: &Postgres,
    redis: &Redis,
    signals: &mut Signals,
) -> anyhow::Result<u8> {
    let [program, arguments @ ..] = command else {
        bail!("{USAGE}");
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env("TBG_TEST_POSTGRES_URL", postgres.url("postgres"))
        .env("DATABASE_URL", postgres.url(DATABASE))
        .env("TBG_TEST_REDIS_URL", redis.url())
        .spawn()
        .with_context(|| format!("cannot run {}", program.to_string_lossy()))?;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(exit_code(status?)),
            _ = signals.interrupt.recv() => {
                // A terminal sends Ctrl-C to the command as well; saying it twice may mean more.
                if !stdin().is_terminal() {
                    forward(&child, Signal::SIGINT);
                }
            }
            _ = signals.terminate.recv() => forward(&child, Signal::SIGTERM),
        }
    }
}

fn forward(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok())
        && let Err(error) = kill(Pid::from_raw(pid), signal)
    {
        eprintln!("with-servers: cannot pass on {signal}: {error}");
    }
}

/// The code a shell would report.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Removes data that PostgreSQL's user could not keep in the temporary folder itself.
fn remove_far_data(dir: &Path) {
    if let Ok(data) = fs::read_to_string(dir.join("pgdata.location"))
        && let Some(home) = Path::new(data.trim_end_matches('\n')).parent()
        && let Err(error) = fs::remove_dir_all(home)
    {
        eprintln!("with-servers: cannot remove {}: {error}", home.display());
    }
}
