//! `make query-plans`: the statements that the program itself sends on a database with more than a million
//! events, how long they take, and by which plan (production.md §13). Writes `backend/docs/QUERY_PLANS.md`.
//!
//! Nothing here knows the program's SQL: `pg_stat_statements` says which statements cost more than one hundredth
//! of the time, and `auto_explain` with which plan PostgreSQL ran them, parameters and all.

#![expect(clippy::print_stdout, reason = "a tool for the terminal")]
#![expect(clippy::expect_used, reason = "a benchmark fails loudly")]

mod indexes;
mod paper;
mod server;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tbg_bitcoin::Network;
use tbg_tests::TestRedis;
use tbg_tests::app::{App, GENEROUS};

use crate::paper::Paper;
use crate::server::{Server, Statement};

/// Measures the program's statements and explains them, on a server of its own.
#[derive(Parser)]
#[command(name = "query-plans")]
struct Args {
    /// Shares in the archive of events
    #[arg(long, default_value_t = 1_000_000)]
    events: u32,
    /// Players
    #[arg(long, default_value_t = 2_000)]
    users: u32,
    /// Where the page is written
    #[arg(long, default_value = "docs/QUERY_PLANS.md")]
    out: PathBuf,
}

/// Players whose reads are measured.
const READERS: i64 = 50;
/// Batches of new shares that are measured, and shares in each: what the writer takes at once.
const BATCHES: u32 = 20;
const BATCH: u32 = 500;
/// A statement of a user's request takes less, in milliseconds, in the mean.
const USER_BAR_MS: f64 = 5.0;
/// A statement of the writer, which is for the five hundred players of a batch at once, takes less. Our own bar: the
/// contract has none between a player's and a job's.
const WRITER_BAR_MS: f64 = 20.0;
/// A statement of a job, or of what administrators ask about all, takes less.
const JOB_BAR_MS: f64 = 5_000.0;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let server = Server::start().await?;
    let db = server.database().await?;
    let now = tbg_tests::now();
    world::fill(&db, args.users, args.events, now).await?;
    let app = App::on(db, TestRedis::new().await, now, Network::Mainnet, GENEROUS);
    for name in ["lottery_ranking", "hashrate_snapshots"] {
        if app.jobs().iter().any(|job| job.name() == name) {
            app.run_job(name).await;
        }
    }

    let mut paper = Paper::new(&args, &server.version().await?);
    let reads = server.observe(&app.db, async |_| world::read_as_players(&app, READERS).await).await?;
    paper.chapter("Reads", "every read of the API, by fifty players", USER_BAR_MS, &reads);
    let administrators = server.observe(&app.db, async |_| world::read_as_administrator(&app).await).await?;
    paper.chapter("Administrators", "their reads, once", JOB_BAR_MS, &administrators);
    let writes = server
        .observe(&app.db, async |round| {
            for number in 0..BATCHES {
                app.feed(&world::batch(args.users, BATCH, round * BATCHES + number, now)).await;
            }
        })
        .await?;
    paper.chapter("Shares", "twenty batches of five hundred new shares", WRITER_BAR_MS, &writes);
    let jobs = server
        .observe(&app.db, async |_| {
            app.consume().await;
            for job in app.jobs() {
                job.run(now).await.unwrap_or_else(|error| panic!("{}: {error:?}", job.name()));
            }
        })
        .await?;
    paper.chapter("Jobs", "every job once, and the consumers of domain events", JOB_BAR_MS, &jobs);
    paper.indexes(&indexes::compare(&app.db).await?);

    let slow = paper.slow();
    std::fs::write(&args.out, paper.text())?;
    let count: usize =
        [&reads, &administrators, &writes, &jobs].map(|chapter: &Vec<Statement>| chapter.len()).iter().sum();
    let verdict = if slow.is_empty() { "PASS" } else { "FAIL" };
    println!(
        "{verdict}: {count} statements above 1 % on {} events; written to {}",
        args.events,
        args.out.display()
    );
    slow.iter().for_each(|line| println!("{line}"));
    Ok(ExitCode::from(u8::from(!slow.is_empty())))
}
