//! The one round trip: trim, count, add if allowed, expire, in one script on one key.

use redis::RedisResult;
use tbg_core::redis::Redis;

use super::decision::{Count, WINDOW_US};

const SOURCE: &str = include_str!("script.lua");

/// The script with its hash.
pub(super) struct Script(redis::Script);

impl Script {
    pub(super) fn new() -> Self {
        Self(redis::Script::new(SOURCE))
    }

    /// Runs it by hash; a Redis that does not know it yet is sent the text first.
    pub(super) async fn run(
        &self,
        redis: &mut Redis,
        key: &str,
        limit: u32,
        member: &str,
    ) -> RedisResult<Count> {
        let (allowed, count, oldest_us, now_us): (bool, u32, i64, i64) =
            self.0.key(key).arg(limit).arg(WINDOW_US).arg(member).invoke_async(redis).await?;
        Ok(Count { allowed, count, oldest_us, now_us })
    }
}
