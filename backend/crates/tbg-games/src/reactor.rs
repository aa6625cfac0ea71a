//! What batches leave for the lottery (contract `games.md` §3).

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgConnection;
use tbg_core::UserId;
use tbg_core::outbox::DomainEvent;
use tbg_core::period::IsoWeek;
use tbg_engine::push::Push;
use tbg_engine::{AfterCommit, Batch, EventKind, Reaction, Reactor};

use crate::live::Ranking;
use crate::rules::week::pool_hash;
use crate::store::{self, BestHash};

/// The watermark is written when it rose by so much.
const WATERMARK_STEP_US: i64 = 1_000_000;

/// Keeps the watermark and the hashes of bests.
#[derive(Debug, Default)]
pub struct LotteryReactor {
    /// What was written last, in microseconds; spares a statement per batch.
    written_us: AtomicI64,
}

impl LotteryReactor {
    /// A reactor that has written nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// What a batch changes.
#[derive(Default)]
pub struct Changes {
    newest: Option<DateTime<Utc>>,
    hashes: Vec<BestHash>,
}

#[async_trait]
impl Reactor for LotteryReactor {
    type State = ();
    type Changes = Changes;

    fn name(&self) -> &'static str {
        "games"
    }

    async fn load(&self, _conn: &mut PgConnection, _batch: &Batch) -> Result<(), sqlx::Error> {
        Ok(())
    }

    fn react(&self, (): (), batch: &Batch, _so_far: &[DomainEvent]) -> Reaction<Changes> {
        let mut newest = None;
        let mut best: HashMap<(UserId, NaiveDate), (f64, String)> = HashMap::new();
        for event in &batch.events {
            let EventKind::ShareSubmitted(share) = &event.pool.kind else { continue };
            newest = newest.max(Some(event.pool.ts));
            let Some(holder) = batch.holder(&event.pool.user).filter(|_| share.accepted && !event.aged)
            else {
                continue;
            };
            let Some(hash) = share.hash.as_deref().and_then(|hash| pool_hash(hash, share.sdiff)) else {
                continue;
            };
            let slot = best.entry((holder.id, IsoWeek::of(event.pool.ts).monday())).or_default();
            if share.sdiff > slot.0 {
                *slot = (share.sdiff, hash);
            }
        }
        let mut hashes: Vec<BestHash> = best
            .into_iter()
            .map(|((user, week_start), (difficulty, hash))| BestHash { user, week_start, difficulty, hash })
            .collect();
        hashes.sort_by_key(|row| (row.user, row.week_start));
        Reaction { changes: Changes { newest, hashes }, events: Vec::new(), pushes: Vec::new() }
    }

    async fn store(&self, conn: &mut PgConnection, changes: Changes) -> Result<(), sqlx::Error> {
        store::keep_hashes(conn, &changes.hashes).await?;
        let Some(newest) = changes.newest else { return Ok(()) };
        let newest_us = newest.timestamp_micros();
        let written_us = self.written_us.load(Ordering::Relaxed);
        // The same once more: a batch whose transaction failed is tried again.
        if newest_us == written_us || newest_us >= written_us.saturating_add(WATERMARK_STEP_US) {
            store::raise_watermark(conn, newest).await?;
            self.written_us.store(newest_us, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Keeps the live ranking of the week after each commit.
pub struct LiveRanking {
    ranking: Ranking,
}

impl LiveRanking {
    /// On a Redis.
    #[must_use]
    pub fn new(ranking: Ranking) -> Self {
        Self { ranking }
    }
}

#[async_trait]
impl AfterCommit for LiveRanking {
    async fn committed(&self, batch: &Batch, _now: DateTime<Utc>) -> Vec<Push> {
        let mut bests: HashMap<(IsoWeek, UserId), f64> = HashMap::new();
        for event in &batch.events {
            let EventKind::ShareSubmitted(share) = &event.pool.kind else { continue };
            let holder = batch.holder(&event.pool.user).filter(|holder| !holder.is_banned && !holder.is_test);
            let Some(holder) = holder.filter(|_| share.accepted && !event.aged) else { continue };
            let best = bests.entry((IsoWeek::of(event.pool.ts), holder.id)).or_default();
            *best = best.max(share.sdiff);
        }
        self.ranking.raise(&bests).await;
        Vec::new()
    }
}
