//! `tbg simulate`: the simulated pool's events, to a file, a socket or the streams.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use sqlx::Connection as _;
use tbg_core::config::Settings;
use tbg_core::redis::Redis;
use tbg_core::{Clock as _, SystemClock, db, users};
use tbg_engine::source::publisher::add_entry;
use tbg_sim::{SimConfig, SimEvent, Simulator};
use tokio::time::Instant;

use crate::cli::Simulate;
use crate::terminal::tell;

/// Events of one write to the streams.
const CHUNK: usize = 1_000;
/// A full socket is tried again after this long, instead of dropping the event as the pool would.
const SOCKET_RETRY: Duration = Duration::from_micros(200);

pub async fn run(args: &Simulate) -> anyhow::Result<()> {
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
    if args.events.is_none() && args.duration.is_none() && matches!(sink, Sink::File(_)) {
        bail!("a file needs an end: give --events or --duration");
    }
    let pace = (!args.fast && !matches!(sink, Sink::File(_))).then(|| Pace::new(start));
    let end = args.duration.map(|seconds| start.timestamp_micros() + micros(seconds));
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

/// Gives every simulated address a user, so that there are per-user rows.
pub async fn register(settings: &Settings, simulator: &Simulator) -> anyhow::Result<()> {
    let addresses: Vec<String> = simulator.miners().iter().map(|miner| miner.address.clone()).collect();
    let mut conn = sqlx::PgConnection::connect_with(&db::connect_options(settings)?).await?;
    for chunk in addresses.chunks(10_000) {
        users::register_all(&mut conn, chunk).await?;
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "seconds given by a person")]
fn micros(seconds: f64) -> i64 {
    (seconds * 1e6) as i64
}

enum Sink {
    File(Box<dyn Write + Send>),
    Socket(UnixDatagram),
    Streams { redis: Redis, maxlen: usize, waiting: Vec<Vec<u8>> },
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
            "-" => Self::File(Box::new(BufWriter::new(std::io::stdout()))),
            path => {
                let file = File::create(path).with_context(|| format!("cannot write {path}"))?;
                Self::File(Box::new(BufWriter::new(file)))
            }
        })
    }

    async fn write(&mut self, event: &SimEvent) -> anyhow::Result<()> {
        match self {
            Self::File(file) => writeln!(file, "{}", event.json)?,
            Self::Socket(socket) => loop {
                match socket.send(event.json.as_bytes()) {
                    Ok(_) => break,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        tokio::time::sleep(SOCKET_RETRY).await
                    }
                    Err(error) => return Err(error).context("the pool's socket is gone"),
                }
            },
            Self::Streams { waiting, .. } => {
                waiting.push(event.json.clone().into_bytes());
                if waiting.len() >= CHUNK {
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
        if let Self::File(mut file) = self {
            file.flush()?;
        }
        Ok(())
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
        let into = u64::try_from(event.arrive_us - self.start_us).unwrap_or(0);
        self.started + Duration::from_micros(into)
    }
}
