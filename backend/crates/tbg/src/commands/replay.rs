//! `tbg replay`: events from a file, straight into the engine, taking turns with the active writer.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use sqlx::PgConnection;
use tbg_core::config::Settings;
use tbg_core::{Clock as _, SystemClock, db};
use tbg_engine::dead_letters::DeadLetter;
use tbg_engine::decode::check_age;
use tbg_engine::source::ndjson::NdjsonReader;
use tbg_engine::{Engine, PoolEvent};
use tokio::time::Instant;

use crate::cli::Replay;
use crate::roles::engine;
use crate::terminal::{say, tell};

/// Events applied in one transaction.
const BATCH: usize = 2_000;

#[derive(Default)]
struct Summary {
    read: u64,
    applied: usize,
    duplicate: usize,
    malformed: u64,
    rejected: u64,
}

pub async fn run(args: &Replay, settings: &Settings) -> anyhow::Result<()> {
    let file = if args.file == Path::new("-") { Path::new("/dev/stdin") } else { &args.file };
    let mut reader = NdjsonReader::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut target = if args.dry_run { None } else { Some((db::connect(settings).await?, engine(settings))) };
    let bar = ProgressBar::new(reader.progress().1)
        .with_style(ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {msg} eta {eta}")?);
    let mut summary = Summary::default();
    let fed = feed(&mut reader, args, &mut target, &bar, &mut summary).await;
    bar.finish_and_clear();
    // The connection goes: what a panic left open in it holds others up no longer.
    let has_written = target.take().is_some();
    let Summary { read, applied, duplicate, malformed, rejected } = summary;
    let told = say!(
        "{}",
        json!({ "read": read, "applied": applied, "duplicate": duplicate, "malformed": malformed, "rejected": rejected })
    );
    if !has_written {
        return fed.and(told);
    }
    then_totals(fed, settings, "run the same replay again: it applies nothing twice").await.and(told)
}

/// Reads the file to its end and applies it batch by batch.
async fn feed(
    reader: &mut NdjsonReader,
    args: &Replay,
    target: &mut Option<(PgConnection, Engine)>,
    bar: &ProgressBar,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let mut pace = Pace::new(args.rate);
    loop {
        let (events, letters, ended) = next_batch(reader, args, summary)?;
        bar.set_position(reader.progress().0);
        bar.set_message(format!("{} events", summary.read));
        if let Some((conn, engine)) = target {
            let count = events.len();
            apply(conn, engine, events, &letters, summary).await?;
            pace.wait_for(count).await;
        }
        if ended {
            return Ok(());
        }
    }
}

/// Sums the pool's hours anew, as far back as an event may have changed them, whatever `applied` has ended with: what
/// it did until then stays. Where this fails, `advice` says what else does it.
///
/// # Errors
/// The one of `applied`, else one's own; of two, the second is told at once.
pub(super) async fn then_totals(
    applied: anyhow::Result<()>,
    settings: &Settings,
    advice: &str,
) -> anyhow::Result<()> {
    let totals = recompute_totals(settings).await.with_context(|| {
        format!("what is applied stays, but the hourly totals of the pool are not recomputed; {advice}")
    });
    if let (Err(_), Err(error)) = (&applied, &totals) {
        tell!("error: {error:#}");
    }
    applied.and(totals)
}

async fn recompute_totals(settings: &Settings) -> anyhow::Result<()> {
    let pool = db::unhurried(settings, 1).await?;
    tbg_operations::recompute_totals(&pool, SystemClock.now(), tbg_operations::TOTALS_REPLAY).await?;
    Ok(())
}

/// Reads up to a batch of events within the wanted period; says whether the file has ended.
fn next_batch(
    reader: &mut NdjsonReader,
    args: &Replay,
    summary: &mut Summary,
) -> anyhow::Result<(Vec<PoolEvent>, Vec<DeadLetter>, bool)> {
    let now = SystemClock.now();
    let (mut events, mut letters) = (Vec::new(), Vec::new());
    while events.len() + letters.len() < BATCH {
        let Some(line) = reader.next_line().context("reading the file")? else {
            return Ok((events, letters, true));
        };
        summary.read += 1;
        let event = match line.content {
            Ok(event) => event,
            Err(letter) => {
                summary.malformed += 1;
                letters.push(*letter);
                continue;
            }
        };
        if args.from.is_some_and(|from| event.ts < from) || args.to.is_some_and(|to| event.ts >= to) {
            continue;
        }
        match check_age(&event, now, args.allow_old) {
            Ok(()) => events.push(event),
            Err(refusal) => {
                summary.rejected += 1;
                letters.push(reader.letter(refusal, &event));
            }
        }
    }
    Ok((events, letters, false))
}

async fn apply(
    conn: &mut PgConnection,
    engine: &Engine,
    events: Vec<PoolEvent>,
    letters: &[DeadLetter],
    summary: &mut Summary,
) -> anyhow::Result<()> {
    // What was replayed is no news: its pushes are dropped.
    let applied = engine.apply_guarded(conn, events, letters, SystemClock.now()).await;
    let Some(outcome) = applied.map_err(|error| not_applied(error, summary.read))? else {
        bail!(
            "a reactor panicked in the batch that ends with event {} of the file, and would again; what was applied \
             before stays",
            summary.read
        );
    };
    summary.applied += outcome.applied;
    summary.duplicate += outcome.duplicate;
    Ok(())
}

/// Why a batch is not in, and whether running again can help. `read` is its last event.
fn not_applied(error: sqlx::Error, read: u64) -> anyhow::Error {
    let advice = if db::is_transient(&error) {
        "PostgreSQL is away or busy; what was applied before stays, so run it again".to_owned()
    } else {
        format!(
            "the database refuses the batch that ends with event {read} of the file, and would again: look at the \
             error, at PostgreSQL's log and whether `tbg migrate` is due; what was applied before stays"
        )
    };
    anyhow::Error::new(error).context(advice)
}

/// Keeps a rate.
struct Pace {
    rate: Option<u32>,
    started: Instant,
    sent: f64,
}

impl Pace {
    fn new(rate: Option<u32>) -> Self {
        Self { rate, started: Instant::now(), sent: 0.0 }
    }

    async fn wait_for(&mut self, count: usize) {
        let Some(rate) = self.rate else { return };
        self.sent += count as f64;
        let due = Duration::from_secs_f64(self.sent / f64::from(rate));
        tokio::time::sleep_until(self.started + due).await;
    }
}
