//! `make bench-limiter`: how many decisions a second the rate limiter makes, and how long one takes.
//!
//! One limiter as a replica has it: one multiplexed connection to a private Redis with the durability of
//! production, many requests at once. Each round starts with an empty Redis and spreads over many clients, so
//! that most decisions take the longer way: the request is accepted and remembered.
//!
//! Limits: load, limiter and Redis share this machine's cores; the connection is a Unix socket.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use redis::aio::MultiplexedConnection;
use redis::cmd;
use tbg_core::config::Settings;
use tbg_core::random::SystemEntropy;
use tbg_core::{SystemClock, UserId, telemetry};
use tbg_local::{Durability, Redis};
use tbg_web::limit::{Limiter, Limits, Subject, Tier, redis_key};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// The allocator of the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the rate limiter on a Redis of its own.
#[derive(Parser)]
#[command(name = "bench-limiter")]
struct Args {
    /// Requests in flight at once
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    tasks: usize,
    /// Clients with a bucket of their own
    #[arg(long, default_value_t = 10_000, value_parser = at_least_one)]
    keys: usize,
    /// Length of a round in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Rounds; the one in the middle counts
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    rounds: usize,
    /// Decisions a second below which the exit code is not zero
    #[arg(long)]
    min: Option<f64>,
}

/// What one round found.
struct Round {
    per_second: f64,
    /// Time in Redis for one decision, if Redis says so.
    redis_us: Option<f64>,
    denied: usize,
    /// How long decisions took, in order.
    latencies: Vec<Duration>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    telemetry::init(&Settings::from_texts(&[("log_filter", "warn".to_owned())])?)?;
    let dir = tempfile::tempdir().context("cannot create a temporary folder")?;
    let mut redis = Redis::start(dir.path(), Durability::Production).await?;
    let outcome = tokio::select! {
        outcome = measure(&redis, &args) => outcome,
        error = interrupted() => Err(error),
    };
    let stopped = redis.stop().await;
    let fast_enough = outcome?;
    stopped?;
    Ok(if fast_enough { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the rounds and says whether the one in the middle is fast enough.
async fn measure(server: &Redis, args: &Args) -> anyhow::Result<bool> {
    let settings = Settings::from_texts(&[("redis_url", server.url())])?;
    let client = tbg_core::redis::client(&settings)?;
    let mut conn = tbg_core::redis::dedicated(&client).await?;
    let manager = tbg_core::redis::manager(&client)?;
    let limiter = Limiter::new(manager, Arc::new(SystemClock), Arc::new(SystemEntropy));
    print_facts(args, &mut conn).await?;
    let keys: Arc<[String]> =
        (1_i64..).take(args.keys).map(|id| redis_key(Tier::User, Subject::User(UserId(id)))).collect();
    let mut rounds = Vec::with_capacity(args.rounds);
    for number in 1..=args.rounds {
        let round = run(&limiter, &mut conn, &keys, args).await?;
        println!("round {number:<22}{:>12.0} decisions/s", round.per_second);
        rounds.push(round);
    }
    rounds.sort_unstable_by(|a, b| a.per_second.total_cmp(&b.per_second));
    let median = rounds.get((rounds.len() - 1) / 2).context("no round was run")?;
    print(median);
    let Some(min) = args.min else { return Ok(true) };
    let met = median.per_second >= min;
    println!("  {}  at least {min:.0} decisions/s", if met { "PASS" } else { "FAIL" });
    Ok(met)
}

/// What the numbers depend on.
async fn print_facts(args: &Args, conn: &mut MultiplexedConnection) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or_else(|_| "?".to_owned(), |n| n.to_string());
    let version = info(conn, "server", "redis_version:").await?.unwrap_or_default();
    let aof = info(conn, "persistence", "aof_enabled:").await?.unwrap_or_default();
    for (name, value) in [
        ("cores", cores),
        ("Redis", version),
        ("append-only file", aof),
        ("connections", "1".to_owned()),
        ("requests at once", args.tasks.to_string()),
        ("clients", args.keys.to_string()),
    ] {
        println!("{name:<28}{value}");
    }
    println!();
    Ok(())
}

fn print(round: &Round) {
    println!("\nRate limiter: the round in the middle");
    println!("  decisions {:>16}", round.latencies.len());
    println!("  denied    {:>16}", round.denied);
    println!("  rate      {:>16.0} /s", round.per_second);
    println!("  cost      {:>16.1} us per decision", 1e6 / round.per_second);
    if let Some(micros) = round.redis_us {
        println!("  in Redis  {micros:>16.1} us per decision");
    }
    for (name, percent) in [("p50", 50), ("p99", 99), ("max", 100)] {
        let latency = percentile(&round.latencies, percent).as_secs_f64() * 1e3;
        println!("  {name:<10}{latency:>16.2} ms");
    }
}

/// One round on an empty Redis.
async fn run(
    limiter: &Limiter,
    conn: &mut MultiplexedConnection,
    keys: &Arc<[String]>,
    args: &Args,
) -> anyhow::Result<Round> {
    cmd("FLUSHDB").query_async::<()>(conn).await?;
    // Connected, and the script is known.
    limiter.decide(Tier::User, "ratelimit:auth:0", 1).await;
    cmd("CONFIG").arg("RESETSTAT").query_async::<()>(conn).await?;
    let turn = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let until = started + Duration::from_secs(args.seconds);
    let mut tasks = JoinSet::new();
    for _ in 0..args.tasks {
        tasks.spawn(ask(limiter.clone(), Arc::clone(keys), Arc::clone(&turn), until));
    }
    let (mut latencies, mut denied) = (Vec::new(), 0);
    while let Some(asked) = tasks.join_next().await {
        let (times, refusals) = asked.context("a task panicked")??;
        latencies.extend(times);
        denied += refusals;
    }
    let per_second = latencies.len() as f64 / started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let stats = info(conn, "commandstats", "cmdstat_evalsha:").await?;
    Ok(Round { per_second, redis_us: stats.as_deref().and_then(micros_per_call), denied, latencies })
}

/// One request after the other until it is time; returns how long each took, and how many were denied.
async fn ask(
    limiter: Limiter,
    keys: Arc<[String]>,
    turn: Arc<AtomicUsize>,
    until: Instant,
) -> anyhow::Result<(Vec<Duration>, usize)> {
    let limit = Limits::default().user;
    let (mut times, mut denied) = (Vec::new(), 0);
    while Instant::now() < until {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let key = keys.get(turn % keys.len()).context("there are no clients")?;
        let started = Instant::now();
        let decision = limiter.decide(Tier::User, key, limit).await;
        times.push(started.elapsed());
        denied += usize::from(!decision.allowed);
        ensure!(limiter.redis_is_up(), "Redis did not answer in time: this would measure the fallback");
    }
    Ok((times, denied))
}

/// A line of `INFO section`, without its name.
async fn info(conn: &mut MultiplexedConnection, section: &str, name: &str) -> anyhow::Result<Option<String>> {
    let text: String = cmd("INFO").arg(section).query_async(conn).await?;
    Ok(text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim_end().to_owned()))
}

fn micros_per_call(stats: &str) -> Option<f64> {
    stats.split(',').find_map(|field| field.strip_prefix("usec_per_call="))?.parse().ok()
}

/// The nearest rank.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

/// Resolves when somebody wants the run to end, so that the server does not outlive it.
async fn interrupted() -> anyhow::Error {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => return error.into(),
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    anyhow::anyhow!("interrupted")
}

fn at_least_one(text: &str) -> Result<usize, &'static str> {
    text.parse::<usize>().ok().filter(|number| *number > 0).ok_or("a whole number, at least 1")
}
