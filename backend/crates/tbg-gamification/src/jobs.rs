//! Scheduled work (contract `gamification.md` §6). Jobs tell and check; no rule needs them.

use std::sync::Arc;

use anyhow::Context as _;
use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::{Connection as _, PgPool};
use tbg_core::jobs::{Job, NotYet};
use tbg_core::live::{LiveBus, LiveEvent, LiveMessage};
use tbg_core::outbox::{self, DomainEvent};
use tbg_core::period::IsoWeek;
use tbg_core::progress::live_streak;
use tbg_core::redis::Redis;
use tbg_core::told;
use tbg_core::{Clock, UserId};
use tbg_engine::source::streams;

use crate::metrics;
use crate::rules::streak::{Missed, Streak};
use crate::rules::words;
use crate::store::{self, StreakRow};

/// Users in one statement.
const CHUNK: i64 = 1_000;
/// How far back the check looks.
const CHECKED: TimeDelta = TimeDelta::hours(26);
/// Weeks before the current one in which a streak that is alive was last active: one, and one per freeze.
const ALIVE_WEEKS: u32 = 3;
/// While shares come later than that, the week that has closed may still get some.
const MAX_INGEST_LAG_SECONDS: f64 = 600.0;
/// How often the lag is looked at, and until when in the week.
const LAG_STEP: TimeDelta = TimeDelta::minutes(5);
const LAG_WAIT: TimeDelta = TimeDelta::hours(6);

/// What the jobs stand on.
#[derive(Clone)]
pub struct JobParts {
    /// The primary database.
    pub pool: PgPool,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Publishes live events.
    pub bus: LiveBus,
    /// Where all processes tell how far ingest lags.
    pub redis: Redis,
}

/// The jobs of the game.
///
/// # Errors
/// Never in practice: when a schedule does not parse.
pub fn jobs(parts: &JobParts) -> anyhow::Result<Vec<Job>> {
    macro_rules! job {
        ($name:literal, $schedule:literal, |$parts:ident, $at:ident| $work:expr) => {{
            let parts = parts.clone();
            Job::new($name, $schedule, move |$at| {
                let $parts = parts.clone();
                async move { $work.await }
            })?
        }};
    }
    Ok(vec![
        job!("streak_warning", "0 18 * * SUN", |parts, at| warn(&parts, at)),
        job!("streak_week_close", "15 0 * * MON", |parts, at| close_week(&parts, at)),
        job!("badge_stats", "20 * * * *", |parts, _at| keep_statistics(&parts.pool, parts.clock.now())),
        job!("gamification_check", "40 3 * * *", |parts, _at| async {
            check(&parts.pool, Some(parts.clock.now() - CHECKED)).await.map(drop)
        }),
    ])
}

/// Counts the holders of each badge, and their part of all players.
///
/// # Errors
/// When the database does not answer.
pub async fn keep_statistics(pool: &PgPool, now: DateTime<Utc>) -> anyhow::Result<()> {
    store::keep_statistics(pool, now).await.context("badge statistics")
}

/// Whoever's streak is alive and who has not mined this week is told on Sunday evening; never after the week.
async fn warn(parts: &JobParts, at: DateTime<Utc>) -> anyhow::Result<()> {
    let (week, now) = (IsoWeek::of(at), parts.clock.now());
    if IsoWeek::of(now) != week {
        return Ok(());
    }
    notify(parts, week, |row| {
        let streak = live_streak(row.current_streak, row.freezes, Some(&row.last_active_week), now);
        (streak.current > 0).then(|| {
            let user = UserId(row.user_id);
            let notice = words::streak_warning(user, streak.current, week, streak.freezes, now);
            Notice { event: DomainEvent::Notify(notice), live: Some(("streak_warning", streak.current)) }
        })
    })
    .await
}

/// Whoever's streak broke or was bridged in the week that has just closed is told.
async fn close_week(parts: &JobParts, at: DateTime<Utc>) -> anyhow::Result<()> {
    let week = IsoWeek::of(at);
    let end_of_wait = week.monday().and_time(NaiveTime::MIN).and_utc() + LAG_WAIT;
    if parts.clock.now() < end_of_wait && ingest_lag(parts).await > MAX_INGEST_LAG_SECONDS {
        return Err(NotYet(LAG_STEP)).context("ingest lags");
    }
    let (closed, now) = (week.minus(1), parts.clock.now());
    notify(parts, week, |row| {
        let last_active = IsoWeek::parse(&row.last_active_week);
        let (current, user) = (row.current_streak, UserId(row.user_id));
        let streak = Streak { current, last_active, freezes: row.freezes, ..Streak::default() };
        let (notice, live) = match streak.closed_before(week)? {
            Missed::Broken => {
                (words::streak_broken(user, current, closed, now), Some(("streak_broken", current)))
            }
            Missed::Bridged { freezes_left } => (words::streak_frozen(user, closed, freezes_left, now), None),
        };
        Some(Notice { event: DomainEvent::Notify(notice), live })
    })
    .await
}

/// How far ingest is behind, in seconds. Nobody knows while it is down, or while Redis is, from which it gets its
/// shares: then they may all be waiting. One that lives and commits nothing tells the lag of its last batch for ever:
/// while entries wait, the time since then counts too.
async fn ingest_lag(parts: &JobParts) -> f64 {
    let (mut redis, now) = (parts.redis.clone(), parts.clock.now());
    let Ok(known) = told::ask(&mut redis, now).await else { return f64::INFINITY };
    let lag = known.ingest_lag_seconds.unwrap_or(f64::INFINITY);
    match (streams::backlog(&mut redis).await, known.ingest_committed_at) {
        (Ok(backlog), _) if backlog.total == 0 => lag,
        (Ok(_), Some(at)) => lag.max((now - at).as_seconds_f64()),
        _ => f64::INFINITY,
    }
}

/// What one user is told.
struct Notice {
    event: DomainEvent,
    /// Event and length of a `streak_update`.
    live: Option<(&'static str, i32)>,
}

impl Notice {
    fn is_broken(&self) -> bool {
        self.live.is_some_and(|(event, _)| event == "streak_broken")
    }
}

/// Tells users whose streak was last active in the weeks before `week`.
async fn notify(
    parts: &JobParts,
    week: IsoWeek,
    notice: impl Fn(&StreakRow) -> Option<Notice>,
) -> anyhow::Result<()> {
    let weeks: Vec<String> = (1..=ALIVE_WEEKS + 1).map(|back| week.minus(back).to_string()).collect();
    let mut after = 0;
    loop {
        let mut tx = parts.pool.begin().await?;
        let rows = store::streaks(&mut tx, &weeks, after, CHUNK).await.context("streaks")?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.user_id;
        let mut notices: Vec<_> =
            rows.iter().filter_map(|row| Some((UserId(row.user_id), notice(row)?))).collect();
        // A run that is repeated finds notices written, and tells nobody twice.
        let keys: Vec<String> = notices.iter().map(|(_, notice)| notice.event.key()).collect();
        let written = outbox::written(&mut tx, &keys).await?;
        notices.retain(|(_, notice)| !written.contains(&notice.event.key()));
        let messages: Vec<_> = notices
            .iter()
            .filter_map(|(user, notice)| {
                let (event, length) = notice.live?;
                let fields = json!({ "event": event, "streak_length": length });
                Some(LiveMessage::personal(LiveEvent::StreakUpdate, *user, fields))
            })
            .collect();
        let broken = notices.iter().filter(|(_, notice)| notice.is_broken()).count();
        let events: Vec<_> = notices.into_iter().map(|(_, notice)| notice.event).collect();
        outbox::write(&mut tx, &events).await?;
        tx.commit().await?;
        metrics::streaks_broken(broken);
        parts.bus.publish(&messages).await;
    }
}

/// Checks users whose state changed since, all without `since`, and puts right what differs. Only who differs is
/// locked. Returns how many fields were wrong.
///
/// # Errors
/// When the database does not answer.
pub async fn check(pool: &PgPool, since: Option<DateTime<Utc>>) -> anyhow::Result<u64> {
    let (mut after, mut wrong) = (0, 0);
    loop {
        let users = store::page_of_changed(pool, since, after, CHUNK).await?;
        let Some(last) = users.last() else { return Ok(wrong) };
        after = *last;
        let mut conn = pool.acquire().await?;
        let differing = store::differing(&mut conn, &users).await?;
        if differing.is_empty() {
            continue;
        }
        let users: Vec<i64> = differing.iter().map(|mended| mended.player.user.0).collect();
        let mut tx = conn.begin().await?;
        let repaired = store::repair(&mut tx, &users).await?;
        tx.commit().await?;
        for mended in repaired {
            for field in mended.fields {
                wrong += 1;
                metrics::drift(field);
                let user = mended.player.user;
                tracing::error!(%user, field, "state differed from its sources and was repaired");
            }
        }
    }
}
