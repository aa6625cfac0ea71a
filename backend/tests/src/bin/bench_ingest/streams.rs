//! A: how fast the writer drains a backlog, and where its time goes.
//!
//! Measured from the start of the writer (connecting included) until the last batch is committed,
//! acknowledged and published. Filling the streams is not part of it. Events older than a minute when they
//! are committed push nothing, as in any backlog.

use std::fmt::Write as _;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use serde_json::{Value, json};
use tbg_core::{Clock as _, SystemClock};

use crate::load::Sent;
use crate::world::{Tally, World};
use crate::{Args, Part, load, per_second, progress};

/// The bar, in distinct shares.
const SHARES_PER_SECOND: f64 = 25_000.0;
/// Below this the mix is not what the bar is about.
const LEAST_SHARE_PERCENT: f64 = 90.0;

/// Runs the measurement several times and takes the round in the middle. The first round runs on a new
/// cluster that still has to make its WAL files; a checkpoint before each gives them back for use again, as
/// in a server that has run for a while.
///
/// # Errors
/// When it cannot be completed.
pub async fn measure(world: &World, args: &Args) -> anyhow::Result<Part> {
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        world.checkpoint().await?;
        rounds.push(round(world, args, number).await?);
    }
    let rate = |part: &Part| part.json["shares_per_second"].as_f64().unwrap_or(0.0);
    let rates: Vec<String> = rounds.iter().map(|part| format!("{:.0}", rate(part))).collect();
    let wrong: Vec<String> = rounds.iter().flat_map(|part| part.wrong.clone()).collect();
    rounds.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
    let mut median = rounds.swap_remove(rounds.len() / 2);
    let _ = writeln!(median.table, "  rounds: {} shares/s; the one in the middle is shown", rates.join(", "));
    median.json["rounds_shares_per_second"] = json!(rates);
    median.wrong = wrong;
    Ok(median)
}

async fn round(world: &World, args: &Args, number: usize) -> anyhow::Result<Part> {
    let site = world.fresh(&format!("bench_streams_{number}"), args.batch).await?;
    let now = SystemClock.now();
    let simulator = load::simulator(args.miners, args.events, now, now);
    site.register(&load::addresses(&simulator)).await?;

    let bar = progress(args.events, "A: filling the streams")?;
    let sent = load::fill(&site.client, simulator.take(args.events), &bar).await?;
    bar.finish_and_clear();
    site.redis_is_calm().await?;

    let bar = progress(sent.events, "A: streams → committed")?;
    let mut running = site.start_writer()?;
    let goal = AtomicUsize::new(sent.events);
    let tally = running.until(&goal, |done| bar.set_position(done as u64)).await?;
    let wall = tally.finished - running.started;
    bar.finish_and_clear();
    running.stop().await?;

    let wrong = site.wrong_counts(sent, &tally).await?;
    site.close().await;
    Ok(part(sent, &tally, wall, wrong))
}

fn part(sent: Sent, tally: &Tally, wall: Duration, wrong: Vec<String>) -> Part {
    let events_per_second = per_second(tally.events, wall);
    let shares_per_second = per_second(tally.distinct_shares(sent), wall);
    let mean = tally.events as f64 / tally.batches.max(1) as f64;
    let mut table = String::from("A. streams → committed\n");
    let _ = writeln!(
        table,
        "  events      {:>10}   {:.1} % shares, {} duplicates",
        tally.events,
        sent.share_percent(),
        tally.duplicates()
    );
    let _ = writeln!(table, "  seconds     {:>10.2}", wall.as_secs_f64());
    let _ = writeln!(table, "  events/s    {events_per_second:>10.0}");
    let _ = writeln!(table, "  shares/s    {shares_per_second:>10.0}   distinct ones");
    let _ = writeln!(table, "  batches     {:>10}   {mean:.0} events on average\n", tally.batches);
    let stages = stages(tally, wall);
    let _ = writeln!(table, "  {:<32}{:>9}{:>9}", "stage", "seconds", "share");
    for (name, time) in &stages {
        let share = 100.0 * time / wall.as_secs_f64();
        let _ = writeln!(table, "  {name:<32}{time:>9.2}{share:>7.1} %");
    }
    let stages: Vec<Value> =
        stages.iter().map(|(name, time)| json!({ "stage": name, "seconds": time })).collect();
    let bar = format!(
        "at least {SHARES_PER_SECOND:.0} shares/s: {shares_per_second:.0}, in a mix of at least \
         {LEAST_SHARE_PERCENT:.0} % shares"
    );
    let met = shares_per_second >= SHARES_PER_SECOND && sent.share_percent() >= LEAST_SHARE_PERCENT;
    Part {
        key: "streams",
        table,
        json: json!({
            "events": tally.events,
            "shares_sent": sent.shares,
            "shares_distinct": tally.distinct_shares(sent),
            "duplicates": tally.duplicates(),
            "seconds": wall.as_secs_f64(),
            "events_per_second": events_per_second,
            "shares_per_second": shares_per_second,
            "batches": tally.batches,
            "mean_batch": mean,
            "stages": stages,
        }),
        bars: vec![(bar, met)],
        wrong,
    }
}

/// Seconds per stage, and the rest: the reader was slower than the database, or something between the
/// stages (taking a batch apart, copying it) took the time.
fn stages(tally: &Tally, wall: Duration) -> Vec<(String, f64)> {
    let mut stages: Vec<(String, f64)> =
        tally.stages.iter().map(|(who, what, time)| (format!("{who}: {what}"), time.as_secs_f64())).collect();
    let measured: f64 = stages.iter().map(|(_, time)| time).sum();
    stages.push(("waiting for events, and between".to_owned(), wall.as_secs_f64() - measured));
    stages
}
