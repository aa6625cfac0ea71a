//! Counts what a request costs: SQL statements by what sqlx logs, Redis commands by `MONITOR`.

use std::cell::Cell;
use std::sync::Once;
use std::time::Duration;

use futures_util::StreamExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use crate::TestRedis;

thread_local! {
    /// Statements that this thread has sent.
    static SENT: Cell<usize> = const { Cell::new(0) };
}

/// One subscriber for the process: what scoped ones see depends on which thread came to a call first.
static SUBSCRIBER: Once = Once::new();

struct Counter;

impl<S: tracing::Subscriber> Layer<S> for Counter {
    fn on_event(&self, _event: &tracing::Event<'_>, _context: Context<'_, S>) {
        SENT.set(SENT.get() + 1);
    }
}

/// Counts the statements of this thread: a test runs on one.
pub struct Statements(());

impl Statements {
    /// Begins to count.
    #[must_use]
    pub fn watch() -> Self {
        SUBSCRIBER.call_once(|| {
            let only = Targets::new().with_target("sqlx::query", tracing::Level::DEBUG);
            let subscriber = tracing_subscriber::registry().with(Counter.with_filter(only));
            tracing::subscriber::set_global_default(subscriber).expect("no other subscriber");
        });
        Self(())
    }

    /// Statements since the last call.
    #[must_use]
    pub fn take(&self) -> usize {
        SENT.take()
    }
}

/// Names the Redis commands of a request: round trips, not what scripts do inside Redis.
pub struct Commands {
    monitor: redis::aio::Monitor,
    manager: tbg_core::redis::Redis,
    marks: u32,
}

impl Commands {
    /// Begins to watch.
    pub async fn watch(redis: &TestRedis) -> Self {
        let monitor = redis.client().get_async_monitor().await.expect("a monitor");
        Self { monitor, manager: redis.manager(), marks: 0 }
    }

    /// The commands since the last call, without those of the front door (limits, who is asking).
    pub async fn take(&mut self) -> Vec<String> {
        self.marks += 1;
        let mark = format!("mark-{}", self.marks);
        redis::cmd("ECHO").arg(&mark).query_async::<()>(&mut self.manager).await.expect("echo");
        let mut commands = Vec::new();
        let mut lines = self.monitor.on_message::<String>();
        loop {
            let line =
                tokio::time::timeout(Duration::from_secs(5), lines.next()).await.expect("the mark comes");
            let line = line.expect("the monitor lives");
            if line.contains(&mark) {
                return commands;
            }
            let is_of_the_house =
                ["lua]", "ratelimit:", "auth:user_state:", "\"CLIENT\"", "\"HELLO\"", "mark-"]
                    .iter()
                    .any(|word| line.contains(word));
            if !is_of_the_house {
                commands.push(line);
            }
        }
    }
}
