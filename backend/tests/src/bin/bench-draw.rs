//! `make bench-draw`: a weekly draw over a million entries: freeze, draw, proofs, the public file and its
//! verification.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(clippy::unwrap_used, reason = "a benchmark fails loudly")]

use std::time::Instant;

use chrono::{Days, TimeDelta};
use clap::Parser;
use tbg_core::live::LiveBus;
use tbg_core::period::IsoWeek;
use tbg_core::{Clock as _, SystemClock};
use tbg_games::rules::lottery::SaltKey;
use tbg_games::rules::proof::verify;
use tbg_games::{Cycle, CycleConfig, Waits};
use tbg_tests::app::{claims, sign};
use tbg_tests::program::Program;
use tbg_tests::{TestDb, TestRedis};

/// The allocator of the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures a draw on the release build.
#[derive(Parser)]
#[command(name = "bench-draw")]
struct Args {
    /// Entries of the draw
    #[arg(long, default_value_t = 1_000_000)]
    entries: i32,
    /// Proofs that are asked for, one after the other
    #[arg(long, default_value_t = 500)]
    proofs: i64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let now = SystemClock.now();
    let week = IsoWeek::of(now).minus(1);
    let monday = week.monday();
    sqlx::query("INSERT INTO users (btc_address) SELECT 'bc1qbench' || lpad(n::TEXT, 33, '0') FROM generate_series(1, $1) n")
        .bind(args.entries)
        .execute(&db.pool)
        .await?;
    sqlx::query(
        "INSERT INTO weekly_best_diff (user_id, btc_address, week_start, best_difficulty, best_share_time, total_shares)
         SELECT id, btc_address, $1, 1000 + (id * 7919 % 999983), $1::TIMESTAMP AT TIME ZONE 'UTC' + id % 600000 * INTERVAL '1 second', id % 40000
         FROM users",
    )
    .bind(monday)
    .execute(&db.pool)
    .await?;
    sqlx::query("ANALYZE").execute(&db.pool).await?;
    let cycle = Cycle {
        pool: db.pool.clone(),
        bus: LiveBus::new(redis.manager()),
        key: SaltKey::new([7; 32]),
        config: CycleConfig {
            freeze_grace: TimeDelta::zero(),
            reveal_delay: TimeDelta::hours(1),
            watermark_wait: TimeDelta::zero(),
        },
    };
    println!("| What | Bar | Measured |\n|---|---|---|");
    let due = monday.checked_add_days(Days::new(7)).unwrap().and_time(chrono::NaiveTime::MIN).and_utc();
    let started = Instant::now();
    let frozen = cycle.run(due + TimeDelta::seconds(1), Waits::Kept).await?;
    let freeze = started.elapsed();
    assert_eq!(frozen[0].status, "processing");
    let started = Instant::now();
    let drawn = cycle.run(due + TimeDelta::hours(2), Waits::Skipped).await?;
    let draw = started.elapsed();
    assert_eq!(drawn[0].status, "completed");
    println!("| freeze of {} entries | < 10 s | {:.1} s |", args.entries, freeze.as_secs_f64());
    println!("| draw | < 10 s | {:.1} s |", draw.as_secs_f64());
    println!("| memory of both, at most | < 300 MB | {:.0} MB |", peak_mb());
    proofs(&args, &db, &redis, week).await
}

/// One's own proof over HTTP, then the public file and its verification.
async fn proofs(args: &Args, db: &TestDb, redis: &TestRedis, week: IsoWeek) -> anyhow::Result<()> {
    let program = Program::start(db, redis, "api", &[("TBG_LOG_FILTER", "error")]).await;
    program.wait_for("/health", 200).await;
    let client = reqwest::Client::new();
    let mut times = Vec::new();
    for number in 0..args.proofs {
        let user = number * i64::from(args.entries) / args.proofs + 1;
        let token = sign(&claims(user, SystemClock.now()));
        let url = format!("{}/api/v1/lottery/proofs/{week}/me", program.base);
        let request = client.get(&url).bearer_auth(&token);
        // The first request of a user is also the first that asks for their state.
        request.try_clone().unwrap().send().await?.error_for_status()?;
        let started = Instant::now();
        let text = request.send().await?.error_for_status()?.text().await?;
        times.push(started.elapsed().as_secs_f64() * 1000.0);
        if number == 0 {
            assert!(verify(text.as_bytes()).unwrap().ok, "a proof proves");
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    println!("| a proof over HTTP | < 5 ms | p50 {:.1}, p95 {:.1} ms |", at(50), at(95));
    let started = Instant::now();
    let url = format!("{}/api/v1/lottery/proofs/{week}/file", program.base);
    let file = client.get(&url).send().await?.error_for_status()?.bytes().await?;
    println!(
        "| the public file, {:.0} MB | - | {:.1} s |",
        file.len() as f64 / 1e6,
        started.elapsed().as_secs_f64()
    );
    let started = Instant::now();
    let report = verify(&file).unwrap();
    assert!(report.ok, "{report:?}");
    println!("| its verification | < 5 s | {:.1} s |", started.elapsed().as_secs_f64());
    Ok(())
}

/// The most memory that this process has held.
fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}
