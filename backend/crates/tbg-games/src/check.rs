//! Whether draws follow from their entries. A draw is a ledger: what differs is told, never rewritten. A tree that is
//! gone is made again, if it is the one that was published.

use sqlx::{Connection as _, PgConnection, PgPool};
use tbg_core::period::IsoWeek;

use crate::cycle::{result, row_entry};
use crate::rules::lottery::{self, Hash, NO_SEAL, by_rank, tree, xp_of};
use crate::store::{self, EntryRow, StoredResult};

/// Derives tree, seal and results of every draw past its freeze anew from its entries. Returns how many draws there
/// are, and the weeks of those that differ.
///
/// # Errors
/// When the database does not answer.
pub async fn check(pool: &PgPool) -> anyhow::Result<(usize, Vec<String>)> {
    let mut conn = pool.acquire().await?;
    let draws = store::sealed(&mut conn).await?;
    let (mut previous, mut wrong) = (NO_SEAL, Vec::new());
    for draw in &draws {
        let week = IsoWeek::of_day(draw.week_start);
        let mut rows = store::entries(&mut conn, draw.id, draw.week_start).await?;
        let levels = tree(rows.iter().map(|row| row_entry(row).leaf(week)).collect());
        let root = levels.last().and_then(|level| level.first()).copied().unwrap_or_default();
        let seal = lottery::seal(&previous, week, rows.len() as u64, &root);
        let is_sealed = draw.merkle_root == root && draw.seal == seal && draw.previous_seal == previous;
        let stored: Vec<Vec<u8>> = store::levels(&mut conn, draw.id).await?;
        if stored.is_empty() && !rows.is_empty() && is_sealed {
            restore(&mut conn, draw.id, &levels).await?;
            tracing::warn!(%week, "the tree of a draw was gone and was made again");
        }
        let is_tree = stored.is_empty() && (rows.is_empty() || is_sealed)
            || stored.iter().map(Vec::as_slice).eq(levels.iter().map(|level| level.as_flattened()));
        rows.sort_unstable_by(|a, b| by_rank(&row_entry(a), &row_entry(b)));
        let is_whole = draw.total_participants == i64::try_from(rows.len()).unwrap_or(i64::MAX)
            && draw.total_shares == rows.iter().map(|row| row.total_shares).sum::<i64>();
        let is_drawn = draw.status != "completed" || {
            let results = store::stored_results(&mut conn, draw.id).await?;
            let winner = rows.first().map(|row| (row.user_id, row.best_difficulty));
            let sum_best: f64 = rows.iter().map(|row| row.best_difficulty).sum();
            results.len() == rows.len()
                && results.iter().enumerate().all(|(place, stored)| follows(&rows, place, stored))
                && draw.winner_user_id.zip(draw.winning_difficulty) == winner
                && draw.sum_best_difficulty == sum_best
        };
        if !(is_tree && is_sealed && is_whole && is_drawn) {
            wrong.push(week.to_string());
        }
        previous = draw.seal.as_slice().try_into().unwrap_or(NO_SEAL);
    }
    Ok((draws.len(), wrong))
}

/// Writes all levels of a tree, or none.
async fn restore(conn: &mut PgConnection, draw: i64, levels: &[Vec<Hash>]) -> Result<(), sqlx::Error> {
    let mut tx = conn.begin().await?;
    for (number, level) in (0..).zip(levels) {
        store::insert_level(&mut tx, draw, number, level).await?;
    }
    tx.commit().await
}

/// Whether a stored result is the one of its place. Who was banned or deleted when it was drawn was paid nothing.
fn follows(ranked: &[EntryRow], place: usize, stored: &StoredResult) -> bool {
    result(ranked, place).is_some_and(|result| {
        stored.user_id == result.entry.user_id
            && stored.rank == result.rank
            && stored.percentile == i32::from(result.percentile_hundredths)
            && stored.best_difficulty == result.entry.best_difficulty
            && stored.total_shares == result.entry.total_shares
            && (stored.xp_awarded == 0 || stored.xp_awarded == xp_of(result.rank))
    })
}
