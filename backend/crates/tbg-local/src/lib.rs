//! Private PostgreSQL and Redis servers under a folder, for development, tests and benchmarks.
//!
//! `tbg dev`, the tests and the crash tests each need a database and a Redis of their own, with
//! nothing to configure and nothing to clean up by hand. Everything a pair of servers owns lies
//! under one folder: the data, the logs and the sockets. The servers listen on Unix sockets only,
//! so they never collide with a system-wide PostgreSQL or Redis, nor with each other.
//!
//! The servers are ordinary child processes. They are put into process groups of their own so that
//! Ctrl-C in a terminal reaches the supervisor alone, which then decides the order of stopping. A
//! supervisor that was killed leaves its servers running: the next start on the same folder finds
//! them, stops them and starts afresh.
//!
//! One folder serves one user at a time. [`DirLock`] is how callers make sure of that.

mod lock;
mod place;
mod postgres;
mod redis;
mod server;
mod tools;

pub use lock::DirLock;
pub use postgres::Postgres;
pub use redis::Redis;

/// How much a server does to keep what it has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// What production runs: PostgreSQL syncs every commit, Redis keeps an append-only file that is
    /// synced every second. For `tbg dev`, crash tests and honest benchmarks.
    Production,
    /// Nothing is synced and Redis keeps nothing. For tests that throw the folder away.
    Throwaway,
}

/// Checks that both servers are installed; the error says what to install.
pub fn installed() -> Result<(), anyhow::Error> {
    tools::PgTools::find()?;
    tools::redis_server()?;
    Ok(())
}

/// Deletes the data of both servers under `dir`, stopping first what an earlier run left running. The
/// caller holds the folder's [`DirLock`].
///
/// # Errors
/// When a file cannot be deleted.
pub async fn remove_data(dir: &std::path::Path) -> anyhow::Result<()> {
    Redis::erase(dir).await?;
    Postgres::erase(dir).await
}
