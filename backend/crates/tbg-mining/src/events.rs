//! Upcoming events: the week's own, and reminders before they end (contract `mining.md` §8.3, `realtime.md` §5).

use std::sync::Arc;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::PgPool;
use tbg_core::jobs::Job;
use tbg_core::live::{LiveBus, LiveEvent, LiveMessage};
use tbg_core::period::IsoWeek;
use tbg_core::{Clock, UserId};

use crate::routes::UpcomingEvent;
use crate::store::dashboard as store;
use tbg_core::progress::next_monday;

/// Minutes before the end at which a reminder goes out, the nearer first: whoever is told of the last hour need
/// not hear of the last day too.
const THRESHOLDS: [i32; 2] = [60, 1440];
/// Reminders of one statement.
const CHUNK: i64 = 500;
const MAX_CHUNKS: u32 = 1_000;

/// The job.
pub(crate) fn job(pool: &PgPool, clock: &Arc<dyn Clock>, bus: &LiveBus) -> anyhow::Result<Job> {
    let (pool, clock, bus) = (pool.clone(), Arc::clone(clock), bus.clone());
    Job::new("upcoming_events", "0 */15 * * * *", move |_| {
        let (pool, now, bus) = (pool.clone(), clock.now(), bus.clone());
        async move { sync(&pool, now, &bus).await }
    })
}

async fn sync(pool: &PgPool, now: DateTime<Utc>, bus: &LiveBus) -> anyhow::Result<()> {
    let week = IsoWeek::of(now).to_string();
    store::sync_events(pool, &week, next_monday(now)).await.context("events of the week")?;
    for minutes in THRESHOLDS {
        for _ in 0..MAX_CHUNKS {
            let due = store::take_reminders(pool, minutes, now, CHUNK).await.context("reminders")?;
            let is_last = due.len() < usize::try_from(CHUNK).unwrap_or(usize::MAX);
            let messages: Vec<LiveMessage> = due
                .into_iter()
                .filter(|event| nearest(event.ends_at - now) == Some(minutes))
                .map(|event| reminder(event, minutes))
                .collect();
            bus.publish(&messages).await;
            if is_last {
                break;
            }
        }
    }
    Ok(())
}

/// The threshold to tell of so long before the end: the nearest of those that are due. It depends on time
/// alone, so a run that failed halfway and is tried again does not tell of the last day after the last hour.
fn nearest(left: TimeDelta) -> Option<i32> {
    THRESHOLDS.into_iter().find(|minutes| left <= TimeDelta::minutes(i64::from(*minutes)))
}

fn reminder(event: store::EventRow, minutes: i32) -> LiveMessage {
    let user = event.target_user_id.map(UserId);
    let fields = json!({ "event": UpcomingEvent::from(event), "minutes_left": minutes });
    match user {
        Some(user) => LiveMessage::personal(LiveEvent::EventReminder, user, fields),
        None => LiveMessage::global(LiveEvent::EventReminder, fields),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_threshold_that_is_due_is_told() {
        assert_eq!(nearest(TimeDelta::minutes(1440) + TimeDelta::microseconds(1)), None);
        assert_eq!(nearest(TimeDelta::minutes(1440)), Some(1440));
        assert_eq!(nearest(TimeDelta::minutes(60) + TimeDelta::microseconds(1)), Some(1440));
        assert_eq!(nearest(TimeDelta::minutes(60)), Some(60));
        assert_eq!(nearest(TimeDelta::microseconds(1)), Some(60));
    }
}
