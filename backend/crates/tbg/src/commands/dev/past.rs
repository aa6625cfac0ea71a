//! Past weeks of the demo user: somebody who opens the dashboard for the first time finds a streak, badges and a
//! ticket of a lottery that was drawn.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::Connection as _;
use tbg_core::config::Settings;
use tbg_core::{db, users};
use tbg_engine::decode::decode_text;

use super::demo::Demo;
use crate::roles::engine;

/// Weeks before this one.
const WEEKS: i64 = 5;
/// Shares of each: two a day on four days.
const HOURS: [i64; 8] = [9, 20, 33, 44, 81, 92, 129, 140];
/// Achieved difficulties; the last of a week is its best.
const DIFFICULTIES: [f64; 8] =
    [2_048.5, 4_096.25, 9_000.75, 30_000.5, 65_000.25, 180_000.5, 700_000.75, 1_400_000.5];

/// Mines the past weeks, unless the demo user has mined before.
///
/// # Errors
/// When the database does not answer.
pub async fn seed(settings: &Settings, demo: &Demo, now: DateTime<Utc>) -> anyhow::Result<()> {
    let mut conn = sqlx::PgConnection::connect_with(&db::connect_options(settings)?).await?;
    users::register_all(&mut conn, std::slice::from_ref(&demo.address)).await?;
    if tbg_mining::has_mined(&mut conn, &demo.address).await? {
        return Ok(());
    }
    let this_week = tbg_core::period::IsoWeek::of(now);
    let engine = engine(settings);
    for back in (1..=WEEKS).rev() {
        let monday = this_week.monday().and_time(chrono::NaiveTime::MIN).and_utc() - TimeDelta::weeks(back);
        let shares = HOURS.into_iter().zip(DIFFICULTIES);
        let events = shares
            .map(|(hour, difficulty)| share(demo, monday + TimeDelta::hours(hour), difficulty + back as f64))
            .map(|line| decode_text(&line))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|refusal| anyhow::anyhow!("a share of the past was refused: {refusal:?}"))?;
        engine.apply(&mut conn, events, &[], now).await?;
    }
    tracing::info!(weeks = WEEKS, "the demo user has mined for some weeks");
    Ok(())
}

fn share(demo: &Demo, at: DateTime<Utc>, difficulty: f64) -> String {
    let address = &demo.address;
    format!(
        r#"{{"region":"","event":"share_submitted","ts":{}.000000,"source":"hosted","data":{{"user":"{address}","worker":"{address}.bitaxe","diff":1024.0,"sdiff":{difficulty},"accepted":true}}}}"#,
        at.timestamp()
    )
}
