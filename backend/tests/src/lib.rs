//! The test harness: a database per test, a Redis per test, the real program on a free port.
//!
//! `make test` starts one private PostgreSQL server for the run (see `with-servers` in `tbg-local`) and
//! names it in `TBG_TEST_POSTGRES_URL`. The first test migrates a template; every test clones it.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a harness fails loudly")]
#![expect(clippy::missing_panics_doc, reason = "a harness fails loudly")]

pub mod app;
pub mod people;
pub mod program;
pub mod replica;
pub mod socket;
pub mod statements;
pub mod wire;
pub mod wrk;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool};
use tbg_bitcoin::Network;
use tbg_core::db;
use tbg_engine::decode::{check_age, decode_text};
use tbg_engine::{Engine, Outcome, PoolEvent};
use tbg_games::LotteryReactor;
use tbg_gamification::GameReactor;
use tbg_local::{Durability, Redis};
use tbg_mining::{MiningConfig, MiningReactor};
use tempfile::TempDir;

const TEMPLATE: &str = "tbg_template";
/// Serialises the making of the template across test processes ("tbgtempl").
const TEMPLATE_LOCK: i64 = 0x7462_6774_656d_706c;

/// The seven security headers as contract `production.md` §6 writes them: a constant of the program would change with the
/// program.
pub const SEVEN_HEADERS: [(&str, &str); 7] = [
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("x-xss-protection", "0"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
    ("content-security-policy", "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'"),
];

/// The server of this run.
///
/// # Panics
/// When the tests were not started by `make test`.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "tests learn from the environment where their server is")]
pub fn server() -> PgConnectOptions {
    std::env::var("TBG_TEST_POSTGRES_URL")
        .expect("no test server: run the tests with `make test`")
        .parse()
        .expect("TBG_TEST_POSTGRES_URL is a URL")
}

/// An instant, from RFC 3339.
#[must_use]
pub fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("an RFC 3339 instant")
}

/// The system's time, for events that must be fresh.
#[must_use]
pub fn now() -> DateTime<Utc> {
    use tbg_core::Clock as _;
    tbg_core::SystemClock.now()
}

/// A migrated database of one's own, with partitions around today. It goes with the server of the run.
pub struct TestDb {
    /// How to connect.
    pub options: PgConnectOptions,
    /// A small pool.
    pub pool: PgPool,
}

impl TestDb {
    /// Clones the template.
    pub async fn new() -> Self {
        let name = format!("t_{}", uuid::Uuid::new_v4().simple());
        let mut admin = server().database("postgres").connect().await.expect("test server");
        ensure_template(&mut admin).await;
        // sql-audit: allow(S1, S2) a name made of hex digits
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")))
            .execute(&mut admin)
            .await
            .expect("clone of the template");
        let options = server().database(&name).options([("timezone", "UTC")]);
        let pool = PgPoolOptions::new().max_connections(5).connect_with(options.clone()).await.unwrap();
        Self { options, pool }
    }

    /// A connection of one's own.
    pub async fn connect(&self) -> PgConnection {
        self.options.connect().await.expect("test database")
    }

    /// The server's socket.
    ///
    /// # Panics
    /// If the test server listens on none.
    #[must_use]
    pub fn socket(&self) -> std::path::PathBuf {
        let dir = self.options.get_socket().expect("the test server listens on a socket");
        dir.join(format!(".s.PGSQL.{}", self.options.get_port()))
    }

    /// The URL of this database behind another address.
    ///
    /// # Panics
    /// If it has no name.
    #[must_use]
    pub fn url_at(&self, address: std::net::SocketAddr) -> String {
        let database = self.options.get_database().expect("a database");
        format!("postgres://{}@{address}/{database}?sslmode=disable", self.options.get_username())
    }

    /// The URL of the database, for the real program.
    #[must_use]
    pub fn url(&self) -> String {
        let socket = self.options.get_socket().expect("the test server listens on a socket");
        format!(
            "postgres://{}@localhost:{}/{}?host={}",
            self.options.get_username(),
            self.options.get_port(),
            self.options.get_database().expect("a database"),
            socket.display()
        )
    }

    /// Changes something by a statement that is written in the test.
    pub async fn change(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.pool).await.expect(sql);
    }

    /// Executes a statement that is put together by a test.
    pub async fn execute(&self, sql: String) {
        // sql-audit: allow(S2) the caller's own names only
        sqlx::query(AssertSqlSafe(sql)).execute(&self.pool).await.expect("a statement of the test");
    }

    /// One number, by a statement that is written in the test.
    pub async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.expect(sql)
    }

    /// The rows of a query as JSON texts, one per row, in the order of the query.
    pub async fn rows(&self, sql: &'static str) -> Vec<String> {
        // sql-audit: allow(S1) a statement that is written in the test
        let json = format!("SELECT to_jsonb(r)::TEXT FROM ({sql}) r");
        // sql-audit: allow(S2) the same
        sqlx::query_scalar(AssertSqlSafe(json)).fetch_all(&self.pool).await.expect(sql)
    }

    /// A user who holds `address`.
    pub async fn user(&self, address: &str) -> i64 {
        sqlx::query_scalar("INSERT INTO users (btc_address) VALUES ($1) RETURNING id")
            .bind(address)
            .fetch_one(&self.pool)
            .await
            .expect("user")
    }
}

async fn ensure_template(admin: &mut PgConnection) {
    sqlx::query("SELECT pg_advisory_lock($1)").bind(TEMPLATE_LOCK).execute(&mut *admin).await.unwrap();
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)")
        .bind(TEMPLATE)
        .fetch_one(&mut *admin)
        .await
        .unwrap();
    if !exists {
        let making = format!("{TEMPLATE}_making");
        // sql-audit: allow(S1) constant names
        for sql in [format!("DROP DATABASE IF EXISTS {making}"), format!("CREATE DATABASE {making}")] {
            // sql-audit: allow(S2) constant names
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *admin).await.unwrap();
        }
        let options = server().database(&making);
        db::migrate(&options).await.expect("migrations");
        let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        tbg_mining::jobs::keep_partitions(&pool, now()).await.expect("partitions");
        pool.close().await;
        // sql-audit: allow(S1) constant names
        let rename = format!("ALTER DATABASE {making} RENAME TO {TEMPLATE}");
        // sql-audit: allow(S2) constant names
        sqlx::raw_sql(AssertSqlSafe(rename)).execute(&mut *admin).await.expect("template");
    }
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(TEMPLATE_LOCK).execute(admin).await.unwrap();
}

/// The engine as the program wires it.
#[must_use]
pub fn engine() -> Engine {
    Engine::new()
        .with(MiningReactor::new(MiningConfig { network: Network::Mainnet, persist_raw: true }))
        .with(GameReactor::new())
        .with(LotteryReactor::new())
}

/// A database with an engine in front: the path of a share without the sources.
pub struct Game {
    /// The database.
    pub db: TestDb,
    /// The engine.
    pub engine: Arc<Engine>,
    conn: PgConnection,
}

impl Game {
    /// A game without events.
    pub async fn new() -> Self {
        let db = TestDb::new().await;
        let conn = db.connect().await;
        Self { db, engine: Arc::new(engine()), conn }
    }

    /// Applies envelopes as one batch, processed just after the newest of them.
    pub async fn apply(&mut self, lines: &[String]) -> Outcome {
        let events: Vec<PoolEvent> = lines.iter().map(|line| decode_text(line).expect(line)).collect();
        let newest = events.iter().map(|event| event.ts).max().unwrap_or_default();
        self.apply_at(events, newest).await
    }

    /// Applies events as one batch, processed at `now`.
    pub async fn apply_at(&mut self, events: Vec<PoolEvent>, now: DateTime<Utc>) -> Outcome {
        events.iter().for_each(|event| check_age(event, now, true).expect("not from the future"));
        self.engine.apply(&mut self.conn, events, &[], now).await.expect("the batch is applied")
    }

    /// Closes the writer's connection.
    pub async fn close(self) {
        self.conn.close().await.unwrap();
    }
}

/// A Redis server of one's own.
pub struct TestRedis {
    /// The server; can be killed and restarted.
    pub server: Redis,
    _dir: TempDir,
}

impl TestRedis {
    /// Starts a server that keeps nothing.
    pub async fn new() -> Self {
        Self::with(Durability::Throwaway).await
    }

    /// Starts a server.
    pub async fn with(durability: Durability) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Redis::start(dir.path(), durability).await.expect("Redis server");
        Self { server, _dir: dir }
    }

    /// A multiplexed connection.
    #[must_use]
    pub fn manager(&self) -> tbg_core::redis::Redis {
        let config = redis::aio::ConnectionManagerConfig::new().set_number_of_retries(1);
        redis::aio::ConnectionManager::new_lazy_with_config(self.client(), config).expect("Redis").into()
    }

    /// A client.
    #[must_use]
    pub fn client(&self) -> redis::Client {
        redis::Client::open(self.server.url()).expect("Redis URL")
    }
}

/// A `share_submitted` envelope.
#[must_use]
pub fn share(user: &str, worker: &str, ts: &str, diff: f64, sdiff: f64, accepted: bool) -> String {
    format!(
        r#"{{"region":"eu-west","event":"share_submitted","ts":{ts},"source":"hosted","data":{{"user":"{user}","worker":"{user}.{worker}","diff":{diff},"sdiff":{sdiff},"accepted":{accepted}}}}}"#
    )
}
