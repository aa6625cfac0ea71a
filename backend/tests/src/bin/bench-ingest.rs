//! `make bench-ingest`: how fast shares become rows, and how soon a browser hears of them.
//!
//! Three measurements, each on an empty database of its own on a private PostgreSQL and Redis with the
//! durability of production (fsync, synchronous commits, append-only file):
//!
//! * A, streams → committed: a backlog in the streams, drained by the writer alone.
//! * B, socket → committed: datagrams at a fixed rate through receiver, publisher, streams and writer.
//! * C, latency: fresh shares through the socket, until their push arrives at a subscriber.
//!
//! Limits: everything runs on this machine, so the sender, the program and both servers share its cores;
//! no API is serving, no metrics recorder is installed, and the tables are as young as the run. A measured
//! bar that is missed is printed; only wrong counts (or a failure) make the exit code non-zero.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

#[path = "bench_ingest/latency.rs"]
mod latency;
#[path = "bench_ingest/load.rs"]
mod load;
#[path = "bench_ingest/socket.rs"]
mod socket;
#[path = "bench_ingest/streams.rs"]
mod streams;
#[path = "bench_ingest/world.rs"]
mod world;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tbg_core::config::Settings;
use tbg_core::{Clock as _, SystemClock, telemetry};
use tokio::signal::unix::{SignalKind, signal};

use crate::world::World;

/// The allocator of the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What `tbg doctor` asks of a deployment: the kernel's defaults (10 datagrams, 208 KiB) drop bursts.
/// Raised when the benchmark runs as root, and left so.
const KERNEL_LIMITS: [(&str, u64); 2] = [(QUEUE_LIMIT, 4096), (SEND_BUFFER, 8 * 1024 * 1024)];
const QUEUE_LIMIT: &str = "/proc/sys/net/unix/max_dgram_qlen";
const SEND_BUFFER: &str = "/proc/sys/net/core/wmem_default";
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../results");

/// Measures the path of a share on servers of its own.
#[derive(Parser)]
#[command(name = "bench-ingest")]
pub struct Args {
    /// Events of measurement A
    #[arg(long, default_value_t = 500_000, value_parser = at_least_one)]
    events: usize,
    /// Times that measurement A is run; the one in the middle counts
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    rounds: usize,
    /// Simulated miners
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    miners: u32,
    /// Events that the writer reads from each stream at once
    #[arg(long, default_value_t = 500, value_parser = at_least_one)]
    batch: usize,
    /// Events of each run of measurement B
    #[arg(long, default_value_t = 200_000, value_parser = at_least_one)]
    socket_events: usize,
    /// Length of measurement C
    #[arg(long, default_value_t = 20, value_parser = at_least_one)]
    latency_seconds: usize,
    /// Only one of the measurements
    #[arg(long, value_enum)]
    only: Option<Which>,
}

/// The measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    Streams,
    Socket,
    Latency,
}

/// What one measurement found.
pub struct Part {
    /// Its key in the JSON file.
    pub key: &'static str,
    /// For people.
    pub table: String,
    /// For machines.
    pub json: Value,
    /// What should hold, and whether it does.
    pub bars: Vec<(String, bool)>,
    /// Counts that are not what they must be.
    pub wrong: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    telemetry::init(&Settings::from_texts(&[("log_filter", "warn".to_owned())])?)?;
    // A socket takes over the limit when it is created.
    raise_kernel_limits();
    let world = World::start().await?;
    let outcome = tokio::select! {
        outcome = measure(&world, &args) => outcome,
        error = interrupted() => Err(error),
    };
    let stopped = world.stop().await;
    let right = outcome?;
    stopped?;
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs what was asked for and says whether all counts are right.
async fn measure(world: &World, args: &Args) -> anyhow::Result<bool> {
    let facts = facts(world, args).await?;
    for (name, value) in &facts {
        println!("{name:<28}{value}");
    }
    let mut results = Map::new();
    results.insert("time".to_owned(), json!(SystemClock.now()));
    let facts: Map<String, Value> =
        facts.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
    results.insert("machine".to_owned(), facts.into());
    let mut right = true;
    for which in [Which::Streams, Which::Socket, Which::Latency] {
        if args.only.is_some_and(|only| only != which) {
            continue;
        }
        let part = match which {
            Which::Streams => streams::measure(world, args).await?,
            Which::Socket => socket::measure(world, args).await?,
            Which::Latency => latency::measure(world, args).await?,
        };
        right &= part.wrong.is_empty();
        print(&part);
        let bars: Map<String, Value> =
            part.bars.into_iter().map(|(bar, met)| (bar, Value::from(met))).collect();
        results.insert(
            part.key.to_owned(),
            json!({ "measured": part.json, "bars": bars, "wrong_counts": part.wrong }),
        );
    }
    let path = Path::new(RESULTS).join("bench-ingest.json");
    write_results(&path, &Value::from(results))?;
    println!("\nwritten to {}", path.display());
    Ok(right)
}

fn print(part: &Part) {
    println!("\n{}", part.table.trim_end());
    for (bar, met) in &part.bars {
        println!("  {}  {bar}", if *met { "PASS" } else { "FAIL" });
    }
    if part.wrong.is_empty() {
        println!("  counts are right");
    }
    for wrong in &part.wrong {
        println!("  WRONG COUNT  {wrong}");
    }
}

fn write_results(path: &Path, results: &Value) -> anyhow::Result<()> {
    let write = || {
        std::fs::create_dir_all(RESULTS)?;
        std::fs::write(path, format!("{results:#}\n"))
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// What the numbers depend on.
async fn facts(world: &World, args: &Args) -> anyhow::Result<Vec<(&'static str, String)>> {
    let show = async |setting: &str| world.postgres.run_sql("postgres", &format!("SHOW {setting}")).await;
    let cores = std::thread::available_parallelism().map_or_else(|_| "?".to_owned(), |n| n.to_string());
    let data = show("data_directory").await?;
    Ok(vec![
        ("cores", cores),
        ("PostgreSQL", show("server_version").await?),
        ("fsync", show("fsync").await?),
        ("synchronous_commit", show("synchronous_commit").await?),
        ("Redis", world.redis_info("server", "redis_version").await?),
        ("append-only file", world.redis_info("persistence", "aof_enabled").await?),
        ("file system of the data", filesystem_of(Path::new(&data))),
        ("miners", args.miners.to_string()),
        ("batch", format!("{} per stream and read, {} reads", args.batch, world::READS_PER_BATCH)),
        ("max_dgram_qlen", first_line(QUEUE_LIMIT)),
        ("wmem_default", first_line(SEND_BUFFER)),
    ])
}

/// Lets sockets hold more datagrams, where we may.
fn raise_kernel_limits() {
    for (path, wanted) in KERNEL_LIMITS {
        if first_line(path).parse::<u64>().is_ok_and(|limit| limit < wanted) {
            // Not being root is fine: the value in force is printed.
            let _ = std::fs::write(path, wanted.to_string());
        }
    }
}

fn first_line(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// The kind of file system that holds `path`: fsync on a tmpfs would prove nothing.
fn filesystem_of(path: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let holding = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        path.starts_with(point).then_some((point.len(), kind))
    });
    holding.max().map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

/// Resolves when somebody wants the run to end, so that the servers do not outlive it.
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

/// A bar on standard error; hidden when that is no terminal.
///
/// # Errors
/// Never in practice: when the template does not parse.
pub fn progress(length: usize, what: &'static str) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg:28} {bar:40} {pos}/{len} {per_sec} eta {eta}")?;
    Ok(ProgressBar::new(length as u64).with_style(style).with_message(what))
}

/// How many a second.
#[must_use]
pub fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

fn at_least_one(text: &str) -> Result<usize, &'static str> {
    text.parse::<usize>().ok().filter(|number| *number > 0).ok_or("a whole number, at least 1")
}
