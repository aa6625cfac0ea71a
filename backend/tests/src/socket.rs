//! A WebSocket client that behaves like the dashboard's (contract `realtime.md`, second paragraph).

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::program::PATIENCE;

/// A socket with the words of the protocol.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// Why no socket was opened: status, and body if it is JSON.
#[derive(Debug, PartialEq)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// The error body.
    pub body: Value,
    /// `Retry-After`.
    pub retry_after: Option<String>,
}

/// What came.
#[derive(Debug, PartialEq)]
pub enum Came {
    /// A JSON text.
    Json(Value),
    /// A close frame, with its code and reason.
    Closed(u16, String),
    /// The connection ended without a close frame.
    Gone,
}

impl Came {
    /// The JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn json(self) -> Value {
        match self {
            Self::Json(value) => value,
            other => panic!("expected a message, came {other:?}"),
        }
    }
}

impl Socket {
    /// Opens `ws://HOST/ws?token=…`; `base` is `http://HOST:PORT`.
    pub async fn open(base: &str, token: &str) -> Result<Self, Refused> {
        Self::open_with(base, &format!("/ws?token={token}"), &[]).await
    }

    /// Opens any path with further headers.
    pub async fn open_with(
        base: &str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Refused> {
        let url = format!("{}{path}", base.replacen("http", "ws", 1));
        let mut request = url.into_client_request().expect("a URL");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        match connect_async(request).await {
            Ok((stream, _)) => Ok(Self { stream }),
            Err(Error::Http(response)) => Err(Refused {
                status: response.status().as_u16(),
                retry_after: response
                    .headers()
                    .get("retry-after")
                    .and_then(|value| value.to_str().ok())
                    .map(str::to_owned),
                body: response
                    .body()
                    .as_deref()
                    .and_then(|body| serde_json::from_slice(body).ok())
                    .unwrap_or(Value::Null),
            }),
            Err(error) => panic!("no answer to the handshake: {error}"),
        }
    }

    /// Sends a JSON text.
    pub async fn send(&mut self, message: Value) {
        self.send_text(message.to_string()).await;
    }

    /// Sends a text.
    pub async fn send_text(&mut self, text: impl Into<String>) {
        self.send_raw(Message::text(text.into())).await;
    }

    /// Sends any frame; a connection that is gone is seen by the reader.
    pub async fn send_raw(&mut self, message: Message) {
        let _ = self.stream.send(message).await;
    }

    /// The next text or close; protocol pings are answered meanwhile.
    pub async fn next(&mut self) -> Came {
        tokio::time::timeout(PATIENCE, self.next_at_any_time()).await.expect("something comes")
    }

    async fn next_at_any_time(&mut self) -> Came {
        loop {
            return match self.stream.next().await {
                Some(Ok(Message::Text(text))) => Came::Json(serde_json::from_str(&text).expect("JSON")),
                Some(Ok(Message::Close(Some(frame)))) => {
                    Came::Closed(frame.code.into(), frame.reason.to_string())
                }
                Some(Ok(Message::Close(None))) => Came::Closed(1005, String::new()),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => Came::Gone,
            };
        }
    }

    /// The next text within `wait`; none if nothing comes. Reading also answers the server's pings.
    pub async fn next_within(&mut self, wait: Duration) -> Option<Came> {
        tokio::time::timeout(wait, self.next_at_any_time()).await.ok()
    }

    /// Subscribes and waits for the reply.
    pub async fn subscribe(&mut self, channel: &str) {
        self.send(json!({ "action": "subscribe", "channel": channel })).await;
        assert_eq!(self.next().await.json(), json!({ "type": "subscribed", "channel": channel }));
    }

    /// Sends a ping and returns everything that came before its pong: a barrier, so that a test can say that
    /// nothing came.
    pub async fn until_pong(&mut self) -> Vec<Value> {
        self.send(json!({ "action": "ping" })).await;
        let mut before = Vec::new();
        loop {
            match self.next().await.json() {
                pong if pong == json!({ "type": "pong" }) => return before,
                other => before.push(other),
            }
        }
    }

    /// The next channel message whose event is `event`, skipping others.
    pub async fn next_event(&mut self, event: &str) -> Value {
        loop {
            let message = self.next().await.json();
            if message["data"]["type"] == event {
                return message;
            }
        }
    }

    /// Ends the TCP connection without a word.
    pub fn cut(self) {
        drop(self);
    }

    /// Closes politely.
    pub async fn close(mut self) {
        let _ = self.stream.close(None).await;
    }
}

/// The dashboard's reconnecting client: the same token for ever, re-subscribing after each open, back-off
/// `min(1000·2^attempt, 30000)` ms, ten attempts. The random part of the back-off is left out, and time is
/// scaled by `speed` so that a test need not wait.
pub struct Dashboard {
    bases: Vec<String>,
    token: String,
    channels: BTreeSet<String>,
    attempt: u32,
    speed: f64,
    turn: usize,
    /// What the handlers were called with, in order.
    pub handled: Vec<Value>,
    /// Opens so far.
    pub opens: u32,
    socket: Option<Socket>,
    /// Where a client that resumes left off; none for the present dashboard.
    pub cursor: Option<String>,
    resumes: bool,
}

impl Dashboard {
    /// A client of replicas that are asked in turn, as behind a round-robin proxy.
    #[must_use]
    pub fn new(bases: &[String], token: &str, channels: &[&str]) -> Self {
        Self {
            bases: bases.to_vec(),
            token: token.to_owned(),
            channels: channels.iter().map(|&channel| channel.to_owned()).collect(),
            attempt: 0,
            speed: 20.0,
            turn: 0,
            handled: Vec::new(),
            opens: 0,
            socket: None,
            cursor: None,
            resumes: false,
        }
    }

    /// The same for a client that knows how to resume.
    #[must_use]
    pub fn resuming(mut self) -> Self {
        self.resumes = true;
        self
    }

    /// Whether a socket is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Works for `time`: connects when needed, reads, calls handlers.
    pub async fn work(&mut self, time: Duration) {
        let deadline = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < deadline && self.attempt <= 10 {
            let Some(socket) = &mut self.socket else {
                self.connect().await;
                continue;
            };
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            match socket.next_within(left).await {
                Some(Came::Json(message)) => self.read(message),
                Some(Came::Closed(..) | Came::Gone) => self.socket = None,
                None => return,
            }
        }
    }

    async fn connect(&mut self) {
        if self.opens > 0 || self.attempt > 0 {
            let back_off = (1000_u64 << self.attempt.min(5)).min(30_000);
            tokio::time::sleep(Duration::from_secs_f64(back_off as f64 / 1000.0 / self.speed)).await;
        }
        let base = self.bases[self.turn % self.bases.len()].clone();
        self.turn += 1;
        self.attempt += 1;
        let reachable = TcpStream::connect(base.trim_start_matches("http://")).await.is_ok();
        if !reachable {
            return;
        }
        let Ok(mut socket) = Socket::open(&base, &self.token).await else { return };
        self.attempt = 0;
        self.opens += 1;
        for channel in &self.channels {
            socket.send(json!({ "action": "subscribe", "channel": channel })).await;
        }
        if self.resumes {
            let resume = match &self.cursor {
                Some(cursor) => json!({ "action": "resume", "since": cursor }),
                None => json!({ "action": "resume" }),
            };
            socket.send(resume).await;
        }
        self.socket = Some(socket);
    }

    /// Objects with a truthy `channel` and a truthy `data` go to the handlers; everything else is ignored.
    fn read(&mut self, message: Value) {
        if self.resumes
            && let Some(cursor) = message["cursor"].as_str()
        {
            self.cursor = Some(cursor.to_owned());
        }
        let truthy = |value: &Value| !value.is_null() && *value != json!("") && *value != json!(false);
        if truthy(&message["channel"])
            && truthy(&message["data"])
            && message["channel"]
                .as_str()
                .is_some_and(|name| self.channels.contains(name) || name == "notifications")
        {
            self.handled.push(message["data"].clone());
        }
    }
}
