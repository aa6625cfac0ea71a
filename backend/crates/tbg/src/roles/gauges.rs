//! What a process reports about itself and what it needs (contract `production.md` §10).

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tbg_core::Clock;
use tbg_core::config::Settings;
use tbg_core::db::{self, DatabaseProbe};
use tbg_core::metrics::LOG_LINES_LOST_TOTAL;
use tbg_core::redis::{MAX_CONNECTIONS, Redis, connections_in_use};
use tbg_core::telemetry;
use tbg_core::told::{self, Told};

use super::VERSION;

/// How long a dependency may take to answer.
const DEADLINE: Duration = Duration::from_secs(2);

/// Measures the pools and dependencies of a process.
pub struct Gauges {
    pool: PgPool,
    database: DatabaseProbe,
    options: PgConnectOptions,
    redis: Redis,
    pool_size: u32,
    process: String,
    clock: Arc<dyn Clock>,
}

impl Gauges {
    /// Reports version and environment at once.
    ///
    /// # Errors
    /// When a URL cannot be used.
    pub fn new(
        settings: &Settings,
        pool: &PgPool,
        redis: Redis,
        process: String,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        gauge!("tbg_app_info", "version" => VERSION, "environment" => settings.environment.as_str()).set(1.0);
        Ok(Self {
            pool: pool.clone(),
            database: DatabaseProbe::default(),
            options: db::connect_options(settings)?,
            redis,
            pool_size: settings.db_max_connections,
            process,
            clock,
        })
    }

    /// Sets the gauges to what is true now.
    pub async fn measure(&mut self) {
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX);
        let in_use = self.pool.size().saturating_sub(idle);
        gauge!("tbg_db_pool_size").set(f64::from(self.pool_size));
        gauge!("tbg_db_pool_free").set(f64::from(self.pool_size.saturating_sub(in_use)));

        gauge!("tbg_redis_pool_size").set(MAX_CONNECTIONS as f64);
        gauge!("tbg_redis_pool_active").set(connections_in_use() as f64);

        counter!(LOG_LINES_LOST_TOTAL).absolute(telemetry::lost_lines());

        let mut redis = self.redis.clone();
        let ping = redis::cmd("PING");
        let (database, redis) = tokio::join!(
            tokio::time::timeout(DEADLINE, self.database.ask(&self.options)),
            tokio::time::timeout(DEADLINE, ping.query_async::<()>(&mut redis)),
        );
        let redis_up = redis.is_ok_and(|ping| ping.is_ok());
        if redis_up {
            let mut redis = self.redis.clone();
            let told = Told::now(self.clock.now());
            let telling = told::tell(&mut redis, &self.process, &told);
            let _ = tokio::time::timeout(DEADLINE, telling).await;
        }
        let database_up = database.is_ok_and(|answer| answer.is_ok());
        gauge!("tbg_dependency_up", "dependency" => "database").set(f64::from(u8::from(database_up)));
        gauge!("tbg_dependency_up", "dependency" => "redis").set(f64::from(u8::from(redis_up)));
    }
}
