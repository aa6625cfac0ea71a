//! `audit_log` as far as it is sealed, `audit_seals`, and the functions of migration 0006.

use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use sqlx::PgConnection;

use crate::rules::seal::{AuditRow, Seal};

/// Serialises sealing across processes ("tbgseals").
const SEALING_LOCK: i64 = 0x7462_6773_6561_6c73;

/// Takes the turn to seal until the end of the transaction; false when another process has it.
pub(crate) async fn try_lock_sealing(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "locked!""#, SEALING_LOCK)
        .fetch_one(conn)
        .await
}

/// Lets the statements of this transaction run as long as they need: after a downtime, a range may hold
/// many rows.
pub(crate) async fn lift_statement_timeout(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT set_config('statement_timeout', '0', true)").fetch_one(conn).await?;
    Ok(())
}

/// The time below which no row can appear any more.
pub(crate) async fn horizon(conn: &mut PgConnection) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT tbg_audit_horizon() AS "horizon!""#).fetch_one(conn).await
}

/// The timestamp of the oldest row.
pub(crate) async fn oldest_row(conn: &mut PgConnection) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar!("SELECT min(timestamp) FROM audit_log").fetch_one(conn).await
}

/// Whether a row is older than a day, by the database's clock, which stamps rows.
pub(crate) async fn has_row_before_yesterday(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM audit_log WHERE timestamp < now() - INTERVAL '1 day') AS "exists!""#
    )
    .fetch_one(conn)
    .await
}

/// The rows of [`lo`, `hi`) in the order of their hash, one by one.
pub(crate) fn rows(
    conn: &mut PgConnection,
    lo: DateTime<Utc>,
    hi: DateTime<Utc>,
) -> BoxStream<'_, Result<AuditRow, sqlx::Error>> {
    sqlx::query_as!(
        AuditRow,
        r#"SELECT id, timestamp, user_id, action, resource_type, resource_id, ip_address, user_agent,
                  details::TEXT AS "details!", status
           FROM audit_log WHERE timestamp >= $1 AND timestamp < $2 ORDER BY timestamp, id"#,
        lo,
        hi
    )
    .fetch(conn)
}

/// Adds a seal.
pub(crate) async fn insert_seal(conn: &mut PgConnection, seal: &Seal) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO audit_seals (seal_no, lo, hi, row_count, rows_hash, prev_hash, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        seal.seal_no,
        seal.lo,
        seal.hi,
        seal.row_count,
        &seal.rows_hash[..],
        &seal.prev_hash[..],
        &seal.hash[..]
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The newest seal.
pub(crate) async fn head(conn: &mut PgConnection) -> Result<Option<Seal>, sqlx::Error> {
    sqlx::query_as!(
        Seal,
        r#"SELECT seal_no, lo, hi, row_count, rows_hash AS "rows_hash!: [u8; 32]",
                  prev_hash AS "prev_hash!: [u8; 32]", hash AS "hash!: [u8; 32]"
           FROM audit_seals ORDER BY seal_no DESC LIMIT 1"#
    )
    .fetch_optional(conn)
    .await
}

/// One seal.
pub(crate) async fn seal(conn: &mut PgConnection, seal_no: i64) -> Result<Option<Seal>, sqlx::Error> {
    let found = seals(conn, seal_no, 1).await?.pop();
    Ok(found.filter(|seal| seal.seal_no == seal_no))
}

/// Up to `at_most` seals from number `from` on, in order.
pub(crate) async fn seals(
    conn: &mut PgConnection,
    from: i64,
    at_most: i64,
) -> Result<Vec<Seal>, sqlx::Error> {
    sqlx::query_as!(
        Seal,
        r#"SELECT seal_no, lo, hi, row_count, rows_hash AS "rows_hash!: [u8; 32]",
                  prev_hash AS "prev_hash!: [u8; 32]", hash AS "hash!: [u8; 32]"
           FROM audit_seals WHERE seal_no >= $1 ORDER BY seal_no LIMIT $2"#,
        from,
        at_most
    )
    .fetch_all(conn)
    .await
}

/// Whether retention may have dropped a month: it ended a year ago and has no partition.
pub(crate) async fn is_dropped(
    conn: &mut PgConnection,
    partition: &str,
    ended_at: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT to_regclass($1) IS NULL AND $2::TIMESTAMPTZ <= now() - INTERVAL '1 year' AS "dropped!""#,
        partition,
        ended_at
    )
    .fetch_one(conn)
    .await
}

/// Rows that are not in the partition of any month.
pub(crate) async fn default_rows(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT audit_log_default_rows() AS "rows!""#).fetch_one(conn).await
}

/// Creates the partitions that are missing; returns how many.
pub(crate) async fn keep_partitions(conn: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT audit_log_keep_partitions() AS "created!""#).fetch_one(conn).await
}

/// Drops the partitions whose time is over; returns how many.
pub(crate) async fn retain(conn: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT audit_log_retain() AS "dropped!""#).fetch_one(conn).await
}
