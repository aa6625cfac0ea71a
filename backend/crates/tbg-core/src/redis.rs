//! Redis connections. Redis is never the only home of a fact.
//!
//! A command waits at most 15 s: twice 5 s for a connection, 5 s for its answer; a question that is asked twice, twice
//! that. That is for work that nobody waits for. What serves a request is [`hurried`](Redis::hurried): a second, however many commands it sends. A question that
//! a lost connection swallowed is asked once more; a command that changes something never is, since nobody knows whether
//! it did.

mod connections;
mod haste;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::FutureExt as _;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::io::tcp::TcpSettings;
use redis::{Arg, Client, Cmd, IntoConnectionInfo as _, Pipeline, RedisFuture, Value};

pub use self::connections::{Connections, KEEP_ALIVE_EVERY};
use self::haste::Haste;
use crate::config::Settings;
use crate::metrics::REDIS_COMMAND_SECONDS;

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The most connections of a process (contract `production.md` §13). Each [`Redis`] is one, whatever the number of
/// its clones.
pub const MAX_CONNECTIONS: usize = 20;
/// Commands that change nothing, of those that the program sends alone.
const READS: [&str; 18] = [
    "GET",
    "MGET",
    "EXISTS",
    "TTL",
    "PTTL",
    "BITCOUNT",
    "XINFO",
    "HGET",
    "HGETALL",
    "SMEMBERS",
    "SCAN",
    "ZCARD",
    "ZCOUNT",
    "ZSCORE",
    "ZMSCORE",
    "ZRANGE",
    "ZREVRANGE",
    "PING",
];

/// Connections of this process with a command in flight.
static BUSY: AtomicUsize = AtomicUsize::new(0);
/// Connections that are kept for blocking reads and subscriptions.
static DEDICATED: AtomicUsize = AtomicUsize::new(0);

/// How many connections of this process are in use now.
#[must_use]
pub fn connections_in_use() -> usize {
    BUSY.load(Ordering::Relaxed) + DEDICATED.load(Ordering::Relaxed)
}

/// The client for `TBG_REDIS_URL`; connects to nothing yet.
///
/// # Errors
/// When the setting is missing or is not a Redis URL. The message does not quote it.
pub fn client(settings: &Settings) -> anyhow::Result<Client> {
    let url = settings.redis_url.expose();
    if url.is_empty() {
        bail!("TBG_REDIS_URL is not set: give it, or TBG_REDIS_URL_FILE, a redis:// URL");
    }
    // Time-outs of answers leave a connection as it is. One whose other end is gone without a word, as a container's
    // with its network, would else be tried for as long as the kernel likes: a quarter of an hour.
    let tcp = TcpSettings::default().set_user_timeout(RESPONSE_TIMEOUT);
    url.into_connection_info()
        .and_then(|info| Client::open(info.set_tcp_settings(tcp)))
        .map_err(|_| anyhow::anyhow!("TBG_REDIS_URL is not a redis:// or unix:// URL"))
}

/// A multiplexed connection that reconnects by itself and is made when first used.
///
/// # Errors
/// When the client cannot be configured.
pub fn manager(client: &Client) -> anyhow::Result<Redis> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(RESPONSE_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_number_of_retries(1);
    let manager =
        ConnectionManager::new_lazy_with_config(client.clone(), config).context("cannot set up Redis")?;
    Ok(manager.into())
}

/// A connection of one's own, without a response time-out, for blocking reads.
///
/// # Errors
/// When Redis does not answer.
pub async fn dedicated(client: &Client) -> redis::RedisResult<MultiplexedConnection> {
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(RESPONSE_TIMEOUT))
        .set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Counts a connection that is kept for one purpose, as long as it lives.
#[derive(Debug)]
pub struct DedicatedGuard(());

impl DedicatedGuard {
    /// Counts one more.
    #[must_use]
    pub fn count() -> Self {
        DEDICATED.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for DedicatedGuard {
    fn drop(&mut self) {
        DEDICATED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a connection is doing.
#[derive(Debug, Default)]
struct Usage {
    in_flight: AtomicUsize,
    /// How often somebody asked whether it is idle, since its last command.
    quiet: AtomicU32,
}

/// A multiplexed connection that times its commands. Clones share it.
#[derive(Clone)]
pub struct Redis {
    manager: ConnectionManager,
    usage: Arc<Usage>,
    haste: Option<Arc<Haste>>,
}

impl From<ConnectionManager> for Redis {
    fn from(manager: ConnectionManager) -> Self {
        Self { manager, usage: Arc::default(), haste: None }
    }
}

impl Redis {
    /// The same connection for requests, which somebody waits for: a command fails after a second, the wait for a
    /// connection included, and for the second after that all commands of this and its clones fail at once.
    #[must_use]
    pub fn hurried(&self) -> Self {
        Self { haste: Some(Arc::default()), ..self.clone() }
    }

    /// How often this was asked since the last command; each question counts.
    fn quiet(&self) -> u32 {
        self.usage.quiet.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A round trip that is under way; also ends when its future is dropped.
struct Timed<'a> {
    command: &'static str,
    started: Instant,
    usage: &'a Usage,
}

impl<'a> Timed<'a> {
    fn begin(command: &'static str, usage: &'a Usage) -> Self {
        usage.quiet.store(0, Ordering::Relaxed);
        if usage.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            BUSY.fetch_add(1, Ordering::Relaxed);
        }
        Self { command, started: Instant::now(), usage }
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        if self.usage.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            BUSY.fetch_sub(1, Ordering::Relaxed);
        }
        metrics::histogram!(REDIS_COMMAND_SECONDS, "command" => self.command)
            .record(self.started.elapsed().as_secs_f64());
    }
}

impl ConnectionLike for Redis {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        async move {
            let _timed = Timed::begin(label(cmd), &self.usage);
            let answer = async {
                match self.manager.send_packed_command(cmd).await {
                    Err(error) if error.is_connection_dropped() && is_read(cmd) => {
                        self.manager.send_packed_command(cmd).await
                    }
                    answer => answer,
                }
            };
            haste::within(self.haste.as_deref(), answer).await
        }
        .boxed()
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        async move {
            let _timed = Timed::begin("pipeline", &self.usage);
            let answers = async {
                match self.manager.send_packed_commands(pipeline, offset, count).await {
                    Err(error) if error.is_connection_dropped() && pipeline.cmd_iter().all(is_read) => {
                        self.manager.send_packed_commands(pipeline, offset, count).await
                    }
                    answers => answers,
                }
            };
            haste::within(self.haste.as_deref(), answers).await
        }
        .boxed()
    }

    fn get_db(&self) -> i64 {
        self.manager.get_db()
    }
}

/// The commands that have a series of their own: those that are sent alone.
const COMMANDS: [&str; 16] = [
    "EVALSHA", "EVAL", "GET", "MGET", "SET", "DEL", "UNLINK", "EXPIRE", "PUBLISH", "XADD", "XLEN", "XINFO",
    "SCAN", "HGETALL", "PING", "INFO",
];

/// The label of a command: one of a closed set.
fn label(cmd: &Cmd) -> &'static str {
    one_of(&COMMANDS, cmd).unwrap_or("other")
}

/// Whether a command changes nothing, so that asking it twice is asking it once.
fn is_read(cmd: &Cmd) -> bool {
    one_of(&READS, cmd).is_some()
}

/// The name of a command, if it is one of `known`.
fn one_of(known: &[&'static str], cmd: &Cmd) -> Option<&'static str> {
    let Some(Arg::Simple(name)) = cmd.args_iter().next() else { return None };
    known.iter().copied().find(|known| known.as_bytes().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_whose_other_end_is_gone_is_given_up() {
        let settings = Settings::from_texts(&[("redis_url", "redis://localhost:6379/0".to_owned())]).unwrap();
        let client = client(&settings).unwrap();
        assert_eq!(client.get_connection_info().tcp_settings().user_timeout(), Some(RESPONSE_TIMEOUT));
    }

    #[test]
    fn a_command_has_a_label_of_a_closed_set() {
        assert_eq!(label(&redis::cmd("get")), "GET");
        assert_eq!(label(redis::cmd("EVALSHA").arg("abc")), "EVALSHA");
        assert_eq!(label(&redis::cmd("bc1qsomething")), "other");
        assert_eq!(label(&Cmd::new()), "other");
    }

    #[test]
    fn a_connection_is_busy_while_any_of_its_commands_is() {
        let connection = Usage::default();
        let before = connections_in_use();
        let (first, second) = (Timed::begin("GET", &connection), Timed::begin("GET", &connection));
        assert_eq!(connections_in_use(), before + 1);
        drop(first);
        assert_eq!(connections_in_use(), before + 1);
        drop(second);
        assert_eq!(connections_in_use(), before);
        let guard = DedicatedGuard::count();
        assert_eq!(connections_in_use(), before + 1);
        drop(guard);
        assert_eq!(connections_in_use(), before);
    }
}
