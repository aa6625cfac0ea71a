//! The seven headers on every answer of the real program, by their literal values (contract `production.md` §6).

use reqwest::{Client, Method, Response};
use tbg_tests::app::{claims, sign};
use tbg_tests::people::{address_of, wallet};
use tbg_tests::program::Program;
use tbg_tests::{SEVEN_HEADERS, TestDb, TestRedis, now};

#[track_caller]
fn assert_secured(response: &Response, status: u16) {
    let place = response.url().path();
    assert_eq!(response.status().as_u16(), status, "{place}");
    for (name, value) in SEVEN_HEADERS {
        let values: Vec<_> = response.headers().get_all(name).iter().collect();
        assert_eq!(values, [value], "{status} {place} {name}");
    }
}

#[tokio::test]
async fn every_status_has_the_seven_once() {
    let (db, mut redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let limits = [("TBG_RATE_LIMIT_AUTH_PER_MIN", "5"), ("TBG_RATE_LIMIT_UNAUTH_PER_MIN", "100")];
    let program = Program::start(&db, &redis, "api", &limits).await;
    program.wait_for("/health", 200).await;
    // A connection of its own for each: after a refused body it is closed.
    let client = Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let user = db.user(&address_of(&wallet(1))).await;
    let token = sign(&claims(user, now()));
    let ask = |method: Method, path: &str| client.request(method, format!("{}{path}", program.base));
    let get = |path: &str| ask(Method::GET, path);
    let login = || ask(Method::POST, "/api/v1/auth/login").header("content-type", "application/json");

    for (status, request) in [
        (200, get("/health")),
        (200, get("/metrics")),
        (200, get("/docs/")),
        (200, get("/openapi.json")),
        (200, get("/api/v1/badges")),
        (200, get("/api/v1/users/me").bearer_auth(&token)),
        (
            200,
            ask(Method::OPTIONS, "/api/v1/badges")
                .header("origin", "http://localhost:5173")
                .header("access-control-request-method", "GET"),
        ),
        (401, get("/api/v1/users/me")),
        (403, get("/api/v1/admin/stats").bearer_auth(&token)),
        (403, ask(Method::POST, "/api/v1/auth/login").header("origin", "https://evil.example")),
        (404, get("/nowhere")),
        (404, get("/api/v1/badges/none")),
        (405, ask(Method::DELETE, "/health")),
        (405, ask(Method::TRACE, "/health")),
        (413, login().body("x".repeat(70_000))),
        (414, get(&format!("/?{}", "x".repeat(9_000)))),
        (415, ask(Method::POST, "/api/v1/auth/login").header("content-type", "text/plain").body("{}")),
        (422, login().body("{}")),
        (422, get("/api/v1/mining/shares?limit=0").bearer_auth(&token)),
    ] {
        assert_secured(&request.send().await.unwrap(), status);
    }
    let mut last = None;
    for _ in 0..6 {
        last = Some(login().body("{}").send().await.unwrap());
    }
    assert_secured(&last.unwrap(), 429);
    redis.server.kill().await.unwrap();
    program.wait_for("/health", 503).await;
    assert_secured(&get("/health").send().await.unwrap(), 503);
}
