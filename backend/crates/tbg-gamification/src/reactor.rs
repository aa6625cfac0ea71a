//! The game's part in the path of a share (contract `gamification.md` §4.1).

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tbg_core::UserId;
use tbg_core::metrics::Counts;
use tbg_core::outbox::DomainEvent;
use tbg_core::period::IsoWeek;
use tbg_engine::push::Push;
use tbg_engine::{Batch, BatchEvent, EventKind, Reaction, Reactor};
use tokio::sync::OnceCell;

use crate::rules::catalogue::Catalogue;
use crate::rules::causes::{Cause, Fold, Outcome};
use crate::rules::player::Player;
use crate::store::{self, Wanted};
use crate::{metrics, tell};

/// Turns shares, bests and blocks into the game.
#[derive(Default)]
pub struct GameReactor {
    /// Badges come with migrations: read once.
    catalogue: OnceCell<Arc<Catalogue>>,
}

impl GameReactor {
    /// A reactor that has read nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// What was loaded for a batch.
pub struct State {
    catalogue: Arc<Catalogue>,
    players: HashMap<UserId, Player>,
}

/// What a batch changes.
pub struct Changes {
    outcome: Outcome,
    now: DateTime<Utc>,
}

#[async_trait]
impl Reactor for GameReactor {
    type State = State;
    type Changes = Changes;

    fn name(&self) -> &'static str {
        "gamification"
    }

    async fn load(&self, conn: &mut PgConnection, batch: &Batch) -> Result<State, sqlx::Error> {
        let catalogue = match self.catalogue.get() {
            Some(catalogue) => Arc::clone(catalogue),
            None => {
                let read = Arc::new(store::catalogue(conn).await?);
                metrics::register(&read);
                Arc::clone(self.catalogue.get_or_init(|| async { read }).await)
            }
        };
        let wanted = wanted(batch);
        if wanted.users.is_empty() {
            return Ok(State { catalogue, players: HashMap::new() });
        }
        Ok(State { catalogue, players: store::load(conn, &wanted).await? })
    }

    fn react(&self, state: State, batch: &Batch, so_far: &[DomainEvent]) -> Reaction<Changes> {
        let mut causes: Vec<(DateTime<Utc>, UserId, Cause)> =
            batch.events.iter().filter_map(|event| cause_of(event, batch)).collect();
        causes.extend(so_far.iter().filter_map(|event| match event {
            DomainEvent::BlockAttributed { height, user_id, found_at, reward_sats, .. } => {
                Some((*found_at, *user_id, Cause::Block { height: *height, reward_sats: *reward_sats }))
            }
            _ => None,
        }));
        // Stable: what is of one instant stays in the order of its keys.
        causes.sort_by_key(|(at, ..)| *at);
        let mut fold = Fold::new(&state.catalogue, state.players);
        for (at, user, cause) in causes {
            fold.apply(user, at, cause);
        }
        let outcome = fold.finish();
        let pushes = tell::live(&outcome)
            .into_iter()
            .map(|told| {
                let fields = told.fields;
                Push::live(told.event, Some(told.user), told.cause, move || fields)
            })
            .collect();
        let events = tell::events(&outcome);
        Reaction { changes: Changes { outcome, now: batch.processed_at }, events, pushes }
    }

    fn counts(&self, changes: &Changes) -> Counts {
        let counts = Counts::default();
        metrics::count(&changes.outcome, &counts);
        counts
    }

    async fn store(&self, conn: &mut PgConnection, mut changes: Changes) -> Result<(), sqlx::Error> {
        store::save(conn, &mut changes.outcome, changes.now).await
    }
}

/// Who in the batch takes part, in which weeks, and who may be given a block.
fn wanted(batch: &Batch) -> Wanted {
    let mut wanted = Wanted::default();
    for event in &batch.events {
        let Some(holder) = batch.holder(&event.pool.user).filter(|holder| !holder.is_banned) else {
            continue;
        };
        let difficulty = match &event.pool.kind {
            EventKind::ShareSubmitted(share) if share.accepted => share.sdiff,
            EventKind::ShareBestDiff { new_best } => *new_best,
            EventKind::BlockFound(_) => {
                wanted.users.insert(holder.id, holder.is_test);
                wanted.finders.insert(holder.id);
                continue;
            }
            _ => continue,
        };
        wanted.users.insert(holder.id, holder.is_test);
        if !event.aged {
            let best = wanted.weeks.entry((holder.id, IsoWeek::of(event.pool.ts))).or_default();
            *best = best.max(difficulty);
        }
    }
    wanted
}

fn cause_of(event: &BatchEvent, batch: &Batch) -> Option<(DateTime<Utc>, UserId, Cause)> {
    let user = batch.holder(&event.pool.user)?.id;
    let cause = match &event.pool.kind {
        EventKind::ShareSubmitted(share) if share.accepted && event.aged => {
            Cause::AgedBest { difficulty: share.sdiff }
        }
        EventKind::ShareSubmitted(share) if share.accepted => Cause::Share { difficulty: share.sdiff },
        EventKind::ShareBestDiff { new_best } if event.aged => Cause::AgedBest { difficulty: *new_best },
        EventKind::ShareBestDiff { new_best } => Cause::BestDiff { difficulty: *new_best },
        _ => return None,
    };
    Some((event.pool.ts, user, cause))
}

#[cfg(test)]
mod tests;
