//! A week's life (contract `games.md` §2.7): opened, frozen once ingest has caught up, drawn after its root is
//! public. The clock decides when, never who.

use std::mem;
use std::sync::Arc;

use anyhow::Context as _;
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use futures_util::TryStreamExt as _;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;
use sqlx::{Connection as _, PgConnection, PgPool};
use tbg_core::audit::{self, Action, Entry as AuditEntry};
use tbg_core::live::{LiveBus, LiveEvent, LiveMessage};
use tbg_core::outbox::{self, DomainEvent, LotteryResult};
use tbg_core::period::IsoWeek;
use tbg_core::{UserId, db};
use tokio::task::spawn_blocking;

use crate::metrics;
use crate::rules::lottery::{
    self, Entrant, Entry, Hash, NO_SEAL, SaltKey, above, by_rank, hex, percentile, percentile_hundredths,
    tree, xp_of,
};
use crate::store::{self, Committed, DrawState, EntryRow, Frozen, ResultRow};

/// Weeks of one run.
const MAX_WEEKS: i64 = 520;
/// Event times may run so far ahead of the clock: then all of a week has been seen.
const AHEAD: TimeDelta = TimeDelta::seconds(300);
/// A draw of a week that ended longer ago is told to nobody.
const NEWS_FOR: TimeDelta = TimeDelta::days(8);
/// Entrants whose commitments are made at once, while the database sends the next.
const ENTRANTS_AT_ONCE: usize = 20_000;
/// Results in one domain event.
const EVENT_CHUNK: usize = 500;
/// Domain events in one statement.
const EVENTS_AT_ONCE: usize = 20;
const ANONYMOUS: &str = "Anonymous";

/// When steps are due.
#[derive(Clone, Copy, Debug)]
pub struct CycleConfig {
    /// From the end of a week until it may be frozen.
    pub freeze_grace: TimeDelta,
    /// From the freeze until the draw.
    pub reveal_delay: TimeDelta,
    /// How long a freeze waits for ingest, from when the draw was first seen to be due.
    pub watermark_wait: TimeDelta,
}

/// What the cycle stands on.
#[derive(Clone)]
pub struct Cycle {
    /// The primary database.
    pub pool: PgPool,
    /// Tells who looks.
    pub bus: LiveBus,
    /// Behind the salts.
    pub key: SaltKey,
    /// When.
    pub config: CycleConfig,
}

/// What has become of a week.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WeekStatus {
    /// The week.
    pub week_iso: String,
    /// open, processing or completed.
    pub status: &'static str,
    /// Entries; 0 while it is open.
    pub total_participants: i32,
    /// Root of the entries, once they are frozen.
    pub merkle_root: Option<String>,
}

/// Whether waits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// As configured.
    Kept,
    /// An operator skips them; the end of the week never.
    Skipped,
}

/// The first instant after a week.
fn end_of(monday: NaiveDate) -> DateTime<Utc> {
    IsoWeek::of_day(monday).next().monday().and_time(NaiveTime::MIN).and_utc()
}

impl Cycle {
    /// Takes all due steps of all weeks, oldest first. Running twice at once does each step once.
    ///
    /// # Errors
    /// When the database does not answer; what was done stays done.
    pub async fn run(&self, now: DateTime<Utc>, waits: Waits) -> anyhow::Result<Vec<WeekStatus>> {
        self.open_weeks(now).await.context("opening weeks")?;
        let grace = self.grace(waits);
        store::note_due(&self.pool, IsoWeek::of(now - grace).monday(), now).await.context("due weeks")?;
        let unfinished = store::unfinished(&self.pool, IsoWeek::of(now).monday(), MAX_WEEKS).await?;
        let results_are_due = |monday: &&NaiveDate| now > end_of(**monday) + grace + self.config.reveal_delay;
        // Told before the work, which may fail, and after it.
        let overdue = unfinished.iter().filter(results_are_due).count();
        metrics::overdue(overdue);
        if waits == Waits::Skipped {
            self.note_forced(&unfinished).await?;
        }
        let mut weeks = Vec::new();
        for monday in unfinished {
            let status =
                self.advance(monday, now, waits).await.with_context(|| format!("week of {monday}"))?;
            let may_go_on = status.status != "open";
            weeks.push(status);
            if !may_go_on {
                break;
            }
        }
        let completed = weeks.iter().filter(|week| week.status == "completed").count();
        metrics::overdue(overdue.saturating_sub(completed));
        Ok(weeks)
    }

    /// Keeps which weeks an operator took out of turn: before that, so that no attempt is missing.
    async fn note_forced(&self, mondays: &[NaiveDate]) -> anyhow::Result<()> {
        let mut conn = self.pool.acquire().await?;
        for monday in mondays {
            let week = IsoWeek::of_day(*monday).to_string();
            let entry = AuditEntry::new(Action::LotteryForced, "lottery").on(week);
            audit::record(&mut conn, &entry).await.context("audit")?;
        }
        Ok(())
    }

    /// Makes rows from the first week with shares to the current one.
    async fn open_weeks(&self, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
        let Some(start) = store::chain_start(&self.pool).await? else { return Ok(()) };
        let current = IsoWeek::of(now);
        let newest = store::newest(&self.pool).await?;
        let from = newest.map_or(IsoWeek::of_day(start), |monday| IsoWeek::of_day(monday).next());
        let count = current.weeks_since(from) + 1;
        let weeks: Vec<IsoWeek> = (0..count.clamp(0, MAX_WEEKS))
            .filter_map(|n| u32::try_from(n).ok())
            .map(|n| from.plus(n))
            .collect();
        if weeks.is_empty() {
            return Ok(());
        }
        let mondays: Vec<NaiveDate> = weeks.iter().map(|week| week.monday()).collect();
        let names: Vec<String> = weeks.iter().map(ToString::to_string).collect();
        store::open(&self.pool, &mondays, &names).await
    }

    /// Takes the due steps of one week.
    async fn advance(
        &self,
        monday: NaiveDate,
        now: DateTime<Utc>,
        waits: Waits,
    ) -> anyhow::Result<WeekStatus> {
        let mut status = WeekStatus {
            week_iso: IsoWeek::of_day(monday).to_string(),
            status: "open",
            total_participants: 0,
            merkle_root: None,
        };
        self.freeze(monday, now, waits).await?;
        status.status = self.draw(monday, now, waits).await?;
        if let Some(draw) = store::draw(&self.pool, Some(&status.week_iso)).await? {
            status.total_participants = draw.total_participants;
            status.merkle_root = draw.merkle_root.as_deref().map(hex);
        }
        Ok(status)
    }

    /// Freezes a week if it is due: from here its root is public.
    async fn freeze(
        &self,
        monday: NaiveDate,
        now: DateTime<Utc>,
        waits: Waits,
    ) -> anyhow::Result<Option<Frozen>> {
        let mut conn = self.pool.acquire().await?;
        let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        let held = match store::hold(&mut tx, monday).await {
            // Another run has frozen it while this one waited for the row.
            Err(error) if db::is_overtaken(&error) => return Ok(None),
            held => held?,
        };
        let Some(draw) = held else { return Ok(None) };
        if draw.status != "open" || now < end_of(monday) + self.grace(waits) {
            return Ok(None);
        }
        if !self.may_freeze(&mut tx, &draw, now, waits).await? {
            tx.commit().await?;
            return Ok(None);
        }
        store::plan_for_everybody(&mut tx).await?;
        let frozen = self.freeze_now(&mut tx, &draw, now).await?;
        tx.commit().await?;
        let week = IsoWeek::of_day(monday);
        tracing::info!(%week, entries = frozen.participants, root = hex(&frozen.root), seal = hex(&frozen.seal), "the week's entries are frozen");
        Ok(Some(frozen))
    }

    fn grace(&self, waits: Waits) -> TimeDelta {
        if waits == Waits::Skipped { TimeDelta::zero() } else { self.config.freeze_grace }
    }

    /// Whether all shares of the week have been seen, or were waited for long enough.
    async fn may_freeze(
        &self,
        conn: &mut PgConnection,
        draw: &DrawState,
        now: DateTime<Utc>,
        waits: Waits,
    ) -> anyhow::Result<bool> {
        let Some(due_seen) = draw.due_seen_at else { return Ok(false) };
        let previous = store::previous(conn, draw.week_start).await?;
        if previous.is_some_and(|(status, _)| status == "open") {
            return Ok(false);
        }
        if waits == Waits::Skipped || now >= due_seen + self.config.watermark_wait {
            return Ok(true);
        }
        let seen = store::watermark(conn).await?;
        Ok(seen.is_some_and(|seen| seen >= end_of(draw.week_start) + AHEAD))
    }

    async fn freeze_now(
        &self,
        conn: &mut PgConnection,
        draw: &DrawState,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Frozen> {
        let week = IsoWeek::of_day(draw.week_start);
        let (committed, leaves) = self.commit(conn, week).await?;
        let shares = committed.iter().map(|entry| entry.entrant.total_shares).sum();
        store::insert_entries(conn, draw.id, &committed, |user| self.key.salt(week, user)).await?;
        // The tree needs the leaves alone: the entries make room for it.
        drop(committed);
        let participants = leaves.len();
        let root = write_tree(conn, draw.id, leaves).await?;
        let previous_seal = match store::previous(conn, draw.week_start).await? {
            Some((_, Some(seal))) => seal.try_into().ok().context("a seal has 32 bytes")?,
            _ => NO_SEAL,
        };
        let frozen = Frozen {
            participants: i32::try_from(participants).context("too many entries")?,
            shares,
            root,
            previous_seal,
            seal: lottery::seal(&previous_seal, week, participants as u64, &root),
            key_id: self.key.id().to_owned(),
        };
        store::set_frozen(conn, draw.id, &frozen, now).await?;
        let details = json!({
            "week": week.to_string(), "n": frozen.participants, "root": hex(&root), "seal": hex(&frozen.seal),
        });
        let entry = AuditEntry::new(Action::LotteryFrozen, "lottery").on(week.to_string()).details(details);
        audit::record(conn, &entry).await.context("audit")?;
        Ok(frozen)
    }

    /// Everybody who takes part in a week, in the order of the tree, and the tree's leaves.
    async fn commit(
        &self,
        conn: &mut PgConnection,
        week: IsoWeek,
    ) -> anyhow::Result<(Vec<Committed>, Vec<Hash>)> {
        let last_instant = end_of(week.monday()) - TimeDelta::microseconds(1);
        let mut rows = store::entrants(conn, week.monday(), last_instant);
        let (mut committed, mut waiting) = (Vec::new(), Vec::<Entrant>::new());
        while let Some(row) = rows.try_next().await? {
            if let Some(last) = waiting.last_mut().filter(|last| last.user_id == row.user_id) {
                last.join(row);
                continue;
            }
            if waiting.len() == ENTRANTS_AT_ONCE {
                committed.extend(self.committed(week, mem::take(&mut waiting)).await?);
            }
            waiting.push(row);
        }
        committed.extend(self.committed(week, waiting).await?);
        let in_order = move || {
            committed.par_sort_unstable_by_key(|entry| entry.commitment);
            let leaves = committed.par_iter().map(|entry| entry_of(entry).leaf(week)).collect();
            (committed, leaves)
        };
        Ok(spawn_blocking(in_order).await?)
    }

    /// Some of them with their commitments, by all processors.
    async fn committed(&self, week: IsoWeek, entrants: Vec<Entrant>) -> anyhow::Result<Vec<Committed>> {
        let key = self.key.clone();
        let committed = move |entrant: Entrant| {
            let salt = key.salt(week, entrant.user_id);
            let commitment = lottery::commitment(week, &salt, &entrant.btc_address);
            Committed { entrant, commitment }
        };
        Ok(spawn_blocking(move || entrants.into_par_iter().map(committed).collect()).await?)
    }

    /// Draws a frozen week if it is due. Returns where the week is now.
    async fn draw(
        &self,
        monday: NaiveDate,
        now: DateTime<Utc>,
        waits: Waits,
    ) -> anyhow::Result<&'static str> {
        let mut tx = self.pool.begin().await?;
        let Some(draw) = store::hold(&mut tx, monday).await? else { return Ok("open") };
        let frozen_at = match (draw.status.as_str(), draw.frozen_at) {
            ("completed", _) => return Ok("completed"),
            ("processing", Some(at)) => at,
            _ => return Ok("open"),
        };
        if waits == Waits::Kept && now < frozen_at + self.config.reveal_delay {
            return Ok("processing");
        }
        store::plan_for_everybody(&mut tx).await?;
        let messages = draw_now(&mut tx, &draw, now).await?;
        tx.commit().await?;
        self.bus.publish(&messages).await;
        Ok("completed")
    }
}

/// Writes the tree over the leaves level by level, never holding more than two: while one is written, the next is
/// made. Returns its root; of nothing there
/// are no levels.
async fn write_tree(conn: &mut PgConnection, draw: i64, leaves: Vec<Hash>) -> anyhow::Result<Hash> {
    if leaves.is_empty() {
        return tree(leaves).pop().and_then(|level| level.first().copied()).context("a tree has a root");
    }
    let (mut number, mut level) = (0, Arc::new(leaves));
    loop {
        let below = Arc::clone(&level);
        let next = spawn_blocking(move || above(&below));
        store::insert_level(conn, draw, number, &level).await?;
        if let [root] = level.as_slice() {
            return Ok(*root);
        }
        level = Arc::new(next.await?);
        number += 1;
    }
}

fn entry_of(entry: &Committed) -> Entry {
    Entry {
        commitment: entry.commitment,
        best_difficulty: entry.entrant.best_difficulty,
        best_time_us: entry.entrant.best_time.timestamp_micros(),
        total_shares: entry.entrant.total_shares.unsigned_abs(),
    }
}

/// Ranks, pays and tells, in the transaction that holds the draw.
async fn draw_now(
    conn: &mut PgConnection,
    draw: &DrawState,
    now: DateTime<Utc>,
) -> anyhow::Result<Vec<LiveMessage>> {
    store::forget_the_deleted(conn, draw.id).await?;
    let mut rows = store::entries(conn, draw.id, draw.week_start).await?;
    let ranked = move || {
        rows.par_sort_unstable_by(|a, b| by_rank(&row_entry(a), &row_entry(b)));
        rows
    };
    let rows = spawn_blocking(ranked).await?;
    let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    let mut by_user: Vec<u32> = (0..).take(rows.len()).collect();
    by_user.sort_unstable_by_key(|place| rows.get(*place as usize).map(|row| row.user_id));
    let results = by_user.iter().filter_map(|place| result(&rows, *place as usize));
    store::insert_results(conn, draw.id, results, now).await?;
    drop(by_user);
    let winner = rows.first().map(|first| (UserId(first.user_id), first.best_difficulty));
    let sum_best: f64 = rows.iter().map(|row| row.best_difficulty).sum();
    store::set_completed(conn, draw.id, winner, sum_best, now).await?;
    write_events(conn, draw, Arc::new(rows), now).await?;
    let week = IsoWeek::of_day(draw.week_start);
    let details = json!({ "week": week.to_string(), "n": count, "winner": winner.map(|(user, _)| user) });
    let entry = AuditEntry::new(Action::LotteryDrawn, "lottery").on(week.to_string()).details(details);
    audit::record(conn, &entry).await.context("audit")?;
    tracing::info!(%week, participants = count, "the week is drawn");
    match winner {
        Some(winner) if now <= end_of(draw.week_start) + NEWS_FOR => {
            tell(conn, draw, winner, count, now).await
        }
        _ => Ok(Vec::new()),
    }
}

/// The result of the entry at a place of the ranking, counted from 0.
pub(crate) fn result(ranked: &[EntryRow], place: usize) -> Option<ResultRow<'_>> {
    let entry = ranked.get(place)?;
    let rank = i32::try_from(place + 1).ok()?;
    let count = i64::try_from(ranked.len()).ok()?;
    let percentile_hundredths = u16::try_from(percentile_hundredths(rank.into(), count)).ok()?;
    Some(ResultRow { entry, rank, xp: if entry.is_paid { xp_of(rank) } else { 0 }, percentile_hundredths })
}

pub(crate) fn row_entry(row: &EntryRow) -> Entry {
    Entry {
        commitment: row.commitment,
        best_difficulty: row.best_difficulty,
        best_time_us: row.best_time.timestamp_micros(),
        total_shares: row.total_shares.unsigned_abs(),
    }
}

/// Tells other domains the results, [`EVENT_CHUNK`] in an event; of an empty draw one event without results. While
/// some are written, the next are made.
async fn write_events(
    conn: &mut PgConnection,
    draw: &DrawState,
    ranked: Arc<Vec<EntryRow>>,
    drawn_at: DateTime<Utc>,
) -> anyhow::Result<()> {
    let chunks = ranked.len().div_ceil(EVENT_CHUNK).max(1);
    let (draw_id, monday) = (draw.id, draw.week_start);
    let make = |from: usize| {
        let ranked = Arc::clone(&ranked);
        spawn_blocking(move || {
            let some = from..chunks.min(from + EVENTS_AT_ONCE);
            let events: Vec<_> = some.map(|chunk| drawn(draw_id, monday, drawn_at, &ranked, chunk)).collect();
            outbox::Rows::of(&events)
        })
    };
    let mut next = make(0);
    for from in (0..chunks).step_by(EVENTS_AT_ONCE) {
        let rows = mem::replace(&mut next, make(from + EVENTS_AT_ONCE)).await??;
        rows.write(conn).await?;
    }
    Ok(())
}

/// The event of one chunk of results.
fn drawn(
    draw_id: i64,
    monday: NaiveDate,
    drawn_at: DateTime<Utc>,
    ranked: &[EntryRow],
    chunk: usize,
) -> DomainEvent {
    let total_participants = i32::try_from(ranked.len()).unwrap_or(i32::MAX);
    let results = (chunk * EVENT_CHUNK..ranked.len().min((chunk + 1) * EVENT_CHUNK))
        .filter_map(|place| result(ranked, place))
        .map(|row| LotteryResult {
            user_id: row.entry.user_id,
            rank: row.rank,
            percentile: percentile(row.rank.into(), total_participants.into()),
            xp: row.xp,
        });
    DomainEvent::LotteryDrawn {
        draw_id,
        week_iso: IsoWeek::of_day(monday).to_string(),
        week_end: end_of(monday),
        drawn_at,
        total_participants,
        results: results.collect(),
        chunk,
    }
}

/// The feed and the sockets.
async fn tell(
    conn: &mut PgConnection,
    draw: &DrawState,
    (winner, difficulty): (UserId, f64),
    count: i64,
    now: DateTime<Utc>,
) -> anyhow::Result<Vec<LiveMessage>> {
    let week = IsoWeek::of_day(draw.week_start).to_string();
    let name = store::public_name(conn, winner).await?.unwrap_or_else(|| ANONYMOUS.to_owned());
    let text = format!("{name} topped the {week} lottery");
    let key = format!("lottery:{week}");
    let metadata = json!({ "key": key, "kind": "lottery_drawn", "link": "/games", "week_iso": week, "difficulty": difficulty, "total_participants": count });
    let id = store::add_feed_row(conn, winner, &text, &metadata, &key, now).await?;
    let drawn = json!({
        "draw_id": draw.id, "week_iso": week, "total_participants": count, "winner": name, "user_id": winner,
    });
    let mut messages = vec![LiveMessage::global_kept_for(LiveEvent::LotteryDrawn, Some(winner), drawn)];
    messages.extend(id.map(|id| {
        let item = json!({
            "id": id, "type": "competition", "text": text, "description": null, "time": now, "metadata": metadata,
        });
        LiveMessage::global(LiveEvent::FeedItem, json!({ "item": item }))
    }));
    Ok(messages)
}
