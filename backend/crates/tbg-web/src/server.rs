//! Runs the router on a listener until told to stop, then drains.
//!
//! Invariants: after shutdown nothing new is accepted, and what was accepted gets the drain time to finish;
//! a client that sends its head too slowly, or too large a one, loses its connection. Design: section 5,
//! "SIGTERM drains"; contract: `production.md` §4.

mod refusals;

use std::io;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;

use self::refusals::Refusals;
use crate::client::Peer;

/// How long a request's head may take to arrive.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// What the parser buffers: room for the largest head that gets a proper answer, and some more.
const MAX_HEAD_BUFFER_BYTES: usize = 64 * 1024;
/// Pause after the system refused a connection, for example for lack of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves `router` until `shutdown` is cancelled; then stops accepting, lets requests in flight
/// finish for at most `drain`, and returns.
///
/// Connections that outlast the drain are left to the runtime and end with the process.
///
/// # Errors
/// Those of the listener; accept errors on single connections are retried, not returned.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    drain: Duration,
) -> io::Result<()> {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_HEAD_BUFFER_BYTES);
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => spawn(stream, Peer(peer), &router, &builder, &connections),
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(drain, connections.shutdown()).await.is_err() {
        let drain_seconds = drain.as_secs_f64();
        tracing::warn!(drain_seconds, "stopped with requests still in flight");
    }
    Ok(())
}

fn spawn(
    stream: TcpStream,
    peer: Peer,
    router: &Router,
    builder: &Builder<TokioExecutor>,
    connections: &GracefulShutdown,
) {
    // Small answers leave at once.
    let _ = stream.set_nodelay(true);
    let service = ServiceBuilder::new().layer(Extension(peer)).service(router.clone());
    let builder = builder.clone();
    let watcher = connections.watcher();
    tokio::spawn(async move {
        let stream = TokioIo::new(Refusals::new(stream));
        let served = builder.serve_connection_with_upgrades(stream, TowerToHyperService::new(service));
        // What a client does to its own connection is no news.
        let _ = watcher.watch(served.into_owned()).await;
    });
}
