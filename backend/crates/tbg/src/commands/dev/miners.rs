//! Simulated miners: a thread that writes datagrams into the pool's socket, as the pool does.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tbg_core::config::Settings;
use tbg_sim::{SimConfig, Simulator};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::demo::Demo;
use crate::cli::Dev;
use crate::commands::simulate::register;

/// A real miner of a public pool submits a share about this often, in seconds.
const SHARE_SECONDS: f64 = 15.0;
/// A block now and then, in seconds at speed 1.
const BLOCK_SECONDS: f64 = 600.0;
/// Longest sleep, so that a stop is noticed.
const STEP: Duration = Duration::from_millis(200);

/// Registers the miners' addresses and starts them; `None` with `--miners 0`.
pub async fn start(
    args: &Dev,
    settings: &Settings,
    demo: &Demo,
    now: DateTime<Utc>,
    shutdown: CancellationToken,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    if args.miners == 0 {
        return Ok(None);
    }
    let speed = args.speed.clamp(0.01, 1_000.0);
    let simulator = Simulator::new(SimConfig {
        // Other shares at every start, by the same miners.
        seed: 21,
        run: now.timestamp().unsigned_abs(),
        miners: args.miners,
        start_us: now.timestamp_micros(),
        network: settings.btc_network,
        first_address: Some(demo.address.clone()),
        target_share_seconds: SHARE_SECONDS / speed,
        forced_block_every_seconds: Some(BLOCK_SECONDS / speed),
        ..SimConfig::default()
    });
    register(settings, &simulator).await?;
    let path = settings.event_socket_path.clone();
    Ok(Some(tokio::task::spawn_blocking(move || {
        send_all(simulator, now.timestamp_micros(), &path, &shutdown)
    })))
}

/// Sends each event when its time has come. Like the pool, drops it when the socket does not take it.
fn send_all(simulator: Simulator, start_us: i64, path: &Path, shutdown: &CancellationToken) {
    let started = Instant::now();
    let mut socket = None;
    for event in simulator {
        let due = Duration::from_micros(u64::try_from(event.arrive_us - start_us).unwrap_or(0));
        while let Some(wait) = due.checked_sub(started.elapsed()).filter(|wait| !wait.is_zero()) {
            if shutdown.is_cancelled() {
                return;
            }
            std::thread::sleep(wait.min(STEP));
        }
        if shutdown.is_cancelled() {
            return;
        }
        if socket.is_none() {
            socket = connect(path);
        }
        if let Some(open) = &socket
            && let Err(error) = open.send(event.json.as_bytes())
            && error.kind() != std::io::ErrorKind::WouldBlock
        {
            socket = None;
        }
    }
}

fn connect(path: &Path) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect(path).ok()?;
    Some(socket)
}
