//! `make load`: thousands of players at five thousand requests a second, with limits on, on the real program.
//!
//! An open loop: request number n is due at n/rate seconds, whatever the server does meanwhile, and its latency
//! counts from then on. A server that stalls is charged with everything that had to wait (production.md §16).
//! Everybody mines meanwhile. Load, server, PostgreSQL and Redis share this machine's cores.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails loudly")]

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use futures_util::{StreamExt as _, TryStreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tbg_core::{Clock as _, SystemClock};
use tbg_tests::people::{Person, client_address, sign_in};
use tbg_tests::program::Program;
use tbg_tests::{TestDb, TestRedis};

/// The allocator of the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the release build beside this binary under the mix of a dashboard.
#[derive(Parser)]
#[command(name = "load")]
struct Args {
    /// Requests a second, altogether
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// Players; each may ask 120 times a minute
    #[arg(long, default_value_t = 3_000)]
    people: u64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Seconds before them in which the players come, one after the other
    #[arg(long, default_value_t = 20)]
    ramp: u64,
    /// Connections that the load may use
    #[arg(long, default_value_t = 256)]
    connections: u64,
    /// Shares a second that the players mine meanwhile
    #[arg(long, default_value_t = 200)]
    shares: u64,
}

/// A share difficulty above all that follow.
const RECORD: u64 = 2_000_000_000;
/// Slowest p95 that passes, in milliseconds.
const BAR_MS: f64 = 200.0;
/// Of the requests that are due, so many are sent at least: the load itself must keep up.
const SENT_SHARE: f64 = 0.99;
/// Of the shares that are sent, so many are applied at least by the end.
const MINED_SHARE: f64 = 0.9;

/// An entry of the mix: how often among all, method, path as it is asked for, path as the document has it.
type Entry = (u64, &'static str, &'static [&'static str], &'static str);

/// The mix of production.md §16. Entries whose domain does not exist yet are left out, and named.
const MIX: [Entry; 7] = [
    (10, "GET", &["mining/stats"], "mining/stats"),
    (5, "GET", &["games/weekly-data"], "games/weekly-data"),
    (3, "GET", &["leaderboard/weekly", "leaderboard/monthly", "leaderboard/alltime"], "leaderboard/{period}"),
    (2, "GET", &["notifications?limit=20"], "notifications"),
    (2, "GET", &["education/tracks"], "education/tracks"),
    (
        1,
        "POST",
        &[
            "education/lessons/1-1/complete",
            "education/lessons/1-2/complete",
            "education/lessons/1-3/complete",
            "education/lessons/2-1/complete",
            "education/lessons/2-2/complete",
        ],
        "education/lessons/{lesson_id}/complete",
    ),
    (1, "GET", &["gamification/badges"], "gamification/badges"),
];

/// What one entry of the mix gave.
#[derive(Default)]
struct Seen {
    /// Milliseconds from the intended start, of every answer.
    times: Vec<f64>,
    /// Answers that were no success, by status; 0 is a connection that failed.
    errors: BTreeMap<u16, u64>,
}

type Sheet = BTreeMap<&'static str, Seen>;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let settings = [
        ("TBG_DB_MIN_CONNECTIONS", "5"),
        ("TBG_DB_MAX_CONNECTIONS", "20"),
        ("TBG_LOG_FILTER", "error"),
        ("TBG_TRUSTED_PROXIES", "127.0.0.1/32"),
        ("TBG_RATE_LIMIT_UNAUTH_PER_MIN", "30"),
        ("TBG_RATE_LIMIT_USER_PER_MIN", "120"),
        ("TBG_RATE_LIMIT_AUTH_PER_MIN", "5"),
    ];
    let program = Program::start(&db, &redis, "all", &settings).await;
    program.wait_for("/health", 200).await;
    program.wait_for_socket().await;
    let client = reqwest::Client::new();
    let people = all_sign_in(&client, &program.base, args.people).await?;
    let mix = mix(&client, &program.base).await?;

    let pool = UnixDatagram::unbound()?;
    pool.connect(&program.socket)?;
    pool.set_nonblocking(true)?;
    begin(&db, &pool, &people).await;
    let before = db.number("SELECT count(*) FROM shares").await;
    let mining = tokio::spawn(mine(pool, people.clone(), args.shares));
    let started = Instant::now();
    let sheet = pour(&args, &client, &program.base, people, mix).await;
    let elapsed = started.elapsed().as_secs_f64() - args.ramp as f64;
    mining.abort();
    let mined = db.number("SELECT count(*) FROM shares").await - before;
    Ok(report(&args, &sheet, elapsed, mined))
}

/// Everybody signs in by a key and an address of one's own.
async fn all_sign_in(client: &reqwest::Client, base: &str, count: u64) -> anyhow::Result<Arc<[Person]>> {
    let bar =
        ProgressBar::new(count).with_style(ProgressStyle::with_template("signing in {bar:40} {pos}/{len}")?);
    let people: Vec<Person> = futures_util::stream::iter(1..=count)
        .map(|number| sign_in(client, base, number))
        .buffered(16)
        .inspect_ok(|_| bar.inc(1))
        .try_collect()
        .await?;
    bar.finish_and_clear();
    Ok(people.into())
}

/// The entries of the mix that the program has, each as often as its weight says.
async fn mix(client: &reqwest::Client, base: &str) -> anyhow::Result<Arc<[&'static Entry]>> {
    let document: Value = client.get(format!("{base}/openapi.json")).send().await?.json().await?;
    let has = |(_, method, _, path): &&Entry| {
        !document["paths"][format!("/api/v1/{path}")][method.to_lowercase()].is_null()
    };
    let (there, missing): (Vec<&Entry>, Vec<&Entry>) = MIX.iter().partition(has);
    for (weight, method, _, path) in missing {
        println!("not there yet, and left out of the mix: {method} /api/v1/{path} (weight {weight})");
    }
    let weighted =
        there.into_iter().flat_map(|entry| std::iter::repeat_n(entry, usize::try_from(entry.0).unwrap()));
    let mix: Arc<[&Entry]> = weighted.collect();
    (!mix.is_empty()).then_some(mix).context("the program has no route of the mix")
}

/// Sends what is due, over so many connections, until the time is over.
async fn pour(
    args: &Args,
    client: &reqwest::Client,
    base: &str,
    people: Arc<[Person]>,
    mix: Arc<[&'static Entry]>,
) -> Sheet {
    let next = Arc::new(AtomicU64::new(0));
    // While the players come, each asks as often as later.
    let (ramp, seconds) = (args.rate * args.ramp / 2, args.ramp as f64);
    let total = ramp + args.rate * args.seconds;
    let start = Instant::now();
    let workers = (0..args.connections).map(|_| {
        let (client, base, people) = (client.clone(), base.to_owned(), Arc::clone(&people));
        let (next, mix, rate) = (Arc::clone(&next), Arc::clone(&mix), args.rate);
        tokio::spawn(async move {
            let mut sheet = Sheet::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return sheet;
                }
                let is_ramp = number < ramp;
                let at = if is_ramp {
                    (2.0 * seconds * number as f64 / rate as f64).sqrt()
                } else {
                    seconds + (number - ramp) as f64 / rate as f64
                };
                let due = start + Duration::from_secs_f64(at);
                tokio::time::sleep_until(due.into()).await;
                // Spread without a pattern, and the same in every run.
                let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
                let (_, method, paths, name) = mix[usize::try_from(spread).unwrap() % mix.len()];
                let path = paths[usize::try_from(number / people.len() as u64).unwrap() % paths.len()];
                let everybody = people.len() as u64;
                let there = if is_ramp {
                    (everybody as f64 * at / seconds).ceil().max(1.0) as u64
                } else {
                    everybody
                };
                let person = usize::try_from(number % there).unwrap();
                let request = client
                    .request(method.parse().expect("a method"), format!("{base}/api/v1/{path}"))
                    .bearer_auth(&people[person].access)
                    .header("x-forwarded-for", client_address(person as u64 + 1));
                let status = match request.send().await {
                    Ok(answer) => {
                        let status = answer.status().as_u16();
                        answer.bytes().await.map_or(0, |_| status)
                    }
                    Err(_) => 0,
                };
                if is_ramp {
                    continue;
                }
                let seen = sheet.entry(name).or_default();
                seen.times.push(due.elapsed().as_secs_f64() * 1_000.0);
                if status != 200 {
                    *seen.errors.entry(status).or_default() += 1;
                }
            }
        })
    });
    let bar = ProgressBar::new(args.ramp + args.seconds);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} s").expect("a template"));
    let ticking = tokio::spawn({
        let bar = bar.clone();
        async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                bar.inc(1);
            }
        }
    });
    let mut sheet = Sheet::new();
    for worker in futures_util::future::join_all(workers).await {
        for (name, seen) in worker.expect("a worker") {
            let all = sheet.entry(name).or_default();
            all.times.extend(seen.times);
            for (status, count) in seen.errors {
                *all.errors.entry(status).or_default() += count;
            }
        }
    }
    ticking.abort();
    bar.finish_and_clear();
    sheet
}

/// Everybody's first share, which brings badges, notices and a record to all of them, and is behind them before the
/// measurement: players have mined for a while. Nobody finds a better one later.
async fn begin(db: &TestDb, pool: &UnixDatagram, people: &[Person]) {
    for person in people {
        while pool.send(share(&person.address, RECORD).as_bytes()).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let players = "SELECT count(*) FROM user_gamification WHERE total_shares > 0";
    let untold = "SELECT count(*) FROM domain_outbox WHERE done_at IS NULL";
    while db.number(players).await < people.len() as i64 || db.number(untold).await > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The players' shares, evenly over all of them. A socket that is full drops them, as a pool's would.
async fn mine(pool: UnixDatagram, people: Arc<[Person]>, rate: u64) {
    let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / rate.max(1)));
    for number in 0..u64::MAX {
        tick.tick().await;
        let address = &people[usize::try_from(number).unwrap() % people.len()].address;
        let _ = pool.send(share(address, 512 + number * 7_919 % 100_000).as_bytes());
    }
}

fn share(address: &str, difficulty: u64) -> String {
    let now = SystemClock.now();
    let ts = format!("{}.{:06}", now.timestamp(), now.timestamp_subsec_micros());
    tbg_tests::share(address, "r", &ts, 512.0, difficulty as f64, true)
}

/// Value at a share of the sorted times.
fn at(times: &[f64], percent: usize) -> f64 {
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn report(args: &Args, sheet: &Sheet, elapsed: f64, mined: i64) -> ExitCode {
    println!(
        "| Route | requests | p50 ms | p95 ms | p99 ms | slowest ms | no 200 |\n|---|---|---|---|---|---|---|"
    );
    let mut all = Vec::new();
    let mut errors = 0;
    let row = |name: &str, mut times: Vec<f64>, failed: u64| {
        times.sort_by(f64::total_cmp);
        let (p50, p95, p99) = (at(&times, 50), at(&times, 95), at(&times, 99));
        let slowest = times.last().copied().unwrap_or_default();
        println!("| {name} | {} | {p50:.1} | {p95:.1} | {p99:.1} | {slowest:.1} | {failed} |", times.len());
        p95
    };
    for (name, seen) in sheet {
        let failed = seen.errors.values().sum::<u64>();
        row(&format!("`{name}`"), seen.times.clone(), failed);
        all.extend_from_slice(&seen.times);
        errors += failed;
    }
    let requests = all.len() as f64;
    let p95 = row("all", all, errors);
    for (name, seen) in sheet.iter().filter(|(_, seen)| !seen.errors.is_empty()) {
        println!("{name}: {:?} (status: how many; 0 is a connection that failed)", seen.errors);
    }
    let (rate, due) = (requests / elapsed, args.rate as f64);
    // The game goes on meanwhile: what was sent to the pool's socket has arrived.
    let is_mined = mined as f64 >= args.shares as f64 * (elapsed + args.ramp as f64) * MINED_SHARE;
    let good = p95 < BAR_MS && errors == 0 && rate >= due * SENT_SHARE && is_mined;
    println!(
        "{}: {requests} requests of {} players in {elapsed:.1} s, {rate:.0} a second of {due:.0} that were due, \
         p95 {p95:.1} ms (bar: {BAR_MS:.0}), {errors} errors, while {mined} shares of theirs were applied",
        if good { "PASS" } else { "FAIL" },
        args.people,
    );
    ExitCode::from(u8::from(!good))
}
