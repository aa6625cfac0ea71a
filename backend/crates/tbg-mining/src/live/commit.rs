//! What a committed batch changes in Redis.

use std::collections::{BTreeSet, HashMap, HashSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use redis::RedisResult;
use serde_json::json;
use sqlx::PgPool;
use tbg_core::UserId;
use tbg_core::live::LiveEvent;
use tbg_core::outbox;
use tbg_engine::push::Push;
use tbg_engine::{AfterCommit, Batch, BatchEvent, EventKind, PoolEvent};

use super::notices;
use super::store::{Change, LiveNetwork, LiveStore, WorkerKey};
use crate::rules::live::{LiveWorker, MAX_LIVE_AGE, StatusChange};
use crate::store::live as rows;

/// Tries of a write that meets a sweep. Sweeps are rare: more than one conflict in a row is rarer still.
const TRIES: usize = 3;

/// Brings live state up to date after each commit.
pub struct LiveCommit {
    live: LiveStore,
    pool: PgPool,
}

/// A change of status and what it is about.
struct Changed {
    user: UserId,
    worker: String,
    at: DateTime<Utc>,
    change: StatusChange,
    last_share: Option<DateTime<Utc>>,
}

impl LiveCommit {
    /// `pool` is for notices, and for the workers of a Redis that forgot them.
    #[must_use]
    pub fn new(live: LiveStore, pool: PgPool) -> Self {
        Self { live, pool }
    }

    async fn apply(&self, batch: &Batch, now: DateTime<Utc>) -> RedisResult<Vec<Changed>> {
        let mut by_worker: HashMap<WorkerKey, Vec<&BatchEvent>> = HashMap::new();
        for event in batch.events.iter().filter(|event| is_live(&event.pool, now)) {
            let key = WorkerKey { address: event.pool.user.clone(), name: event.pool.worker.clone() };
            by_worker.entry(key).or_default().push(event);
        }
        let mut waiting: Vec<WorkerKey> = by_worker.keys().cloned().collect();
        // In a fixed order, so that two processes do not chase each other.
        waiting.sort();
        let mut changed = Vec::new();
        for round in 0..TRIES {
            let loaded = self.live.load(&waiting).await?;
            if round == 0 {
                self.restore(batch, &waiting, &loaded, now).await?;
            }
            let loaded = if round == 0 && loaded.iter().any(Option::is_none) {
                self.live.load(&waiting).await?
            } else {
                loaded
            };
            let mut next: Vec<(WorkerKey, LiveWorker, Vec<Changed>)> = Vec::with_capacity(waiting.len());
            for (key, worker) in waiting.into_iter().zip(loaded) {
                let mut worker = worker.unwrap_or_default();
                let changes = fold(&key, &mut worker, &by_worker[&key], batch, now);
                next.push((key, worker, changes));
            }
            let writes: Vec<Change<'_>> =
                next.iter().map(|(key, worker, _)| Change { key, worker, is_alive: true }).collect();
            let written = self.live.save(&writes).await?;
            waiting = Vec::new();
            for ((key, _, changes), written) in next.into_iter().zip(written) {
                if written { changed.extend(changes) } else { waiting.push(key) }
            }
            if waiting.is_empty() {
                break;
            }
        }
        Ok(changed)
    }

    /// Where Redis has forgotten a worker of a user, it has forgotten them all: the table still knows them.
    async fn restore(
        &self,
        batch: &Batch,
        keys: &[WorkerKey],
        loaded: &[Option<LiveWorker>],
        now: DateTime<Utc>,
    ) -> RedisResult<()> {
        let users: HashMap<i64, &str> = keys
            .iter()
            .zip(loaded)
            .filter(|(_, worker)| worker.is_none())
            .filter_map(|(key, _)| Some((batch.holder(&key.address)?.id.0, key.address.as_str())))
            .collect();
        if users.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = users.keys().copied().collect();
        let known = match rows::workers_of_users(&self.pool, &ids, now).await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "workers that Redis forgot were not restored");
                return Ok(());
            }
        };
        let known: Vec<(WorkerKey, LiveWorker)> = known
            .into_iter()
            .filter_map(|(user, name, worker)| {
                let address = (*users.get(&user)?).to_owned();
                Some((WorkerKey { address, name }, worker))
            })
            .collect();
        let keys: Vec<WorkerKey> = known.iter().map(|(key, _)| key.clone()).collect();
        let present = self.live.load(&keys).await?;
        let missing: Vec<Change<'_>> = known
            .iter()
            .zip(&present)
            .filter(|(_, present)| present.is_none())
            .map(|((key, worker), _)| Change { key, worker, is_alive: true })
            .collect();
        self.live.save(&missing).await.map(|_| ())
    }

    async fn note_uptime(&self, batch: &Batch, now: DateTime<Utc>) -> RedisResult<()> {
        let mut minutes = BTreeSet::new();
        for event in batch.events.iter().filter(|event| is_live(&event.pool, now)) {
            let accepted = event.pool.share().is_some_and(|share| share.accepted);
            if let (true, Some(holder)) = (accepted, batch.holder(&event.pool.user)) {
                let minute = event.pool.ts.timestamp().div_euclid(60) * 60;
                minutes.insert((holder.id.0, DateTime::from_timestamp(minute, 0).unwrap_or(event.pool.ts)));
            }
        }
        self.live.note_uptime(&minutes.into_iter().collect::<Vec<_>>()).await
    }

    async fn note_network(&self, batch: &Batch, now: DateTime<Utc>) -> RedisResult<()> {
        let newest = batch.events.iter().rev().find_map(|event| match &event.pool.kind {
            EventKind::NewBlockNetwork(block) if event.pool.ts >= now - MAX_LIVE_AGE => Some(block),
            _ => None,
        });
        let Some(block) = newest else { return Ok(()) };
        let network = LiveNetwork { difficulty: block.diff, height: block.height.into() };
        self.live.save_network(network, &block.hash).await
    }

    /// A failure costs a notice, never more.
    async fn notify(&self, changed: &[Changed]) {
        let mut told = HashSet::new();
        let notices: Vec<_> = changed
            .iter()
            .filter(|changed| changed.change.was_absent && told.insert((changed.user, &changed.worker)))
            .map(|changed| notices::back(changed.user, &changed.worker, changed.at))
            .collect();
        if notices.is_empty() {
            return;
        }
        let written = async {
            let mut conn = self.pool.acquire().await?;
            outbox::write(&mut conn, &notices).await
        };
        if let Err(error) = written.await {
            tracing::warn!(%error, "returned workers are not told of");
        }
    }
}

#[async_trait]
impl AfterCommit for LiveCommit {
    async fn committed(&self, batch: &Batch, now: DateTime<Utc>) -> Vec<Push> {
        let done = async {
            self.note_network(batch, now).await?;
            self.note_uptime(batch, now).await?;
            self.apply(batch, now).await
        };
        let changed = match done.await {
            Ok(changed) => changed,
            Err(error) => {
                tracing::warn!(%error, "live state is behind: Redis did not take it");
                return Vec::new();
            }
        };
        self.notify(&changed).await;
        changed.into_iter().map(status_push).collect()
    }
}

fn is_live(event: &PoolEvent, now: DateTime<Utc>) -> bool {
    let concerns_a_worker =
        !matches!(event.kind, EventKind::BlockFound(_) | EventKind::NewBlockNetwork(_) | EventKind::Other(_));
    concerns_a_worker && event.has_miner() && event.ts >= now - MAX_LIVE_AGE
}

/// Applies a worker's events in their order. Only the last change of a batch is told, and only if the worker
/// is elsewhere than before it.
fn fold(
    key: &WorkerKey,
    worker: &mut LiveWorker,
    events: &[&BatchEvent],
    batch: &Batch,
    now: DateTime<Utc>,
) -> Vec<Changed> {
    let was_online = worker.is_online;
    let mut last = None;
    for event in events {
        if let Some(change) = worker.apply(&event.pool, now) {
            last = Some((event.pool.ts, change));
        }
    }
    let Some(holder) = batch.holder(&key.address) else { return Vec::new() };
    last.filter(|(_, change)| change.is_online != was_online)
        .map(|(at, change)| Changed {
            user: holder.id,
            worker: key.name.clone(),
            at,
            change,
            last_share: worker.last_share,
        })
        .into_iter()
        .collect()
}

fn status_push(changed: Changed) -> Push {
    let Changed { user, worker, at, change, last_share } = changed;
    Push::live(LiveEvent::WorkerStatus, Some(user), at, move || {
        json!({
            "worker": worker,
            "status": if change.is_online { "online" } else { "offline" },
            "reason": change.reason,
            "last_share": last_share,
            "time": at,
        })
    })
}
