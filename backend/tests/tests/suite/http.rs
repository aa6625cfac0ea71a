//! The real program over HTTP: probes, errors, documentation, start and stop (contract `auth-users.md`
//! §1.2, §1.7).

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tbg_tests::program::{Program, free_port, until};
use tbg_tests::{TestDb, TestRedis, now, share};

use crate::support::{Pool, USER, empty_database, reaches, tbg, ts};

async fn api() -> (TestDb, TestRedis, Program) {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    let program = Program::start(&db, &redis, "api", &[]).await;
    program.wait_for("/health", 200).await;
    (db, redis, program)
}

async fn json_of(program: &Program, path: &str) -> (u16, Value) {
    let (status, body) = program.get(path).await.unwrap();
    (status, serde_json::from_str(&body).expect(&body))
}

#[tokio::test]
async fn an_error_has_the_one_body_and_its_request_id_is_that_of_the_header() {
    let (_db, _redis, program) = api().await;
    let client = Client::new();
    let cases = [
        (Method::GET, "/nowhere", 404, "NOT_FOUND"),
        (Method::GET, "/api/v1/nowhere?token=secret", 404, "NOT_FOUND"),
        (Method::POST, "/health", 405, "METHOD_NOT_ALLOWED"),
        (Method::DELETE, "/version", 405, "METHOD_NOT_ALLOWED"),
        (Method::TRACE, "/version", 405, "METHOD_NOT_ALLOWED"),
    ];
    for (method, path, status, code) in cases {
        let request = client.request(method, format!("{}{path}", program.base));

        let response = request.header("X-Request-Id", "trace.1_2-3").send().await.unwrap();

        assert_eq!(response.status().as_u16(), status, "{path}");
        assert_eq!(response.headers()["x-request-id"], "trace.1_2-3");
        assert_eq!(response.headers().contains_key("allow"), status == 405, "{path}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["code"], code);
        assert_eq!(body["request_id"], "trace.1_2-3");
        assert!(body["detail"].is_string() && body.get("errors").is_none(), "{body}");
        if status == 404 {
            assert_eq!(body["detail"], "Not Found");
        }
    }
}

#[tokio::test]
async fn a_request_id_that_is_not_harmless_is_replaced() {
    let (_db, _redis, program) = api().await;
    let client = Client::new();
    let too_long = "x".repeat(65);
    for given in ["", "two words", "<script>", too_long.as_str()] {
        let request = client.get(format!("{}/nowhere", program.base)).header("X-Request-Id", given);

        let response = request.send().await.unwrap();

        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!((id.len(), id == given), (36, false), "{given}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["request_id"], id.as_str());
    }
}

#[tokio::test]
async fn metrics_name_what_was_ingested_and_asked() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    let program = Program::start(&db, &redis, "all", &[]).await;
    program.wait_for("/health", 200).await;
    program.wait_for_socket().await;
    let line = share(USER, "rig1", &ts(now()), 512.0, 4096.5, true);
    let pool = Pool::at(&program.socket);

    pool.send(&line).await;
    pool.send(&line).await;
    program.wait_for("/version", 200).await;

    let names = [
        "tbg_mining_shares_total{status=\"accepted\"} 1",
        "tbg_mining_shares_total{status=\"rejected\"} 0",
        "tbg_ingest_events_total{event=\"share_submitted\",outcome=\"applied\"} 1",
        "tbg_ingest_events_total{event=\"share_submitted\",outcome=\"duplicate\"} 1",
        "tbg_dead_letters_total{reason=\"malformed_json\"} 0",
        "tbg_dead_letters_total{reason=\"apply_failed\"} 0",
        "tbg_ingest_active_writer 1",
        "tbg_ingest_lag_seconds ",
        "tbg_ingest_batch_events ",
        "http_requests_total{method=\"GET\",handler=\"/version\",status=\"2xx\"} 1",
        "http_requests_total{method=\"GET\",handler=\"/version\",status=\"5xx\"} 0",
        "http_requests_total{method=\"GET\",handler=\"/api/v1/lottery/proofs/{week}/file\",status=\"5xx\"} 0",
        "http_request_duration_seconds_bucket{method=\"GET\",handler=\"/version\",le=\"0.001\"} ",
    ];
    let mut missing = Vec::new();
    let complete = until(async || {
        let (_, text) = program.get("/metrics").await.unwrap();
        missing = names.into_iter().filter(|name| !text.lines().any(|l| l.starts_with(*name))).collect();
        missing.is_empty()
    })
    .await;
    assert!(complete, "missing: {missing:?}");
}

#[tokio::test]
async fn the_document_lists_the_infrastructure_routes() {
    let (_db, _redis, program) = api().await;

    let (status, document) = json_of(&program, "/openapi.json").await;

    assert_eq!(status, 200);
    let mut paths: Vec<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    paths.sort_unstable();
    assert!(paths.contains(&"/health") && paths.contains(&"/api/v1/auth/challenge"), "{paths:?}");
}

#[tokio::test]
async fn the_documentation_page_loads_nothing_from_another_host() {
    let (_db, _redis, program) = api().await;

    let (status, page) = program.get("/docs").await.unwrap();
    let (_, script) = program.get("/docs/swagger-initializer.js").await.unwrap();

    assert_eq!(status, 200);
    assert!(page.contains("<script") && script.contains("/openapi.json"));
    for text in [page, script] {
        assert!(!text.contains("http://") && !text.contains("https://"), "{text}");
        assert!(!text.contains("src=\"//") && !text.contains("href=\"//"), "{text}");
    }
}

#[tokio::test]
async fn documentation_can_be_switched_off() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    let program = Program::start(&db, &redis, "api", &[("TBG_DOCS_ENABLED", "false")]).await;
    program.wait_for("/health", 200).await;

    for path in ["/docs", "/docs/", "/openapi.json"] {
        let (status, body) = json_of(&program, path).await;

        assert_eq!((status, &body["code"]), (404, &json!("NOT_FOUND")), "{path}");
    }
}

#[tokio::test]
async fn sigterm_ends_all_roles_in_order_with_exit_code_0() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    let mut program = Program::start(&db, &redis, "all", &[]).await;
    program.wait_for("/health", 200).await;
    program.wait_for_socket().await;
    Pool::at(&program.socket).send(share(USER, "rig1", &ts(now()), 512.0, 4096.5, true)).await;

    let code = program.stop().await;

    assert_eq!(code, Some(0), "log:\n{}", program.log_text());
    assert!(!program.socket.exists(), "the socket is removed");
    let mut next = Program::start(&db, &redis, "ingest", &[]).await;
    next.wait_for_socket().await;
    reaches(&db, "SELECT count(*) FROM shares", 1).await;
    assert_eq!(next.stop().await, Some(0));
}

#[tokio::test]
async fn sigterm_ends_every_role_in_time_while_the_database_is_away() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let settings =
        [("TBG_DATABASE_URL", "postgres://tbg@127.0.0.1:1/tbg"), ("TBG_SHUTDOWN_DRAIN_SECONDS", "2")];
    for role in ["jobs", "ingest", "api"] {
        let mut program = Program::start(&db, &redis, role, &settings).await;
        program.wait_for("/health", 503).await;

        program.stop().await;
    }
}

#[tokio::test]
async fn a_bad_setting_stops_the_start_with_its_name_and_never_its_value() {
    for (name, value) in [
        ("TBG_DB_MAX_CONNECTIONS", "hunter2"),
        ("TBG_DB_MIN_CONNECTIONS", "0"),
        ("TBG_HTTP_LISTEN", "hunter2:http"),
        ("TBG_INGEST_MODE", "hunter2"),
        ("TBG_BTC_NETWORK", "hunter2"),
        ("TBG_DOCS_ENABLED", "hunter2"),
        ("TBG_LOG_FILTER", "tbg=hunter2"),
        ("TBG_DATABASE_URL", "not a URL: hunter2"),
    ] {
        let ran = tbg(&["serve", "--role", "api"], &[(name, value)]).await;

        assert_eq!(ran.code, Some(1), "{name}: {ran:?}");
        assert!(ran.err.contains(name), "{ran:?}");
        assert!(!ran.err.contains("hunter2") && !ran.err.contains("secret"), "{ran:?}");
        assert_eq!(ran.out, "", "{name}");
    }
}

#[tokio::test]
async fn a_database_without_migrations_stops_the_start_and_names_the_remedy() {
    let (db, redis) = (empty_database().await, TestRedis::new().await);
    let (url, listen) = (db.url(), format!("127.0.0.1:{}", free_port()));
    let redis_url = redis.server.url();
    let settings = [
        ("TBG_DATABASE_URL", url.as_str()),
        ("TBG_REDIS_URL", redis_url.as_str()),
        ("TBG_HTTP_LISTEN", listen.as_str()),
    ];

    let ran = tbg(&["serve", "--role", "api"], &settings).await;

    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("tbg migrate"), "{ran:?}");
}
