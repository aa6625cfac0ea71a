//! `tbg simulate`: the simulated pool's events, to a file, a socket or the streams.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use tbg_core::config::Settings;
use tbg_core::redis::Redis;
use tbg_core::{Clock as _, SystemClock, db, users};
use tbg_engine::source::publisher::add_entry;
use tbg_engine::source::streams;
use tbg_sim::{SimConfig, SimEvent, Simulator};
use tokio::time::Instant;

use crate::cli::Simulate;
use crate::terminal::tell;

/// Events of one write to the streams.
const CHUNK: usize = 1_000;
/// Full streams are looked at again after this long.
const ROOM_RETRY: Duration = Duration::from_millis(100);
/// How long full streams may stay as full as they are.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn run(args: &Simulate) -> anyhow::Result<()> {
    check(args)?;
    let settings = super::settings()?;
    let start = args.start.unwrap_or_else(|| SystemClock.now());
    let simulator = Simulator::new(SimConfig {
        seed: args.seed,
        miners: args.miners,
        start_us: start.timestamp_micros(),
        network: settings.btc_network,
        target_share_seconds: args.share_seconds,
        forced_block_every_seconds: Some(3_600.0),
        ..SimConfig::default()
    });
    if args.register {
        register(&settings, &simulator).await?;
    }
    let mut sink = Sink::open(&args.to, &settings)?;
    let pace = (!args.fast && !is_file(&args.to)).then(|| Pace::new(start));
    let end = args.duration.map(|seconds| start.timestamp_micros().saturating_add(micros(seconds)));
    let limit = usize::try_from(args.events.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let mut written = 0_u64;
    for event in simulator.take(limit).take_while(|event| end.is_none_or(|end| event.arrive_us < end)) {
        if let Some(pace) = &pace {
            sink.flush_before_wait(pace, &event).await?;
        }
        sink.write(&event).await?;
        written += 1;
    }
    sink.finish().await?;
    tell!("{written} events written");
    Ok(())
}

/// Refuses what cannot be meant, before anything is written.
fn check(args: &Simulate) -> anyhow::Result<()> {
    for (name, seconds) in [("--duration", args.duration), ("--share-seconds", Some(args.share_seconds))] {
        if let Some(seconds) = seconds.filter(|seconds| !seconds.is_finite() || *seconds <= 0.0) {
            bail!("{name} is a number of seconds above 0, not {seconds}");
        }
    }
    if args.events.is_none() && args.duration.is_none() && is_file(&args.to) {
        bail!("a file needs an end: give --events or --duration");
    }
    Ok(())
}

/// Whether `--to` is a file or standard output.
fn is_file(to: &str) -> bool {
    to != "streams" && !to.starts_with("unix:")
}

/// Gives every simulated address a user, so that there are per-user rows.
pub async fn register(settings: &Settings, simulator: &Simulator) -> anyhow::Result<()> {
    let addresses: Vec<String> = simulator.miners().iter().map(|miner| miner.address.clone()).collect();
    let mut conn = db::connect(settings).await?;
    for chunk in addresses.chunks(10_000) {
        users::register_all(&mut conn, chunk).await?;
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
fn micros(seconds: f64) -> i64 {
    (seconds * 1e6) as i64
}

enum Sink {
    File { file: Box<dyn Write + Send>, rename: Option<Rename> },
    Socket(UnixDatagram),
    Streams { redis: Redis, maxlen: usize, waiting: Vec<Vec<u8>> },
}

/// The name of a file while it is written, and the one that it gets when it is complete.
struct Rename {
    partial: PathBuf,
    path: PathBuf,
}

impl Sink {
    fn open(to: &str, settings: &Settings) -> anyhow::Result<Self> {
        if let Some(path) = to.strip_prefix("unix:") {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path).with_context(|| format!("nobody listens at {path}: is ingest running?"))?;
            return Ok(Self::Socket(socket));
        }
        Ok(match to {
            "streams" => Self::Streams {
                redis: tbg_core::redis::manager(&tbg_core::redis::client(settings)?)?,
                maxlen: settings.redis_stream_maxlen,
                waiting: Vec::new(),
            },
            "-" => Self::File { file: Box::new(BufWriter::new(std::io::stdout())), rename: None },
            path => Self::open_file(path)?,
        })
    }

    fn open_file(path: &str) -> anyhow::Result<Self> {
        // A device, a pipe or a link must stay what it is.
        let special = fs::symlink_metadata(path).is_ok_and(|found| !found.is_file());
        let name = if special { path.to_owned() } else { format!("{path}.partial") };
        let file = File::create(&name).with_context(|| format!("cannot write {name}"))?;
        let rename = (!special).then(|| Rename { partial: name.into(), path: path.into() });
        Ok(Self::File { file: Box::new(BufWriter::new(file)), rename })
    }

    async fn write(&mut self, event: &SimEvent) -> anyhow::Result<()> {
        match self {
            Self::File { file, .. } => writeln!(file, "{}", event.json)?,
            // Blocks while the socket is full, instead of dropping the event as the pool would.
            Self::Socket(socket) => {
                socket.send(event.json.as_bytes()).context("the pool's socket is gone")?;
            }
            Self::Streams { waiting, maxlen, .. } => {
                waiting.push(event.json.clone().into_bytes());
                if waiting.len() >= CHUNK.min(*maxlen / 4) {
                    self.flush().await?;
                }
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        if let Self::Streams { redis, maxlen, waiting } = self
            && !waiting.is_empty()
        {
            wait_for_room(redis, *maxlen).await?;
            let mut pipe = redis::pipe();
            waiting.drain(..).for_each(|datagram| add_entry(&mut pipe, &datagram, *maxlen));
            pipe.query_async::<()>(redis).await.context("Redis does not take events")?;
        }
        Ok(())
    }

    /// Waits until it is time for the event; what waits for company goes out first.
    async fn flush_before_wait(&mut self, pace: &Pace, event: &SimEvent) -> anyhow::Result<()> {
        let due = pace.due(event);
        if due > Instant::now() {
            self.flush().await?;
            tokio::time::sleep_until(due).await;
        }
        Ok(())
    }

    async fn finish(mut self) -> anyhow::Result<()> {
        self.flush().await?;
        if let Self::File { mut file, rename } = self {
            file.flush()?;
            if let Some(Rename { partial, path }) = rename {
                fs::rename(&partial, &path).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Waits until a quarter of each stream is free: trimming would else take events that nobody has read.
async fn wait_for_room(redis: &mut Redis, maxlen: usize) -> anyhow::Result<()> {
    let (mut shortest, mut since) = (usize::MAX, Instant::now());
    loop {
        let longest = streams::backlog(redis).await.context("Redis does not answer")?.longest;
        if longest <= maxlen - maxlen / 4 {
            return Ok(());
        }
        if longest < shortest {
            (shortest, since) = (longest, Instant::now());
        }
        if since.elapsed() >= PATIENCE {
            bail!(
                "the streams stay full: {longest} events wait in one, which has not got shorter for {} s; \
                 start ingest (`tbg serve --role ingest`) or look at its log, then run this again",
                PATIENCE.as_secs()
            );
        }
        tokio::time::sleep(ROOM_RETRY).await;
    }
}

/// Simulated time on the clock of this machine.
struct Pace {
    start_us: i64,
    started: Instant,
}

impl Pace {
    fn new(start: DateTime<Utc>) -> Self {
        Self { start_us: start.timestamp_micros(), started: Instant::now() }
    }

    fn due(&self, event: &SimEvent) -> Instant {
        let into = u64::try_from(event.arrive_us.saturating_sub(self.start_us)).unwrap_or(0);
        self.started + Duration::from_micros(into)
    }
}
