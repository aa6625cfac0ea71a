//! Where the server programs are, and how they are called.
//!
//! Distributions keep PostgreSQL's server programs out of `PATH`, so they are looked for in the
//! places where packages put them. Every program is called with a clean slate: no `PG…` variables
//! of the caller, no terminal, a process group of its own.

use std::cmp::Reverse;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::place::ServerUser;

const PG_PROGRAMS: [&str; 4] = ["initdb", "postgres", "pg_ctl", "psql"];

/// The folder of PostgreSQL's programs.
#[derive(Clone, Debug)]
pub(crate) struct PgTools {
    bin: PathBuf,
}

impl PgTools {
    /// Asks `pg_config`, then looks at the packaged versions, newest first, then through `PATH`.
    pub(crate) fn find() -> anyhow::Result<PgTools> {
        let mut candidates = Vec::new();
        candidates.extend(pg_config_bindir());
        candidates.extend(packaged_bindirs());
        candidates.extend(search_path());
        candidates
            .into_iter()
            .find(|bin| PG_PROGRAMS.iter().all(|name| bin.join(name).is_file()))
            .map(|bin| PgTools { bin })
            .context("PostgreSQL is not installed: apt-get install postgresql")
    }

    /// A call of one of the programs, in the folder `cwd`, as `user` if one is given.
    pub(crate) fn command(&self, name: &str, cwd: &Path, user: Option<ServerUser>) -> Command {
        clean_command(self.bin.join(name).as_os_str(), cwd, user)
    }
}

/// The path of `redis-server`.
pub(crate) fn redis_server() -> anyhow::Result<PathBuf> {
    search_path()
        .map(|bin| bin.join("redis-server"))
        .find(|program| program.is_file())
        .context("Redis is not installed: apt-get install redis-server")
}

/// A call of `program` that takes nothing over from the caller's PostgreSQL settings or terminal.
#[expect(clippy::disallowed_methods, reason = "only the names are read, to leave them out")]
pub(crate) fn clean_command(program: &OsStr, cwd: &Path, user: Option<ServerUser>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.current_dir(cwd).env("HOME", cwd).env("LC_ALL", "C").stdin(Stdio::null()).process_group(0);
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

/// Runs a short-lived program to its end and returns what it printed.
pub(crate) async fn output_of(mut command: Command, what: &str) -> anyhow::Result<String> {
    let output = command
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run {what}: is PostgreSQL installed completely?"))?;
    if !output.status.success() {
        bail!("{what} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn pg_config_bindir() -> Option<PathBuf> {
    let output = std::process::Command::new("pg_config").arg("--bindir").output().ok()?;
    let bindir = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !bindir.trim().is_empty()).then(|| PathBuf::from(bindir.trim()))
}

fn packaged_bindirs() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by_key(|(version, _)| Reverse(*version));
    versions.into_iter().map(|(_, bin)| bin).collect()
}

fn search_path() -> impl Iterator<Item = PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "programs are looked for where the shell would")]
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).collect::<Vec<_>>().into_iter()
}
