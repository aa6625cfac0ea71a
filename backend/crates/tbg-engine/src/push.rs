//! What browsers show live: published to Redis after the commit, best effort (contract `realtime.md` §6).

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use redis::aio::ConnectionLike;
use serde_json::Value;
use tbg_core::UserId;
use tbg_core::live::{self, LiveEvent, LiveMessage};

/// A cause older than this is not news: replays and lag push nothing (`mining.md` §3.5).
const MAX_PUSH_AGE: TimeDelta = TimeDelta::seconds(60);
/// Ordinary pushes of a kind that a user gets per second; the newest win (`realtime.md` §5).
const PUSHES_PER_USER_SECOND: u32 = 10;

/// Something to publish. Its body is made only if it is going to be published.
pub struct Push {
    target: Target,
    cause: DateTime<Utc>,
    throttle: Option<Throttle>,
    body: Box<dyn FnOnce() -> Value + Send>,
}

/// Where a push goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// To browsers; with a user, see [`LiveMessage::user`].
    Live(LiveEvent, Option<UserId>),
    /// To other programs.
    Channel(&'static str),
}

/// Of which flow a push is one of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Throttle {
    /// Whose flow.
    pub user: UserId,
    /// Which flow of theirs.
    pub flow: &'static str,
}

impl Push {
    /// A live event that is always published while it is news; `body` makes its fields, a JSON object.
    pub fn live(
        event: LiveEvent,
        user: Option<UserId>,
        cause: DateTime<Utc>,
        body: impl FnOnce() -> Value + Send + 'static,
    ) -> Self {
        Self { target: Target::Live(event, user), cause, throttle: None, body: Box::new(body) }
    }

    /// A message on a Redis channel of other programs.
    pub fn channel(
        channel: &'static str,
        cause: DateTime<Utc>,
        body: impl FnOnce() -> Value + Send + 'static,
    ) -> Self {
        Self { target: Target::Channel(channel), cause, throttle: None, body: Box::new(body) }
    }

    /// The live event, if it is one; makes its fields. For tests.
    #[must_use]
    pub fn into_live(self) -> Option<LiveMessage> {
        match self.target {
            Target::Live(event, user) => Some(LiveMessage::global_kept_for(event, user, (self.body)())),
            Target::Channel(_) => None,
        }
    }

    /// Marks the push as one of a flow, of which at most ten a second are published.
    #[must_use]
    pub fn throttled(mut self, throttle: Throttle) -> Self {
        self.throttle = Some(throttle);
        self
    }
}

/// Publishes what a batch caused, with the throttle's memory of the current second.
#[derive(Default)]
pub struct Publisher {
    second: i64,
    sent: HashMap<Throttle, u32>,
}

impl Publisher {
    /// Publishes the pushes that are news at `now`, in their order and in one round trip. Returns how
    /// many were published; a failure loses them, and that is all it does.
    pub async fn publish(
        &mut self,
        redis: &mut impl ConnectionLike,
        pushes: Vec<Push>,
        now: DateTime<Utc>,
    ) -> usize {
        let chosen = self.choose(pushes, now);
        let count = chosen.len();
        if count == 0 {
            return 0;
        }
        // Thousands of messages are made on a thread of their own, not on a worker of the runtime.
        let making = tokio::task::spawn_blocking(move || {
            let mut pipe = redis::Pipeline::with_capacity(count);
            for push in chosen {
                match push.target {
                    Target::Channel(channel) => {
                        pipe.publish(channel, (push.body)().to_string());
                    }
                    Target::Live(event, user) => {
                        live::add(&mut pipe, &LiveMessage::global_kept_for(event, user, (push.body)()));
                    }
                }
            }
            pipe
        });
        let Ok(pipe) = making.await else { return 0 };
        match live::run(redis, pipe).await {
            Ok(published) => published.into_iter().filter(|done| *done).count(),
            Err(error) => {
                tracing::debug!(%error, "pushes were not published");
                0
            }
        }
    }

    /// Keeps what is news; of each throttled flow the newest, as many as the second has left.
    fn choose(&mut self, pushes: Vec<Push>, now: DateTime<Utc>) -> Vec<Push> {
        if now.timestamp() != self.second {
            self.second = now.timestamp();
            self.sent.clear();
        }
        let mut chosen: Vec<Push> = pushes
            .into_iter()
            .rev()
            .filter(|push| push.cause >= now - MAX_PUSH_AGE)
            .filter(|push| match push.throttle {
                None => true,
                Some(throttle) => {
                    let sent = self.sent.entry(throttle).or_default();
                    *sent += 1;
                    *sent <= PUSHES_PER_USER_SECOND
                }
            })
            .collect();
        chosen.reverse();
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(id: u32, age_seconds: i64, throttle: Option<Throttle>, now: DateTime<Utc>) -> Push {
        let push = Push::channel("c", now - TimeDelta::seconds(age_seconds), move || Value::from(id));
        match throttle {
            Some(throttle) => push.throttled(throttle),
            None => push,
        }
    }

    fn ids(pushes: Vec<Push>) -> Vec<u64> {
        pushes.into_iter().filter_map(|push| (push.body)().as_u64()).collect()
    }

    #[test]
    fn the_newest_ten_of_a_flow_pass_each_second_in_their_order() {
        let now = DateTime::from_timestamp(1_771_804_800, 0).unwrap();
        let flow = Some(Throttle { user: UserId(1), flow: "share" });
        let other = Some(Throttle { user: UserId(2), flow: "share" });
        let mut publisher = Publisher::default();
        let mut pushes: Vec<Push> = (0..15).map(|id| push(id, 0, flow, now)).collect();
        pushes.push(push(15, 0, other, now));
        pushes.insert(0, push(99, 0, None, now));
        let expected: Vec<u64> = std::iter::once(99).chain(5..16).collect();
        assert_eq!(ids(publisher.choose(pushes, now)), expected);
        assert!(publisher.choose(vec![push(1, 0, flow, now)], now).is_empty());
        let later = now + TimeDelta::seconds(1);
        assert_eq!(publisher.choose(vec![push(1, 0, flow, later)], later).len(), 1);
    }

    #[test]
    fn what_is_older_than_a_minute_is_not_news() {
        let now = DateTime::from_timestamp(1_771_804_800, 0).unwrap();
        let pushes = vec![push(1, 61, None, now), push(2, 60, None, now)];
        assert_eq!(ids(Publisher::default().choose(pushes, now)), [2]);
    }
}
