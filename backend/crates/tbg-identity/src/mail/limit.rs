//! How many mails one recipient gets (contract `auth-users.md` §5): nobody can use us to fill a mailbox.
//!
//! A mail takes a place in the recipient's window before it is sent and gives it back when sending fails, so
//! that retries do not use the window up. Each step is one script: a counter can never stay without an end.
//! While Redis is away, mail is sent all the same.

use redis::Script;
use tbg_core::redis::Redis;

use crate::rules::email::email_hash;

/// Length of the window, from its first mail.
const WINDOW_SECONDS: u32 = 3600;

const TAKE: &str = "
    local key, most, window = KEYS[1], tonumber(ARGV[1]), ARGV[2]
    if redis.call('TTL', key) == -1 then redis.call('EXPIRE', key, window) end
    if tonumber(redis.call('GET', key) or '0') >= most then return 0 end
    if redis.call('INCR', key) == 1 then redis.call('EXPIRE', key, window) end
    return 1";

const GIVE_BACK: &str = "
    if tonumber(redis.call('GET', KEYS[1]) or '0') > 0 then redis.call('DECR', KEYS[1]) end
    return 0";

/// Counts mails by recipient.
pub(super) struct Limiter {
    redis: Redis,
    per_window: u32,
    take: Script,
    give_back: Script,
}

impl Limiter {
    /// At most `per_window` mails for each recipient.
    pub(super) fn new(redis: Redis, per_window: u32) -> Self {
        Self { redis, per_window, take: Script::new(TAKE), give_back: Script::new(GIVE_BACK) }
    }

    /// Takes a place for a mail; says whether there was one.
    pub(super) async fn take(&self, recipient: &str) -> bool {
        let mut redis = self.redis.clone();
        let taken = self
            .take
            .key(key(recipient))
            .arg(self.per_window)
            .arg(WINDOW_SECONDS)
            .invoke_async::<bool>(&mut redis)
            .await;
        taken.unwrap_or_else(|error| {
            tracing::warn!(%error, "mail is not limited: Redis does not answer");
            true
        })
    }

    /// Gives back the place of a mail that was not sent.
    pub(super) async fn give_back(&self, recipient: &str) {
        let mut redis = self.redis.clone();
        let done = self.give_back.key(key(recipient)).invoke_async::<i64>(&mut redis).await;
        if let Err(error) = done {
            tracing::debug!(%error, "a place of a mail that was not sent stays taken");
        }
    }
}

/// Holds no address: the key may be seen by who may not see accounts.
fn key(recipient: &str) -> String {
    format!("email_rate:{}", email_hash(&recipient.trim().to_ascii_lowercase()))
}
