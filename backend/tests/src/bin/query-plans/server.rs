//! A PostgreSQL server that counts its statements and explains them.

use std::collections::HashMap;
use std::path::Path;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tbg_local::{Durability, Postgres};
use tbg_tests::TestDb;
use tempfile::TempDir;

/// Share of the time from which on a statement is hot, in hundredths.
const HOT_PERCENT: f64 = 1.0;

/// The server; its data go with it.
pub struct Server {
    postgres: Postgres,
    dir: TempDir,
}

/// A hot statement of one chapter.
pub struct Statement {
    /// The text, with parameters.
    pub text: String,
    /// How often it ran.
    pub calls: i64,
    /// Milliseconds in the mean.
    pub mean_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// Hundredths of the chapter's time.
    pub percent: f64,
    /// How it was run last; empty if PostgreSQL did not say.
    pub plan: String,
}

impl Server {
    /// Starts it.
    pub async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut postgres = Postgres::start(dir.path(), Durability::Throwaway).await?;
        // Their own settings exist once they are loaded.
        let libraries = "ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements', 'auto_explain'";
        postgres.run_sql("postgres", libraries).await?;
        postgres.restart().await?;
        for setting in [
            "ALTER SYSTEM SET pg_stat_statements.track_utility = off",
            "ALTER SYSTEM SET auto_explain.log_analyze = on",
            "ALTER SYSTEM SET auto_explain.log_buffers = on",
            "ALTER SYSTEM SET log_line_prefix = '@ %Q '",
            // What the planner weighs, as in deploy/postgresql.conf.
            "ALTER SYSTEM SET random_page_cost = 1.1",
            "ALTER SYSTEM SET effective_cache_size = '5GB'",
            "ALTER SYSTEM SET work_mem = '16MB'",
        ] {
            postgres.run_sql("postgres", setting).await?;
        }
        postgres.restart().await?;
        Ok(Self { postgres, dir })
    }

    /// A migrated database.
    pub async fn database(&self) -> anyhow::Result<TestDb> {
        self.postgres.create_database("plans").await?;
        let options: PgConnectOptions = self.postgres.url("plans").parse()?;
        let options = options.options([("timezone", "UTC")]);
        tbg_core::db::migrate(&options).await?;
        let pool = PgPoolOptions::new().max_connections(5).connect_with(options.clone()).await?;
        // The archive begins yesterday.
        for days in [1, 0] {
            tbg_mining::jobs::keep_partitions(&pool, tbg_tests::now() - chrono::TimeDelta::days(days))
                .await?;
        }
        sqlx::query("CREATE EXTENSION pg_stat_statements").execute(&pool).await?;
        Ok(TestDb { options, pool })
    }

    /// What it is.
    pub async fn version(&self) -> anyhow::Result<String> {
        self.postgres.run_sql("postgres", "SELECT current_setting('server_version')").await
    }

    /// Runs `work` twice, with the number of the round: first it is timed, then explained. Hot statements, dearest
    /// first.
    pub async fn observe(&self, db: &TestDb, work: impl AsyncFn(u32)) -> anyhow::Result<Vec<Statement>> {
        sqlx::query("SELECT pg_stat_statements_reset()").execute(&db.pool).await?;
        work(0).await;
        let hot: Vec<(i64, String, i64, f64, f64, f64)> = sqlx::query_as(
            "SELECT queryid, query, calls, mean_exec_time, max_exec_time, percent
             FROM (SELECT *, 100 * total_exec_time / sum(total_exec_time) OVER () AS percent FROM pg_stat_statements
                   WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                     AND query NOT LIKE '%pg_stat_statements%') s
             WHERE percent > $1 ORDER BY percent DESC",
        )
        .bind(HOT_PERCENT)
        .fetch_all(&db.pool)
        .await?;

        let log = self.dir.path().join("postgres.log");
        let before = usize::try_from(log.metadata()?.len())?;
        self.explain(0).await?;
        work(1).await;
        self.explain(-1).await?;
        let mut plans = plans(&log, before)?;
        Ok(hot
            .into_iter()
            .map(|(id, text, calls, mean_ms, max_ms, percent)| {
                let plan = plans.remove(&id).unwrap_or_default();
                Statement { text, calls, mean_ms, max_ms, percent, plan }
            })
            .collect())
    }

    /// Explains every statement that takes so many milliseconds; -1 explains none.
    async fn explain(&self, milliseconds: i32) -> anyhow::Result<()> {
        let setting = match milliseconds {
            0 => "ALTER SYSTEM SET auto_explain.log_min_duration = 0",
            _ => "ALTER SYSTEM SET auto_explain.log_min_duration = -1",
        };
        self.postgres.run_sql("postgres", setting).await?;
        self.postgres.run_sql("postgres", "SELECT pg_reload_conf()").await?;
        // Connections that are idle read it with their next statement, once the server has told them.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        Ok(())
    }
}

/// The last plan of each statement, by its number, from what was logged after the first `before` bytes. An entry
/// begins with `@ NUMBER LOG:  duration: 0.5 ms  plan:`; its other lines begin with a tabulator.
fn plans(log: &Path, before: usize) -> anyhow::Result<HashMap<i64, String>> {
    let log = std::fs::read(log)?;
    let text = String::from_utf8_lossy(&log[before..]).into_owned();
    let mut plans = HashMap::new();
    let mut lines = text.lines().peekable();
    while let Some(head) = lines.next() {
        let mut words = head.split_whitespace();
        let (Some("@"), Some(id)) = (words.next(), words.next().and_then(|id| id.parse().ok())) else {
            continue;
        };
        if !head.ends_with("plan:") {
            continue;
        }
        let mut plan = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with('\t')) {
            // The text of the statement comes first; the plan begins with the first line that has costs.
            if !plan.is_empty() || line.contains("(cost=") {
                plan.push(line[1..].trim_end());
            }
        }
        plans.insert(id, plan.join("\n"));
    }
    Ok(plans)
}
