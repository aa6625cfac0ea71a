//! The crash test (DESIGN, "Testing"): nothing is lost and nothing is counted twice, whoever is killed.
//!
//! A seeded simulation of a pool is applied twice. One database takes it in process, undisturbed. The
//! other takes it from Redis Streams through the real program, which is killed with SIGKILL again and
//! again, as are PostgreSQL and Redis. Afterwards both databases must hold the same rows, and a rebuild
//! from the archive must give the rollups that are already there.
//!
//! `make crash`, or `crash --kills 5 --events 20000` for a quick one. Exit code 1 when anything differs.

#![expect(clippy::print_stdout, reason = "a command line tool reports to its terminal")]

#[path = "crash/compare.rs"]
mod compare;
#[path = "crash/killer.rs"]
mod killer;
#[path = "crash/pour.rs"]
mod pour;
#[path = "crash/report.rs"]
mod report;
#[path = "crash/stage.rs"]
mod stage;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, anyhow, bail};
use chrono::{DateTime, Utc};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use sqlx::PgPool;
use tbg_bitcoin::Network;
use tbg_core::{Clock as _, SystemClock};
use tbg_engine::decode::decode_text;
use tbg_mining::MiningConfig;
use tbg_sim::{SimConfig, Simulator};

use crate::compare::{Difference, ROLLUPS, TABLES};
use crate::killer::Random;
use crate::pour::Gate;
use crate::report::{Ordeal, Report};
use crate::stage::Stage;

/// Simulated workers.
const MINERS: u32 = 500;
/// Seconds between two shares of a worker: so that 300,000 events are about two hours of a pool's life,
/// which crosses hours and now and then midnight.
const SHARE_SECONDS: f64 = 15.0;
/// What that many workers send in a second, shares and all the rest, about.
const EVENTS_PER_SECOND: f64 = 42.0;
/// Blocks that the simulated pool finds in a run, about.
const BLOCKS: f64 = 20.0;
/// Events of one batch of the undisturbed run.
const BATCH: usize = 1_000;
/// The newest event is this old when the test starts: none may be from the future.
const MARGIN_US: i64 = 60_000_000;

/// Kills the program, PostgreSQL and Redis at random while shares pour in, and compares the result with
/// an undisturbed run.
#[derive(Parser)]
struct Args {
    /// How often the program is killed
    #[arg(long, default_value_t = 50)]
    kills: usize,
    /// How often PostgreSQL is killed
    #[arg(long, default_value_t = 5)]
    postgres_kills: usize,
    /// How often Redis is killed
    #[arg(long, default_value_t = 5)]
    redis_kills: usize,
    /// The same seed gives the same events and the same order of kills
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Events of the pool
    #[arg(long, default_value_t = 300_000)]
    events: usize,
    /// Events written in a second
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if args.events == 0 {
        bail!("--events must be at least 1");
    }
    let dir = tempfile::tempdir().context("cannot create a temporary folder")?;
    let mut stage = Stage::start(dir.path()).await?;
    let outcome = tokio::select! {
        outcome = prove(&args, &mut stage) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
    };
    let ended = stage.end().await;
    let report = outcome?;
    ended?;
    report.print();
    report.save()?;
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn prove(args: &Args, stage: &mut Stage) -> anyhow::Result<Report> {
    let started = Instant::now();
    let (simulator, start) = simulate(args);
    let addresses: Vec<String> = simulator.miners().iter().map(|miner| miner.address.clone()).collect();
    let undisturbed = stage.database("undisturbed", start, &addresses).await?;
    let crashed = stage.database(stage::CRASHED, start, &addresses).await?;

    apply_undisturbed(&undisturbed, simulator.clone(), args.events).await?;
    let ordeal = go_through(args, stage, &crashed, simulator).await?;

    let bar = bar("comparing", TABLES.len())?;
    let mut differences = Vec::with_capacity(TABLES.len());
    for table in &TABLES {
        let difference = table.compare(&undisturbed, &crashed).await;
        differences.push(difference.with_context(|| format!("comparing {}", table.name))?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (rebuilt, rebuild) = rebuild(&crashed).await?;
    Ok(Report { seed: args.seed, ordeal, differences, rebuilt, rebuild, took: started.elapsed() })
}

/// The simulation, ending a minute ago, and its first instant.
fn simulate(args: &Args) -> (Simulator, DateTime<Utc>) {
    let config = |start_us| SimConfig {
        seed: args.seed,
        miners: MINERS,
        start_us,
        target_share_seconds: SHARE_SECONDS,
        duplicate_rate: 0.02,
        out_of_order_rate: 0.02,
        mean_session_seconds: 1_800.0,
        forced_block_every_seconds: Some(args.events as f64 / EVENTS_PER_SECOND / BLOCKS),
        ..SimConfig::default()
    };
    // Nothing in a simulation depends on when it starts, so a run from zero tells how long it will be.
    let span_us = Simulator::new(config(0)).take(args.events).map(|event| event.ts_us).max().unwrap_or(0);
    let start_us = SystemClock.now().timestamp_micros() - span_us - MARGIN_US;
    let start = DateTime::from_timestamp_micros(start_us).unwrap_or_default();
    (Simulator::new(config(start_us)), start)
}

/// Everything in the order of its arrival, in process, with nobody killed.
async fn apply_undisturbed(pool: &PgPool, simulator: Simulator, count: usize) -> anyhow::Result<()> {
    let bar = bar("undisturbed", count)?;
    let engine = tbg_tests::engine();
    let mut conn = pool.acquire().await?;
    let mut events = simulator.take(count);
    loop {
        let mut batch = Vec::with_capacity(BATCH);
        for event in events.by_ref().take(BATCH) {
            let decoded = decode_text(&event.json)
                .map_err(|refusal| anyhow!("refused ({}): {}", refusal.detail, event.json))?;
            batch.push(decoded);
        }
        if batch.is_empty() {
            break;
        }
        let applying = batch.len() as u64;
        engine.apply(&mut conn, batch, &[], SystemClock.now()).await.context("the undisturbed run")?;
        bar.inc(applying);
    }
    bar.finish_and_clear();
    Ok(())
}

/// The same events through streams and the real program, among kills.
async fn go_through(
    args: &Args,
    stage: &mut Stage,
    crashed: &PgPool,
    simulator: Simulator,
) -> anyhow::Result<Ordeal> {
    let mut random = Random::new(args.seed);
    let plan = killer::plan([args.kills, args.postgres_kills, args.redis_kills], &mut random);
    let bar = bar("kills", plan.len())?;
    let gate = Arc::new(Gate::new(plan.len()));
    let mut redis = tbg_core::redis::manager(&stage.client)?;
    let pouring = pour::pour(simulator, args.events, args.rate, Arc::clone(&gate), redis.clone());
    let pouring = tokio::spawn(pouring);
    stage.start_program()?;

    let recoveries = killer::run(stage, crashed, &plan, &mut random, &gate, &bar).await?;
    let poured = pouring.await.context("the writer of events panicked")??;
    bar.set_message("drain");
    let is_drained = killer::drain(crashed, &mut redis).await?;
    let exit_code = stage.stop_program().await?;
    bar.finish_and_clear();
    Ok(Ordeal {
        recoveries,
        poured,
        entries: pour::entries(&mut redis).await?,
        applied: killer::ledger_rows(crashed).await?,
        is_drained,
        exit_code,
    })
}

/// Rebuilds the rollups of `pool` from its archive, and says what that changed.
async fn rebuild(pool: &PgPool) -> anyhow::Result<(u64, Vec<Difference>)> {
    let bar = ProgressBar::new_spinner().with_message("rebuild");
    let mut before = Vec::new();
    for table in &ROLLUPS {
        before.push(table.rows(pool).await?);
    }
    let config = MiningConfig { network: Network::Mainnet, persist_raw: true };
    let mut conn = pool.acquire().await?;
    let rebuilt = tbg_mining::rebuild(pool, &mut conn, config, |events| bar.set_position(events))
        .await
        .context("the rebuild")?;
    drop(conn);
    let mut differences = Vec::new();
    for (table, rows) in ROLLUPS.iter().zip(before) {
        differences.push(table.compare_with(rows, pool).await?);
    }
    bar.finish_and_clear();
    Ok((rebuilt.events, differences))
}

fn bar(message: &'static str, length: usize) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg:12} {wide_bar} {pos}/{len} {elapsed}")?;
    Ok(ProgressBar::new(length as u64).with_style(style).with_message(message))
}
