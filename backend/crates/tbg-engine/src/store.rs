//! All SQL of the engine: the ledger, dead letters, the writer's locks.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tbg_core::copy::CopyRows;
use uuid::Uuid;

use crate::dead_letters::{DeadLetter, StoredLetter};

/// Session lock of the active writer ("tbgwrite").
const WRITER_LOCK: i64 = 0x7462_6777_7269_7465;
/// Transaction lock of a batch ("tbgbatch"): a replay and the active writer take turns.
const BATCH_LOCK: i64 = 0x7462_6762_6174_6368;

/// Tries to become the active writer for as long as the connection lives.
pub(crate) async fn try_writer_lock(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let locked = sqlx::query_scalar!("SELECT pg_try_advisory_lock($1)", WRITER_LOCK).fetch_one(conn).await?;
    Ok(locked == Some(true))
}

/// Waits for the turn to apply a batch; ends with the transaction. Within it PostgreSQL plans each
/// statement for the arrays at hand: a generic plan expects ten elements and compares thousands one by one.
pub(crate) async fn take_batch_turn(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock($1), set_config('plan_cache_mode', 'force_custom_plan', true)",
        BATCH_LOCK
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// Ledger rows with one of `keys` between two instants. The bounds keep the look-up to a few partitions.
pub(crate) async fn ledger_rows(
    conn: &mut PgConnection,
    keys: &[Uuid],
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<(Uuid, DateTime<Utc>)>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT event_key, ts FROM ingest_ledger WHERE event_key = ANY($1) AND ts >= $2 AND ts <= $3",
        keys,
        from,
        to
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.event_key, row.ts)).collect())
}

/// Records applied events. A conflict is impossible while batches take turns, and must fail loudly.
pub(crate) async fn insert_ledger(
    conn: &mut PgConnection,
    rows: &[(Uuid, DateTime<Utc>)],
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let statement = "COPY ingest_ledger (event_key, ts) FROM STDIN (FORMAT binary)";
    let mut copy = CopyRows::begin(conn, statement, 2).await?;
    for (key, ts) in rows {
        copy.row().await?.field(key)?.field(ts)?;
    }
    copy.finish().await?;
    Ok(())
}

pub(crate) async fn insert_letters(
    conn: &mut PgConnection,
    letters: &[DeadLetter],
) -> Result<(), sqlx::Error> {
    if letters.is_empty() {
        return Ok(());
    }
    let column = |of: fn(&DeadLetter) -> String| letters.iter().map(of).collect::<Vec<String>>();
    let deliveries: Vec<i32> = letters.iter().map(|letter| letter.deliveries).collect();
    sqlx::query!(
        "INSERT INTO ingest_dead_letters (stream, stream_id, event_type, payload, reason, detail, deliveries)
         SELECT left(stream, 128), left(stream_id, 64), event_type, payload, reason, left(detail, 500), deliveries
         FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[], $4::TEXT[], $5::TEXT[], $6::TEXT[], $7::INT[])
              AS letter (stream, stream_id, event_type, payload, reason, detail, deliveries)
         ON CONFLICT (stream, stream_id) DO NOTHING",
        &column(|letter| letter.stream.clone()),
        &column(|letter| letter.stream_id.clone()),
        &column(|letter| letter.refusal.event_type.replace('\0', "\u{fffd}")),
        &column(|letter| letter.payload.clone()),
        &column(|letter| letter.refusal.reason.as_str().to_owned()),
        &column(|letter| letter.refusal.detail.clone()),
        &deliveries
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// After row `after` the oldest letters, else the newest.
pub(crate) async fn letters(
    conn: &mut PgConnection,
    reason: Option<&str>,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<StoredLetter>, sqlx::Error> {
    sqlx::query_as!(
        StoredLetter,
        "SELECT id, stream, stream_id, event_type, payload, reason, detail, created_at
         FROM ingest_dead_letters
         WHERE ($1::TEXT IS NULL OR reason = $1) AND ($2::BIGINT IS NULL OR id > $2)
         ORDER BY CASE WHEN $2::BIGINT IS NULL THEN id END DESC, id LIMIT $3",
        reason,
        after,
        limit
    )
    .fetch_all(conn)
    .await
}

pub(crate) async fn remove_letters(conn: &mut PgConnection, ids: &[i64]) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!("DELETE FROM ingest_dead_letters WHERE id = ANY($1)", ids).execute(conn).await?;
    Ok(done.rows_affected())
}

pub(crate) async fn prune_letters(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
    at_most: i64,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        "DELETE FROM ingest_dead_letters WHERE id IN
           (SELECT id FROM ingest_dead_letters WHERE created_at < $1 ORDER BY created_at LIMIT $2)",
        before,
        at_most
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
