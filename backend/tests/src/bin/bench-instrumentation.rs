//! `make bench-instrumentation`: what the numbers of `/metrics` cost a hot read. Two programs on one database and one
//! Redis, one of which keeps no numbers, are asked at once: what else happens on the machine happens to both. Compared
//! is the processor time of a request in each of them; what wrk, PostgreSQL and Redis spend on it is left out, so
//! that throughput loses less than is said here.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use anyhow::{Context as _, ensure};
use clap::Parser;
use tbg_core::{Clock as _, SystemClock};
use tbg_tests::app::{claims, sign};
use tbg_tests::program::Program;
use tbg_tests::{TestDb, TestRedis, wrk};

/// Measures the release build beside this binary.
#[derive(Parser)]
#[command(name = "bench-instrumentation")]
struct Args {
    /// The read
    #[arg(long, default_value = "/api/v1/mining/summary")]
    route: String,
    /// Connections of wrk to each program
    #[arg(long, default_value_t = 12)]
    connections: u32,
    /// Seconds of a round
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Rounds
    #[arg(long, default_value_t = 30)]
    rounds: usize,
}

/// Signed-in users who take turns.
const USERS: i64 = 2_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let mut tokens = Vec::new();
    for number in 0..USERS {
        tokens.push(sign(&claims(db.user(&format!("bench{number}")).await, SystemClock.now())));
    }
    let start = async |is_measured: &'static str| {
        let settings = [("TBG_METRICS_ENABLED", is_measured), ("TBG_LOG_FILTER", "error")];
        let program = Program::start(&db, &redis, "api", &settings).await;
        program.wait_for("/health", 200).await;
        program
    };
    let (with, without) = (start("true").await, start("false").await);
    let script = with.dir().join("tokens.lua");
    std::fs::write(&script, wrk::script_of_tokens(&tokens))?;
    let ask = async |program: &Program| {
        let url = format!("{}{}", program.base, args.route);
        let before = processor_time(program)?;
        let round = wrk::run(args.connections, args.seconds, &url, &script).await?;
        ensure!(round.refused == 0, "{} answers were not 200: nothing of a read was measured", round.refused);
        let spent = processor_time(program)? - before;
        #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
        let requests = round.per_second * args.seconds as f64;
        anyhow::Ok((spent / requests * 1e6, round.per_second))
    };
    let (mut costs, mut times, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    // The first round fills caches and connections.
    for round in 0..=args.rounds {
        // Nobody runs into a limit.
        redis::cmd("FLUSHALL").query_async::<()>(&mut redis.manager()).await?;
        let (measured, bare) = tokio::join!(ask(&with), ask(&without));
        let ((measured, rate), (bare, _)) = (measured?, bare?);
        if round > 0 {
            costs.push((measured / bare - 1.0) * 100.0);
            times.push(measured);
            rates.push(rate);
        }
    }
    for values in [&mut costs, &mut times, &mut rates] {
        values.sort_by(f64::total_cmp);
    }
    let at = |values: &[f64], quarter: usize| values[(values.len() * quarter / 4).min(values.len() - 1)];
    println!(
        "| Route | req/s with numbers | µs of processor a request | cost, median of {} rounds | quartiles | bar |\n\
         |---|---|---|---|---|---|",
        args.rounds
    );
    println!(
        "| `{}` | {:.0} | {:.1} | {:.1} % | {:.1} to {:.1} % | < 3 % |",
        args.route,
        at(&rates, 2),
        at(&times, 2),
        at(&costs, 2),
        at(&costs, 1),
        at(&costs, 3)
    );
    Ok(())
}

/// Seconds that the threads of a program have run.
fn processor_time(program: &Program) -> anyhow::Result<f64> {
    let tasks = format!("/proc/{}/task", program.pid().context("it runs")?);
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir(tasks)? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += text.split_whitespace().next().context("schedstat is empty")?.parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}
