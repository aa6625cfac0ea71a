//! Mining's part in the path of a share: load, fold, store.

use async_trait::async_trait;
use sqlx::PgConnection;
use tbg_bitcoin::Network;
use tbg_core::outbox::DomainEvent;
use tbg_engine::{Batch, EventKind, Reaction, Reactor};

use crate::rules::{self, Changes, State};
use crate::store;

/// How mining reacts in this deployment.
#[derive(Clone, Copy, Debug)]
pub struct MiningConfig {
    /// Subsidy schedule.
    pub network: Network,
    /// Whether `mining_events` and `shares` are written here (not beside an external collector).
    pub persist_raw: bool,
}

/// Writes what shares and blocks add up to.
#[derive(Clone, Copy, Debug)]
pub struct MiningReactor {
    config: MiningConfig,
}

impl MiningReactor {
    /// A reactor for a deployment.
    #[must_use]
    pub fn new(config: MiningConfig) -> Self {
        Self { config }
    }
}

#[async_trait]
impl Reactor for MiningReactor {
    type State = State;
    type Changes = Changes;

    fn name(&self) -> &'static str {
        "mining"
    }

    async fn load(&self, conn: &mut PgConnection, batch: &Batch) -> Result<State, sqlx::Error> {
        let blocks_found =
            batch.events.iter().filter(|event| matches!(event.pool.kind, EventKind::BlockFound(_))).count();
        let shares = if self.config.persist_raw {
            batch.events.iter().filter(|event| event.pool.share().is_some()).count()
        } else {
            0
        };
        let mut state = State {
            known: store::load_known(conn, batch).await?,
            blocks: store::load_blocks(conn, batch).await?,
            ..State::default()
        };
        state.reserved.shares = store::reserve_share_ids(conn, shares).await?;
        if blocks_found > 0 {
            store::reserve_block_ids(conn, blocks_found, &mut state.reserved).await?;
            state.network_height = store::network_height(conn).await?;
        }
        Ok(state)
    }

    fn react(&self, state: State, batch: &Batch, _so_far: &[DomainEvent]) -> Reaction<Changes> {
        let mode = rules::Mode {
            network: self.config.network,
            persist_raw: self.config.persist_raw,
            publish_blocks: self.config.persist_raw,
        };
        rules::fold(state, batch, mode)
    }

    async fn store(&self, conn: &mut PgConnection, changes: Changes) -> Result<(), sqlx::Error> {
        store::insert_events(conn, &changes.events).await?;
        store::insert_shares(conn, &changes.shares).await?;
        store::upsert_rollups(conn, &changes.rollups).await?;
        store::upsert_bests(conn, &changes.rollups.bests).await?;
        store::upsert_network(conn, &changes.network).await?;
        store::upsert_blocks(conn, &changes.blocks).await?;
        store::insert_celebrations(conn, &changes.celebrations).await?;
        store::upsert_feed(conn, &changes.feed).await?;
        store::confirm_blocks(conn, changes.confirm_from).await
    }
}
