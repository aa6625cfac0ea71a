//! Starts real servers, crashes them and leaves them behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use tbg_local::{DirLock, Durability, Postgres, Redis};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Sends one inline command to Redis and returns the raw answer.
async fn ask(redis: &Redis, command: &str) -> anyhow::Result<String> {
    let url = redis.url();
    let path = url.strip_prefix("redis+unix://").context("not a socket's address")?;
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(format!("{command}\r\n").as_bytes()).await?;
    let mut answer = vec![0; 1024];
    let length = stream.read(&mut answer).await?;
    answer.truncate(length);
    Ok(String::from_utf8(answer)?)
}

#[tokio::test]
async fn postgres_starts_and_stops() -> anyhow::Result<()> {
    tbg_local::installed()?;
    let dir = tempfile::tempdir()?;
    let mut postgres = Postgres::start(dir.path(), Durability::Throwaway).await?;
    assert!(postgres.is_running());
    assert!(postgres.pid().is_some());
    assert_eq!(postgres.run_sql("postgres", "SELECT 1").await?, "1");
    assert_eq!(postgres.run_sql("postgres", "SHOW fsync").await?, "off");

    postgres.create_database("with \"quotes'").await?;
    postgres.create_database("with \"quotes'").await?;
    let name = postgres.run_sql("with \"quotes'", "SELECT current_database()").await?;
    assert_eq!(name, "with \"quotes'");
    let error = postgres.run_sql("postgres", "SELECT nonsense").await;
    assert!(error.is_err_and(|error| error.to_string().contains("nonsense")));
    let url = postgres.url("a b");
    assert!(url.starts_with("postgres://tbg@localhost:54320/a%20b?host=%2F"));

    postgres.stop().await?;
    assert!(!postgres.is_running());
    assert!(postgres.pid().is_none());
    timeout(Duration::from_secs(1), postgres.wait_exit()).await?;
    Ok(())
}

#[tokio::test]
async fn a_committed_row_survives_a_crash() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut postgres = Postgres::start(dir.path(), Durability::Production).await?;
    assert_eq!(postgres.run_sql("postgres", "SHOW fsync").await?, "on");
    postgres.run_sql("postgres", "CREATE TABLE t AS SELECT 42 AS answer").await?;
    assert!(timeout(Duration::from_millis(50), postgres.wait_exit()).await.is_err());
    postgres.kill().await?;
    assert!(!postgres.is_running());
    timeout(Duration::from_secs(1), postgres.wait_exit()).await?;

    postgres.restart().await?;
    assert_eq!(postgres.run_sql("postgres", "SELECT answer FROM t").await?, "42");
    postgres.stop().await
}

#[tokio::test]
async fn a_left_over_postgres_is_replaced() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let first = Postgres::start(dir.path(), Durability::Throwaway).await?;
    first.run_sql("postgres", "CREATE TABLE t AS SELECT 42 AS answer").await?;
    let old = first.pid();
    // As if the supervisor had been killed: nobody stops the server.
    std::mem::forget(first);

    let mut second = Postgres::start(dir.path(), Durability::Throwaway).await?;
    assert_ne!(second.pid(), old);
    assert_eq!(second.run_sql("postgres", "SELECT answer FROM t").await?, "42");
    second.stop().await
}

#[tokio::test]
async fn a_folder_the_server_cannot_reach_is_no_obstacle() -> anyhow::Result<()> {
    let closed = tempfile::tempdir()?;
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700))?;
    let dir = closed.path().join("some/folder");
    let mut postgres = Postgres::start(&dir, Durability::Throwaway).await?;
    postgres.run_sql("postgres", "CREATE TABLE t ()").await?;
    postgres.stop().await?;
    postgres.restart().await?;
    postgres.run_sql("postgres", "SELECT FROM t").await?;
    postgres.stop().await?;

    // Written only when the tests run as root.
    if let Ok(data) = fs::read_to_string(dir.join("pgdata.location")) {
        let home = Path::new(data.trim()).parent().map(Path::to_owned);
        fs::remove_dir_all(home.context("no parent")?)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_long_path_gets_a_short_socket() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let long: PathBuf = dir.path().join("long".repeat(30));
    let mut redis = Redis::start(&long, Durability::Throwaway).await?;
    ensure!(redis.url().len() < 120, "{} is too long", redis.url());
    assert_eq!(ask(&redis, "PING").await?, "+PONG\r\n");
    redis.stop().await
}

#[tokio::test]
async fn a_key_survives_restarts_of_redis() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut redis = Redis::start(dir.path(), Durability::Production).await?;
    assert_eq!(ask(&redis, "SET key value").await?, "+OK\r\n");
    redis.restart().await?;
    assert_eq!(ask(&redis, "GET key").await?, "$5\r\nvalue\r\n");

    redis.kill().await?;
    assert!(!redis.is_running());
    redis.restart().await?;
    assert_eq!(ask(&redis, "GET key").await?, "$5\r\nvalue\r\n");

    let old = redis.pid();
    std::mem::forget(redis);
    let mut redis = Redis::start(dir.path(), Durability::Production).await?;
    assert_ne!(redis.pid(), old);
    assert_eq!(ask(&redis, "GET key").await?, "$5\r\nvalue\r\n");
    redis.stop().await
}

#[test]
fn a_folder_is_locked_once() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("new");
    let lock = DirLock::acquire(&path)?;
    let refused = DirLock::acquire(&path);
    assert!(refused.is_err_and(|error| error.to_string().contains("another tbg is using")));
    drop(lock);
    DirLock::acquire(&path)?;
    Ok(())
}
