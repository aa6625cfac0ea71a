//! `make bench-instrumentation`: what the numbers of `/metrics` cost a hot read. Two programs on one database and one
//! Redis, one of which keeps no numbers, are asked in turn: what else happens on the machine happens to both.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

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
    /// Connections of wrk
    #[arg(long, default_value_t = 24)]
    connections: u32,
    /// Seconds of a round
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Pairs of rounds
    #[arg(long, default_value_t = 15)]
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
        wrk::run(args.connections, args.seconds, &url, &script).await.map(|round| round.per_second)
    };
    // Caches and connections first.
    ask(&with).await?;
    ask(&without).await?;
    let (mut costs, mut rates) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        // Whoever comes first in one pair comes second in the next.
        let (measured, bare) = if round % 2 == 0 {
            let measured = ask(&with).await?;
            (measured, ask(&without).await?)
        } else {
            let bare = ask(&without).await?;
            (ask(&with).await?, bare)
        };
        costs.push((1.0 - measured / bare) * 100.0);
        rates.push(measured);
    }
    costs.sort_by(f64::total_cmp);
    rates.sort_by(f64::total_cmp);
    println!(
        "| Route | req/s with numbers | cost, median of {} pairs | quartiles | bar |\n|---|---|---|---|---|",
        args.rounds
    );
    let at = |values: &[f64], quarter: usize| values[(values.len() * quarter / 4).min(values.len() - 1)];
    println!(
        "| `{}` | {:.0} | {:.1} % | {:.1} to {:.1} % | < 3 % |",
        args.route,
        at(&rates, 2),
        at(&costs, 2),
        at(&costs, 1),
        at(&costs, 3)
    );
    Ok(())
}
