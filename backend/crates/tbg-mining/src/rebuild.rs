//! Recomputes the rollups from the archive (DESIGN, "`tbg rebuild`").
//!
//! The archive is folded again by the very rules that batches use, so there is no second definition of
//! anything. It remembers who held an address when an event was processed (`mining_events.user_id`), so
//! per-user rows come out the same. Rows from before the archive stay: rollups are kept forever, raw rows
//! are not. Blocks are merged again, which restores a missing one and changes no other; nothing is
//! announced or celebrated anew.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use futures_util::TryStreamExt as _;
use sqlx::{Connection as _, PgConnection, PgPool};
use tbg_core::UserId;
use tbg_core::period::IsoWeek;
use tbg_core::users::{Holder, holders};
use tbg_engine::decode::decode_entry;
use tbg_engine::key::event_key;
use tbg_engine::{Batch, BatchEvent, Reactor as _};
use uuid::Uuid;

use crate::reactor::{MiningConfig, MiningReactor};
use crate::store::{self, rebuild as sql};

/// Events folded at once.
const CHUNK: usize = 5_000;
/// An external collector writes duplicates too; they lie closer together than this.
const DUPLICATE_WINDOW: TimeDelta = TimeDelta::seconds(2);

/// What a rebuild did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Events of the archive that were folded.
    pub events: u64,
    /// From where on rows were rebuilt; `None` for an empty archive.
    pub since: Option<DateTime<Utc>>,
}

/// Rebuilds `hourly_shares`, `user_daily_stats`, `weekly_best_diff` and `personal_bests` in one
/// transaction that holds the writer's turn; the writer waits meanwhile. `on_progress` hears the number
/// of events so far.
///
/// # Errors
/// When the database does not answer; then nothing has changed.
pub async fn rebuild(
    reader: &PgPool,
    conn: &mut PgConnection,
    config: MiningConfig,
    mut on_progress: impl FnMut(u64),
) -> Result<Rebuilt, sqlx::Error> {
    let reactor = MiningReactor::new(MiningConfig { persist_raw: false, ..config });
    let mut tx = conn.begin().await?;
    sql::without_timeout(&mut tx).await?;
    tbg_engine::engine::take_turn(&mut tx).await?;
    let Some(reach) = sql::reach(&mut tx).await? else { return Ok(Rebuilt::default()) };
    let weeks_from = first_whole_week(reach);
    sql::reset(&mut tx, reach, weeks_from).await?;

    let mut rebuilt = Rebuilt { events: 0, since: Some(reach.since) };
    let mut chunk = Chunk::default();
    let mut archive = sql::archive(reader);
    while let Some(row) = archive.try_next().await? {
        let Some((event, owner)) = read(&row) else { continue };
        if chunk.is_full_for(&event, owner) {
            rebuilt.events += chunk.fold(&mut tx, &reactor, weeks_from).await?;
            on_progress(rebuilt.events);
        }
        chunk.add(event, owner);
    }
    rebuilt.events += chunk.fold(&mut tx, &reactor, weeks_from).await?;
    tx.commit().await?;
    on_progress(rebuilt.events);
    Ok(rebuilt)
}

/// The first Monday from which weeks are wholly in the archive.
fn first_whole_week(reach: sql::Reach) -> NaiveDate {
    let since = reach.since.date_naive();
    let monday = IsoWeek::of_day(since).monday();
    if !reach.has_history || monday == since {
        monday
    } else {
        monday.checked_add_days(Days::new(7)).unwrap_or(monday)
    }
}

/// Who held the address: known for our own rows, unknown for those of an external collector.
type Owner = Option<Option<UserId>>;

fn read(row: &sql::Archived) -> Option<(BatchEvent, Owner)> {
    let micros = row.ts.timestamp_micros();
    let entry = HashMap::from([
        ("ts".to_owned(), format!("{}.{:06}", micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000))),
        ("source".to_owned(), row.source.clone()),
        ("region".to_owned(), row.region.clone()),
        ("data".to_owned(), row.payload.clone()),
    ]);
    let pool = decode_entry(&row.event_type, "", &entry)
        .inspect_err(|refusal| tracing::warn!(detail = refusal.detail, "an archived event does not decode"))
        .ok()?;
    let key = row.event_key.unwrap_or_else(|| event_key(&pool).0);
    let owner = row.event_key.map(|_| row.user_id.map(UserId));
    Some((BatchEvent { key, pool: Arc::new(pool), aged: false }, owner))
}

/// Events that can be folded together: each address has one holder.
#[derive(Default)]
struct Chunk {
    events: Vec<BatchEvent>,
    owners: HashMap<String, Owner>,
    /// Recent events of an external collector, against duplicates.
    recent: HashMap<Uuid, DateTime<Utc>>,
}

impl Chunk {
    fn is_full_for(&self, event: &BatchEvent, owner: Owner) -> bool {
        self.events.len() >= CHUNK || self.owners.get(&event.pool.user).is_some_and(|known| *known != owner)
    }

    fn add(&mut self, event: BatchEvent, owner: Owner) {
        let ts = event.pool.ts;
        if owner.is_none() {
            let before = self.recent.insert(event.key, ts);
            if before.is_some_and(|before| ts - before < DUPLICATE_WINDOW) {
                return;
            }
        }
        self.owners.insert(event.pool.user.clone(), owner);
        self.events.push(event);
    }

    async fn fold(
        &mut self,
        conn: &mut PgConnection,
        reactor: &MiningReactor,
        weeks_from: NaiveDate,
    ) -> Result<u64, sqlx::Error> {
        let events = std::mem::take(&mut self.events);
        let owners = std::mem::take(&mut self.owners);
        let Some(last) = events.last().map(|event| event.pool.ts) else { return Ok(0) };
        self.recent.retain(|_, ts| last - *ts < DUPLICATE_WINDOW);
        let count = events.len() as u64;
        let batch = Batch { events, holders: resolve(conn, owners).await?, processed_at: last };
        let state = reactor.load(conn, &batch).await?;
        let mut changes = reactor.react(state, &batch, &[]).changes;
        for weeks in changes.rollups.weekly.values_mut() {
            weeks.retain(|monday, _| *monday >= weeks_from);
        }
        store::upsert_rollups(conn, &changes.rollups).await?;
        store::upsert_bests(conn, &changes.rollups.bests).await?;
        store::upsert_network(conn, &changes.network).await?;
        store::upsert_blocks(conn, &changes.blocks).await?;
        store::confirm_blocks(conn, changes.confirm_from).await?;
        Ok(count)
    }
}

async fn resolve(
    conn: &mut PgConnection,
    owners: HashMap<String, Owner>,
) -> Result<HashMap<String, Holder>, sqlx::Error> {
    let unknown: Vec<String> =
        owners.iter().filter(|(_, owner)| owner.is_none()).map(|(address, _)| address.clone()).collect();
    let mut known = holders(conn, &unknown).await?;
    for (address, owner) in owners {
        if let Some(Some(id)) = owner {
            // A rebuild tells nobody anything: names do not matter.
            let holder = Holder {
                id,
                display_name: None,
                is_banned: false,
                is_test: false,
                is_public: true,
                country_code: None,
            };
            known.insert(address, holder);
        }
    }
    Ok(known)
}
