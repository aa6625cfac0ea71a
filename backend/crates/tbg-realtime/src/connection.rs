//! One socket: what it subscribed to, what waits for it, and the task that talks with its client.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tbg_core::UserId;
use tbg_web::auth::Claims;
use tbg_web::limit::{Ring, Tier, WINDOW, count_denial};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::rules::{Channel, Entry, Inbound, Queue, Since, Subscriptions, error, parse, rate_limited};
use crate::store::Kept;
use crate::{Realtime, metrics};

/// The longest message of a client.
pub(crate) const INBOUND_MAX_BYTES: usize = 4096;
/// How long writing what is queued may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// How long a client may take to answer a close.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// Places in the user's stream that a socket remembers, so that resuming doubles nothing.
const SEEN_MAX: usize = 512;
/// How often a client is told that it sends too much.
const TELL_LIMIT_EVERY: Duration = Duration::from_secs(1);

/// How a socket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closing {
    pub code: u16,
    pub reason: &'static str,
}

impl Closing {
    pub(crate) const SHUTDOWN: Self = Self { code: 1001, reason: "server shutdown" };
    pub(crate) const NOT_TEXT: Self = Self { code: 1003, reason: "text frames only" };
    pub(crate) const NOT_UTF8: Self = Self { code: 1007, reason: "" };
    pub(crate) const TOO_LARGE: Self = Self { code: 1009, reason: "message too large" };
    pub(crate) const OVERLOAD: Self = Self { code: 1013, reason: "try again later" };
    pub(crate) const REFUSED: Self = Self { code: 4001, reason: "authentication failed" };
    pub(crate) const REVOKED: Self = Self { code: 4001, reason: "session revoked" };
    pub(crate) const SILENT: Self = Self { code: 4008, reason: "heartbeat timeout" };
    pub(crate) const SLOW: Self = Self { code: 4009, reason: "slow consumer" };
    pub(crate) const TOO_MANY: Self = Self { code: 4029, reason: "rate limit exceeded" };

    fn frame(self) -> CloseFrame {
        CloseFrame { code: self.code, reason: Utf8Bytes::from_static(self.reason) }
    }
}

/// What others see of a socket.
pub(crate) struct Connection {
    pub id: Uuid,
    pub user: UserId,
    /// The user's address when it was opened, for publishers that know no ids.
    pub address: Option<String>,
    pub claims: Arc<Claims>,
    subscriptions: AtomicU8,
    waiting: Mutex<Waiting>,
    wake: Notify,
    closing: OnceLock<Closing>,
    closed: CancellationToken,
}

#[derive(Default)]
struct Waiting {
    queue: Queue,
    /// Places in the user's stream that were delivered, newest last.
    seen: VecDeque<Since>,
    names_cursors: bool,
}

impl Waiting {
    /// Notes a place; false if it was delivered before.
    fn is_new(&mut self, cursor: Since) -> bool {
        if self.seen.contains(&cursor) {
            return false;
        }
        if self.seen.len() == SEEN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(cursor);
        true
    }
}

impl Connection {
    pub(crate) fn new(user: UserId, address: Option<String>, claims: Arc<Claims>, id: Uuid) -> Arc<Self> {
        Arc::new(Self {
            id,
            user,
            address,
            claims,
            subscriptions: AtomicU8::new(0),
            waiting: Mutex::default(),
            wake: Notify::new(),
            closing: OnceLock::new(),
            closed: CancellationToken::new(),
        })
    }

    /// Whether it subscribed to the channel.
    pub(crate) fn has(&self, channel: Channel) -> bool {
        self.subscriptions().has(channel)
    }

    /// Whether the channel's messages are delivered.
    pub(crate) fn receives(&self, channel: Channel) -> bool {
        self.subscriptions().receives(channel)
    }

    /// Queues a frame, if it is for this socket and new to it. Never waits.
    pub(crate) fn deliver(&self, channel: Channel, entry: &Entry, cursor: Option<Since>) {
        if !self.receives(channel) {
            return;
        }
        let mut waiting = self.lock();
        if cursor.is_some_and(|cursor| !waiting.is_new(cursor)) {
            return;
        }
        let place = cursor.filter(|_| waiting.names_cursors).map(cursor_message);
        for entry in std::iter::once(entry.clone()).chain(place) {
            self.push(&mut waiting, entry);
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Queues a reply.
    fn reply(&self, reply: &Value) {
        self.push(&mut self.lock(), Entry::reply(reply.to_string()));
        self.wake.notify_one();
    }

    /// Ends the socket; the first reason counts.
    pub(crate) fn close(&self, closing: Closing) {
        // Set before: whoever sees the token cancelled finds the reason.
        let _ = self.closing.set(closing);
        self.closed.cancel();
    }

    fn push(&self, waiting: &mut Waiting, entry: Entry) {
        let pushed = waiting.queue.push(entry, |gone| {
            if gone.is_message {
                metrics::dropped(gone.label());
            }
        });
        if pushed.is_err() {
            self.close(Closing::SLOW);
        }
    }

    fn subscriptions(&self) -> Subscriptions {
        Subscriptions::of_byte(self.subscriptions.load(Ordering::Acquire))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cursor_message((milliseconds, sequence): Since) -> Entry {
    let message = json!({ "type": "cursor", "cursor": format!("{milliseconds}-{sequence}") });
    Entry::reply(message.to_string())
}

/// Completes a refused handshake: closes at once.
pub(crate) async fn turn_away(mut socket: WebSocket, closing: Closing) {
    metrics::closed(closing.code);
    say_goodbye(&mut socket, closing).await;
}

async fn say_goodbye(socket: &mut WebSocket, closing: Closing) {
    let goodbye = async {
        socket.send(Message::Close(Some(closing.frame()))).await?;
        while let Some(message) = socket.recv().await {
            message?;
        }
        Ok::<_, axum::Error>(())
    };
    // A client that is gone, or that does not answer, loses its connection all the same.
    let _ = timeout(CLOSE_DEADLINE, goodbye).await;
}

/// The side of a socket that talks with its client.
pub(crate) struct Talk {
    socket: WebSocket,
    connection: Arc<Connection>,
    realtime: Realtime,
    accepted: Ring,
    refused: Ring,
    told_limit: Option<Instant>,
    heard: Instant,
    next_ping: Instant,
    pings: u64,
}

/// How a talk ended.
enum End {
    /// We close.
    Close(Closing),
    /// The client closed, with its code.
    Closed(u16),
    /// The connection broke.
    Broken,
}

impl Talk {
    pub(crate) fn new(socket: WebSocket, connection: Arc<Connection>, realtime: Realtime) -> Self {
        let now = Instant::now();
        let interval = realtime.config.heartbeat_interval;
        // From five sixths of the interval to seven: sockets that opened together do not ping together.
        let random = (connection.id.as_u128() & 0xffff) as f64 / f64::from(0x1_0000_u32);
        let first = interval.mul_f64((5.0 + 2.0 * random) / 6.0);
        let limit = realtime.config.messages_per_min;
        Self {
            socket,
            connection,
            accepted: Ring::new(limit),
            refused: Ring::new(limit),
            told_limit: None,
            heard: now,
            next_ping: now + first,
            pings: 0,
            realtime,
        }
    }

    /// Talks until the socket ends; returns the code for the statistics.
    pub(crate) async fn run(mut self) -> u16 {
        match self.talk().await {
            End::Close(closing) => {
                say_goodbye(&mut self.socket, closing).await;
                closing.code
            }
            End::Closed(code) => {
                // Lets the answer to the client's close out.
                let _ = timeout(CLOSE_DEADLINE, self.socket.flush()).await;
                code
            }
            End::Broken => 1006,
        }
    }

    async fn talk(&mut self) -> End {
        let connection = Arc::clone(&self.connection);
        loop {
            let due = self.next_ping.min(self.heard + self.realtime.config.heartbeat_timeout);
            let end = tokio::select! {
                () = connection.closed.cancelled() => ControlFlow::Continue(()),
                () = connection.wake.notified() => ControlFlow::Continue(()),
                message = self.socket.recv() => self.hear(message).await,
                () = tokio::time::sleep_until(due) => self.beat().await,
            };
            if let ControlFlow::Break(end) = end {
                return end;
            }
            if let Some(closing) = connection.closing.get() {
                return End::Close(*closing);
            }
            if let ControlFlow::Break(end) = self.write_queue().await {
                return end;
            }
        }
    }

    async fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> ControlFlow<End> {
        self.heard = Instant::now();
        match message {
            None => ControlFlow::Break(End::Broken),
            Some(Err(error)) => ControlFlow::Break(end_of(error)),
            Some(Ok(Message::Text(text))) => self.answer(&text).await,
            Some(Ok(Message::Binary(_))) => ControlFlow::Break(End::Close(Closing::NOT_TEXT)),
            Some(Ok(Message::Close(frame))) => {
                ControlFlow::Break(End::Closed(frame.map_or(1005, |frame| frame.code)))
            }
            // A ping is answered by the library.
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => ControlFlow::Continue(()),
        }
    }

    async fn answer(&mut self, text: &str) -> ControlFlow<End> {
        if text.len() > INBOUND_MAX_BYTES {
            return ControlFlow::Break(End::Close(Closing::TOO_LARGE));
        }
        let (is_accepted, _, oldest) = self.accepted.accept(self.heard);
        if !is_accepted {
            return self.refuse(oldest);
        }
        let reply = match parse(text) {
            Err(reply) => reply,
            Ok(Inbound::Pong) => return ControlFlow::Continue(()),
            Ok(Inbound::Ping) => json!({ "type": "pong" }),
            Ok(Inbound::Channels { channels, subscribe, reply }) => {
                let changed = self.connection.subscriptions().changed(&channels, subscribe);
                self.connection.subscriptions.store(changed.byte(), Ordering::Release);
                reply
            }
            Ok(Inbound::MarkRead(id)) => mark_read(&self.realtime, self.connection.user, id).await,
            Ok(Inbound::Resume(since)) => return self.resume(since).await,
        };
        self.connection.reply(&reply);
        ControlFlow::Continue(())
    }

    /// Over the limit: not processed, told at most once a second, closed when it goes on.
    fn refuse(&mut self, oldest: Instant) -> ControlFlow<End> {
        count_denial(Tier::WebSocket);
        let (_, refused, _) = self.refused.accept(self.heard);
        if refused >= self.realtime.config.messages_per_min {
            return ControlFlow::Break(End::Close(Closing::TOO_MANY));
        }
        if self.told_limit.is_none_or(|told| self.heard - told >= TELL_LIMIT_EVERY) {
            self.told_limit = Some(self.heard);
            let left = WINDOW.saturating_sub(self.heard.saturating_duration_since(oldest));
            self.connection.reply(&rate_limited(left.as_secs_f64().ceil() as u64));
        }
        ControlFlow::Continue(())
    }

    /// Delivers what the user's stream kept since a cursor, then says where it ends.
    async fn resume(&mut self, since: Option<Since>) -> ControlFlow<End> {
        self.connection.lock().names_cursors = true;
        let kept = match self.realtime.store.kept(self.connection.user, since).await {
            Ok(kept) => kept,
            Err(error) => {
                tracing::debug!(%error, "nothing to resume from");
                Kept::unknown(since)
            }
        };
        // What is queued was published before.
        self.write_queue().await?;
        let mut delivered = 0_u32;
        for entry in kept.entries {
            if !self.connection.receives(entry.channel) || !self.connection.lock().is_new(entry.cursor) {
                continue;
            }
            delivered += 1;
            self.write(Message::Text(entry.frame)).await?;
        }
        self.connection.reply(&json!({
            "type": "resumed",
            "cursor": kept.cursor,
            "delivered": delivered,
            "complete": kept.is_complete,
        }));
        ControlFlow::Continue(())
    }

    /// Ends a silent socket, else pings.
    async fn beat(&mut self) -> ControlFlow<End> {
        let now = Instant::now();
        if now - self.heard >= self.realtime.config.heartbeat_timeout {
            return ControlFlow::Break(End::Close(Closing::SILENT));
        }
        if now < self.next_ping {
            return ControlFlow::Continue(());
        }
        self.next_ping = now + self.realtime.config.heartbeat_interval;
        self.pings += 1;
        if self.pings == 1 && !self.realtime.may_stay(&self.connection.claims).await {
            // Ended elsewhere at the very moment it was opened, before anybody could be told.
            return ControlFlow::Break(End::Close(Closing::REVOKED));
        }
        if self.realtime.config.app_ping {
            self.connection.reply(&json!({ "type": "ping" }));
        }
        self.write(Message::Ping(Bytes::new())).await
    }

    async fn write_queue(&mut self) -> ControlFlow<End> {
        let (connection, socket) = (&self.connection, &mut self.socket);
        let write = async {
            let mut has_written = false;
            loop {
                let Some(entry) = connection.lock().queue.pop() else { break };
                has_written = true;
                let event = entry.is_message.then(|| entry.label());
                socket.feed(Message::Text(entry.text)).await?;
                if let Some(event) = event {
                    metrics::sent(event);
                }
            }
            if has_written { socket.flush().await } else { Ok(()) }
        };
        end_of_write(connection, write).await
    }

    async fn write(&mut self, message: Message) -> ControlFlow<End> {
        end_of_write(&self.connection, self.socket.send(message)).await
    }
}

async fn mark_read(realtime: &Realtime, user: UserId, id: i64) -> Value {
    match realtime.feeds.mark_read(user, id).await {
        Ok(true) => json!({ "type": "marked_read", "id": id.to_string() }),
        Ok(false) => error("not_found", "No such notification"),
        Err(cause) => {
            tracing::warn!(error = format!("{cause:#}"), "a notification was not marked as read");
            error("unavailable", "Try again later")
        }
    }
}

/// Bounds a write by its deadline, and by the end of the socket.
async fn end_of_write(
    connection: &Connection,
    write: impl Future<Output = Result<(), axum::Error>>,
) -> ControlFlow<End> {
    tokio::select! {
        written = timeout(WRITE_DEADLINE, write) => match written {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) => ControlFlow::Break(End::Broken),
            Err(_) => ControlFlow::Break(End::Close(Closing::SLOW)),
        },
        () = connection.closed.cancelled() => {
            let closing = connection.closing.get().copied().unwrap_or(Closing::SHUTDOWN);
            ControlFlow::Break(End::Close(closing))
        }
    }
}

fn end_of(error: axum::Error) -> End {
    match error.into_inner().downcast_ref::<tungstenite::Error>() {
        Some(tungstenite::Error::Capacity(_)) => End::Close(Closing::TOO_LARGE),
        Some(tungstenite::Error::Utf8(_)) => End::Close(Closing::NOT_UTF8),
        _ => End::Broken,
    }
}
