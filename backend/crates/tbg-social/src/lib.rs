//! The social domain, as far as it is there: notifications and the public feed (contract `social.md` §3.5, §3.6).
//!
//! Other domains say what happened by domain events; [`SocialEvents`] consumes them. One gate decides who is
//! told: a row that a preference forbids is neither stored nor pushed.
//!
//! Tables: `notifications`, `user_social_counters`; rows of kind miner in `activity_feed`, and the privacy of
//! all its rows.
//!
//! Invariants: one notification per user and key; unread = count of unread rows; a push follows the commit;
//! whoever hides, is banned or is gone stands under no name in the feed.

mod consumer;
mod rules;
mod store;

use std::sync::Arc;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use tbg_core::jobs::Job;
use tbg_core::{Clock, UserId};

pub use consumer::SocialEvents;

/// How long a notification is kept.
const KEEP_NOTIFICATIONS: TimeDelta = TimeDelta::days(90);
/// Rows deleted in one statement, and statements in one run.
const CHUNK: i64 = 1_000;
const MAX_CHUNKS: u32 = 1_000;

/// The jobs of the domain.
///
/// # Errors
/// Never in practice: when a schedule does not parse.
pub fn jobs(pool: &PgPool, clock: &Arc<dyn Clock>) -> anyhow::Result<Vec<Job>> {
    let (pool, clock) = (pool.clone(), Arc::clone(clock));
    let prune = Job::new("notification_prune", "25 * * * *", move |_| {
        let (pool, now) = (pool.clone(), clock.now());
        async move {
            for _ in 0..MAX_CHUNKS {
                let pruned = store::prune(&pool, now, now - KEEP_NOTIFICATIONS, CHUNK).await;
                if pruned.context("old notifications")? == 0 {
                    break;
                }
            }
            Ok(())
        }
    })?;
    Ok(vec![prune])
}

/// Marks a notification of the user as read; false if it is not theirs or not there. Doing it again changes
/// nothing.
///
/// # Errors
/// When the database does not answer.
pub async fn mark_read(
    pool: &PgPool,
    user: UserId,
    notification: i64,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let is_theirs = store::mark_read(&mut tx, user, notification, now).await?;
    tx.commit().await?;
    Ok(is_theirs)
}
