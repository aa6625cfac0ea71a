//! Jobs that go through all live workers (contract `mining.md` §5.3).
//!
//! Each pass reads the index in chunks. A worker that an event touches meanwhile keeps the event's write: the
//! sweep's own is refused by its revision, and the next pass sees what is new.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::PgPool;
use tbg_core::Clock;
use tbg_core::jobs::Job;
use tbg_core::live::{LiveBus, LiveEvent, LiveMessage};
use tbg_core::outbox;
use tbg_core::period::IsoWeek;
use tbg_core::users::{self, Holder};

use super::notices;
use super::store::{Change, LiveStore, UserRates, WorkerKey};
use crate::rules::live::LiveWorker;
use crate::store::live as rows;

/// Workers of one round trip.
const CHUNK: isize = 1_000;
/// A notice is not worth it any more.
const OLD_NEWS: TimeDelta = TimeDelta::hours(24);
/// Who gave no sign of life for this long has no snapshot.
const ACTIVE: TimeDelta = TimeDelta::hours(24);

/// The pool's hashrate in TH/s.
const POOL_HASHRATE: &str = "tbg_mining_pool_hashrate_ths";
/// Workers online.
const ACTIVE_WORKERS: &str = "tbg_mining_active_workers";

/// How sweeps judge.
#[derive(Clone, Copy, Debug)]
pub struct SweepConfig {
    /// Seconds of silence after which a worker is offline.
    pub worker_timeout_seconds: u32,
    /// Seconds between snapshots; their times are multiples of it.
    pub snapshot_interval_seconds: u32,
}

/// What a sweep stands on.
#[derive(Clone)]
pub(crate) struct Sweep {
    pub pool: PgPool,
    pub clock: Arc<dyn Clock>,
    pub live: LiveStore,
    pub bus: LiveBus,
    pub config: SweepConfig,
}

/// The jobs.
pub(crate) fn jobs(sweep: &Sweep) -> anyhow::Result<Vec<Job>> {
    macro_rules! job {
        ($name:literal, $schedule:literal, $work:ident) => {{
            let sweep = sweep.clone();
            Job::new($name, $schedule, move |at| {
                let sweep = sweep.clone();
                async move { sweep.$work(at).await.context($name) }
            })?
        }};
    }
    Ok(vec![
        job!("ema_decay", "*/15 * * * * *", decay),
        job!("worker_timeout", "*/30 * * * * *", time_out),
        job!("worker_offline_notice", "40 * * * * *", notice_missing),
        job!("workers_flush", "50 * * * * *", flush_workers),
        job!("hashrate_snapshots", "0 */5 * * * *", snapshot),
        job!("uptime_flush", "20 */5 * * * *", flush_uptime),
    ])
}

impl Sweep {
    /// Lets idle averages decay, sums up each address, tells what changed, and the pool's own numbers.
    async fn decay(&self, _: DateTime<Utc>) -> anyhow::Result<()> {
        let now = self.clock.now();
        let mut sums: BTreeMap<String, UserRates> = BTreeMap::new();
        let mut from = Some(0);
        while let Some(at) = from {
            let (mut workers, next) = self.live.scan(at, CHUNK).await?;
            let moved: HashSet<usize> = workers
                .iter_mut()
                .enumerate()
                .filter_map(|(index, (_, worker))| worker.decay(now).then_some(index))
                .collect();
            let changes: Vec<Change<'_>> = workers
                .iter()
                .enumerate()
                .filter(|(index, _)| moved.contains(index))
                .map(|(_, (key, worker))| Change { key, worker, is_alive: false })
                .collect();
            self.live.save(&changes).await?;
            for (key, worker) in &workers {
                add(sums.entry(key.address.clone()).or_default(), worker);
            }
            from = next;
        }
        self.tell_rates(&sums, now).await?;
        self.note_pool(&sums, now).await
    }

    async fn tell_rates(&self, sums: &BTreeMap<String, UserRates>, now: DateTime<Utc>) -> anyhow::Result<()> {
        let all: Vec<(&str, UserRates)> =
            sums.iter().map(|(address, sum)| (address.as_str(), *sum)).collect();
        for chunk in all.chunks(1_000) {
            let addresses: Vec<&str> = chunk.iter().map(|(address, _)| *address).collect();
            let before = self.live.user_rates_of(&addresses).await?;
            self.live.save_user_rates(chunk).await?;
            let changed: Vec<(&str, UserRates)> = chunk
                .iter()
                .zip(before)
                .filter(|((_, sum), before)| *before != Some(*sum))
                .map(|(changed, _)| *changed)
                .collect();
            let holders = self.holders(changed.iter().map(|(address, _)| *address)).await?;
            let messages: Vec<LiveMessage> = changed
                .iter()
                .filter_map(|(address, sum)| {
                    let holder = holders.get(*address)?;
                    let [m1, m5, h1, h24] = sum.rates;
                    let fields = json!({
                        "hashrate_1m": m1, "hashrate_5m": m5, "hashrate_1h": h1, "hashrate_24h": h24,
                        "workers_online": sum.workers_online, "time": now,
                    });
                    Some(LiveMessage::personal(LiveEvent::HashrateUpdate, holder.id, fields))
                })
                .collect();
            self.bus.publish(&messages).await;
        }
        Ok(())
    }

    async fn note_pool(&self, sums: &BTreeMap<String, UserRates>, now: DateTime<Utc>) -> anyhow::Result<()> {
        let online: i64 = sums.values().map(|sum| sum.workers_online).sum();
        let users = sums.values().filter(|sum| sum.workers_online > 0).count();
        let hashrate: f64 = sums.values().map(|sum| sum.rates[1]).sum();
        metrics::gauge!(POOL_HASHRATE).set(hashrate / 1e12);
        metrics::gauge!(ACTIVE_WORKERS).set(online as f64);
        let (accepted, rejected, best) =
            rows::pool_totals(&self.pool, IsoWeek::of(now).monday()).await.context("totals")?;
        self.live
            .save_pool(&[
                ("workers_online", online.to_string()),
                ("users", users.to_string()),
                ("accepted", accepted.to_string()),
                ("rejected", rejected.to_string()),
                ("bestshare", best.to_string()),
                ("hashrate_5m", hashrate.to_string()),
            ])
            .await?;
        Ok(())
    }

    /// Takes silent workers for offline.
    async fn time_out(&self, _: DateTime<Utc>) -> anyhow::Result<()> {
        let now = self.clock.now();
        let timeout = TimeDelta::seconds(self.config.worker_timeout_seconds.into());
        let mut from = Some(0);
        while let Some(at) = from {
            let (workers, next) = self.live.scan(at, CHUNK).await?;
            let gone: Vec<(WorkerKey, LiveWorker)> = workers
                .into_iter()
                .filter_map(|(key, mut worker)| worker.time_out(now, timeout).map(|_| (key, worker)))
                .collect();
            let written = self.write(&gone).await?;
            let holders = self.holders(written.iter().map(|(key, _)| key.address.as_str())).await?;
            let messages: Vec<LiveMessage> = written
                .iter()
                .filter_map(|(key, worker)| {
                    let holder = holders.get(&key.address)?;
                    let fields = json!({
                        "worker": key.name, "status": "offline", "reason": "timeout",
                        "last_share": worker.last_share, "time": now,
                    });
                    Some(LiveMessage::personal(LiveEvent::WorkerStatus, holder.id, fields))
                })
                .collect();
            self.bus.publish(&messages).await;
            from = next;
        }
        Ok(())
    }

    /// Tells owners once about workers that have been missing for thirty minutes.
    async fn notice_missing(&self, _: DateTime<Utc>) -> anyhow::Result<()> {
        let now = self.clock.now();
        let mut from = Some(0);
        while let Some(at) = from {
            let (workers, next) = self.live.scan(at, CHUNK).await?;
            let missing: Vec<(WorkerKey, LiveWorker, DateTime<Utc>)> = workers
                .into_iter()
                .filter_map(|(key, mut worker)| {
                    let since = worker.missing_since(now)?;
                    worker.offline_noticed = true;
                    Some((key, worker, since))
                })
                .collect();
            let holders = self.holders(missing.iter().map(|(key, ..)| key.address.as_str())).await?;
            let told: Vec<_> = missing
                .iter()
                .filter(|(_, _, since)| now - *since <= OLD_NEWS)
                .filter_map(|(key, _, since)| {
                    Some(notices::missing(holders.get(&key.address)?.id, &key.name, *since))
                })
                .collect();
            // First the notice, whose key admits it once, then the mark that it was given.
            let mut conn = self.pool.acquire().await?;
            outbox::write(&mut conn, &told).await?;
            drop(conn);
            let marked: Vec<(WorkerKey, LiveWorker)> =
                missing.into_iter().map(|(key, worker, _)| (key, worker)).collect();
            self.write(&marked).await?;
            from = next;
        }
        Ok(())
    }

    /// Brings the table `workers` up to date, and notes that owners of online workers mine in this minute.
    async fn flush_workers(&self, _: DateTime<Utc>) -> anyhow::Result<()> {
        let now = self.clock.now();
        let minute = DateTime::from_timestamp(now.timestamp().div_euclid(60) * 60, 0).unwrap_or(now);
        let mut from = Some(0);
        while let Some(at) = from {
            let (workers, next) = self.live.scan(at, CHUNK).await?;
            let holders = self.holders(workers.iter().map(|(key, _)| key.address.as_str())).await?;
            let mut rows: Vec<rows::WorkerRow<'_>> = workers
                .iter()
                .filter_map(|(key, worker)| {
                    let user_id = holders.get(&key.address)?.id.0;
                    Some(rows::WorkerRow { user_id, name: &key.name, worker })
                })
                .collect();
            rows.sort_by(|a, b| (a.user_id, a.name).cmp(&(b.user_id, b.name)));
            let mut conn = self.pool.acquire().await?;
            rows::upsert_workers(&mut conn, &rows, now).await?;
            drop(conn);
            let mining: HashSet<(i64, DateTime<Utc>)> =
                rows.iter().filter(|row| row.worker.is_online).map(|row| (row.user_id, minute)).collect();
            self.live.note_uptime(&mining.into_iter().collect::<Vec<_>>()).await?;
            from = next;
        }
        Ok(())
    }

    /// Stores the rates of workers and of their owners at the floored instant.
    async fn snapshot(&self, scheduled_at: DateTime<Utc>) -> anyhow::Result<()> {
        let now = self.clock.now();
        let step = i64::from(self.config.snapshot_interval_seconds.max(1));
        let floored = scheduled_at.timestamp().div_euclid(step) * step;
        let time = DateTime::from_timestamp(floored, 0).unwrap_or(scheduled_at);
        let mut sums: HashMap<i64, UserRates> = HashMap::new();
        let mut from = Some(0);
        while let Some(at) = from {
            let (workers, next) = self.live.scan(at, CHUNK).await?;
            let active = workers
                .iter()
                .filter(|(_, worker)| worker.last_activity().is_some_and(|seen| now - seen <= ACTIVE));
            let active: Vec<&(WorkerKey, LiveWorker)> = active.collect();
            let holders = self.holders(active.iter().map(|(key, _)| key.address.as_str())).await?;
            let mut rows = Vec::with_capacity(active.len());
            for (key, worker) in active {
                let Some(holder) = holders.get(&key.address) else { continue };
                add(sums.entry(holder.id.0).or_default(), worker);
                rows.push(rows::SnapshotRow {
                    user_id: holder.id.0,
                    worker: Some(&key.name),
                    rates: worker.rates,
                    workers_online: i32::from(worker.is_online),
                });
            }
            let mut conn = self.pool.acquire().await?;
            rows::upsert_snapshots(&mut conn, &rows, time).await?;
            from = next;
        }
        let sums: Vec<rows::SnapshotRow<'_>> = sums
            .into_iter()
            .map(|(user_id, sum)| rows::SnapshotRow {
                user_id,
                worker: None,
                rates: sum.rates,
                workers_online: i32::try_from(sum.workers_online).unwrap_or(i32::MAX),
            })
            .collect();
        let mut conn = self.pool.acquire().await?;
        for chunk in sums.chunks(5_000) {
            rows::upsert_snapshots(&mut conn, chunk, time).await?;
        }
        Ok(())
    }

    /// Writes minutes of uptime and workers seen of today, and of yesterday while it is fresh.
    async fn flush_uptime(&self, _: DateTime<Utc>) -> anyhow::Result<()> {
        let now = self.clock.now();
        let midnight = now.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
        let mut seen: HashMap<i64, i32> = HashMap::new();
        let mut from = Some(0);
        while let Some(at) = from {
            let (workers, next) = self.live.scan(at, CHUNK).await?;
            let holders = self.holders(workers.iter().map(|(key, _)| key.address.as_str())).await?;
            for (key, worker) in &workers {
                let Some(holder) = holders.get(&key.address) else { continue };
                let today = worker.last_activity().is_some_and(|at| at >= midnight);
                *seen.entry(holder.id.0).or_default() += i32::from(today);
            }
            from = next;
        }
        let mut users: Vec<i64> = seen.keys().copied().collect();
        users.sort_unstable();
        for chunk in users.chunks(1_000) {
            self.raise(chunk, now, &chunk.iter().map(|user| seen[user]).collect::<Vec<_>>()).await?;
            if now - midnight < TimeDelta::minutes(15) {
                self.raise(chunk, midnight - TimeDelta::seconds(1), &vec![0; chunk.len()]).await?;
            }
        }
        Ok(())
    }

    async fn raise(&self, users: &[i64], day: DateTime<Utc>, workers: &[i32]) -> anyhow::Result<()> {
        let minutes = self.live.uptime(users, day).await?;
        let active: Vec<usize> =
            (0..users.len()).filter(|index| minutes[*index] > 0 || workers[*index] > 0).collect();
        let pick = |values: &[i32]| active.iter().map(|index| values[*index]).collect::<Vec<i32>>();
        let ids: Vec<i64> = active.iter().map(|index| users[*index]).collect();
        let mut conn = self.pool.acquire().await?;
        rows::raise_uptime(&mut conn, &ids, day.date_naive(), &pick(&minutes), &pick(workers)).await?;
        Ok(())
    }

    /// Writes what nobody wrote meanwhile; returns what was written.
    async fn write<'a>(
        &self,
        workers: &'a [(WorkerKey, LiveWorker)],
    ) -> anyhow::Result<Vec<&'a (WorkerKey, LiveWorker)>> {
        let changes: Vec<Change<'_>> =
            workers.iter().map(|(key, worker)| Change { key, worker, is_alive: false }).collect();
        let written = self.live.save(&changes).await?;
        Ok(workers.iter().zip(written).filter(|(_, written)| *written).map(|(worker, _)| worker).collect())
    }

    async fn holders<'a>(
        &self,
        addresses: impl Iterator<Item = &'a str>,
    ) -> anyhow::Result<HashMap<String, Holder>> {
        let addresses: Vec<String> =
            addresses.collect::<HashSet<_>>().into_iter().map(str::to_owned).collect();
        if addresses.is_empty() {
            return Ok(HashMap::new());
        }
        let mut conn = self.pool.acquire().await?;
        Ok(users::holders(&mut conn, &addresses).await?)
    }
}

fn add(sum: &mut UserRates, worker: &LiveWorker) {
    for (total, rate) in sum.rates.iter_mut().zip(worker.rates) {
        *total += rate;
    }
    sum.workers_online += i64::from(worker.is_online);
}
