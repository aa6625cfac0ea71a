//! PostgreSQL: pools, migrations and what an error means.
//!
//! Pools follow contract `production.md` §13. A deployment migrates with `tbg migrate`; commands that read or change
//! rows only check that the schema is at least as new as the code.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::{Context as _, bail};
use log::LevelFilter;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};

use crate::config::Settings;

/// The migrations of this program, embedded. A database that already has newer ones is fine.
#[must_use]
pub fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../../migrations");
    migrator.set_ignore_missing(true);
    migrator
}

/// What an operator is told who cannot connect.
pub const UNREACHABLE: &str = "cannot connect to PostgreSQL: is TBG_DATABASE_URL right?";
/// Longest time that a statement may run, except migrations.
const STATEMENT_TIMEOUT_MS: &str = "30000";
const IDLE_IN_TRANSACTION_TIMEOUT_MS: &str = "60000";
/// Longest wait for a free connection of the pool; then the request is a 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connection options with the session settings that every connection of the program gets.
///
/// # Errors
/// When `TBG_DATABASE_URL` is missing or is not a PostgreSQL URL. The message does not quote it.
pub fn connect_options(settings: &Settings) -> anyhow::Result<PgConnectOptions> {
    let url = settings.database_url.expose();
    if url.is_empty() {
        bail!("TBG_DATABASE_URL is not set: give it, or TBG_DATABASE_URL_FILE, a postgres:// URL");
    }
    let options = Some(url)
        .filter(|url| url.starts_with("postgres://") || url.starts_with("postgresql://"))
        .and_then(|url| url.parse::<PgConnectOptions>().ok())
        .context("TBG_DATABASE_URL is not a postgres:// URL")?;
    Ok(options
        .application_name("tbg")
        .options([
            ("statement_timeout", STATEMENT_TIMEOUT_MS),
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT_MS),
            ("jit", "off"),
            ("timezone", "UTC"),
        ])
        // At a level that only the layer that times statements listens to (`telemetry`).
        .log_statements(LevelFilter::Trace)
        .log_slow_statements(LevelFilter::Off, Duration::MAX))
}

/// A pool for a command that may take as long as it takes, such as a rebuild: its statements have no limit of time,
/// nor has a transaction that waits for one of them.
///
/// # Errors
/// See [`connect_options`]; when the database does not answer.
pub async fn unhurried(settings: &Settings, connections: u32) -> anyhow::Result<PgPool> {
    let options = connect_options(settings)?
        .options([("statement_timeout", "0"), ("idle_in_transaction_session_timeout", "0")]);
    let pool = PgPoolOptions::new().max_connections(connections).connect_with(options);
    pool.await.context(UNREACHABLE)
}

/// A pool that connects when it is first used, so that a process starts while the database is away.
///
/// # Errors
/// See [`connect_options`].
pub fn pool(settings: &Settings) -> anyhow::Result<PgPool> {
    let options = connect_options(settings)?;
    Ok(PgPoolOptions::new()
        .min_connections(settings.db_min_connections)
        .max_connections(settings.db_max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(Duration::from_secs(300))
        .test_before_acquire(false)
        .connect_lazy_with(options))
}

/// Asks the database over a connection of its own: when requests hold all of the pool's, the database is busy and
/// not away.
#[derive(Debug, Default)]
pub struct DatabaseProbe {
    kept: Option<PgConnection>,
}

impl DatabaseProbe {
    /// One real round trip, which only a live backend process answers; nothing to parse or prepare. A connection that
    /// has failed, or was given up on, is not put back: the next question makes a new one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ask(&mut self, options: &PgConnectOptions) -> Result<(), sqlx::Error> {
        if let Some(mut conn) = self.kept.take()
            && conn.ping().await.is_ok()
        {
            self.kept = Some(conn);
            return Ok(());
        }
        self.kept = Some(PgConnection::connect_with(options).await?);
        Ok(())
    }
}

/// Brings the schema up to date, then finishes indexes on partitioned tables. Returns how many
/// migrations were applied. Safe to run again and by two processes at once.
///
/// # Errors
/// When the database cannot be reached or a statement fails.
pub async fn migrate(options: &PgConnectOptions) -> anyhow::Result<usize> {
    let options = options.clone().options([("statement_timeout", "0")]);
    let mut conn = PgConnection::connect_with(&options)
        .await
        .context("cannot connect to PostgreSQL: is it running, and is TBG_DATABASE_URL right?")?;
    let before = applied_migrations(&mut conn).await?.len();
    migrator().run(&mut conn).await.context("a migration failed")?;
    let after = applied_migrations(&mut conn).await?.len();
    complete_partition_indexes(&mut conn).await?;
    conn.close().await?;
    Ok(after - before)
}

/// Versions of the migrations that the database has.
///
/// # Errors
/// When the database does not answer.
pub async fn applied_migrations(conn: &mut PgConnection) -> Result<Vec<i64>, sqlx::Error> {
    let table = sqlx::query_scalar!("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *conn)
        .await?;
    if table != Some(true) {
        return Ok(Vec::new());
    }
    sqlx::query_scalar!("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version")
        .fetch_all(conn)
        .await
}

/// Migrations that this program needs and the database lacks. A newer database is fine: migrations
/// only expand what the last release uses.
///
/// # Errors
/// When the database does not answer.
pub async fn missing_migrations(conn: &mut PgConnection) -> Result<Vec<Cow<'static, str>>, sqlx::Error> {
    let applied = applied_migrations(conn).await?;
    Ok(migrator()
        .iter()
        .filter(|migration| !applied.contains(&migration.version))
        .map(|migration| migration.description.clone())
        .collect())
}

/// Refuses a database whose schema is older than this program.
///
/// # Errors
/// When it is, or when the database does not answer.
pub async fn require_schema(conn: &mut PgConnection) -> anyhow::Result<()> {
    let missing = missing_migrations(conn).await?;
    match missing.first() {
        None => Ok(()),
        Some(first) => {
            bail!("the database lacks {} migration(s), the first `{first}`: run `tbg migrate`", missing.len())
        }
    }
}

/// A connection for a command, to a database that has all migrations.
///
/// # Errors
/// See [`connect_options`] and [`require_schema`]; when the database does not answer.
pub async fn connect(settings: &Settings) -> anyhow::Result<PgConnection> {
    let mut conn = PgConnection::connect_with(&connect_options(settings)?).await.context(UNREACHABLE)?;
    require_schema(&mut conn).await?;
    Ok(conn)
}

/// Builds indexes that so far exist on a partitioned parent only: concurrently on each partition, then
/// attached (contract `mining.md` §5.1). Resumable: a leftover of an interrupted build is dropped first.
async fn complete_partition_indexes(conn: &mut PgConnection) -> anyhow::Result<()> {
    let missing = sqlx::query!(
        r#"SELECT child_index AS "child_index!", is_invalid AS "is_invalid!", drop_sql AS "drop_sql!",
                  create_sql AS "create_sql!", attach_sql AS "attach_sql!"
           FROM tbg_missing_partition_indexes()"#
    )
    .fetch_all(&mut *conn)
    .await?;
    for index in missing {
        tracing::info!(index = index.child_index, "building index on a partition");
        if index.is_invalid {
            execute_catalog_sql(conn, index.drop_sql).await?;
        }
        execute_catalog_sql(conn, index.create_sql).await?;
        execute_catalog_sql(conn, index.attach_sql).await?;
    }
    Ok(())
}

/// Runs a statement that PostgreSQL itself composed from its catalog, with quoted identifiers.
async fn execute_catalog_sql(conn: &mut PgConnection, sql: String) -> anyhow::Result<()> {
    // sql-audit: allow(S2) composed by tbg_missing_partition_indexes() from catalog names only
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await?;
    Ok(())
}

/// Whether somebody else changed a row first that a REPEATABLE READ transaction waited for (SQLSTATE 40001).
#[must_use]
pub fn is_overtaken(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "40001")
}

/// Whether trying again later can help: the database is away, overloaded, or asked for a retry.
#[must_use]
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_transient_code(&code)),
        _ => false,
    }
}

/// SQLSTATE classes: connection (08), resources (53), operator and shutdown (57), retry (40), lock
/// time-out (55P03), read-only after a failover (25006), I/O (58).
fn is_transient_code(code: &str) -> bool {
    ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
        || matches!(code, "55P03" | "25006")
}
