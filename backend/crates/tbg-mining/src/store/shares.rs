//! `shares` as their miner reads them: by address, newest first, through the indexes that the contract names.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgConnection;
use tbg_core::UserId;

/// A share.
pub(crate) struct ShareRow {
    pub id: i64,
    pub time: DateTime<Utc>,
    pub worker_name: String,
    pub difficulty: f64,
    pub share_diff: f64,
    pub is_valid: bool,
    pub is_block: bool,
}

/// Which shares; both conditions hold at once.
pub(crate) struct Filter<'a> {
    pub worker: Option<&'a str>,
    pub valid: Option<bool>,
}

/// Up to `at_most` shares of an address, newest first, after the place `after`. An external collector stores a
/// worker's full name (contract, pitfall 6), so three names are meant.
pub(crate) async fn page(
    conn: &mut PgConnection,
    address: &str,
    filter: &Filter<'_>,
    after: Option<(DateTime<Utc>, i64)>,
    at_most: i64,
) -> Result<Vec<ShareRow>, sqlx::Error> {
    let (time, id) = after.unzip();
    match filter.worker {
        None => {
            sqlx::query_as!(
                ShareRow,
                r#"SELECT id, time, worker_name, difficulty, share_diff, is_valid, coalesce(is_block, FALSE) AS "is_block!"
                   FROM shares
                   WHERE btc_address = $1 AND time <= coalesce($2::TIMESTAMPTZ, 'infinity')
                     AND ($2::TIMESTAMPTZ IS NULL OR (time, id) < ($2, $3::BIGINT))
                     AND ($4::BOOLEAN IS NULL OR is_valid = $4)
                   ORDER BY time DESC, id DESC LIMIT $5"#,
                address,
                time,
                id,
                filter.valid,
                at_most
            )
            .fetch_all(conn)
            .await
        }
        Some(name) => {
            let names = [name.to_owned(), format!("{address}.{name}"), format!("{address}_{name}")];
            sqlx::query_as!(
                ShareRow,
                r#"SELECT s.id AS "id!", s.time AS "time!", s.worker_name AS "worker_name!", s.difficulty AS "difficulty!",
                          s.share_diff AS "share_diff!", s.is_valid AS "is_valid!", coalesce(s.is_block, FALSE) AS "is_block!"
                   FROM unnest($6::TEXT[]) AS meant (name)
                   CROSS JOIN LATERAL (
                       SELECT id, time, worker_name, difficulty, share_diff, is_valid, is_block FROM shares
                       WHERE btc_address = $1 AND worker_name = meant.name
                         AND time <= coalesce($2::TIMESTAMPTZ, 'infinity')
                         AND ($2::TIMESTAMPTZ IS NULL OR (time, id) < ($2, $3::BIGINT))
                         AND ($4::BOOLEAN IS NULL OR is_valid = $4)
                       ORDER BY time DESC, id DESC LIMIT $5
                   ) s
                   ORDER BY s.time DESC, s.id DESC LIMIT $5"#,
                address,
                time,
                id,
                filter.valid,
                at_most,
                &names
            )
            .fetch_all(conn)
            .await
        }
    }
}

/// The newest shares of a user, with whether each is a current best of theirs and above the average of `today`.
pub(crate) async fn newest_of(
    conn: &mut PgConnection,
    user: UserId,
    today: NaiveDate,
    at_most: i64,
) -> Result<Vec<(ShareRow, bool, bool)>, sqlx::Error> {
    // The address is a value of its own, so that each partition is read in order of its index; a scalar question for
    // the best, because EXISTS may be answered by reading everybody's.
    let rows = sqlx::query!(
        r#"SELECT s.id, s.time, s.worker_name, s.difficulty, s.share_diff, s.is_valid,
                  coalesce(s.is_block, FALSE) AS "is_block!",
                  s.is_valid AND (SELECT b.id FROM personal_bests b
                                  WHERE b.user_id = $1 AND b.share_time = s.time AND b.best_difficulty = s.share_diff
                                  LIMIT 1) IS NOT NULL AS "is_best!",
                  coalesce(s.is_valid AND d.accepted_shares > 0 AND s.share_diff > d.avg_diff, FALSE) AS "is_above!"
           FROM shares s
           LEFT JOIN user_daily_stats d ON d.user_id = $1 AND d.day = $2
           WHERE s.btc_address = (SELECT btc_address FROM users WHERE id = $1 AND deleted_at IS NULL)
           ORDER BY s.time DESC, s.id DESC LIMIT $3"#,
        user.0,
        today,
        at_most
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let share = ShareRow {
                id: row.id,
                time: row.time,
                worker_name: row.worker_name,
                difficulty: row.difficulty,
                share_diff: row.share_diff,
                is_valid: row.is_valid,
                is_block: row.is_block,
            };
            (share, row.is_best, row.is_above)
        })
        .collect())
}
