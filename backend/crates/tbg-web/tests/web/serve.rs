//! Shutdown drains (design, section 5).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get as on_get;
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
