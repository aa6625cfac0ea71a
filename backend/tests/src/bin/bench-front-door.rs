//! `make bench-front-door`: what authentication and limiting cost a request, on the real program.
//!
//! wrk drives `/version` and an authenticated, limited route that reads one row, in turns on the same server;
//! then the same route while 50 people sign in with passwords. Load, server, PostgreSQL and Redis share this
//! machine's cores, so the figures are for comparison within one run.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(clippy::unwrap_used, reason = "a benchmark fails loudly")]

use std::time::Duration;

use clap::Parser;
use serde_json::json;
use tbg_core::Clock as _;
use tbg_tests::app::{claims, sign};
use tbg_tests::people::{address_of, wallet};
use tbg_tests::program::Program;
use tbg_tests::wrk::{self, Round};
use tbg_tests::{TestDb, TestRedis};

/// The allocator of the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the front door on the release build beside this binary.
#[derive(Parser)]
#[command(name = "bench-front-door")]
struct Args {
    /// Signed-in users who take turns
    #[arg(long, default_value_t = 2_500)]
    users: usize,
    /// Connections of wrk
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Seconds of a round
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Rounds of each kind; the one in the middle counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let program = Program::start(
        &db,
        &redis,
        "api",
        &[
            ("TBG_DB_MAX_CONNECTIONS", "20"),
            ("TBG_DB_MIN_CONNECTIONS", "5"),
            ("TBG_LOG_FILTER", "error"),
            ("TBG_TRUSTED_PROXIES", "127.0.0.1/32"),
        ],
    )
    .await;
    program.wait_for("/health", 200).await;
    let users = create_users(&db, args.users).await;
    let script = program.dir().join("tokens.lua");
    std::fs::write(&script, wrk::script_of_tokens(&users))?;
    let anonymous = program.dir().join("addresses.lua");
    let addresses = (0..users.len()).map(|n| format!("10.{}.{}.7", n / 250, n % 250));
    std::fs::write(&anonymous, wrk::script("X-Forwarded-For", addresses))?;
    let settings = format!("{}/api/v1/users/me/settings", program.base);
    let version = format!("{}/version", program.base);

    wrk::run(args.connections, 3, &settings, &script).await?;
    let (mut bare, mut guarded) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        bare.push(wrk::run(args.connections, args.seconds, &version, &anonymous).await?);
        guarded.push(wrk::run(args.connections, args.seconds, &settings, &script).await?);
    }
    let (bare, guarded) = (median(bare), median(guarded));
    println!("| Route | req/s | p50 ms | p99 ms | refused |\n|---|---|---|---|---|");
    print_row("GET /version (anonymous, limited)", bare);
    print_row("GET /api/v1/users/me/settings (token, limited, one row)", guarded);
    println!("ratio: {:.2} of /version", guarded.per_second / bare.per_second);
    print_redis_share(&redis, guarded).await?;

    let calm = paced(&program, &users, Duration::from_secs(args.seconds)).await;
    register(&program, 50).await;
    let (busy, sign_ins) = tokio::join!(
        paced(&program, &users, Duration::from_secs(args.seconds)),
        sign_in_all(&program, 50, Duration::from_secs(args.seconds)),
    );
    println!("\n| Reads at 200/s | p50 ms | p99 ms |\n|---|---|---|");
    println!("| alone | {:.2} | {:.2} |", calm.0, calm.1);
    println!("| while {sign_ins} sign-ins with a password ran, 50 at once | {:.2} | {:.2} |", busy.0, busy.1);
    println!("p99 ratio: {:.2}", busy.1 / calm.1);
    Ok(())
}

async fn create_users(db: &TestDb, count: usize) -> Vec<String> {
    let ids: Vec<i64> = sqlx::query_scalar(
        "INSERT INTO users (btc_address) SELECT 'bench' || n FROM generate_series(1, $1) n RETURNING id",
    )
    .bind(i32::try_from(count).unwrap())
    .fetch_all(&db.pool)
    .await
    .unwrap();
    sqlx::query("INSERT INTO user_settings (user_id) SELECT id FROM users").execute(&db.pool).await.unwrap();
    sqlx::query("ANALYZE").execute(&db.pool).await.unwrap();
    let now = tbg_core::SystemClock.now();
    ids.into_iter().map(|id| sign(&claims(id, now))).collect()
}

fn median(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    rounds[rounds.len() / 2]
}

fn print_row(name: &str, round: Round) {
    println!(
        "| {name} | {:.0} | {:.2} | {:.2} | {} |",
        round.per_second, round.p50, round.p99, round.refused
    );
}

/// How much of a request is the limiter's script in Redis.
async fn print_redis_share(redis: &TestRedis, guarded: Round) -> anyhow::Result<()> {
    let mut manager = redis.manager();
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut manager).await?;
    let script_us = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:"))
        .and_then(|line| line.split(',').find_map(|part| part.strip_prefix("usec_per_call=")))
        .and_then(|us| us.parse::<f64>().ok());
    if let Some(script_us) = script_us {
        let request_us = 1e6 / guarded.per_second;
        println!(
            "limiter: {script_us:.1} us in Redis of {request_us:.1} us between two answers ({:.0} %)",
            100.0 * script_us / request_us
        );
    }
    Ok(())
}

/// Reads at a steady rate for a while; p50 and p99 in milliseconds, from the intended start.
async fn paced(program: &Program, tokens: &[String], duration: Duration) -> (f64, f64) {
    let client = reqwest::Client::new();
    let url = format!("{}/api/v1/users/me/settings", program.base);
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut requests = tokio::task::JoinSet::new();
    let count = duration.as_millis() / 5;
    for n in 0..usize::try_from(count).unwrap() {
        let due = tick.tick().await;
        let request = client.get(&url).bearer_auth(&tokens[n % tokens.len()]);
        requests.spawn(async move {
            assert!(request.send().await.unwrap().status().is_success());
            due.elapsed().as_secs_f64() * 1_000.0
        });
    }
    let mut latencies = requests.join_all().await;
    latencies.sort_by(f64::total_cmp);
    (latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100])
}

async fn register(program: &Program, count: u64) {
    let client = reqwest::Client::new();
    for n in 0..count {
        let body = json!({
            "email": format!("bench{n}@example.com"),
            "password": "Abcdefg1",
            "btc_address": address_of(&wallet(n + 1)),
        });
        let answer =
            client.post(format!("{}/api/v1/auth/register", program.base)).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }
}

/// Fifty people sign in again and again; returns how many sign-ins there were.
async fn sign_in_all(program: &Program, people: u64, duration: Duration) -> usize {
    let client = reqwest::Client::new();
    let end = tokio::time::Instant::now() + duration;
    let mut running = tokio::task::JoinSet::new();
    for n in 0..people {
        let client = client.clone();
        let url = format!("{}/api/v1/auth/login", program.base);
        running.spawn(async move {
            let mut done = 0;
            while tokio::time::Instant::now() < end {
                let body = json!({ "email": format!("bench{n}@example.com"), "password": "Abcdefg1" });
                // With fifty in the queue some wait longer than five seconds, and are told to come back.
                done +=
                    usize::from(client.post(&url).json(&body).send().await.unwrap().status().is_success());
            }
            done
        });
    }
    running.join_all().await.into_iter().sum()
}
