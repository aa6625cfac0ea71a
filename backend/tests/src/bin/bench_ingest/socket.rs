//! B: the whole path at a fixed rate, from the pool's socket to committed rows.
//!
//! The simulator's events are made beforehand and offered without waiting; what the kernel refuses because
//! the receiver did not keep up is a drop, as with the pool. Measured from the first datagram until
//! everything that was taken is committed. Timestamps trail the clock by up to a minute, so that pushes
//! are published as well.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use chrono::TimeDelta;
use serde_json::{Value, json};
use tbg_core::{Clock as _, SystemClock};
use tbg_sim::SimEvent;

use crate::load::{Offered, Sent};
use crate::world::World;
use crate::{Args, Part, load, per_second, progress};

/// Datagrams per second; the first must do without a drop.
const RATES: [usize; 2] = [20_000, 30_000];
/// Part of the rate that the sender must reach for the run to count.
const REACHED: f64 = 0.98;

/// What one run found.
struct Run {
    rate: usize,
    offered: Offered,
    sent: Sent,
    /// From the first datagram until all are committed.
    committed: Duration,
    /// Most events that were in the spool at once.
    spooled: u64,
    wrong: Vec<String>,
}

/// Runs the measurement.
///
/// # Errors
/// When it cannot be completed.
pub async fn measure(world: &World, args: &Args) -> anyhow::Result<Part> {
    let mut runs = Vec::new();
    for rate in RATES {
        runs.push(run(world, args, rate).await?);
    }
    Ok(part(runs))
}

async fn run(world: &World, args: &Args, rate: usize) -> anyhow::Result<Run> {
    let site = world.fresh(&format!("bench_socket_{rate}"), args.batch).await?;
    let now = SystemClock.now();
    let sending = i64::try_from(args.socket_events.div_ceil(rate))?;
    let end = now + TimeDelta::try_seconds(sending).context("too many events")?;
    let simulator = load::simulator(args.miners, args.socket_events, now, end);
    site.register(&load::addresses(&simulator)).await?;
    let events: Arc<Vec<SimEvent>> = Arc::new(simulator.take(args.socket_events).collect());

    let receiver = site.start_receiver().await?;
    let mut running = site.start_writer()?;
    let goal = Arc::new(AtomicUsize::new(usize::MAX));
    let sender = tokio::task::spawn_blocking({
        let (goal, events, path) = (Arc::clone(&goal), Arc::clone(&events), receiver.path.clone());
        move || {
            let offered = load::offer(&path, rate, events.len(), |index, datagram| {
                if let Some(event) = events.get(index) {
                    datagram.extend_from_slice(event.json.as_bytes());
                }
            });
            goal.store(offered.as_ref().map_or(0, Offered::taken), Ordering::Relaxed);
            offered
        }
    });
    let bar = progress(events.len(), "B: socket → committed")?;
    let (waiting, mut spooled) = (receiver.spooled(), 0_u64);
    let tally = running
        .until(&goal, |done| {
            bar.set_position(done as u64);
            spooled = spooled.max(waiting());
        })
        .await?;
    bar.finish_and_clear();
    let offered = sender.await.context("the sender panicked")??;
    receiver.stop().await?;
    running.stop().await?;

    let sent = taken(&events, &offered);
    let wrong = site.wrong_counts(sent, &tally).await?;
    site.close().await;
    let committed = tally.finished.saturating_duration_since(offered.started);
    Ok(Run { rate, offered, sent, committed, spooled, wrong })
}

/// What the kernel took.
fn taken(events: &[SimEvent], offered: &Offered) -> Sent {
    let mut refused = offered.refused.iter().peekable();
    let mut sent = Sent::default();
    for (index, event) in events.iter().enumerate() {
        if refused.next_if(|refused| **refused == index).is_none() {
            sent.count(event);
        }
    }
    sent
}

fn part(runs: Vec<Run>) -> Part {
    let mut table = String::from("B. socket → committed\n");
    let _ = writeln!(
        table,
        "  {:>9}{:>12}{:>9}{:>9}{:>9}{:>16}{:>14}{:>10}",
        "wanted/s", "offered/s", "events", "shares", "drops", "all committed", "committed/s", "spooled"
    );
    let mut json = Vec::new();
    let mut bars = Vec::new();
    let mut wrong = Vec::new();
    for (index, run) in runs.into_iter().enumerate() {
        let drops = run.offered.refused.len();
        let rate = per_second(run.offered.count, run.offered.took);
        let committed = per_second(run.sent.events, run.committed);
        let _ = writeln!(
            table,
            "  {:>9}{rate:>12.0}{:>9}{:>8.1}%{drops:>9}{:>14.2} s{committed:>14.0}{:>10}",
            run.rate,
            run.offered.count,
            run.sent.share_percent(),
            run.committed.as_secs_f64(),
            run.spooled
        );
        if index == 0 {
            let met = drops == 0 && rate >= REACHED * run.rate as f64;
            bars.push((
                format!("{} datagrams/s without a drop: {drops} drops at {rate:.0}/s", run.rate),
                met,
            ));
        }
        json.push(of_run(&run, rate, committed));
        wrong.extend(run.wrong.into_iter().map(|wrong| format!("at {}/s, {wrong}", run.rate)));
    }
    Part { key: "socket", table, json: json.into(), bars, wrong }
}

fn of_run(run: &Run, rate: f64, committed: f64) -> Value {
    json!({
        "wanted_per_second": run.rate,
        "offered_per_second": rate,
        "offered": run.offered.count,
        "drops": run.offered.refused.len(),
        "taken": run.sent.events,
        "taken_shares": run.sent.shares,
        "sending_seconds": run.offered.took.as_secs_f64(),
        "all_committed_seconds": run.committed.as_secs_f64(),
        "committed_per_second": committed,
        "most_spooled": run.spooled,
    })
}
