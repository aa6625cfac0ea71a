//! Sealing: adds the next link of the chain.

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use sqlx::{PgConnection, PgPool};

use crate::rules::seal::{RowsHash, Seal, end_of_seal, is_due, minute_of};
use crate::store::audit as store;

/// Seals what is final at `now` and not yet sealed, at most to the end of a month; call again until nothing
/// is left. None when there is nothing to seal or another process is sealing.
///
/// A `now` ahead of the database's clock does no harm: its open transactions have the last word.
///
/// # Errors
/// When the database does not answer, or does not show the transactions of other roles.
pub async fn seal(pool: &PgPool, now: DateTime<Utc>) -> Result<Option<Seal>, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let seal = next_seal(&mut tx, now).await?;
    match &seal {
        Some(seal) => {
            store::insert_seal(&mut tx, seal).await?;
            tx.commit().await?;
        }
        // At once, so that the lock is free for the next call.
        None => tx.rollback().await?,
    }
    Ok(seal)
}

async fn next_seal(conn: &mut PgConnection, now: DateTime<Utc>) -> Result<Option<Seal>, sqlx::Error> {
    if !store::try_lock_sealing(conn).await? {
        return Ok(None);
    }
    store::lift_statement_timeout(conn).await?;
    let previous = store::head(conn).await?;
    // First the horizon, then the rows: the other way round, a row could be committed in between.
    let horizon = store::horizon(conn).await?;
    let lo = match &previous {
        Some(seal) => seal.hi,
        None => match store::oldest_row(conn).await? {
            Some(oldest) => minute_of(oldest),
            // The chain would begin at this minute, which is not over.
            None => return Ok(None),
        },
    };
    let Some(hi) = end_of_seal(lo, now, horizon) else { return Ok(None) };
    let rows = hash_rows(conn, lo, hi).await?;
    Ok(is_due(&rows, lo, hi).then(|| Seal::after(previous.as_ref(), lo, hi, rows)))
}

async fn hash_rows(
    conn: &mut PgConnection,
    lo: DateTime<Utc>,
    hi: DateTime<Utc>,
) -> Result<RowsHash, sqlx::Error> {
    let mut hash = RowsHash::default();
    let mut rows = store::rows(conn, lo, hi);
    while let Some(row) = rows.try_next().await? {
        hash.add(&row);
    }
    Ok(hash)
}

/// The newest seal: an anchor for the whole chain.
///
/// # Errors
/// When the database does not answer.
pub async fn head(pool: &PgPool) -> Result<Option<Seal>, sqlx::Error> {
    let mut conn = pool.acquire().await?;
    store::head(&mut conn).await
}
