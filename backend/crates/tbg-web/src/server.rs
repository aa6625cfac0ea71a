//! Runs the router on a listener until told to stop, then drains.
//!
//! Invariant: after shutdown nothing new is accepted, and what was accepted gets the drain time to
//! finish. Design: section 5, "SIGTERM drains".

use std::io;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.clone().cancelled_owned())
        .into_future();
    tokio::select! {
        outcome = served => outcome,
        () = drain_elapsed(shutdown, drain) => {
            let drain_seconds = drain.as_secs_f64();
            tracing::warn!(drain_seconds, "stopped with requests still in flight");
            Ok(())
        }
    }
}

async fn drain_elapsed(shutdown: CancellationToken, drain: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(drain).await;
}
