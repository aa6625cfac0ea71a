//! Sums and maxima: `hourly_shares`, `user_daily_stats`, `weekly_best_diff`, `personal_bests`.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgConnection;
use tbg_core::UserId;
use tbg_engine::Batch;

use crate::rules::rollups::{Best, Hour, Known, Rollups, Sum, Timeframe, Week};

/// Bests and daily averages of the batch's users, for the periods and days of the batch.
pub(crate) async fn load_known(conn: &mut PgConnection, batch: &Batch) -> Result<Known, sqlx::Error> {
    let mut known = Known::default();
    if batch.holders.is_empty() {
        return Ok(known);
    }
    let users: Vec<i64> = batch.holders.values().map(|holder| holder.id.0).collect();
    let mut days: Vec<NaiveDate> = batch.events.iter().map(|event| event.pool.ts.date_naive()).collect();
    days.dedup();
    let mut periods: Vec<(&str, String)> = days
        .iter()
        .filter_map(|day| day.and_hms_opt(0, 0, 0))
        .flat_map(|day| Timeframe::ALL.map(|frame| Some((frame.as_str(), frame.period_key(day.and_utc())?))))
        .flatten()
        .collect();
    periods.sort_unstable();
    periods.dedup();
    let (frames, periods): (Vec<&str>, Vec<String>) = periods.into_iter().unzip();
    // Every part of the key is named, so that a row is found without the others of its user, who gets one more a week.
    for row in sqlx::query!(
        r#"SELECT user_id AS "user_id!", timeframe AS "timeframe!", period_key, best_difficulty AS "best_difficulty!",
                  share_time AS "share_time!", worker_name
           FROM unnest($1::BIGINT[]) AS asked (id)
           JOIN personal_bests ON user_id = asked.id AND timeframe = 'alltime' AND period_key IS NULL
           UNION ALL
           SELECT user_id, timeframe, period_key, best_difficulty, share_time, worker_name
           FROM unnest($1::BIGINT[]) AS asked (id)
           CROSS JOIN unnest($2::TEXT[], $3::TEXT[]) AS period (frame, key)
           JOIN personal_bests ON user_id = asked.id AND timeframe = period.frame AND period_key = period.key"#,
        &users,
        &frames as &[&str],
        &periods
    )
    .fetch_all(&mut *conn)
    .await?
    {
        let frame = Timeframe::ALL.into_iter().find(|frame| frame.as_str() == row.timeframe);
        let Some(frame) = frame else { continue };
        let best = Best {
            difficulty: row.best_difficulty,
            share_time: row.share_time,
            worker: row.worker_name.unwrap_or_default(),
        };
        known.bests.insert((UserId(row.user_id), frame, row.period_key), best);
    }
    for row in sqlx::query!(
        "SELECT user_id, d.day, accepted_shares, sum_share_diff
         FROM unnest($1::BIGINT[]) AS asked (id)
         CROSS JOIN unnest($2::DATE[]) AS asked_day (day)
         JOIN user_daily_stats d ON user_id = asked.id AND d.day = asked_day.day",
        &users,
        &days
    )
    .fetch_all(conn)
    .await?
    {
        known.daily.insert((UserId(row.user_id), row.day), (row.accepted_shares, row.sum_share_diff));
    }
    Ok(known)
}

/// Adds a batch to the rollups of hours, days and weeks.
pub(crate) async fn upsert_rollups(conn: &mut PgConnection, rollups: &Rollups) -> Result<(), sqlx::Error> {
    upsert_hourly(conn, &rollups.hourly).await?;
    upsert_daily(conn, &rollups.daily).await?;
    upsert_weekly(conn, &rollups.weekly).await
}

async fn upsert_hourly(
    conn: &mut PgConnection,
    rows: &BTreeMap<String, BTreeMap<DateTime<Utc>, Hour>>,
) -> Result<(), sqlx::Error> {
    let (addresses, buckets, rows) = flatten(rows);
    if rows.is_empty() {
        return Ok(());
    }
    let users: Vec<Option<i64>> = rows.iter().map(|hour| hour.user_id.map(|user| user.0)).collect();
    let sums = SumColumns::of(rows.iter().map(|hour| &hour.sum));
    sqlx::query!(
        "INSERT INTO hourly_shares AS h (btc_address, bucket, user_id, total, accepted, rejected, work, sum_share_diff, best_diff)
         SELECT * FROM unnest($1::TEXT[], $2::TIMESTAMPTZ[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[],
                              $7::FLOAT8[], $8::FLOAT8[], $9::FLOAT8[])
         ON CONFLICT (btc_address, bucket) DO UPDATE SET
             total = h.total + EXCLUDED.total,
             accepted = h.accepted + EXCLUDED.accepted,
             rejected = h.rejected + EXCLUDED.rejected,
             work = h.work + EXCLUDED.work,
             sum_share_diff = h.sum_share_diff + EXCLUDED.sum_share_diff,
             best_diff = greatest(h.best_diff, EXCLUDED.best_diff)",
        &addresses,
        &buckets,
        &users as &[Option<i64>],
        &sums.total,
        &sums.accepted,
        &sums.rejected,
        &sums.work,
        &sums.sum_share_diff,
        &sums.best_diff
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn upsert_daily(
    conn: &mut PgConnection,
    rows: &BTreeMap<(UserId, NaiveDate), Sum>,
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let users: Vec<i64> = rows.keys().map(|(user, _)| user.0).collect();
    let days: Vec<NaiveDate> = rows.keys().map(|(_, day)| *day).collect();
    let sums = SumColumns::of(rows.values());
    sqlx::query!(
        "INSERT INTO user_daily_stats AS d (user_id, day, total_shares, accepted_shares, rejected_shares, work,
                                            sum_share_diff, best_diff, avg_diff)
         SELECT user_id, day, total, accepted, rejected, work, sum_share_diff, best_diff,
                coalesce(sum_share_diff / nullif(accepted, 0), 0)
         FROM unnest($1::BIGINT[], $2::DATE[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::FLOAT8[], $7::FLOAT8[], $8::FLOAT8[])
              AS new (user_id, day, total, accepted, rejected, work, sum_share_diff, best_diff)
         ON CONFLICT (user_id, day) DO UPDATE SET
             total_shares = d.total_shares + EXCLUDED.total_shares,
             accepted_shares = d.accepted_shares + EXCLUDED.accepted_shares,
             rejected_shares = d.rejected_shares + EXCLUDED.rejected_shares,
             work = d.work + EXCLUDED.work,
             sum_share_diff = d.sum_share_diff + EXCLUDED.sum_share_diff,
             best_diff = greatest(d.best_diff, EXCLUDED.best_diff),
             avg_diff = coalesce((d.sum_share_diff + EXCLUDED.sum_share_diff)
                                 / nullif(d.accepted_shares + EXCLUDED.accepted_shares, 0), 0)",
        &users,
        &days,
        &sums.total,
        &sums.accepted,
        &sums.rejected,
        &sums.work,
        &sums.sum_share_diff,
        &sums.best_diff
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn upsert_weekly(
    conn: &mut PgConnection,
    rows: &BTreeMap<String, BTreeMap<NaiveDate, Week>>,
) -> Result<(), sqlx::Error> {
    let (addresses, mondays, rows) = flatten(rows);
    if rows.is_empty() {
        return Ok(());
    }
    let users: Vec<Option<i64>> = rows.iter().map(|week| week.user_id.map(|user| user.0)).collect();
    let bests: Vec<f64> = rows.iter().map(|week| week.best.map_or(0.0, |best| best.0)).collect();
    let times: Vec<Option<DateTime<Utc>>> = rows.iter().map(|week| week.best.map(|best| best.1)).collect();
    let shares: Vec<i64> = rows.iter().map(|week| week.shares).collect();
    sqlx::query!(
        "INSERT INTO weekly_best_diff AS w (btc_address, week_start, user_id, best_difficulty, best_share_time, total_shares)
         SELECT * FROM unnest($1::TEXT[], $2::DATE[], $3::BIGINT[], $4::FLOAT8[], $5::TIMESTAMPTZ[], $6::BIGINT[])
         ON CONFLICT (btc_address, week_start) DO UPDATE SET
             total_shares = w.total_shares + EXCLUDED.total_shares,
             best_difficulty = greatest(w.best_difficulty, EXCLUDED.best_difficulty),
             best_share_time = CASE
                 WHEN EXCLUDED.best_difficulty > w.best_difficulty THEN EXCLUDED.best_share_time
                 WHEN EXCLUDED.best_difficulty = w.best_difficulty THEN least(w.best_share_time, EXCLUDED.best_share_time)
                 ELSE w.best_share_time END",
        &addresses,
        &mondays,
        &users as &[Option<i64>],
        &bests,
        &times as &[Option<DateTime<Utc>>],
        &shares
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Replaces bests that were beaten. The condition repeats the rule, so that a stale view of the rows
/// could never lower one.
pub(crate) async fn upsert_bests(
    conn: &mut PgConnection,
    rows: &BTreeMap<(UserId, Timeframe, Option<String>), Best>,
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let users: Vec<i64> = rows.keys().map(|(user, ..)| user.0).collect();
    let frames: Vec<String> = rows.keys().map(|(_, frame, _)| frame.as_str().to_owned()).collect();
    let periods: Vec<Option<String>> = rows.keys().map(|(.., period)| period.clone()).collect();
    let bests: Vec<f64> = rows.values().map(|best| best.difficulty).collect();
    let times: Vec<DateTime<Utc>> = rows.values().map(|best| best.share_time).collect();
    let workers: Vec<String> = rows.values().map(|best| best.worker.clone()).collect();
    sqlx::query!(
        "INSERT INTO personal_bests AS b (user_id, timeframe, period_key, best_difficulty, share_time, worker_name)
         SELECT * FROM unnest($1::BIGINT[], $2::TEXT[], $3::TEXT[], $4::FLOAT8[], $5::TIMESTAMPTZ[], $6::TEXT[])
         ON CONFLICT (user_id, timeframe, period_key) DO UPDATE SET
             best_difficulty = EXCLUDED.best_difficulty,
             share_time = EXCLUDED.share_time,
             worker_name = EXCLUDED.worker_name,
             updated_at = now()
         WHERE EXCLUDED.best_difficulty > b.best_difficulty
            OR (EXCLUDED.best_difficulty = b.best_difficulty AND EXCLUDED.share_time < b.share_time)",
        &users,
        &frames,
        &periods as &[Option<String>],
        &bests,
        &times,
        &workers
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Addresses, periods and rows side by side, in key order.
fn flatten<K: Copy, V>(map: &BTreeMap<String, BTreeMap<K, V>>) -> (Vec<String>, Vec<K>, Vec<&V>) {
    let (mut addresses, mut periods, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for (address, by_period) in map {
        for (period, row) in by_period {
            addresses.push(address.clone());
            periods.push(*period);
            rows.push(row);
        }
    }
    (addresses, periods, rows)
}

#[derive(Default)]
struct SumColumns {
    total: Vec<i64>,
    accepted: Vec<i64>,
    rejected: Vec<i64>,
    work: Vec<f64>,
    sum_share_diff: Vec<f64>,
    best_diff: Vec<f64>,
}

impl SumColumns {
    fn of<'a>(sums: impl Iterator<Item = &'a Sum>) -> Self {
        let mut columns = Self::default();
        for sum in sums {
            columns.total.push(sum.total());
            columns.accepted.push(sum.accepted);
            columns.rejected.push(sum.rejected);
            columns.work.push(sum.work);
            columns.sum_share_diff.push(sum.sum_share_diff);
            columns.best_diff.push(sum.best_diff);
        }
        columns
    }
}

/// The hardest accepted share since `since`.
pub(crate) async fn best_since(
    pool: &sqlx::PgPool,
    since: DateTime<Utc>,
) -> Result<Option<f64>, sqlx::Error> {
    sqlx::query_scalar!("SELECT max(best_diff) FROM hourly_shares WHERE bucket >= $1", since)
        .fetch_one(pool)
        .await
}
