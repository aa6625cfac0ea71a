//! From the receiver's queue into Redis Streams, and into the spool while Redis is away or the streams
//! are full of entries that nobody has read (contract `mining.md` §2.4, §3.1).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{Pipeline, RedisResult};
use tbg_core::redis::Redis;
use tokio::sync::mpsc;

use super::spool::Spool;
use super::{REFUSED_STREAM, streams};
use crate::decode::{MAX_DATAGRAM_BYTES, Reason, Refusal, decode_line};

/// Datagrams that go to Redis in one round trip.
const CHUNK: usize = 1_000;
/// Pause before Redis is asked again whether it is back.
const PROBE: Duration = Duration::from_secs(1);

/// Publishes what the receiver hands over.
pub struct StreamPublisher {
    redis: Redis,
    spool: Arc<Mutex<Spool>>,
    maxlen: usize,
    /// Whether events go to Redis; otherwise to the spool until a probe succeeds.
    open: bool,
    probed: Instant,
}

impl StreamPublisher {
    /// A publisher that keeps about `maxlen` entries in each stream.
    #[must_use]
    pub fn new(redis: Redis, spool: Arc<Mutex<Spool>>, maxlen: usize) -> Self {
        Self { redis, spool, maxlen, open: false, probed: Instant::now() - PROBE }
    }

    /// Publishes until the receiver ends and the queue is empty.
    pub async fn run(mut self, mut queue: mpsc::Receiver<Vec<u8>>) {
        let mut datagrams = Vec::with_capacity(CHUNK);
        loop {
            self.probe().await;
            let received = tokio::select! {
                biased;
                received = queue.recv_many(&mut datagrams, CHUNK) => received,
                () = tokio::time::sleep(PROBE) => continue,
            };
            if received == 0 {
                // The receiver is gone, and with it the queue: everything has been handed over.
                break;
            }
            self.hand_over(&datagrams).await;
            datagrams.clear();
        }
    }

    async fn hand_over(&mut self, datagrams: &[Vec<u8>]) {
        if self.open {
            match self.publish(datagrams).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "Redis does not take events: spooling");
                    self.open = false;
                    self.probed = Instant::now();
                }
            }
        }
        let mut spool = self.spool.lock().unwrap_or_else(PoisonError::into_inner);
        datagrams.iter().for_each(|datagram| spool.append(datagram));
    }

    /// Once a second: is there room in the streams, and is the spool empty? Delivers the spool first.
    async fn probe(&mut self) {
        if self.probed.elapsed() < PROBE {
            return;
        }
        self.probed = Instant::now();
        let was_open = self.open;
        self.open = match self.deliver_spool().await {
            Ok(room) => room,
            Err(error) => {
                tracing::debug!(%error, "Redis is away");
                false
            }
        };
        if self.open != was_open {
            tracing::info!(open = self.open, "event streams");
        }
    }

    /// Delivers the spool, oldest first. Returns whether new events may follow: not while the consumer
    /// is so far behind that trimming would take entries which it has not read.
    async fn deliver_spool(&mut self) -> RedisResult<bool> {
        loop {
            let backlog = streams::backlog(&mut self.redis).await?;
            if backlog.longest > self.maxlen - self.maxlen / 4 {
                return Ok(false);
            }
            let oldest = self.spool.lock().unwrap_or_else(PoisonError::into_inner).oldest();
            let (path, datagrams) = match oldest {
                Ok(Some(segment)) => segment,
                Ok(None) => return Ok(true),
                Err(error) => {
                    tracing::error!(%error, "a spool segment cannot be read");
                    return Ok(true);
                }
            };
            for chunk in datagrams.chunks(CHUNK) {
                self.publish(chunk).await?;
            }
            tracing::info!(events = datagrams.len(), "delivered a spool segment");
            self.spool.lock().unwrap_or_else(PoisonError::into_inner).forget(&path);
        }
    }

    async fn publish(&mut self, datagrams: &[Vec<u8>]) -> RedisResult<()> {
        let mut pipe = Pipeline::with_capacity(datagrams.len());
        for datagram in datagrams {
            add_entry(&mut pipe, datagram, self.maxlen);
        }
        pipe.query_async(&mut self.redis).await
    }
}

/// Adds the XADD of one datagram: to the stream of its event, or to the stream of refused ones.
pub fn add_entry(pipe: &mut Pipeline, datagram: &[u8], maxlen: usize) {
    let decoded = if datagram.len() > MAX_DATAGRAM_BYTES {
        let detail = format!("a datagram has at most {MAX_DATAGRAM_BYTES} bytes");
        Err(Refusal::new(Reason::BadValue, detail))
    } else {
        decode_line(datagram)
    };
    match decoded {
        Ok(event) => {
            let command = pipe.cmd("XADD").arg(event.stream()).arg("MAXLEN").arg("~").arg(maxlen);
            command.arg("*").arg("event").arg(event.kind.name()).arg("ts").arg(event.ts_text());
            command.arg("source").arg(&event.source).arg("data").arg(&event.payload);
            if !event.region.is_empty() {
                command.arg("region").arg(&event.region);
            }
            if let Some(id) = &event.event_id {
                command.arg("event_id").arg(id);
            }
            command.ignore();
        }
        Err(refusal) => {
            pipe.cmd("XADD")
                .arg(REFUSED_STREAM)
                .arg("MAXLEN")
                .arg("~")
                .arg(maxlen)
                .arg("*")
                .arg("event")
                .arg(&refusal.event_type)
                .arg("reason")
                .arg(refusal.reason.as_str())
                .arg("detail")
                .arg(&refusal.detail)
                .arg("data")
                .arg(datagram)
                .ignore();
        }
    }
}
