//! What is sent: the simulator's events, into the streams or at a fixed rate into the pool's socket.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use indicatif::ProgressBar;
use tbg_bitcoin::Network;
use tbg_engine::source::publisher::add_entry;
use tbg_sim::{SimConfig, SimEvent, Simulator};

/// Seed of everything.
pub const SEED: u64 = 1;
/// Signet's lowest share difficulty is low enough for some shares a second of a small miner; on mainnet
/// the same number of events would take a population five times as long. To the engine it is a text.
pub const NETWORK: Network = Network::Signet;
/// About so many simulated seconds.
const SPAN_SECONDS: f64 = 60.0;
/// Entries of one write to the streams.
const CHUNK: usize = 1_000;
/// Longer than any stream gets.
const UNLIMITED: usize = 1_000_000_000;
const SLICE: Duration = Duration::from_millis(1);

/// What was sent and not refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Datagrams.
    pub events: usize,
    /// Shares among them, repeated ones included.
    pub shares: usize,
}

impl Sent {
    /// Counts an event.
    pub fn count(&mut self, event: &SimEvent) {
        self.events += 1;
        self.shares += usize::from(event.event == "share_submitted");
    }

    /// Shares in a hundred events.
    #[must_use]
    pub fn share_percent(&self) -> f64 {
        100.0 * self.shares as f64 / self.events.max(1) as f64
    }
}

/// A simulator whose first `events` events end at `end`, or begin at `now` if they are too few to fill the
/// time until then. Sent evenly from `now` to `end`, none is ever from the future.
#[must_use]
pub fn simulator(miners: u32, events: usize, now: DateTime<Utc>, end: DateTime<Utc>) -> Simulator {
    let config = SimConfig {
        seed: SEED,
        miners,
        network: NETWORK,
        target_share_seconds: SPAN_SECONDS * f64::from(miners) / events as f64,
        forced_block_every_seconds: Some(30.0),
        ..SimConfig::default()
    };
    // The start moves all events alike, so a first pass tells how long they last.
    let last = Simulator::new(config.clone()).take(events).last();
    let span_us = last.map_or(0, |event| event.arrive_us - config.start_us);
    let start_us = now.timestamp_micros().min(end.timestamp_micros() - span_us);
    Simulator::new(SimConfig { start_us, ..config })
}

/// The addresses of a simulation.
#[must_use]
pub fn addresses(simulator: &Simulator) -> Vec<String> {
    simulator.miners().iter().map(|miner| miner.address.clone()).collect()
}

/// Adds events to the streams, as the publisher would, without trimming.
///
/// # Errors
/// When Redis does not take them.
pub async fn fill(
    client: &redis::Client,
    mut events: impl Iterator<Item = SimEvent>,
    bar: &ProgressBar,
) -> anyhow::Result<Sent> {
    let mut conn = tbg_core::redis::dedicated(client).await?;
    let mut sent = Sent::default();
    loop {
        let before = sent.events;
        let mut pipe = redis::pipe();
        for event in events.by_ref().take(CHUNK) {
            add_entry(&mut pipe, event.json.as_bytes(), UNLIMITED);
            sent.count(&event);
        }
        if sent.events == before {
            return Ok(sent);
        }
        pipe.query_async::<()>(&mut conn).await.context("Redis does not take events")?;
        bar.set_position(sent.events as u64);
    }
}

/// What happened to datagrams that were offered to a socket.
#[derive(Debug)]
pub struct Offered {
    /// How many were.
    pub count: usize,
    /// Which ones the kernel refused: the pool drops those.
    pub refused: Vec<usize>,
    /// When it began.
    pub started: Instant,
    /// How long it took.
    pub took: Duration,
}

impl Offered {
    /// How many were taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.count - self.refused.len()
    }
}

/// Offers `count` datagrams at `rate` per second without ever waiting for the receiver, as the pool does
/// (`MSG_DONTWAIT`). Blocks; give it a thread.
///
/// It sends in slices of a millisecond and sleeps in between, so that it takes no core from the servers.
/// A slice that comes late is caught up at no more than twice the rate: a burst of the sender's own
/// making would say nothing about the receiver.
///
/// # Errors
/// When nobody listens.
pub fn offer(
    path: &Path,
    rate: usize,
    count: usize,
    mut write: impl FnMut(usize, &mut Vec<u8>),
) -> anyhow::Result<Offered> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path).with_context(|| format!("nobody listens at {}", path.display()))?;
    socket.set_nonblocking(true)?;
    let most = 2 * rate.div_ceil(1_000);
    let mut datagram = Vec::new();
    let mut refused = Vec::new();
    let mut next = 0;
    let started = Instant::now();
    while next < count {
        let into = started.elapsed();
        let end = due(rate, into).clamp(next, next + most).min(count);
        for index in next..end {
            datagram.clear();
            write(index, &mut datagram);
            match socket.send(&datagram) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => refused.push(index),
                Err(error) => return Err(error).context("the pool's socket is gone"),
            }
        }
        next = end;
        std::thread::sleep((into + SLICE).saturating_sub(started.elapsed()));
    }
    Ok(Offered { count, refused, started, took: started.elapsed() })
}

/// How many datagrams should have been sent by now.
fn due(rate: usize, into: Duration) -> usize {
    let due = into.as_micros() * rate as u128 / 1_000_000;
    usize::try_from(due).unwrap_or(usize::MAX)
}
