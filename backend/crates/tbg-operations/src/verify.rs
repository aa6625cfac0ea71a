//! Verification: recomputes the chain and finds the first seal that does not hold.

use std::fmt;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use sqlx::{PgConnection, PgPool};

use crate::rules::seal::{RowsHash, Seal, month_end, partition_of};
use crate::store::audit as store;

/// Seals that are checked in one short transaction. A long one would hold sealing back.
const PAGE: i64 = 256;

/// What verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything holds.
    Good {
        /// Seals checked.
        seals: u64,
        /// Rows checked; those of months that retention has dropped are not counted.
        rows: u64,
    },
    /// The first thing that does not.
    Fault(Fault),
}

/// A seal that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its number.
    pub seal_no: i64,
    /// What is wrong.
    pub kind: FaultKind,
}

/// What can be wrong with a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A row of its range was changed, removed or added (or added before the first seal).
    RowsDiffer,
    /// A field of the seal was changed.
    SealChanged,
    /// It is missing or does not follow the seal before it.
    ChainBroken,
    /// It is not the seal that the anchor tells of.
    AnchorDiffers,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FaultKind::RowsDiffer => "rows were changed, removed or added",
            FaultKind::SealChanged => "the seal was changed",
            FaultKind::ChainBroken => "the chain is broken",
            FaultKind::AnchorDiffers => "it is not the seal of the anchor",
        };
        write!(f, "seal {}: {what}", self.seal_no)
    }
}

/// Checks the chain from seal `from` (default: the first) to its head, then the anchor: the number and hash
/// of a seal, as kept outside of the database.
///
/// # Errors
/// When the database does not answer.
pub async fn verify(
    pool: &PgPool,
    from: Option<i64>,
    anchor: Option<(i64, [u8; 32])>,
) -> Result<Verdict, sqlx::Error> {
    let from = from.unwrap_or(1).max(1);
    let mut conn = pool.acquire().await?;
    let mut previous = None;
    if from > 1 {
        previous = store::seal(&mut conn, from - 1).await?;
        if previous.is_none() {
            return Ok(fault(from - 1, FaultKind::ChainBroken));
        }
    }
    drop(conn);
    if from == 1 && unsealed_for_long(pool).await? {
        return Ok(fault(1, FaultKind::ChainBroken));
    }
    let (mut seals, mut rows) = (0, 0);
    loop {
        let next = previous.as_ref().map_or(from, |seal: &Seal| seal.seal_no + 1);
        let page = check_page(pool, previous.as_ref(), next).await?;
        if let Some(fault) = page.fault {
            return Ok(Verdict::Fault(fault));
        }
        let Some(last) = page.last else { break };
        seals += page.seals;
        rows += page.rows;
        previous = Some(last);
    }
    if let Some((seal_no, hash)) = anchor {
        let mut conn = pool.acquire().await?;
        let stored = store::seal(&mut conn, seal_no).await?;
        if stored.is_none_or(|seal| seal.hash != hash) {
            return Ok(fault(seal_no, FaultKind::AnchorDiffers));
        }
    }
    Ok(Verdict::Good { seals, rows })
}

/// Whether there is no seal although the oldest row should have been sealed long ago: the chain was removed, or
/// nobody seals.
async fn unsealed_for_long(pool: &PgPool) -> Result<bool, sqlx::Error> {
    let mut conn = pool.acquire().await?;
    if store::head(&mut conn).await?.is_some() {
        return Ok(false);
    }
    store::has_row_before_yesterday(&mut conn).await
}

fn fault(seal_no: i64, kind: FaultKind) -> Verdict {
    Verdict::Fault(Fault { seal_no, kind })
}

/// What a page of seals gave.
struct Page {
    fault: Option<Fault>,
    last: Option<Seal>,
    seals: u64,
    rows: u64,
}

async fn check_page(pool: &PgPool, previous: Option<&Seal>, next: i64) -> Result<Page, sqlx::Error> {
    let mut tx = pool.begin().await?;
    store::lift_statement_timeout(&mut tx).await?;
    let mut seals = store::seals(&mut tx, next, PAGE).await?;
    let chain_fault = first_chain_fault(&seals, previous, next);
    if let Some((sound, _)) = chain_fault {
        seals.truncate(sound);
    }
    let (rows, rows_fault) = check_rows(&mut tx, &seals, previous.is_none()).await?;
    tx.commit().await?;
    Ok(Page {
        fault: rows_fault.or(chain_fault.map(|(_, fault)| fault)),
        seals: seals.len() as u64,
        last: seals.pop(),
        rows,
    })
}

/// The first seal that is not what it says or does not follow, and how many before it are sound.
fn first_chain_fault<'a>(
    seals: &'a [Seal],
    mut previous: Option<&'a Seal>,
    next: i64,
) -> Option<(usize, Fault)> {
    for ((index, seal), expected_no) in seals.iter().enumerate().zip(next..) {
        // A changed number is seen at the seal that is expected in its place.
        let kind = if seal.computed_hash() != seal.hash {
            Some(FaultKind::SealChanged)
        } else if !seal.follows(previous) {
            Some(FaultKind::ChainBroken)
        } else {
            None
        };
        if let Some(kind) = kind {
            return Some((index, Fault { seal_no: expected_no, kind }));
        }
        previous = Some(seal);
    }
    None
}

/// Compares the rows of consecutive seals with them. Returns how many rows there are, and the first fault.
/// `from_the_beginning`: nothing may stand before the first of them.
async fn check_rows(
    conn: &mut PgConnection,
    seals: &[Seal],
    from_the_beginning: bool,
) -> Result<(u64, Option<Fault>), sqlx::Error> {
    let (Some(first), Some(last)) = (seals.first(), seals.last()) else { return Ok((0, None)) };
    let rows_fault = |seal: &Seal| Some(Fault { seal_no: seal.seal_no, kind: FaultKind::RowsDiffer });
    if from_the_beginning && store::oldest_row(conn).await?.is_some_and(|oldest| oldest < first.lo) {
        return Ok((0, rows_fault(first)));
    }
    let hashes = hash_rows(conn, seals, first.lo, last.hi).await?;
    let mut rows = 0;
    let mut dropped_month: Option<(DateTime<Utc>, bool)> = None;
    for (seal, hash) in seals.iter().zip(hashes) {
        let (count, rows_hash) = hash.finish();
        rows += count.unsigned_abs();
        if (count, rows_hash) == (seal.row_count, seal.rows_hash) {
            continue;
        }
        let month = month_end(seal.lo);
        if count == 0 {
            let dropped = match dropped_month {
                Some((known, dropped)) if known == month => dropped,
                _ => store::is_dropped(conn, &partition_of(seal.lo), month).await?,
            };
            dropped_month = Some((month, dropped));
            if dropped {
                continue;
            }
        }
        return Ok((rows, rows_fault(seal)));
    }
    Ok((rows, None))
}

/// The hashes over the rows of consecutive seals, from one pass over the rows.
async fn hash_rows(
    conn: &mut PgConnection,
    seals: &[Seal],
    lo: DateTime<Utc>,
    hi: DateTime<Utc>,
) -> Result<Vec<RowsHash>, sqlx::Error> {
    let mut hashes = vec![RowsHash::default(); seals.len()];
    let mut open = seals.iter().zip(&mut hashes);
    let mut current = open.next();
    let mut rows = store::rows(conn, lo, hi);
    while let Some(row) = rows.try_next().await? {
        while current.as_ref().is_some_and(|(seal, _)| row.timestamp >= seal.hi) {
            current = open.next();
        }
        if let Some((_, hash)) = &mut current {
            hash.add(&row);
        }
    }
    Ok(hashes)
}
