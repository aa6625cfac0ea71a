//! What batches keep for the lottery: how far shares have come, and hashes of bests.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::{PgConnection, PgPool};
use tbg_core::UserId;

/// A hash that was reported with a week's best share.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BestHash {
    pub user: UserId,
    pub week_start: NaiveDate,
    pub difficulty: f64,
    pub hash: String,
}

/// Raises the watermark.
pub(crate) async fn raise_watermark(
    conn: &mut PgConnection,
    newest: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO lottery_watermark AS w (id, max_share_ts) VALUES (1, $1)
         ON CONFLICT (id) DO UPDATE SET max_share_ts = EXCLUDED.max_share_ts
         WHERE w.max_share_ts < EXCLUDED.max_share_ts",
        newest
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps hashes of greater bests. One row per user and week is given.
pub(crate) async fn keep_hashes(conn: &mut PgConnection, rows: &[BestHash]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let users: Vec<i64> = rows.iter().map(|row| row.user.0).collect();
    let weeks: Vec<NaiveDate> = rows.iter().map(|row| row.week_start).collect();
    let difficulties: Vec<f64> = rows.iter().map(|row| row.difficulty).collect();
    let hashes: Vec<String> = rows.iter().map(|row| row.hash.clone()).collect();
    sqlx::query!(
        "INSERT INTO weekly_best_hashes AS h (user_id, week_start, best_difficulty, hash)
         SELECT * FROM unnest($1::BIGINT[], $2::DATE[], $3::FLOAT8[], $4::TEXT[])
         ON CONFLICT (user_id, week_start) DO UPDATE SET
             best_difficulty = EXCLUDED.best_difficulty, hash = EXCLUDED.hash
         WHERE EXCLUDED.best_difficulty > h.best_difficulty",
        &users,
        &weeks,
        &difficulties,
        &hashes
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Every participant of a week with their best.
pub(crate) async fn ranking(pool: &PgPool, week_start: NaiveDate) -> Result<Vec<(i64, f64)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT w.user_id AS "user_id!", max(w.best_difficulty) AS "best!"
           FROM weekly_best_diff w
           JOIN users u ON u.id = w.user_id AND NOT u.is_banned AND NOT u.is_test AND u.deleted_at IS NULL
           WHERE w.week_start = $1 AND w.best_difficulty > 0 AND w.best_difficulty < 'Infinity'
           GROUP BY w.user_id LIMIT 1000000"#,
        week_start
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.user_id, row.best)).collect())
}

/// Makes a deleted user's entries unlinkable, and deletes what is theirs alone. A batch that still knows them is waited
/// for, or its rows would come after.
pub(crate) async fn forget(conn: &mut PgConnection, user: UserId) -> Result<(), sqlx::Error> {
    tbg_engine::engine::take_turn(conn).await?;
    sqlx::query!(
        "WITH entries AS (UPDATE lottery_entries SET btc_address = NULL, salt = NULL WHERE user_id = $1),
              sessions AS (DELETE FROM game_sessions WHERE user_id = $1)
         DELETE FROM weekly_best_hashes WHERE user_id = $1",
        user.0
    )
    .execute(conn)
    .await?;
    Ok(())
}
