//! `make bench-sockets`: how many sockets a replica holds, and how fast it tells them, on the real program.
//!
//! Three measurements in one run, load and server on the same cores: idle sockets (memory, and who is still
//! there after minutes of heartbeats); fan-out to a thousand sockets; from a share in the pool's socket to the
//! frame at its miner.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails loudly")]

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tbg_core::{Clock as _, SystemClock};
use tbg_tests::app::{claims, sign};
use tbg_tests::program::Program;
use tbg_tests::{TestDb, TestRedis};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};

/// The allocator of the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Stream = WebSocketStream<TcpStream>;

/// Measures sockets on the release build beside this binary.
#[derive(Parser)]
#[command(name = "bench-sockets")]
struct Args {
    /// Idle sockets
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Seconds that they stay
    #[arg(long, default_value_t = 300)]
    idle_seconds: u64,
    /// Sockets of the fan-out
    #[arg(long, default_value_t = 1_000)]
    fans: usize,
    /// Messages a second to each of them
    #[arg(long, default_value_t = 50)]
    rate: u64,
    /// Seconds of the fan-out
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Shares a second, end to end
    #[arg(long, default_value_t = 2_000)]
    shares: u64,
    /// Miners with a socket among those whose shares are sent
    #[arg(long, default_value_t = 200)]
    miners: usize,
}

/// A share difficulty above all that are measured.
const RECORD: u64 = 2_000_000_000;
/// Times that the numbers are asked for.
const SCRAPES: usize = 40;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let settings = [
        ("TBG_WS_MAX_CONNECTIONS", "20000"),
        ("TBG_WS_MAX_CONNECTIONS_PER_USER", "10"),
        ("TBG_WS_CONNECTS_PER_MIN", "100"),
        ("TBG_DB_MAX_CONNECTIONS", "10"),
        ("TBG_LOG_FILTER", "error"),
    ];
    let program = Program::start(&db, &redis, "all", &settings).await;
    program.wait_for("/health", 200).await;
    program.wait_for_socket().await;
    let tokens = users(&db, args.idle.max(args.fans).max(args.miners)).await;
    println!("| What | Bar | Measured |\n|---|---|---|");
    fan_out(&args, &program, &redis, &tokens).await;
    end_to_end(&args, &program, &db, &tokens).await;
    idle(&args, &program, &tokens).await;
    Ok(())
}

/// Users who hold the addresses `bench1`, `bench2`, …, and a token for each.
async fn users(db: &TestDb, count: usize) -> Vec<String> {
    let ids: Vec<i64> = sqlx::query_scalar(
        "INSERT INTO users (btc_address) SELECT 'bench' || n FROM generate_series(1, $1) n RETURNING id",
    )
    .bind(i32::try_from(count).unwrap())
    .fetch_all(&db.pool)
    .await
    .unwrap();
    let now = SystemClock.now();
    ids.into_iter().map(|id| sign(&claims(id, now))).collect()
}

/// A socket from an address of its own on the loopback: one address has too few ports for ten thousand.
async fn open(program: &Program, token: &str, channel: &str) -> Stream {
    let port = program.base.rsplit(':').next().unwrap();
    let stream = TcpStream::connect(format!("127.0.0.1:{port}")).await.expect("connects");
    stream.set_nodelay(true).unwrap();
    let request = format!("ws://127.0.0.1:{port}/ws?token={token}").into_client_request().unwrap();
    let (mut socket, _) = client_async(request, stream).await.expect("a socket");
    let subscribe = json!({ "action": "subscribe", "channel": channel }).to_string();
    socket.send(Message::text(subscribe)).await.unwrap();
    // Who has won something is told that first.
    while !socket.next().await.unwrap().unwrap().to_text().unwrap().contains("subscribed") {}
    socket
}

async fn open_all(program: &Program, tokens: &[String], channel: &'static str) -> Vec<Stream> {
    let mut sockets = Vec::with_capacity(tokens.len());
    for chunk in tokens.chunks(50) {
        let opening = chunk.iter().map(|token| open(program, token, channel));
        sockets.extend(futures_util::future::join_all(opening).await);
    }
    sockets
}

fn resident_mb(program: &Program) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

async fn idle(args: &Args, program: &Program, tokens: &[String]) {
    let before = resident_mb(program);
    let started = Instant::now();
    let sockets = open_all(program, &tokens[..args.idle], "gamification").await;
    let opened = started.elapsed();
    let alive = Arc::new(AtomicU64::new(args.idle as u64));
    // Reading answers the pings.
    for mut socket in sockets {
        let alive = Arc::clone(&alive);
        tokio::spawn(async move {
            while let Some(Ok(_)) = socket.next().await {}
            alive.fetch_sub(1, Ordering::Relaxed);
        });
    }
    let mut peak: f64 = 0.0;
    for _ in 0..args.idle_seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        peak = peak.max(resident_mb(program));
    }
    println!(
        "| {} idle sockets for {} s | < 500 MB, stable | {:.0} MB at most ({:.0} MB before them), {} still open; opened in {:.1} s |",
        args.idle,
        args.idle_seconds,
        peak,
        before,
        alive.load(Ordering::Relaxed),
        opened.as_secs_f64()
    );
    scrape(args, program).await;
}

/// How long Prometheus waits while they are all there.
async fn scrape(args: &Args, program: &Program) {
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..SCRAPES {
        let started = Instant::now();
        let (status, text) = program.get("/metrics").await.unwrap();
        times.push(started.elapsed().as_secs_f64() * 1000.0);
        assert_eq!(status, 200);
        bytes = text.len();
    }
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times[times.len() * share / 100];
    println!(
        "| `/metrics` with {} sockets of as many users, {bytes} bytes | < 20 ms | p50 {:.1}, p95 {:.1} ms |",
        args.idle,
        at(50),
        at(95)
    );
}

/// Microseconds since the benchmark began.
#[derive(Clone, Copy)]
struct Stopwatch(Instant);

impl Stopwatch {
    fn micros(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap()
    }
}

/// The time stamp inside a frame: the digits after `"at":`.
fn stamp(text: &str) -> Option<u64> {
    let rest = &text[text.find("\"at\":")? + 5..];
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

async fn fan_out(args: &Args, program: &Program, redis: &TestRedis, tokens: &[String]) {
    let sockets = open_all(program, &tokens[..args.fans], "competition").await;
    let watch = Stopwatch(Instant::now());
    let (sender, mut latencies) = mpsc::unbounded_channel::<Vec<u32>>();
    let total = args.rate * args.seconds;
    for mut socket in sockets {
        let sender = sender.clone();
        tokio::spawn(async move {
            let mut seen = Vec::with_capacity(usize::try_from(total).unwrap());
            while let Some(Ok(message)) = socket.next().await {
                let Some(at) = message.to_text().ok().and_then(stamp) else { continue };
                seen.push(u32::try_from(watch.micros().saturating_sub(at)).unwrap_or(u32::MAX));
                if seen.len() as u64 == total {
                    break;
                }
            }
            sender.send(seen).unwrap();
        });
    }
    drop(sender);
    let mut manager = redis.manager();
    let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / args.rate));
    for _ in 0..total {
        tick.tick().await;
        let message = json!({ "league_id": 1, "at": watch.micros() }).to_string();
        redis::cmd("PUBLISH")
            .arg("pubsub:league_update")
            .arg(message)
            .query_async::<()>(&mut manager)
            .await
            .unwrap();
    }
    let mut all = Vec::new();
    let collecting = async {
        while let Some(seen) = latencies.recv().await {
            all.extend(seen);
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(30), collecting).await;
    let expected = total * args.fans as u64;
    println!(
        "| {} sockets × {} messages/s for {} s | p99 < 100 ms | {}; {} of {expected} delivered |",
        args.fans,
        args.rate,
        args.seconds,
        percentiles(all.iter().map(|us| f64::from(*us) / 1000.0).collect()),
        all.len(),
    );
}

/// Shares in the pool's socket at a steady rate; the miners among them who have a socket time their frames by
/// the achieved difficulty, which says which share it was.
async fn end_to_end(args: &Args, program: &Program, db: &TestDb, tokens: &[String]) {
    let pool = UnixDatagram::unbound().unwrap();
    pool.connect(&program.socket).unwrap();
    // Ten times as many miners as sockets: one share of ten is watched.
    let population = args.miners * 10;
    let send = async |user: usize, difficulty: u64| {
        let now = SystemClock.now();
        let event = format!(
            r#"{{"region":"","event":"share_submitted","ts":{}.{:06},"source":"hosted","data":{{"user":"bench{user}","worker":"bench{user}.r","diff":512.0,"sdiff":{difficulty}.0,"accepted":true}}}}"#,
            now.timestamp(),
            now.timestamp_subsec_micros(),
        );
        while pool.send(event.as_bytes()).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // What a first share brings is behind everybody before the measurement, in which nobody finds a better one.
    for user in 1..=population {
        send(user, RECORD).await;
    }
    let players = "SELECT count(*) FROM user_gamification WHERE total_shares > 0";
    let untold = "SELECT count(*) FROM domain_outbox WHERE consumer = 'social' AND done_at IS NULL";
    while db.number(players).await < i64::try_from(population).unwrap() || db.number(untold).await > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let sockets = open_all(program, &tokens[..args.miners], "mining").await;
    let watch = Stopwatch(Instant::now());
    let total = args.shares * args.seconds;
    let sent: Arc<Vec<AtomicU64>> = Arc::new((0..total).map(|_| AtomicU64::new(0)).collect());
    let (sender, mut latencies) = mpsc::unbounded_channel::<f64>();
    for mut socket in sockets {
        let (sender, sent) = (sender.clone(), Arc::clone(&sent));
        tokio::spawn(async move {
            while let Some(Ok(message)) = socket.next().await {
                let Ok(text) = message.to_text() else { continue };
                let Ok(value) = serde_json::from_str::<Value>(text) else { continue };
                if value["data"]["type"] != "share_submitted" {
                    continue;
                }
                let number = value["data"]["share_diff"].as_f64().unwrap_or_default() as usize;
                let Some(at) = sent.get(number.wrapping_sub(1_000_000)) else { continue };
                let micros = watch.micros().saturating_sub(at.load(Ordering::Relaxed));
                if sender.send(micros as f64 / 1000.0).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let per_tick = args.shares / 100;
    for number in 0..total {
        if number % per_tick == 0 {
            tick.tick().await;
        }
        let user = usize::try_from(number).unwrap() % population + 1;
        sent[usize::try_from(number).unwrap()].store(watch.micros(), Ordering::Relaxed);
        send(user, 1_000_000 + number).await;
    }
    let mut all = Vec::new();
    let quiet = Duration::from_secs(3);
    while let Ok(Some(latency)) = tokio::time::timeout(quiet, latencies.recv()).await {
        all.push(latency);
    }
    println!(
        "| share sent → frame at its miner, {} shares/s for {} s, {} sockets | p95 < 250 ms | {}; {} frames |",
        args.shares,
        args.seconds,
        args.miners,
        percentiles(all.clone()),
        all.len()
    );
}

fn percentiles(mut values: Vec<f64>) -> String {
    if values.is_empty() {
        return "nothing came".to_owned();
    }
    values.sort_by(f64::total_cmp);
    let at = |share: usize| values[(values.len() * share / 100).min(values.len() - 1)];
    format!("p50 {:.1}, p95 {:.1}, p99 {:.1} ms", at(50), at(95), at(99))
}
