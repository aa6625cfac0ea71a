//! Shutdown drains (design, section 5).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::{get as on_get, post as on_post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

/// A route that reports each request and answers when told to.
fn gated_router(entered: &Arc<Notify>, release: &Arc<Notify>) -> Router {
    let (entered, release) = (Arc::clone(entered), Arc::clone(release));
    let handler = move || async move {
        entered.notify_one();
        release.notified().await;
        "finished"
    };
    Router::new().route("/", on_get(handler))
}

#[tokio::test]
async fn a_request_in_flight_is_finished_after_shutdown() -> anyhow::Result<()> {
    let (entered, release) = (Arc::default(), Arc::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut client = TcpStream::connect(listener.local_addr()?).await?;
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(tbg_web::serve(
        listener,
        gated_router(&entered, &release),
        shutdown.clone(),
        Duration::from_secs(60),
    ));
    client.write_all(REQUEST).await?;
    entered.notified().await;

    shutdown.cancel();
    release.notify_one();

    let mut response = String::new();
    client.read_to_string(&mut response).await?;
    assert!(response.starts_with("HTTP/1.1 200"));
    assert!(response.ends_with("finished"));
    server.await??;
    Ok(())
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_hold_the_shutdown() -> anyhow::Result<()> {
    let (entered, release) = (Arc::default(), Arc::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut client = TcpStream::connect(listener.local_addr()?).await?;
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(tbg_web::serve(
        listener,
        gated_router(&entered, &release),
        shutdown.clone(),
        Duration::ZERO,
    ));
    client.write_all(REQUEST).await?;
    entered.notified().await;

    shutdown.cancel();

    server.await??;
    Ok(())
}

/// V4.2.1: a request that two servers would cut differently reaches nobody a second time. Each ends with a request that
/// would be smuggled past a proxy.
#[tokio::test]
async fn a_request_whose_length_is_in_doubt_brings_no_second_one() -> anyhow::Result<()> {
    let smuggled = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&smuggled);
    let router = Router::new()
        .route("/", on_post(async |_: String| "read"))
        .route("/smuggled", on_get(async move || seen.fetch_add(1, Ordering::Relaxed).to_string()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(tbg_web::serve(listener, router, shutdown.clone(), Duration::ZERO));
    let hidden = "GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n";
    for doubt in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
        "content-length: 0\r\ncontent-length: 60\r\n\r\n",
        "content-length: 0, 60\r\n\r\n",
        "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "transfer-encoding: identity\r\n\r\n",
        "content-length: +0\r\n\r\n",
        "content-length: 0x0\r\n\r\n",
        "content-length : 0\r\n\r\n",
        "x: a\r\n content-length: 60\r\ncontent-length: 0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n0x0\r\n\r\n",
    ] {
        let mut client = TcpStream::connect(address).await?;
        client.write_all(format!("POST / HTTP/1.1\r\nhost: test\r\n{doubt}{hidden}").as_bytes()).await?;
        let mut answers = String::new();
        // A server that goes on would answer at once; one that waits for more is ended by the time.
        let _ = tokio::time::timeout(Duration::from_millis(300), client.read_to_string(&mut answers)).await;
        assert!(answers.matches("HTTP/1.1").count() <= 1, "{doubt:?}: {answers}");
    }
    assert_eq!(smuggled.load(Ordering::Relaxed), 0);

    let mut client = TcpStream::connect(address).await?;
    client
        .write_all(format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n{hidden}").as_bytes())
        .await?;
    let mut answers = String::new();
    let _ = tokio::time::timeout(Duration::from_millis(300), client.read_to_string(&mut answers)).await;
    assert_eq!(smuggled.load(Ordering::Relaxed), 1, "two requests in order are two: {answers}");
    shutdown.cancel();
    server.await??;
    Ok(())
}

#[tokio::test]
async fn what_is_no_request_is_refused_in_the_one_shape() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let shutdown = CancellationToken::new();
    let router = Router::new().route("/", on_get(async || "read"));
    let server = tokio::spawn(tbg_web::serve(listener, router, shutdown.clone(), Duration::ZERO));
    for request in [
        "GET /\0 HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET / HTTP/1.1\r\nBad Name: x\r\n\r\n",
        "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\nBad Name: x\r\n\r\n",
        "G(T / HTTP/1.1\r\n\r\n",
    ] {
        let mut client = TcpStream::connect(address).await?;
        client.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await?;

        let refusal = &answer[answer.rfind("HTTP/1.").expect("an answer")..];
        let (head, body) = refusal.split_once("\r\n\r\n").expect("a head");
        assert!(head[8..].starts_with(" 400 Bad Request\r\n"), "{answer}");
        assert_eq!(head.matches("date: ").count(), 1, "{head}");
        for (name, value) in tbg_web::SECURITY_HEADERS {
            assert_eq!(head.matches(&format!("\r\n{name}: {}", value)).count(), 1, "{name}: {head}");
        }
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body)?;
        assert_eq!(
            (&body["detail"], &body["code"]),
            (&"Bad request".into(), &"VALIDATION_ERROR".into()),
            "as the proxy says"
        );
        assert!(
            head.contains(&format!("x-request-id: {}", body["request_id"].as_str().expect("an id"))),
            "{head}"
        );
    }
    shutdown.cancel();
    server.await??;
    Ok(())
}
