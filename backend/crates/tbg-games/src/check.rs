//! Whether draws follow from their entries. A draw is a ledger: what differs is told, never rewritten.

use sqlx::PgPool;
use tbg_core::period::IsoWeek;

use crate::cycle::row_entry;
use crate::rules::lottery::{self, NO_SEAL, by_rank, percentile_hundredths, tree};
use crate::store;

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
        let stored: Vec<Vec<u8>> = store::levels(&mut conn, draw.id).await?;
        let is_tree = rows.is_empty() && stored.is_empty()
            || stored.iter().map(Vec::as_slice).eq(levels.iter().map(|level| level.as_flattened()));
        let is_sealed = draw.merkle_root == root && draw.seal == seal && draw.previous_seal == previous;
        rows.sort_unstable_by(|a, b| by_rank(&row_entry(a), &row_entry(b)));
        let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let expected = (1..).zip(&rows).map(|(rank, row)| {
            (row.user_id, rank, i32::try_from(percentile_hundredths(rank.into(), count)).unwrap_or(0))
        });
        let results = store::ranks(&mut conn, draw.id).await?;
        let is_ranked = draw.status != "completed" || expected.eq(results);
        if !(is_tree && is_sealed && is_ranked) {
            wrong.push(week.to_string());
        }
        previous = draw.seal.as_slice().try_into().unwrap_or(NO_SEAL);
    }
    Ok((draws.len(), wrong))
}
