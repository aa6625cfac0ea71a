//! Things that a user may do only so often, remembered in Redis (contract §11).

use tbg_web::{ApiError, ErrorCode};

use crate::Identity;

/// Starts a cooldown of `seconds` under `key`.
///
/// # Errors
/// 429 `COOLDOWN` while an earlier one runs; 503 while Redis is away.
pub(crate) async fn start(identity: &Identity, key: &str, seconds: u64) -> Result<(), ApiError> {
    let mut redis = identity.redis.clone();
    let (started, left_ms): (Option<String>, i64) = redis::pipe()
        .cmd("SET")
        .arg(key)
        .arg(1)
        .arg("NX")
        .arg("EX")
        .arg(seconds)
        .cmd("PTTL")
        .arg(key)
        .query_async(&mut redis)
        .await?;
    if started.is_some() {
        return Ok(());
    }
    let seconds_left = left_ms.max(1).unsigned_abs().div_ceil(1_000);
    Err(ApiError::new(ErrorCode::Cooldown, "Too soon: try again later").retry_after(seconds_left))
}
