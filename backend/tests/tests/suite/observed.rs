//! What a running program shows of itself: its metrics have closed label sets, its log holds no secret and nobody's
//! data (contract `production.md` §2.2 item 9, §10, §18 V16).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use reqwest::Client;
use serde_json::{Value, json};
use tbg_bitcoin::{AddressType, Network};
use tbg_tests::people::{address_of, wallet};
use tbg_tests::program::{Program, binary, until};
use tbg_tests::socket::Socket;
use tbg_tests::{TestDb, TestRedis, now, share};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::support::{Pool, tbg, ts};

/// Requests for what does not exist.
const RANDOM_PATHS: usize = 10_000;
/// A share was applied.
const APPLIED: &str = "tbg_mining_shares_total{status=\"accepted\"} 1";
const PASSWORD: &str = "Corr3ct-horse-battery";
const EMAIL: &str = "miner.private@example.org";

/// What is there soon after a start, with the labels of each (contract §10).
const METRICS: [(&str, &[&str]); 51] = [
    ("http_request_duration_seconds", &["handler", "le", "method"]),
    ("http_requests_total", &["handler", "method", "status"]),
    ("tbg_app_info", &["environment", "version"]),
    ("tbg_audit_default_rows", &[]),
    ("tbg_audit_verify_ok", &[]),
    ("tbg_audit_write_failures_total", &[]),
    ("tbg_backup_max_age_seconds", &["kind"]),
    ("tbg_db_pool_free", &[]),
    ("tbg_db_pool_size", &[]),
    ("tbg_db_query_duration_seconds", &["le", "op"]),
    ("tbg_dead_letters_total", &["reason"]),
    ("tbg_dependency_up", &["dependency"]),
    ("tbg_games_active_sessions", &[]),
    ("tbg_games_plays_total", &["game_type"]),
    ("tbg_gamification_badges_awarded_total", &["badge_id"]),
    ("tbg_gamification_drift_total", &["field"]),
    ("tbg_gamification_level_ups_total", &[]),
    ("tbg_gamification_lottery_draws_total", &[]),
    ("tbg_gamification_streaks_broken_total", &[]),
    ("tbg_gamification_xp_awarded_total", &["source"]),
    ("tbg_ingest_active_writer", &[]),
    ("tbg_ingest_batch_events", &[]),
    ("tbg_ingest_events_total", &["event", "outcome"]),
    ("tbg_ingest_lag_seconds", &[]),
    ("tbg_ingest_spool_dropped_total", &["reason"]),
    ("tbg_ingest_stream_pending", &[]),
    ("tbg_job_duration_seconds", &["task"]),
    ("tbg_job_interval_seconds", &["task"]),
    ("tbg_job_last_success_timestamp_seconds", &["task"]),
    ("tbg_log_lines_lost_total", &[]),
    ("tbg_mail_pending", &[]),
    ("tbg_mining_active_workers", &[]),
    ("tbg_mining_blocks_found_total", &[]),
    ("tbg_mining_pool_hashrate_ths", &[]),
    ("tbg_mining_shares_total", &["status"]),
    ("tbg_outbox_depth", &[]),
    ("tbg_outbox_oldest_age_seconds", &[]),
    ("tbg_rate_limit_fallback_active", &[]),
    ("tbg_rate_limit_hits_total", &["tier"]),
    ("tbg_redis_command_duration_seconds", &["command", "le"]),
    ("tbg_redis_maxmemory_bytes", &[]),
    ("tbg_redis_pool_active", &[]),
    ("tbg_redis_pool_size", &[]),
    ("tbg_redis_used_memory_bytes", &[]),
    ("tbg_ws_active_connections", &[]),
    ("tbg_ws_bridge_faults_total", &["reason"]),
    ("tbg_ws_bridge_up", &[]),
    ("tbg_ws_closes_total", &["code"]),
    ("tbg_ws_handshakes_total", &["result"]),
    ("tbg_ws_messages_dropped_total", &["event_type"]),
    ("tbg_ws_messages_sent_total", &["event_type"]),
];

/// What a job, a socket or a fault makes later.
const SOMETIMES: [&str; 4] = [
    "tbg_audit_last_seal_timestamp_seconds",
    "tbg_backup_last_success_timestamp_seconds",
    "tbg_lottery_overdue_weeks",
    "tbg_mining_drift_shares",
];

/// A series without its value: name and labels.
fn series(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.filter_map(|line| line.rsplit_once(' ').map(|(series, _)| series)).collect()
}

/// Label names by metric, buckets and sums under the name of their histogram.
fn labels(series: &BTreeSet<&str>) -> BTreeMap<String, BTreeSet<String>> {
    let mut labels = BTreeMap::<String, BTreeSet<String>>::new();
    for one in series {
        let (name, rest) = one.split_once('{').unwrap_or((one, ""));
        let name =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let names =
            rest.trim_end_matches('}').split("\",").filter_map(|pair| pair.split_once('=').map(|(n, _)| n));
        labels.entry(name.to_owned()).or_default().extend(names.map(str::to_owned));
    }
    labels
}

async fn post(
    client: &Client,
    program: &Program,
    path: &str,
    token: Option<&str>,
    body: &Value,
) -> (u16, Value) {
    let mut request = client.post(format!("{}{path}", program.base)).json(body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

/// Waits until its metrics show all of these.
async fn shows(program: &Program, signs: &[&str]) -> bool {
    until(async || {
        let shown = program.get("/metrics").await;
        shown.is_ok_and(|(_, text)| signs.iter().all(|sign| text.contains(sign)))
    })
    .await
}

/// Signs in with a wallet; also returns what was signed.
async fn connect(client: &Client, program: &Program, number: u64) -> (Value, String) {
    let key = wallet(number);
    let address = address_of(&key);
    let asked = json!({ "btc_address": address });
    let (_, challenge) = post(client, program, "/api/v1/auth/challenge", None, &asked).await;
    let signature = key
        .sign_bip322(challenge["message"].as_str().unwrap(), AddressType::P2wpkh, Network::Mainnet)
        .unwrap();
    let proof = json!({ "btc_address": address, "signature": signature, "nonce": challenge["nonce"], "claim": false });
    let (status, tokens) = post(client, program, "/api/v1/auth/verify", None, &proof).await;
    assert_eq!(status, 200, "{tokens}");
    (tokens, signature)
}

#[tokio::test]
async fn metrics_have_closed_labels_and_random_input_adds_no_series() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let program = Program::start(&db, &redis, "all", &[]).await;
    program.wait_for("/health", 200).await;
    program.wait_for_socket().await;
    let client = Client::new();
    let (tokens, _) = connect(&client, &program, 1).await;
    let token = tokens["access_token"].as_str().unwrap();
    let address = tokens["user"]["btc_address"].as_str().unwrap().to_owned();
    Pool::at(&program.socket).send(&share(&address, "rig1", &ts(now()), 512.0, 4096.5, true)).await;
    for path in
        ["/api/v1/mining/summary", "/api/v1/badges", "/api/v1/games/weekly", "/api/v1/users/me/gamification"]
    {
        client.get(format!("{}{path}", program.base)).bearer_auth(token).send().await.unwrap();
    }
    client.get(format!("{}/ws", program.base)).send().await.unwrap();
    Socket::open(&program.base, token).await.unwrap().close().await;
    // The jobs have run once, the share has been applied.
    let metrics = async || program.get("/metrics").await.unwrap().1;
    let signs = [
        APPLIED,
        "tbg_mining_active_workers 1",
        "tbg_audit_verify_ok 1",
        "tbg_job_last_success_timestamp_seconds{task=\"gauges\"}",
    ];
    assert!(shows(&program, &signs).await, "{}", metrics().await);
    // Each process comes to its own in its own time: what is missing then is missed below.
    let is_complete = |text: &str| {
        let shown = labels(&series(text));
        METRICS.iter().all(|(name, _)| shown.contains_key(*name))
    };
    until(async || is_complete(&metrics().await)).await;

    let before = metrics().await;
    let shown = labels(&series(&before));
    for (name, names) in METRICS {
        let expected: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(shown.get(name), Some(&expected), "{name}");
    }
    let known: BTreeSet<&str> = METRICS.iter().map(|(name, _)| *name).chain(SOMETIMES).collect();
    let unknown: Vec<&String> = shown.keys().filter(|name| !known.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "not in this test's table: {unknown:?}");
    for private in [address.as_str(), "rig1", token] {
        assert!(!before.contains(private), "{private}");
    }
    // Probes and sockets are no requests of clients.
    for left_out in ["/health", "/ready", "/metrics", "/ws"] {
        assert!(!before.contains(&format!("handler=\"{left_out}\"")), "{left_out}");
    }

    for number in 0..RANDOM_PATHS {
        let path = match number % 4 {
            0 => format!("/{number:x}/{}", number * 7919),
            1 => format!("/api/v1/users/bc1q{number}"),
            2 => format!("/api/v1/mining/workers/rig-{number}"),
            _ => format!("/api/v1/lottery/results/20{:02}-W{:02}", number % 100, number % 53),
        };
        let request = client.get(format!("{}{path}", program.base));
        let answer = if number % 2 == 0 { request.bearer_auth(token) } else { request }.send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
    }
    let after = metrics().await;
    let may_come =
        ["http_request", "tbg_db_query", "tbg_redis_command", "tbg_job_duration", "tbg_job_last_success"];
    let (shown, known) = (series(&after), series(&before));
    let new: Vec<&&str> = shown
        .difference(&known)
        .filter(|one| {
            let name = one.split('{').next().unwrap_or_default();
            !may_come.iter().any(|start| one.starts_with(start)) && !SOMETIMES.contains(&name)
        })
        .collect();
    assert!(new.is_empty(), "{new:?}");
    // What was asked for the first time has a series from then on: one per template and class of status.
    let http = |text: &str| series(text).iter().filter(|one| one.starts_with("http_requests_total")).count();
    assert!(http(&after) <= http(&before) + 6, "{} then {}", http(&before), http(&after));
}

/// The tokens of an answer to a sign-in: access, refresh.
fn tokens_of(answer: &Value) -> [String; 2] {
    ["access_token", "refresh_token"].map(|name| answer[name].as_str().expect("a token").to_owned())
}

/// Does what people do, well and badly, until a share of theirs is applied, and returns all that must not be in the
/// log.
async fn a_day_of_use(program: &Program) -> Vec<String> {
    let client = Client::new();
    let mut private = vec![PASSWORD.to_owned(), EMAIL.to_owned(), "wrong-Passw0rd".to_owned()];
    let (tokens, signature) = connect(&client, program, 1).await;
    private.push(signature);
    let [access, refresh] = tokens_of(&tokens);
    let form = json!({ "email": EMAIL, "password": PASSWORD, "btc_address": address_of(&wallet(2)) });
    let (status, registered) = post(&client, program, "/api/v1/auth/register", None, &form).await;
    assert_eq!(status, 200, "{registered}");
    private.extend(tokens_of(&registered));
    for (password, expected) in [(PASSWORD, 200), ("wrong-Passw0rd", 401)] {
        let login = json!({ "email": EMAIL, "password": password });
        let (status, answer) = post(&client, program, "/api/v1/auth/login", None, &login).await;
        assert_eq!(status, expected, "{answer}");
        if status == 200 {
            private.extend(tokens_of(&answer));
        }
    }
    let key = json!({ "name": "dashboard", "permissions": ["read"] });
    let (status, key) = post(&client, program, "/api/v1/users/me/api-keys", Some(&access), &key).await;
    assert_eq!(status, 200, "{key}");
    let api_key = key["key"].as_str().unwrap().to_owned();
    let summary = client.get(format!("{}/api/v1/mining/summary", program.base)).header("X-API-Key", &api_key);
    assert_eq!(summary.send().await.unwrap().status(), 200);
    for (token, expected) in [(refresh.clone(), 200), ("x".repeat(60), 401)] {
        let asked = json!({ "refresh_token": token });
        let (status, answer) = post(&client, program, "/api/v1/auth/refresh", None, &asked).await;
        assert_eq!(status, expected, "{answer}");
        if status == 200 {
            private.extend(tokens_of(&answer));
        }
    }
    let odd = "/api/v1/mining/workers/'; DROP TABLE users; --";
    client.get(format!("{}{odd}", program.base)).bearer_auth(&access).send().await.unwrap();
    let mut socket = Socket::open(&program.base, &access).await.unwrap();
    socket.subscribe("dashboard").await;
    let address = address_of(&wallet(1));
    Pool::at(&program.socket).send(&share(&address, "rig1", &ts(now()), 512.0, 4096.5, true)).await;
    assert!(shows(program, &[APPLIED]).await, "the share is applied");
    let (status, answer) = post(&client, program, "/api/v1/auth/logout-all", Some(&access), &json!({})).await;
    assert_eq!(status, 200, "{answer}");
    private.extend([access, refresh, api_key]);
    private
}

#[tokio::test]
async fn the_log_of_a_whole_run_holds_no_secret_and_nobodys_data() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let settings = [("TBG_LOG_FORMAT", "json"), ("TBG_LOG_FILTER", "info")];
    let mut program = Program::start(&db, &redis, "all", &settings).await;
    program.wait_for("/health", 200).await;
    program.wait_for_socket().await;

    let private = a_day_of_use(&program).await;
    assert_eq!(program.stop().await, Some(0));

    let log = program.log_text();
    assert!(log.lines().count() > 10, "{log}");
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(event["timestamp"].is_string() && event["level"].is_string(), "{line}");
    }
    for secret in &private {
        assert!(!log.contains(secret.as_str()), "{secret} in the log");
    }
    for statement in ["SELECT ", "INSERT INTO", "UPDATE ", "DELETE FROM", "DROP TABLE"] {
        assert!(!log.contains(statement), "{statement} in the log");
    }
    assert!(log.contains("/api/v1/auth/challenge"), "requests are logged, by the template of their path");
    let raw_path = log.lines().find(|line| line.contains("/api/v1/mining/workers/'"));
    assert_eq!(raw_path, None, "raw paths are not logged");
    assert!(!log.contains(&db.url()), "the database's URL");
}

/// A writer that can do nothing says how much waits, or nobody would know (alert IngestStalled).
#[tokio::test]
async fn a_stall_shows_in_the_numbers_of_who_is_stalled() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let program = Program::start(&db, &redis, "ingest", &[]).await;
    program.wait_for_socket().await;
    assert!(shows(&program, &["tbg_ingest_active_writer 1", "tbg_ingest_stream_pending 0"]).await);
    let mut stall = db.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE shares IN ACCESS EXCLUSIVE MODE").execute(&mut *stall).await.unwrap();

    let event = share("bc1q", "w", &ts(now()), 1.0, 2.0, true);
    Pool::at(&program.socket).send(event).await;

    assert!(shows(&program, &["tbg_ingest_stream_pending 1"]).await, "nobody tells of the stall");
    stall.rollback().await.unwrap();
    assert!(shows(&program, &["tbg_ingest_stream_pending 0", APPLIED]).await);
}

/// How many lines of its log a program has lost.
async fn lost_lines(program: &Program) -> u64 {
    let (_, text) = program.get("/metrics").await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("tbg_log_lines_lost_total "));
    line.and_then(|count| count.parse().ok()).unwrap_or_default()
}

/// Contract `production.md` §2.3, row 5: a full disk drops lines of the log, and that is all it does.
#[tokio::test]
async fn a_log_that_cannot_be_written_stops_nobody() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let settings = [("TBG_LOG_FILTER", "debug")];
    let mut program = Program::start_without_log(&db, &redis, "all", &settings);
    program.wait_for("/health", 200).await;
    program.wait_for_socket().await;

    a_day_of_use(&program).await;

    assert_eq!(program.get("/health").await.unwrap().0, 200);
    assert!(until(async || lost_lines(&program).await > 0).await, "what could not be written is not counted");
    assert_eq!(program.stop().await, Some(0));
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_nobody_up() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let settings = [("TBG_LOG_FILTER", "trace"), ("TBG_LOG_FORMAT", "json")];
    let (mut program, mut log) = Program::start_unread(&db, &redis, "all", &settings);
    program.wait_for("/health", 200).await;

    // The pipe takes 64 KiB, then lines wait, then lines are lost.
    let (client, version) = (Client::new(), format!("{}/version", program.base));
    let is_losing = async || {
        let asked = (0..500).map(async |_| client.get(&version).send().await.unwrap().status().as_u16());
        let answers = futures_util::future::join_all(asked).await;
        assert!(answers.iter().all(|status| *status == 200));
        lost_lines(&program).await > 0
    };
    assert!(until(is_losing).await, "no line was lost");
    a_day_of_use(&program).await;
    let started = Instant::now();
    assert_eq!(program.get("/health").await.unwrap().0, 200);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());

    let started = Instant::now();
    assert_eq!(program.stop().await, Some(0));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    assert!(text.len() >= 60 * 1024, "the pipe was full: {}", text.len());
}

/// Runs a command with a standard error or output that cannot be written; its exit code.
async fn ran_without(args: &[&str], output: impl Into<Stdio>, errors: impl Into<Stdio>) -> Option<i32> {
    let mut command = Command::new(binary());
    command.args(args).env("TBG_ENVIRONMENT", "test").env("TBG_DATABASE_URL", "postgres://127.0.0.1:1/none");
    command.stdin(Stdio::null()).stdout(output).stderr(errors).kill_on_drop(true);
    command.status().await.unwrap().code()
}

#[tokio::test]
async fn a_command_that_can_say_nothing_ends_with_its_exit_code() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let unread = || std::io::pipe().unwrap().1;
    for args in [&["migrate"], &["rebuild"]] {
        assert_eq!(ran_without(args, Stdio::null(), full()).await, Some(1), "{args:?}");
        assert_eq!(ran_without(args, Stdio::null(), unread()).await, Some(1), "{args:?}");
    }
    let unreadable = ["lottery", "verify", "/nowhere"];
    assert_eq!(ran_without(&unreadable, Stdio::null(), full()).await, Some(2));
    // What a command was asked for and could not say is an error; what it only finds out is its exit code.
    for args in [&["config"], &["version"]] {
        assert_eq!(ran_without(args, unread(), Stdio::null()).await, Some(1), "{args:?}");
        assert_eq!(ran_without(args, full(), full()).await, Some(1), "{args:?}");
    }
    let doctor = ["doctor", "--role", "jobs"];
    assert_eq!(ran_without(&doctor, unread(), full()).await, Some(1));
}

#[tokio::test]
async fn a_start_that_fails_says_why_after_its_log() {
    let settings = [
        ("TBG_DATABASE_URL", "postgres://127.0.0.1:1/none"),
        ("TBG_REDIS_URL", "redis://127.0.0.1:1"),
        ("TBG_HTTP_LISTEN", "192.0.2.1:1"),
    ];
    let ran = tbg(&["serve", "--role", "jobs"], &settings).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let lines: Vec<&str> = ran.err.lines().collect();
    let is_away = |line: &&str| line.contains("PostgreSQL is away");
    assert!(lines.iter().any(is_away), "{ran:?}");
    assert!(lines.last().is_some_and(|line| line.starts_with("error: cannot listen")), "{ran:?}");
}

#[tokio::test]
async fn traces_reach_a_collector_and_name_routes_batches_and_jobs() {
    let received = Arc::new(Mutex::new(Vec::<u8>::new()));
    let collector = {
        let received = Arc::clone(&received);
        let take = move |body: Bytes| async move { received.lock().unwrap().extend_from_slice(&body) };
        Router::new().route("/v1/traces", axum::routing::post(take))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, collector).await });
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let settings = [("TBG_OTLP_ENDPOINT", endpoint.as_str()), ("TBG_OTLP_SAMPLE_PERCENT", "100")];
    let mut program = Program::start(&db, &redis, "all", &settings).await;
    program.wait_for("/health", 200).await;
    program.wait_for_socket().await;

    let private = a_day_of_use(&program).await;
    // A job has run. What waits to be sent is sent at the end.
    let ran = ["tbg_job_last_success_timestamp_seconds{task=\"audit_partitions\"}"];
    assert!(shows(&program, &ran).await);
    assert_eq!(program.stop().await, Some(0));

    let sent = received.lock().unwrap().clone();
    let text = String::from_utf8_lossy(&sent);
    for name in ["http_request", "/api/v1/auth/challenge", "batch", "job", "audit_partitions"] {
        assert!(text.contains(name), "{name} in {} bytes", sent.len());
    }
    for secret in &private {
        assert!(!text.contains(secret.as_str()), "{secret} in a trace");
    }
    serving.abort();
}
