//! C: how soon a subscriber hears of a share.
//!
//! Shares are offered at a steady rate, each stamped with the clock when it is sent; a subscriber of
//! `pubsub:share_submitted` subtracts that stamp from the clock when the push arrives. So it is the time
//! through socket, publisher, streams, transaction and publication, on one machine's clock; the way to a
//! browser is not in it. Pushes are throttled to ten a second and user: there are enough users that this
//! takes few. Shares whose push was throttled are not in the percentiles.

use std::fmt::Write as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use redis::aio::PubSub;
use serde_json::{Value, json};
use tbg_core::{Clock as _, SystemClock};
use tokio_util::sync::CancellationToken;

use crate::load::{Offered, Sent};
use crate::world::World;
use crate::{Args, Part, load, per_second, progress};

const CHANNEL: &str = "pubsub:share_submitted";
/// Shares per second.
const RATE: usize = 2_000;
/// Two shares a second each.
const USERS: u32 = 1_000;
/// Assigned difficulty of all of them.
const DIFFICULTY: f64 = 512.0;
/// The bar.
const P95_MILLISECONDS: f64 = 250.0;
/// How long the last pushes may take after the last commit.
const LAST_PUSHES: Duration = Duration::from_millis(500);

/// Runs the measurement.
///
/// # Errors
/// When it cannot be completed.
pub async fn measure(world: &World, args: &Args) -> anyhow::Result<Part> {
    let site = world.fresh("bench_latency", args.batch).await?;
    let users: Vec<String> =
        (0..USERS).map(|index| tbg_sim::address_of(load::SEED, index, load::NETWORK)).collect();
    site.register(&users).await?;
    let mut pubsub = site.client.get_async_pubsub().await?;
    pubsub.subscribe(CHANNEL).await?;
    let stop = CancellationToken::new();
    let listening = tokio::spawn(listen(pubsub, stop.clone()));

    let receiver = site.start_receiver().await?;
    let mut running = site.start_writer()?;
    let count = args.latency_seconds.saturating_mul(RATE);
    let goal = Arc::new(AtomicUsize::new(usize::MAX));
    let sender = tokio::task::spawn_blocking({
        let (goal, path) = (Arc::clone(&goal), receiver.path.clone());
        move || {
            let offered = load::offer(&path, RATE, count, |index, datagram| {
                if let Some(user) = users.get(index % users.len()) {
                    datagram.extend_from_slice(fresh_share(user, index).as_bytes());
                }
            });
            goal.store(offered.as_ref().map_or(0, Offered::taken), Ordering::Relaxed);
            offered
        }
    });
    let bar = progress(count, "C: latency of pushes")?;
    let tally = running.until(&goal, |done| bar.set_position(done as u64)).await?;
    bar.finish_and_clear();
    let offered = sender.await.context("the sender panicked")??;
    tokio::time::sleep(LAST_PUSHES).await;
    stop.cancel();
    let latencies = listening.await.context("the subscriber panicked")?;
    receiver.stop().await?;
    running.stop().await?;

    let sent = Sent { events: offered.taken(), shares: offered.taken() };
    let wrong = site.wrong_counts(sent, &tally).await?;
    site.close().await;
    ensure!(!latencies.is_empty(), "no push arrived");
    Ok(part(&offered, latencies, wrong))
}

/// A share of now. Its achieved difficulty is one of those that a miner reaches by luck, so that few are
/// records, and is never the same twice.
fn fresh_share(user: &str, index: usize) -> String {
    let golden = (index + 1) as f64 * 0.618_033_988_749_894_9;
    let sdiff = DIFFICULTY / golden.fract().max(1e-6);
    let now = SystemClock.now();
    let ts = format!("{}.{:06}", now.timestamp(), now.timestamp_subsec_micros());
    tbg_tests::share(user, "rig1", &ts, DIFFICULTY, sdiff, true)
}

/// Microseconds from each share to its push.
async fn listen(mut pubsub: PubSub, stop: CancellationToken) -> Vec<i64> {
    let mut latencies = Vec::new();
    let mut messages = pin!(pubsub.on_message());
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => break,
            message = messages.next() => message,
        };
        let arrived = SystemClock.now();
        let Some(message) = message else { break };
        let latency = time_of(message.get_payload_bytes())
            .and_then(|ts| arrived.signed_duration_since(ts).num_microseconds());
        latencies.extend(latency);
    }
    latencies
}

fn time_of(push: &[u8]) -> Option<DateTime<Utc>> {
    let push: Value = serde_json::from_slice(push).ok()?;
    push.get("time")?.as_str()?.parse().ok()
}

fn part(offered: &Offered, mut latencies: Vec<i64>, wrong: Vec<String>) -> Part {
    latencies.sort_unstable();
    let rate = per_second(offered.count, offered.took);
    let (p50, p95, p99, max) = (
        percentile(&latencies, 50),
        percentile(&latencies, 95),
        percentile(&latencies, 99),
        percentile(&latencies, 100),
    );
    let mut table = String::from("C. latency: share sent → push received\n");
    let _ = writeln!(table, "  offered     {:>10}   {rate:.0}/s", offered.count);
    let _ = writeln!(table, "  drops       {:>10}", offered.refused.len());
    let _ = writeln!(table, "  pushes      {:>10}", latencies.len());
    for (name, value) in [("p50", p50), ("p95", p95), ("p99", p99), ("max", max)] {
        let _ = writeln!(table, "  {name:<12}{value:>10.1} ms");
    }
    Part {
        key: "latency",
        table,
        json: json!({
            "offered": offered.count,
            "offered_per_second": rate,
            "drops": offered.refused.len(),
            "pushes": latencies.len(),
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            "max_ms": max,
        }),
        bars: vec![(format!("p95 below {P95_MILLISECONDS:.0} ms: {p95:.1} ms"), p95 < P95_MILLISECONDS)],
        wrong,
    }
}

/// The nearest rank, in milliseconds.
fn percentile(sorted: &[i64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).map_or(f64::NAN, |micros| *micros as f64 / 1e3)
}
