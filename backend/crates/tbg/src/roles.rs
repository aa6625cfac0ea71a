//! What a process does: starts the roles it was given, and stops them in the right order.

mod api;
mod gauges;
mod jobs;
mod lottery;
mod running;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::{Connection as _, PgPool};
use tbg_core::config::{IngestMode, Settings};
use tbg_core::live::LiveBus;
use tbg_core::redis::{Connections, KEEP_ALIVE_EVERY};
use tbg_core::{Clock, db};
use tbg_engine::Engine;
use tbg_engine::source::publisher::StreamPublisher;
use tbg_engine::source::spool::Spool;
use tbg_engine::source::streams::{READS_PER_BATCH, ReadLimits};
use tbg_engine::source::{QUEUE_CAPACITY, socket};
use tbg_engine::writer::Writer;
use tbg_games::{LiveRanking, LotteryReactor, Ranking};
use tbg_gamification::GameReactor;
use tbg_mining::live::{LiveCommit, LiveStore};
use tbg_mining::{MiningConfig, MiningReactor};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::api::Api;
pub use self::api::token_keys;
use self::gauges::Gauges;
pub use self::lottery::{cycle, salt_key};
use self::running::Running;
use crate::cli::Role;

/// Version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How long connections may take to close at the end.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// How long the check of the schema may keep a start waiting.
const SCHEMA_CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// A process with its connections, before any role has started.
pub struct Process {
    settings: Settings,
    pool: PgPool,
    redis: Connections,
    metrics: PrometheusHandle,
    clock: Arc<dyn Clock>,
    bus: LiveBus,
    name: String,
}

impl Process {
    /// Prepares connections; makes none yet.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(settings: Settings, metrics: PrometheusHandle, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let pool = db::pool(&settings)?;
        let host = hostname();
        let name = settings.consumer_name.clone().unwrap_or_else(|| format!("{host}-{}", std::process::id()));
        let redis = Connections::new(&settings)?;
        let bus = LiveBus::new(redis.live.clone());
        Ok(Self { settings, pool, redis, metrics, clock, bus, name })
    }

    /// The pool of the process.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Refuses to run on a schema that lacks migrations. A database that is away is no reason not to
    /// start: the roles wait for it.
    ///
    /// # Errors
    /// When migrations are missing.
    pub async fn check_schema(&self) -> anyhow::Result<()> {
        let check = async {
            let mut conn = sqlx::PgConnection::connect_with(&db::connect_options(&self.settings)?).await?;
            anyhow::Ok(db::missing_migrations(&mut conn).await?)
        };
        match tokio::time::timeout(SCHEMA_CHECK_TIMEOUT, check).await {
            Ok(Ok(missing)) if !missing.is_empty() => {
                bail!("the database lacks {} migration(s): run `tbg migrate`", missing.len())
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "PostgreSQL is away: starting anyway")
            }
            Err(_) => tracing::warn!("PostgreSQL does not answer: starting anyway"),
        }
        Ok(())
    }

    /// Runs `roles` until `shutdown`, then drains them; says when all have `started`. A role that ends by itself stops
    /// the process.
    ///
    /// # Errors
    /// When a role cannot start, fails, or ends before `shutdown`.
    pub async fn run(
        self,
        roles: &[Role],
        shutdown: CancellationToken,
        started: impl FnOnce(),
    ) -> anyhow::Result<()> {
        let has = |role| roles.contains(&role) || roles.contains(&Role::All);
        let drain = Duration::from_secs(self.settings.shutdown_drain_seconds);
        let mut running = Running::default();
        if has(Role::Api) {
            let serving = self.serve_api(shutdown.clone()).await?;
            running.spawn("api", serving);
        } else {
            let probing = self.serve_probes(shutdown.clone()).await?;
            running.spawn("probes", probing);
        }
        if has(Role::Ingest) {
            self.start_ingest(&mut running, &shutdown)?;
        }
        if has(Role::Jobs) {
            self.start_jobs(&mut running, &shutdown)?;
        }
        started();
        let upkeep = self.metrics.clone();
        let mut gauges = Gauges::new(
            &self.settings,
            &self.pool,
            self.redis.background.clone(),
            self.name.clone(),
            Arc::clone(&self.clock),
        )?;
        let redis = self.redis.clone();
        let tidy = tokio::spawn(async move {
            let mut tick = tokio::time::interval(KEEP_ALIVE_EVERY);
            loop {
                tick.tick().await;
                upkeep.run_upkeep();
                tokio::join!(gauges.measure(), redis.keep_alive());
            }
        });
        let result = running.wait(&shutdown, drain).await;
        tidy.abort();
        // While the database is away, connections that are being made do not end by themselves.
        let _ = tokio::time::timeout(CLOSE_DEADLINE, self.pool.close()).await;
        result
    }

    /// Binds the API's address; the returned future serves until `shutdown`.
    async fn serve_api(
        &self,
        shutdown: CancellationToken,
    ) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + 'static> {
        let settings = &self.settings;
        let api = Api::new(settings, &self.pool, self.redis.clone(), &self.metrics, &self.clock, &self.bus)?;
        let listener = listen(settings.http_listen).await?;
        tracing::info!("API on http://{}", listener.local_addr()?);
        let drain = Duration::from_secs(settings.shutdown_drain_seconds);
        Ok(async move {
            let (authenticator, stop) = (api.authenticator, shutdown.clone());
            let seen = tokio::spawn(async move { authenticator.write_seen(stop).await });
            let sockets = tokio::spawn(api.realtime.run(shutdown.clone()));
            let served = tbg_web::serve(listener, api.router, shutdown, drain).await;
            sockets.await.map_err(|_| anyhow!("the sockets crashed"))?;
            seen.await.map_err(|_| anyhow!("the writer of last-seen times crashed"))?;
            Ok(served?)
        })
    }

    /// Binds the address of the API for the probes of a process that serves none.
    async fn serve_probes(
        &self,
        shutdown: CancellationToken,
    ) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + 'static> {
        let settings = &self.settings;
        let redis = self.redis.background.clone();
        let router = tbg_web::probe_router(api::probe_parts(settings, &self.pool, redis, &self.metrics));
        let listener = listen(settings.http_listen).await?;
        tracing::info!("health and metrics on http://{}", listener.local_addr()?);
        let drain = Duration::from_secs(settings.shutdown_drain_seconds);
        Ok(async move { Ok(tbg_web::serve(listener, router, shutdown, drain).await?) })
    }

    fn start_ingest(&self, running: &mut Running, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let settings = &self.settings;
        if settings.ingest_mode == IngestMode::Off {
            tracing::info!("TBG_INGEST_MODE is off: no ingest in this process");
            return Ok(());
        }
        tbg_engine::register_metrics();
        if settings.ingest_mode == IngestMode::Embedded {
            self.start_receiver(running, shutdown)?;
        }
        let writer = Writer {
            database: db::connect_options(settings)?,
            manager: self.redis.streams.clone(),
            redis: self.redis.client().clone(),
            engine: Arc::new(engine(settings)),
            clock: Arc::clone(&self.clock),
            consumer: self.name.clone(),
            limits: ReadLimits {
                count: settings.ingest_batch_size,
                reads: READS_PER_BATCH,
                collect: Duration::from_millis(settings.ingest_flush_ms),
            },
            after_commit: Arc::new([
                Arc::new(LiveCommit::new(LiveStore::new(self.redis.live.clone()), self.pool.clone())),
                Arc::new(LiveRanking::new(Ranking::new(self.redis.live.clone()))),
            ]),
            on_batch: None,
        };
        let shutdown = shutdown.clone();
        running.spawn("ingest (writer)", async move {
            writer.run(shutdown).await;
            Ok(())
        });
        Ok(())
    }

    /// The pool's socket, received by a thread of its own and published to the streams.
    fn start_receiver(&self, running: &mut Running, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let settings = &self.settings;
        let spool = Spool::open(&settings.spool_dir, settings.spool_max_bytes).with_context(|| {
            format!(
                "cannot use the spool {}: make it writable, or set TBG_SPOOL_DIR",
                settings.spool_dir.display()
            )
        })?;
        let spool = Arc::new(Mutex::new(spool));
        let (sender, queue) = mpsc::channel(QUEUE_CAPACITY);
        let redis = self.redis.streams.clone();
        let publisher = StreamPublisher::new(redis, Arc::clone(&spool), settings.redis_stream_maxlen);
        running.spawn("ingest (pool socket)", async move {
            publisher.run(queue).await;
            Ok(())
        });
        let (path, stop) = (settings.event_socket_path.clone(), shutdown.clone());
        std::thread::Builder::new()
            .name("pool-socket".to_owned())
            .spawn(move || socket::receive(&path, &sender, &spool, &stop))
            .context("cannot start the receiver's thread")?;
        Ok(())
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: is the port taken?"))
}

/// The reactors of this deployment, in order.
pub fn engine(settings: &Settings) -> Engine {
    Engine::new()
        .with(MiningReactor::new(mining_config(settings)))
        .with(GameReactor::new())
        .with(LotteryReactor::new())
}

/// How mining reacts in this deployment.
pub fn mining_config(settings: &Settings) -> MiningConfig {
    MiningConfig { network: settings.btc_network, persist_raw: settings.persists_raw() }
}

/// A token that is cancelled by SIGTERM or Ctrl-C.
///
/// # Errors
/// When signals cannot be listened to.
pub fn shutdown_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let token = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("interrupted: stopping"),
        }
        cancel.cancel();
    });
    Ok(token)
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_else(|_| "tbg".to_owned())
}
