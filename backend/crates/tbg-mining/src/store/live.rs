//! The tables behind live state: `workers`, `hashrate_snapshots`, uptime in `user_daily_stats`.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::types::ipnetwork::IpNetwork;
use sqlx::{PgConnection, PgPool};

use crate::rules::live::{Averages, HASHES_PER_DIFFICULTY, LiveWorker, seconds};

/// A worker of a user, as the table keeps it.
pub(crate) struct WorkerRow<'a> {
    pub user_id: i64,
    pub name: &'a str,
    pub worker: &'a LiveWorker,
}

/// Workers of users that were seen within a day of `now`, as live state: `(user, name, worker)`.
pub(crate) async fn workers_of_users(
    pool: &PgPool,
    users: &[i64],
    now: DateTime<Utc>,
) -> Result<Vec<(i64, String, LiveWorker)>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT user_id, worker_name, last_share, current_diff, best_diff, hashrate_1m, hashrate_5m, hashrate_1h,
                hashrate_24h, is_online, host(ip_address) AS ip, user_agent
         FROM workers WHERE user_id = ANY ($1) AND last_seen >= $2::TIMESTAMPTZ - INTERVAL '24 hours'
         ORDER BY user_id, worker_name LIMIT 100000",
        users,
        now
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let rates = [row.hashrate_1m, row.hashrate_5m, row.hashrate_1h, row.hashrate_24h];
            let worker = LiveWorker {
                is_online: row.is_online,
                last_share: row.last_share,
                current_diff: row.current_diff,
                best_diff: row.best_diff,
                rates,
                averages: Averages {
                    dsps: rates.map(|rate| rate / HASHES_PER_DIFFICULTY),
                    last_decay: row.last_share.map_or(0.0, seconds),
                    unadded: 0.0,
                },
                ip: row.ip,
                useragent: row.user_agent,
                ..LiveWorker::default()
            };
            (row.user_id, row.worker_name, worker)
        })
        .collect())
}

/// Brings `workers` up to date; what live state has forgotten stays as it was.
pub(crate) async fn upsert_workers(
    conn: &mut PgConnection,
    rows: &[WorkerRow<'_>],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let users: Vec<i64> = rows.iter().map(|row| row.user_id).collect();
    let names: Vec<String> = rows.iter().map(|row| row.name.to_owned()).collect();
    let shares: Vec<Option<DateTime<Utc>>> = rows.iter().map(|row| row.worker.last_share).collect();
    let seen: Vec<DateTime<Utc>> = rows.iter().map(|row| row.worker.last_activity().unwrap_or(now)).collect();
    let diffs: Vec<f64> = rows.iter().map(|row| row.worker.current_diff).collect();
    let bests: Vec<f64> = rows.iter().map(|row| row.worker.best_diff).collect();
    let rate = |index: usize| rows.iter().map(|row| row.worker.rates[index]).collect::<Vec<f64>>();
    let online: Vec<bool> = rows.iter().map(|row| row.worker.is_online).collect();
    let ips: Vec<Option<IpNetwork>> =
        rows.iter().map(|row| row.worker.ip.as_deref().and_then(|ip| ip.parse().ok())).collect();
    let agents: Vec<Option<String>> = rows.iter().map(|row| row.worker.useragent.clone()).collect();
    sqlx::query!(
        "INSERT INTO workers AS w (user_id, worker_name, first_seen, last_share, last_seen, current_diff, best_diff,
                                   hashrate_1m, hashrate_5m, hashrate_1h, hashrate_24h, is_online, ip_address, user_agent)
         SELECT user_id, name, seen, share, seen, diff, best, r1, r5, r60, r1440, online, ip, left(agent, 256)
         FROM unnest($1::BIGINT[], $2::TEXT[], $3::TIMESTAMPTZ[], $4::TIMESTAMPTZ[], $5::FLOAT8[], $6::FLOAT8[],
                     $7::FLOAT8[], $8::FLOAT8[], $9::FLOAT8[], $10::FLOAT8[], $11::BOOLEAN[], $12::INET[], $13::TEXT[])
              AS live (user_id, name, share, seen, diff, best, r1, r5, r60, r1440, online, ip, agent)
         ON CONFLICT (user_id, worker_name) DO UPDATE SET
             last_share = greatest(w.last_share, EXCLUDED.last_share),
             last_seen = greatest(w.last_seen, EXCLUDED.last_seen),
             current_diff = EXCLUDED.current_diff,
             best_diff = greatest(w.best_diff, EXCLUDED.best_diff),
             hashrate_1m = EXCLUDED.hashrate_1m,
             hashrate_5m = EXCLUDED.hashrate_5m,
             hashrate_1h = EXCLUDED.hashrate_1h,
             hashrate_24h = EXCLUDED.hashrate_24h,
             is_online = EXCLUDED.is_online,
             ip_address = coalesce(EXCLUDED.ip_address, w.ip_address),
             user_agent = coalesce(EXCLUDED.user_agent, w.user_agent)",
        &users,
        &names,
        &shares as &[Option<DateTime<Utc>>],
        &seen,
        &diffs,
        &bests,
        &rate(0),
        &rate(1),
        &rate(2),
        &rate(3),
        &online,
        &ips as &[Option<IpNetwork>],
        &agents as &[Option<String>]
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A snapshot of a worker, or of all workers of a user.
pub(crate) struct SnapshotRow<'a> {
    pub user_id: i64,
    pub worker: Option<&'a str>,
    pub rates: [f64; 4],
    pub workers_online: i32,
}

/// Stores snapshots of the floored instant `time`; a second run replaces them.
pub(crate) async fn upsert_snapshots(
    conn: &mut PgConnection,
    rows: &[SnapshotRow<'_>],
    time: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let users: Vec<i64> = rows.iter().map(|row| row.user_id).collect();
    let names: Vec<Option<String>> = rows.iter().map(|row| row.worker.map(str::to_owned)).collect();
    let rate = |index: usize| rows.iter().map(|row| row.rates[index]).collect::<Vec<f64>>();
    let online: Vec<i32> = rows.iter().map(|row| row.workers_online).collect();
    sqlx::query!(
        "INSERT INTO hashrate_snapshots (time, user_id, worker_name, hashrate_1m, hashrate_5m, hashrate_1h, hashrate_24h,
                                         workers_online)
         SELECT $1, * FROM unnest($2::BIGINT[], $3::TEXT[], $4::FLOAT8[], $5::FLOAT8[], $6::FLOAT8[], $7::FLOAT8[], $8::INT[])
         ON CONFLICT (user_id, worker_name, time) DO UPDATE SET
             hashrate_1m = EXCLUDED.hashrate_1m, hashrate_5m = EXCLUDED.hashrate_5m,
             hashrate_1h = EXCLUDED.hashrate_1h, hashrate_24h = EXCLUDED.hashrate_24h,
             workers_online = EXCLUDED.workers_online",
        time,
        &users,
        &names as &[Option<String>],
        &rate(0),
        &rate(1),
        &rate(2),
        &rate(3),
        &online
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Raises minutes of uptime and counts of workers of a day; neither ever falls.
pub(crate) async fn raise_uptime(
    conn: &mut PgConnection,
    users: &[i64],
    day: NaiveDate,
    minutes: &[i32],
    workers: &[i32],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO user_daily_stats AS d (user_id, day, uptime_minutes, workers_seen)
         SELECT user_id, $2, least(minutes, 1440), workers
         FROM unnest($1::BIGINT[], $3::INT[], $4::INT[]) AS live (user_id, minutes, workers)
         ON CONFLICT (user_id, day) DO UPDATE SET
             uptime_minutes = greatest(d.uptime_minutes, EXCLUDED.uptime_minutes),
             workers_seen = greatest(d.workers_seen, EXCLUDED.workers_seen)
         WHERE d.uptime_minutes < EXCLUDED.uptime_minutes OR d.workers_seen < EXCLUDED.workers_seen",
        users,
        day,
        minutes,
        workers
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Accepted and rejected shares of the pool ever, and the best of the week of `monday`.
pub(crate) async fn pool_totals(pool: &PgPool, monday: NaiveDate) -> Result<(i64, i64, f64), sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT coalesce(sum(accepted), 0)::BIGINT AS "accepted!", coalesce(sum(rejected), 0)::BIGINT AS "rejected!",
                  coalesce((SELECT max(best_difficulty) FROM weekly_best_diff WHERE week_start = $1), 0) AS "best!"
           FROM pool_hourly_totals"#,
        monday
    )
    .fetch_one(pool)
    .await?;
    Ok((row.accepted, row.rejected, row.best))
}
