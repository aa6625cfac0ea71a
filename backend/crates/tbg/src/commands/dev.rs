//! `tbg dev`: a whole game on this machine.
//!
//! Private servers under a folder, the roles in this process, simulated miners that write into the pool's
//! socket like a pool. Whatever ends first, everything that was started is stopped.

mod demo;
mod live;
mod miners;
mod past;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use chrono::NaiveTime;
use tbg_core::config::{Loaded, Settings, Sources};
use tbg_core::period::IsoWeek;
use tbg_core::{Clock, ShiftedClock, SystemClock, db, telemetry};
use tbg_local::{DirLock, Durability, Postgres, Redis};
use tokio_util::sync::CancellationToken;

use self::demo::Demo;
use crate::cli::{Dev, Role};
use crate::roles::{Process, shutdown_signal};
use crate::terminal::say;

const DATABASE: &str = "tbg";
/// Waits of the lottery in seconds, where a week's end is watched.
const WEEK_END_WAITS: [(&str, &str); 3] = [
    ("TBG_LOTTERY_FREEZE_GRACE_SECONDS", "5"),
    ("TBG_LOTTERY_REVEAL_DELAY_SECONDS", "20"),
    ("TBG_LOTTERY_WATERMARK_WAIT_SECONDS", "5"),
];

pub async fn run(args: Dev) -> anyhow::Result<()> {
    let dir = std::path::absolute(&args.dir).context("the folder of --dir")?;
    // A game in another hour of the week leaves nothing for one in this hour.
    let dir = if args.week_ends_in.is_some() { dir.join("week-ends") } else { dir };
    // Anything wrong with the settings is told before a server is started.
    let _traces = telemetry::init_traced(&settings(&args, &dir, None)?)?;
    tbg_local::installed()?;
    let lock = DirLock::acquire(&dir)?;
    if args.reset || args.week_ends_in.is_some() {
        reset(&dir).await?;
    }
    let shutdown = shutdown_signal()?;
    tracing::info!("starting private PostgreSQL and Redis servers under {}", dir.display());
    // What a start leaves half done when it is given up, the next one does again.
    let mut postgres = tokio::select! {
        started = Postgres::start(&dir, Durability::Production) => started?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let mut redis = match Redis::start(&dir, Durability::Production).await {
        Ok(redis) => redis,
        Err(error) => {
            let _ = postgres.stop().await;
            return Err(error);
        }
    };
    let result = play(&args, &dir, &mut postgres, &mut redis, &shutdown).await;
    shutdown.cancel();
    tracing::info!("stopping the private servers");
    let (redis_stopped, postgres_stopped) = (redis.stop().await, postgres.stop().await);
    drop(lock);
    result.and(redis_stopped).and(postgres_stopped)
}

/// Everything between the start and the stop of the servers.
async fn play(
    args: &Dev,
    dir: &Path,
    postgres: &mut Postgres,
    redis: &mut Redis,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let urls = (postgres.url(DATABASE), redis.url());
    let settings = settings(args, dir, Some(urls.clone()))?;
    let metrics = tbg_core::metrics::install(&settings, &tbg_web::HTTP_LATENCY_BUCKETS_SECONDS)?;
    let clock = clock(args);
    let demo = Demo::load(dir, settings.btc_network)?;
    tokio::select! {
        migrated = migrate(postgres, &settings) => migrated?,
        () = shutdown.cancelled() => return Ok(()),
    }
    past::seed(&settings, &demo, clock.now()).await?;
    let process = Process::new(settings.clone(), metrics.clone(), Arc::clone(&clock))?;
    let simulated = miners::start(args, &settings, &demo, clock.now(), shutdown.clone()).await?;
    let live =
        tokio::spawn(live::show(metrics, process.pool().clone(), Arc::clone(&clock), shutdown.clone()));
    let roles = process.run(&[Role::All], shutdown.clone(), || {
        let _ = welcome(&settings, args, &demo, &urls.0, &urls.1);
    });
    let result = tokio::select! {
        result = roles => result,
        result = keep_alive(postgres, redis, shutdown) => result,
    };
    shutdown.cancel();
    let _ = live.await;
    if let Some(simulated) = simulated {
        simulated.await.map_err(|_| anyhow!("the simulated miners crashed"))?;
    }
    result
}

/// The database and its schema.
async fn migrate(postgres: &mut Postgres, settings: &Settings) -> anyhow::Result<()> {
    postgres.create_database(DATABASE).await?;
    let applied = db::migrate(&db::connect_options(settings)?).await?;
    tracing::info!(applied, "schema is up to date");
    Ok(())
}

/// The clock of this game: the machine's, or one on which the week ends soon.
fn clock(args: &Dev) -> Arc<dyn Clock> {
    let Some(left) = args.week_ends_in else { return Arc::new(SystemClock) };
    let now = SystemClock.now();
    let end = IsoWeek::of(now).next().monday().and_time(NaiveTime::MIN).and_utc();
    Arc::new(ShiftedClock(end - left - now))
}

/// Starts a server again that ends by itself: the game goes on, and nothing it had accepted is lost.
async fn keep_alive(
    postgres: &mut Postgres,
    redis: &mut Redis,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => std::future::pending().await,
            () = postgres.wait_exit() => {
                tracing::warn!("PostgreSQL ended by itself: starting it again");
                postgres.restart().await.context("PostgreSQL does not start again; see postgres.log")?;
            }
            () = redis.wait_exit() => {
                tracing::warn!("Redis ended by itself: starting it again");
                redis.restart().await.context("Redis does not start again; see redis.log")?;
            }
        }
    }
}

/// The settings of the environment, with what belongs to the private game put in its place.
fn settings(args: &Dev, dir: &Path, urls: Option<(String, String)>) -> anyhow::Result<Settings> {
    let mut sources = Sources::of_process()?;
    sources.secrets_dir = None;
    let environment = &mut sources.environment;
    for name in ["TBG_DATABASE_URL_FILE", "TBG_REDIS_URL_FILE"] {
        environment.remove(name);
    }
    if let Some((database_url, redis_url)) = urls {
        environment.insert("TBG_DATABASE_URL".to_owned(), database_url);
        environment.insert("TBG_REDIS_URL".to_owned(), redis_url);
        let key = demo::signing_key(dir)?.display().to_string();
        environment.entry("TBG_JWT_PRIVATE_KEY_FILE".to_owned()).or_insert(key);
        let key = demo::lottery_key(dir)?.display().to_string();
        environment.entry("TBG_LOTTERY_SALT_KEY_FILE".to_owned()).or_insert(key);
    }
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let mut default = |name: &str, value: String| {
        environment.entry(name.to_owned()).or_insert(value);
    };
    default("TBG_HTTP_LISTEN", listen.to_string());
    default("TBG_PUBLIC_BASE_URL", format!("http://localhost:{}", args.port));
    default("TBG_EVENT_SOCKET_PATH", dir.join("events.sock").display().to_string());
    default("TBG_SPOOL_DIR", dir.join("spool").display().to_string());
    default("TBG_SHUTDOWN_DRAIN_SECONDS", "5".to_owned());
    if args.week_ends_in.is_some() {
        // Whoever waits for the end of a week does not want to wait for an hour after it.
        for (name, seconds) in WEEK_END_WAITS {
            default(name, seconds.to_owned());
        }
    }
    Ok(Loaded::from_sources(&sources)?.settings)
}

/// Deletes the data of earlier runs, wherever the servers keep them.
async fn reset(dir: &Path) -> anyhow::Result<()> {
    tracing::info!("deleting the data of earlier runs");
    tbg_local::remove_data(dir).await?;
    let spool = dir.join("spool");
    if spool.exists() {
        std::fs::remove_dir_all(&spool).context("deleting the spool")?;
    }
    Ok(())
}

/// Tells what a person can do now. The URLs may be shown: they lead to sockets and hold no password.
fn welcome(
    settings: &Settings,
    args: &Dev,
    demo: &Demo,
    database_url: &str,
    redis_url: &str,
) -> anyhow::Result<()> {
    say!(
        "
  The Bitcoin Game is running.

    API          http://{listen}
    Try it       http://{listen}/docs
    Health       http://{listen}/health
    Pool socket  {socket}
    Miners       {miners} simulated

  Sign in as the demo user, a wallet under {key_file}:

    API=http://{listen}/api/v1/auth  ADDRESS={address}
    curl -s $API/challenge -H 'Content-Type: application/json' -d '{{\"btc_address\":\"'$ADDRESS'\"}}' > challenge.json
    SIGNATURE=$({program} wallet sign --key-file \"{key_file}\" --challenge challenge.json)
    curl -s $API/connect -H 'Content-Type: application/json' \\
         -d '{{\"btc_address\":\"'$ADDRESS'\",\"signature\":\"'$SIGNATURE'\"}}'

  The answer holds an access_token: send it as `Authorization: Bearer …`, or paste it into /docs.

  Make this user an administrator, once it has signed in:

    TBG_DATABASE_URL='{database_url}' \\
    TBG_REDIS_URL='{redis_url}' \\
    TBG_BTC_NETWORK={network} {program} admin grant {address}

  Ctrl-C stops everything; the next start finds its data.
",
        listen = settings.http_listen,
        socket = settings.event_socket_path.display(),
        miners = args.miners,
        key_file = demo.key_file.display(),
        address = demo.address,
        network = settings.btc_network,
        program = std::env::current_exe().map_or_else(|_| "tbg".to_owned(), |path| path.display().to_string()),
    )
}
