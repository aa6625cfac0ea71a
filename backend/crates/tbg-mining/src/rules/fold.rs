//! One batch, folded: from what is known and what happened to what is written and pushed.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tbg_bitcoin::Network;
use tbg_core::UserId;
use tbg_core::live::LiveEvent;
use tbg_core::outbox::DomainEvent;
use tbg_core::text::with_commas;
use tbg_engine::event::{BlockFound, NetworkBlock, Share};
use tbg_engine::push::{Push, Throttle};
use tbg_engine::{Batch, BatchEvent, EventKind, PoolEvent, Reaction};
use uuid::Uuid;

use super::blocks::{Block, Merged, merge};
use super::notices;
use super::rollups::{Best, Known, Record, Rollups, Timeframe};

/// A cause older than this makes no feed row (contract `social.md` §3.6).
const FEED_MAX_AGE: TimeDelta = TimeDelta::hours(24);

/// What was loaded for a batch.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Bests and averages of the users.
    pub known: Known,
    /// Blocks that events of the batch may be about.
    pub blocks: Vec<Block>,
    /// Ids to give.
    pub reserved: Reserved,
    /// Highest height that the network published.
    pub network_height: Option<i32>,
}

/// Ids taken from the sequences before the reaction, so that it can be pure.
#[derive(Clone, Debug, Default)]
pub struct Reserved {
    /// For `shares`, one per share.
    pub shares: Vec<i64>,
    /// For `blocks`, one per `block_found`.
    pub blocks: Vec<i64>,
    /// For `block_celebrations`, one per `block_found`.
    pub celebrations: Vec<i64>,
    /// For `activity_feed`, one per `block_found`.
    pub feed: Vec<i64>,
}

/// A row of the archive.
#[derive(Clone, Debug)]
pub struct RawEvent {
    /// The event.
    pub event: Arc<PoolEvent>,
    /// Identity.
    pub key: Uuid,
    /// Who held the address.
    pub user_id: Option<UserId>,
}

/// A row of `shares`.
#[derive(Clone, Debug)]
pub struct RawShare {
    /// Row id.
    pub id: i64,
    /// The event, a share.
    pub event: Arc<PoolEvent>,
    /// Whether it solved a block.
    pub is_block: bool,
}

/// A row of `activity_feed` about a block.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedRow {
    /// Row id, for a new row.
    pub id: i64,
    /// The finder.
    pub user_id: Option<UserId>,
    /// The line that people read.
    pub title: String,
    /// Details for the client.
    pub metadata: Value,
    /// When.
    pub created_at: DateTime<Utc>,
    /// `block:<id>`.
    pub dedupe_key: String,
}

/// What a batch writes.
#[derive(Default)]
pub struct Changes {
    /// Archive rows.
    pub events: Vec<RawEvent>,
    /// Share rows.
    pub shares: Vec<RawShare>,
    /// Rollups.
    pub rollups: Rollups,
    /// Blocks that are new or changed.
    pub blocks: Vec<Block>,
    /// (id, block, user, since).
    pub celebrations: Vec<(i64, i64, UserId, DateTime<Utc>)>,
    /// Feed rows of those blocks.
    pub feed: Vec<FeedRow>,
    /// Blocks of the network with the time of their event.
    pub network: Vec<(DateTime<Utc>, NetworkBlock)>,
    /// Height from which confirmations are recomputed, if anything may have changed.
    pub confirm_from: Option<i32>,
}

/// Which parts of the fold apply in this deployment.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// Subsidy schedule.
    pub network: Network,
    /// Whether raw rows are ours to write.
    pub persist_raw: bool,
    /// Whether `blocks:found` is ours to publish.
    pub publish_blocks: bool,
}

/// Folds a batch. Pure.
#[must_use]
pub fn fold(state: State, batch: &Batch, mode: Mode) -> Reaction<Changes> {
    let mut folding = Folding {
        mode,
        batch,
        known: state.known,
        touched: vec![None; state.blocks.len()],
        blocks: state.blocks,
        reserved: state.reserved,
        changes: Changes::default(),
        events: Vec::new(),
        pushes: Vec::new(),
    };
    // Blocks first: a share that solved one of them is marked whatever the order of the events.
    for event in &batch.events {
        if let EventKind::BlockFound(found) = &event.pool.kind {
            folding.block_found(event, found);
        }
    }
    for event in &batch.events {
        folding.event(event);
    }
    folding.finish(state.network_height)
}

struct Folding<'a> {
    mode: Mode,
    batch: &'a Batch,
    known: Known,
    blocks: Vec<Block>,
    /// Per block: whether it is new and whether it got its finder in this batch.
    touched: Vec<Option<Merged>>,
    reserved: Reserved,
    changes: Changes,
    events: Vec<DomainEvent>,
    pushes: Vec<Push>,
}

impl Folding<'_> {
    fn event(&mut self, event: &BatchEvent) {
        let user = self.holder_of(event);
        match &event.pool.kind {
            EventKind::ShareSubmitted(share) => self.share(event, share, user),
            EventKind::ShareBestDiff { new_best } if event.pool.has_miner() => {
                self.best(event, *new_best, user);
            }
            EventKind::NewBlockNetwork(block) if block.height > 0 => {
                self.changes.network.push((event.pool.ts, block.clone()));
            }
            _ => {}
        }
        if self.mode.persist_raw && !event.aged {
            let row = RawEvent { event: Arc::clone(&event.pool), key: event.key, user_id: user };
            self.changes.events.push(row);
        }
    }

    fn holder_of(&self, event: &BatchEvent) -> Option<UserId> {
        if !event.pool.has_miner() {
            return None;
        }
        self.batch.holder(&event.pool.user).map(|holder| holder.id)
    }

    fn share(&mut self, event: &BatchEvent, share: &Share, user: Option<UserId>) {
        let pool = &event.pool;
        let is_block = share.accepted
            && self.blocks.iter().any(|block| block.is_solved_by(&pool.user, pool.ts, share.sdiff));
        let id = if self.mode.persist_raw && !event.aged { self.reserved.shares.pop() } else { None };
        if let Some(id) = id {
            self.changes.shares.push(RawShare { id, event: Arc::clone(pool), is_block });
        }
        if !pool.has_miner() {
            return;
        }
        if !event.aged {
            self.changes.rollups.count(&pool.user, user, pool.ts, share);
        }
        let mut record = None;
        let mut above_average = false;
        if share.accepted {
            self.changes.rollups.raise_week(&pool.user, user, pool.ts, share.sdiff);
            if let Some(user) = user {
                above_average = self.known.above_average(user, pool.ts, share);
                record = self.raise_bests(event, share.sdiff, user);
            }
        }
        if let Some(user) = user {
            let seen = Seen { id, above_average, is_record: record.is_some(), is_block };
            self.pushes.push(share_push(event, share, user, seen));
            self.pushes.extend(record.map(|record| best_push(event, share.sdiff, user, record)));
        }
    }

    /// The pool's own report of a best covers a share whose datagram was lost.
    fn best(&mut self, event: &BatchEvent, new_best: f64, user: Option<UserId>) {
        if new_best <= 0.0 {
            return;
        }
        self.changes.rollups.raise_week(&event.pool.user, user, event.pool.ts, new_best);
        if let Some(user) = user
            && let Some(record) = self.raise_bests(event, new_best, user)
        {
            self.pushes.push(best_push(event, new_best, user, record));
        }
    }

    fn raise_bests(&mut self, event: &BatchEvent, difficulty: f64, user: UserId) -> Option<Record> {
        let (worker, ts) = (event.pool.worker.clone(), event.pool.ts);
        let record = self.known.raise_bests(
            &mut self.changes.rollups,
            user,
            &Best { difficulty, share_time: ts, worker },
        );
        // The first best of all is no news, and neither is what happened a day ago.
        let is_told = record
            .as_ref()
            .is_some_and(|record| record.timeframes.contains(&Timeframe::Alltime) && record.previous > 0.0);
        if is_told && !event.aged && ts >= self.batch.processed_at - FEED_MAX_AGE {
            self.events.push(notices::personal_best(user, difficulty, ts));
        }
        record
    }

    fn block_found(&mut self, event: &BatchEvent, found: &BlockFound) {
        let holder = if event.pool.has_miner() { self.batch.holder(&event.pool.user) } else { None };
        let Some(id) = self.reserved.blocks.pop() else { return };
        let merged = merge(&mut self.blocks, &event.pool, found, holder, self.mode.network, id);
        let Some(mut merged) = merged else { return };
        // What is older than the ledger can vouch for is neither celebrated nor told again.
        merged.attributed &= !event.aged;
        self.touched.resize(self.blocks.len(), None);
        if let Some(touched) = self.touched.get_mut(merged.index) {
            let before = touched.unwrap_or(Merged { is_new: false, attributed: false, ..merged });
            *touched = Some(Merged {
                is_new: before.is_new || merged.is_new,
                attributed: before.attributed || merged.attributed,
                ..merged
            });
        }
        if self.mode.publish_blocks {
            let envelope = event.pool.to_envelope();
            self.pushes.push(Push::channel("blocks:found", event.pool.ts, move || {
                serde_json::from_str(&envelope).unwrap_or(Value::Null)
            }));
        }
    }

    fn finish(mut self, network_height: Option<i32>) -> Reaction<Changes> {
        for (block, touched) in
            std::mem::take(&mut self.blocks).into_iter().zip(std::mem::take(&mut self.touched))
        {
            if let Some(merged) = touched {
                self.settle_block(block, merged);
            }
        }
        // Neighbours in the indexes by address are written one after the other: the pages stay in cache.
        self.changes.events.sort_by(|a, b| a.event.user.cmp(&b.event.user));
        self.changes
            .shares
            .sort_by(|a, b| (&a.event.user, &a.event.worker).cmp(&(&b.event.user, &b.event.worker)));
        let published = self.changes.network.iter().map(|(_, block)| block.height).max();
        if published.is_some() || !self.changes.blocks.is_empty() {
            self.changes.confirm_from = published.max(network_height);
        }
        Reaction { changes: self.changes, events: self.events, pushes: self.pushes }
    }

    /// Celebration, domain event, feed row and pushes of a block that is new or changed.
    fn settle_block(&mut self, block: Block, merged: Merged) {
        let finder = block.finder_name();
        let mut celebration = None;
        if let (true, Some(user_id)) = (merged.attributed, block.user_id()) {
            celebration = self.reserved.celebrations.pop();
            let since = block.found_at;
            self.changes.celebrations.extend(celebration.map(|id| (id, block.id, user_id, since)));
            self.events.push(DomainEvent::BlockAttributed {
                block_id: block.id,
                height: block.height,
                user_id,
                found_at: block.found_at,
                reward_sats: block.reward_sats,
            });
        }
        if merged.is_new || merged.attributed {
            self.pushes.push(block_push(&block, &finder, celebration));
        }
        if let Some(id) = self.reserved.feed.pop()
            && block.found_at >= self.batch.processed_at - FEED_MAX_AGE
        {
            let row = feed_row(id, &block, &finder);
            if merged.is_new {
                self.pushes.push(feed_push(&row));
            }
            self.changes.feed.push(row);
        }
        self.changes.blocks.push(block);
    }
}

/// What the fold learned about a share.
#[derive(Clone, Copy)]
struct Seen {
    id: Option<i64>,
    above_average: bool,
    is_record: bool,
    is_block: bool,
}

/// `pubsub:share_submitted` (contract `realtime.md` §5); records and blocks are never throttled.
fn share_push(event: &BatchEvent, share: &Share, user: UserId, seen: Seen) -> Push {
    let (ts, worker, key) = (event.pool.ts, event.pool.worker.clone(), event.key);
    let (diff, sdiff, accepted) = (share.diff, share.sdiff, share.accepted);
    let push = Push::live(LiveEvent::ShareSubmitted, Some(user), ts, move || {
        json!({
            "id": seen.id.map_or_else(|| key.to_string(), |id| id.to_string()),
            "worker": worker,
            "difficulty": diff,
            "share_diff": sdiff,
            "accepted": accepted,
            "is_personal_best": seen.is_record,
            "is_above_average": seen.above_average,
            "is_block": seen.is_block,
            "time": ts,
        })
    });
    if accepted && (seen.is_record || seen.is_block) {
        return push;
    }
    push.throttled(Throttle { user, flow: if accepted { "share" } else { "rejected" } })
}

fn best_push(event: &BatchEvent, new_best: f64, user: UserId, record: Record) -> Push {
    let (ts, worker) = (event.pool.ts, event.pool.worker.clone());
    Push::live(LiveEvent::BestDiff, Some(user), ts, move || {
        let timeframes: Vec<&str> = record.timeframes.iter().map(|frame| frame.as_str()).collect();
        json!({
            "worker": worker,
            "new_best": new_best,
            "prev_best": record.previous,
            "timeframe": timeframes.last(),
            "timeframes": timeframes,
            "time": ts,
        })
    })
}

fn block_push(block: &Block, finder: &str, celebration: Option<i64>) -> Push {
    let (block, finder) = (block.clone(), finder.to_owned());
    Push::live(LiveEvent::BlockFound, block.user_id(), block.found_at, move || {
        json!({
            "height": block.height,
            "hash": block.hash.as_deref().unwrap_or(""),
            "reward": btc(block.reward_sats),
            "finder": finder,
            "finder_country": block.finder_country(),
            "finder_user_id": block.user_id(),
            "user": block.address,
            "worker": block.worker,
            "celebration_id": celebration,
        })
    })
}

fn feed_row(id: i64, block: &Block, finder: &str) -> FeedRow {
    let dedupe_key = format!("block:{}", block.id);
    FeedRow {
        id,
        user_id: block.user_id(),
        title: format!("{finder} found block #{}!", with_commas(block.height.unsigned_abs().into())),
        metadata: json!({
            "key": dedupe_key,
            "kind": "block_found",
            "link": "/mining/blocks",
            "height": block.height,
            "hash": block.hash.as_deref().unwrap_or(""),
            "reward_btc": btc(block.reward_sats),
        }),
        created_at: block.found_at,
        dedupe_key,
    }
}

fn feed_push(row: &FeedRow) -> Push {
    let row = row.clone();
    Push::live(LiveEvent::FeedItem, None, row.created_at, move || {
        json!({
            "item": {
                "id": row.id,
                "type": "block",
                "text": row.title,
                "description": null,
                "time": row.created_at,
                "metadata": row.metadata,
            }
        })
    })
}

/// Satoshi as BTC; exact, since a double holds more digits than the money supply.
fn btc(sats: i64) -> f64 {
    sats as f64 / 1e8
}
