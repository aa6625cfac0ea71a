//! What mining does with the events of others: an address that was proven, an account that is gone (contract
//! `mining.md` §3.5).

use anyhow::Context as _;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tbg_core::UserId;
use tbg_core::consumer::Handle;
use tbg_core::live::LiveMessage;
use tbg_core::outbox::Pending;

use crate::store::{adoption as store, rebuild};

/// Consumes `AddressProven` and `UserDeleted`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MiningEvents;

impl MiningEvents {
    /// The consumer.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Handle for MiningEvents {
    fn consumer(&self) -> &'static str {
        "mining"
    }

    async fn handle(
        &self,
        conn: &mut PgConnection,
        event: &Pending,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Vec<LiveMessage>> {
        let user = event.user_id.context("the event names no user")?;
        let address = event.payload.get("btc_address").and_then(serde_json::Value::as_str);
        match (event.topic.as_str(), address) {
            ("AddressProven", Some(address)) => adopt(conn, user, address, now).await?,
            ("UserDeleted", address) => store::forget(conn, user, address).await?,
            _ => tracing::warn!(topic = event.topic, "not an event for mining"),
        }
        Ok(Vec::new())
    }
}

/// Gives the rows of a proven address to its holder: those of nobody, and those of somebody who never proved
/// it. Bests and days are computed anew from what is kept. Nothing is emitted: nobody earns by shares of
/// before. Doing it again changes nothing.
async fn adopt(
    conn: &mut PgConnection,
    user: UserId,
    address: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    // Until the commit no batch adds to the rows that are summed up here.
    tbg_engine::engine::take_turn(conn).await?;
    if !store::holds_proven(conn, user, address).await? {
        return Ok(());
    }
    // Whoever proves an address that never mined, as most newcomers do, costs the batches no wait.
    let Some(since) = store::first_activity(conn, address).await? else { return Ok(()) };
    rebuild::without_timeout(conn).await?;
    let former = store::unproven_holders(conn, user, address).await?;
    store::lower_former_bests(conn, &former, address).await?;
    let days = store::take_over(conn, user, address, &former, since).await?;
    store::recompute_days(conn, user, &former, &days).await?;
    store::raise_bests(conn, user, address, now).await?;
    store::raise_former_bests(conn, &former).await?;
    store::celebrate(conn, user, &former).await
}
