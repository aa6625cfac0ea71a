//! `make bench-reads`: the reads of a miner's dashboard, each alone, with limits on, on the real program.
//!
//! A database with more than a million shares, most of them of one user; wrk asks as many different users in
//! turn as the limit of each allows. Load, server, PostgreSQL and Redis share this machine's cores.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(clippy::unwrap_used, reason = "a benchmark fails loudly")]

use clap::Parser;
use tbg_core::{Clock as _, SystemClock};
use tbg_tests::app::{claims, sign};
use tbg_tests::program::Program;
use tbg_tests::wrk::{self, Round};
use tbg_tests::{TestDb, TestRedis};

/// The allocator of the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures reads on the release build beside this binary.
#[derive(Parser)]
#[command(name = "bench-reads")]
struct Args {
    /// Signed-in users who take turns
    #[arg(long, default_value_t = 4_000)]
    users: usize,
    /// Shares of the one user who has most
    #[arg(long, default_value_t = 1_000_000)]
    shares: i32,
    /// Connections of wrk
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Seconds of a round
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Rounds of each route; the one in the middle counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only routes whose path holds this
    #[arg(long, default_value = "")]
    only: String,
}

/// Every route with its bar: requests a second and p95 in milliseconds, where the issue names one.
const ROUTES: [(&str, Option<(f64, f64)>); 15] = [
    ("/api/v1/mining/summary", Some((15_000.0, 20.0))),
    ("/api/v1/mining/stats", Some((15_000.0, 20.0))),
    ("/api/v1/mining/workers", None),
    ("/api/v1/mining/hashrate", None),
    ("/api/v1/mining/hashrate/chart", None),
    ("/api/v1/mining/shares?limit=100", None),
    ("/api/v1/mining/shares/stats", None),
    ("/api/v1/mining/difficulty/bests", None),
    ("/api/v1/mining/blocks", None),
    ("/api/v1/mining/uptime", None),
    ("/api/v1/dashboard/stats", None),
    ("/api/v1/dashboard/feed", None),
    ("/api/v1/badges", Some((12_000.0, 20.0))),
    ("/api/v1/users/me/gamification", Some((12_000.0, 20.0))),
    ("/api/v1/games/weekly", Some((12_000.0, 20.0))),
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let settings = [
        ("TBG_DB_MAX_CONNECTIONS", "20"),
        ("TBG_DB_MIN_CONNECTIONS", "5"),
        ("TBG_LOG_FILTER", "error"),
        ("TBG_RATE_LIMIT_USER_PER_MIN", "120"),
    ];
    let tokens = fill(&db, &args).await;
    let program = Program::start(&db, &redis, "api", &settings).await;
    program.wait_for("/health", 200).await;
    let script = program.dir().join("tokens.lua");
    std::fs::write(&script, wrk::script_of_tokens(&tokens[1..]))?;

    println!("| Route | req/s | p50 ms | p95 ms | p99 ms | refused | bar |\n|---|---|---|---|---|---|---|");
    for (route, bar) in ROUTES.iter().filter(|(route, _)| route.contains(&args.only)) {
        let mut rounds = Vec::new();
        for _ in 0..args.rounds {
            flush_limits(&redis).await?;
            rounds.push(
                wrk::run(args.connections, args.seconds, &format!("{}{route}", program.base), &script)
                    .await?,
            );
        }
        rounds.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        let Round { per_second, p50, p95, p99, refused } = rounds[rounds.len() / 2];
        let bar = bar.map_or("-".to_owned(), |(rate, p95)| format!("{rate:.0}, p95 < {p95:.0}"));
        println!("| `{route}` | {per_second:.0} | {p50:.2} | {p95:.2} | {p99:.2} | {refused} | {bar} |");
    }
    pages_of_the_rich(&program, &redis, &tokens[0]).await?;
    explain(&db).await;
    Ok(())
}

/// One user with most of the shares, and many others with a little of everything. Tokens in their order.
async fn fill(db: &TestDb, args: &Args) -> Vec<String> {
    let users = i32::try_from(args.users).unwrap() + 1;
    let ids: Vec<i64> = sqlx::query_scalar(
        "INSERT INTO users (btc_address, is_verified) SELECT 'bench' || n, TRUE FROM generate_series(0, $1) n
         RETURNING id",
    )
    .bind(users - 1)
    .fetch_all(&db.pool)
    .await
    .unwrap();
    for statement in [
        "INSERT INTO shares (time, btc_address, worker_name, difficulty, share_diff, is_valid)
         SELECT now() - (n * 1.8 || ' seconds')::INTERVAL, 'bench0', 'r' || n % 4, 1024, 1024 + n % 99991, n % 50 > 0
         FROM generate_series(1, $1) n",
        "INSERT INTO shares (time, btc_address, worker_name, difficulty, share_diff, is_valid)
         SELECT now() - (n * 15 || ' seconds')::INTERVAL, 'bench' || n % $2, 'r1', 1024, 1024 + n % 9973, TRUE
         FROM generate_series(1, $1 / 4) n",
        "INSERT INTO user_daily_stats (user_id, day, total_shares, accepted_shares, rejected_shares, best_diff, uptime_minutes)
         SELECT id, current_date - d, 100 + d, 98 + d, 2, 5000 + d, 700 FROM users, generate_series(0, 29) d
         WHERE $1 + $2 > 0",
        "INSERT INTO hourly_shares (bucket, btc_address, user_id, total, accepted, rejected, work)
         SELECT date_trunc('hour', now()) - make_interval(hours => h), btc_address, id, 10, 10, 0, 10240
         FROM users, generate_series(0, 47) h WHERE $1 + $2 > 0",
        "INSERT INTO personal_bests (user_id, timeframe, period_key, best_difficulty, share_time, worker_name)
         SELECT id, frame, key, 5000 + id, now(), 'r1' FROM users,
           (VALUES ('week', to_char(now() AT TIME ZONE 'UTC', 'IYYY-\"W\"IW')),
                   ('month', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM')), ('alltime', NULL)) f (frame, key)
         WHERE $1 + $2 > 0",
        "INSERT INTO workers (user_id, worker_name, last_share, is_online, hashrate_5m)
         SELECT id, 'r' || w, now(), TRUE, 1e12 FROM users, generate_series(1, 3) w WHERE $1 + $2 > 0",
        "INSERT INTO hashrate_snapshots (time, user_id, hashrate_5m, hashrate_1h)
         SELECT to_timestamp(floor(extract(epoch FROM now()) / 300) * 300) - make_interval(mins => 5 * s), id, 1e12, 1e12
         FROM users, generate_series(0, 288) s WHERE $1 + $2 > 0",
        "INSERT INTO blocks (block_height, block_hash, btc_address, found_at, reward_btc)
         SELECT 800000 + n, lpad(n::TEXT, 64, '0'), 'bench' || n, now() - make_interval(hours => n), 3.125
         FROM generate_series(1, 200) n WHERE $1 + $2 > 0",
        "INSERT INTO weekly_best_diff (user_id, btc_address, week_start, best_difficulty, best_share_time, total_shares)
         SELECT id, btc_address, date_trunc('week', now() AT TIME ZONE 'UTC')::DATE, 5000 + id, now(), 100 FROM users
         WHERE $1 + $2 > 0",
        "INSERT INTO user_gamification (user_id, total_xp, level, badges_earned, current_streak, longest_streak, total_shares)
         SELECT id, 1000, 5, 3, 2, 2, 100 FROM users WHERE $1 + $2 > 0",
        "INSERT INTO activity_feed (event_type, title, dedupe_key)
         SELECT 'block', 'Somebody found block #' || n, 'block:' || n FROM generate_series(1, 1000) n WHERE $1 + $2 > 0",
    ] {
        sqlx::query(statement).bind(args.shares).bind(users).execute(&db.pool).await.unwrap();
    }
    sqlx::query("VACUUM (ANALYZE)").execute(&db.pool).await.unwrap();
    let now = SystemClock.now();
    ids.into_iter().map(|id| sign(&claims(id, now))).collect()
}

/// Every round begins with empty windows: users are asked more often in an hour than in a minute.
async fn flush_limits(redis: &TestRedis) -> anyhow::Result<()> {
    let mut manager = redis.manager();
    Ok(redis::cmd("FLUSHALL").query_async(&mut manager).await?)
}

/// Pages of a hundred shares, from the first on, of the user with most shares.
async fn pages_of_the_rich(program: &Program, redis: &TestRedis, token: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::new();
    let (mut cursor, mut times) = (String::new(), Vec::new());
    for page in 0..200 {
        if page % 100 == 0 {
            flush_limits(redis).await?;
        }
        let started = std::time::Instant::now();
        let url = format!("{}/api/v1/mining/shares?limit=100{cursor}", program.base);
        let answer: serde_json::Value =
            serde_json::from_str(&client.get(url).bearer_auth(token).send().await?.text().await?)?;
        times.push(started.elapsed().as_secs_f64() * 1_000.0);
        assert_eq!(answer["data"].as_array().map(Vec::len), Some(100), "{answer}");
        cursor = format!("&cursor={}", answer["pagination"]["next_cursor"].as_str().unwrap());
    }
    times.sort_by(f64::total_cmp);
    println!(
        "pages of 100 shares of the user with most: p50 {:.2}, p99 {:.2} ms over 200 pages (bar: 10 ms)",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
    Ok(())
}

/// The plan and the time of the query behind a page.
async fn explain(db: &TestDb) {
    let plan: Vec<String> = sqlx::query_scalar(
        "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF)
         SELECT id, time, worker_name, difficulty, share_diff, is_valid, is_block FROM shares
         WHERE btc_address = 'bench0' AND time <= now() ORDER BY time DESC, id DESC LIMIT 101",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    let shown = plan.iter().filter(|line| !line.contains("never executed"));
    println!("{}", shown.take(30).cloned().collect::<Vec<_>>().join("\n"));
}
