//! The numbers of the overview: six queries, none of which reads a table of events or shares.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::stats::{
    AdminAuditStats, AdminBlockStats, AdminGameStats, AdminMinerStats, AdminShareStats, AdminUserStats,
};

/// What the database knows of the system.
pub(crate) struct SystemRow {
    pub database_bytes: i64,
    pub dead_letters_24h: i64,
    pub outbox_pending: i64,
}

/// People whose account is not deleted. The one pass over a whole table of size: it has a row per person.
pub(crate) async fn users(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
) -> Result<AdminUserStats, sqlx::Error> {
    sqlx::query_as!(
        AdminUserStats,
        r#"SELECT count(*) AS "total!",
                  count(*) FILTER (WHERE auth_method = 'wallet') AS "wallet!",
                  count(*) FILTER (WHERE auth_method = 'email') AS "email!",
                  count(*) FILTER (WHERE auth_method = 'both') AS "both!",
                  count(*) FILTER (WHERE is_verified) AS "verified!",
                  count(*) FILTER (WHERE is_banned) AS "banned!",
                  count(*) FILTER (WHERE created_at > $1::TIMESTAMPTZ - INTERVAL '24 hours') AS "new_24h!",
                  count(*) FILTER (WHERE last_seen > $1::TIMESTAMPTZ - INTERVAL '24 hours') AS "active_24h!"
           FROM users WHERE deleted_at IS NULL"#,
        now
    )
    .fetch_one(conn)
    .await
}

/// Work per second, taken from the last hour that is over: the running one has not had its time yet.
/// Difficulty d takes d × 2^32 hashes; 10^12 hashes per second are a TH/s. The hours of a user's day are
/// those that began within it.
pub(crate) async fn miners(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
) -> Result<AdminMinerStats, sqlx::Error> {
    sqlx::query_as!(
        AdminMinerStats,
        r#"SELECT (SELECT count(*) FROM workers WHERE is_online) AS "workers_online!",
                  (SELECT count(DISTINCT user_id) FROM hourly_shares
                   WHERE bucket > $1::TIMESTAMPTZ - INTERVAL '24 hours' AND accepted > 0) AS "users_mining_24h!",
                  (SELECT COALESCE(sum(work), 0) FROM hourly_shares
                   WHERE bucket = date_trunc('hour', $1::TIMESTAMPTZ, 'UTC') - INTERVAL '1 hour')
                  * 4294967296.0 / 3600 / 1e12 AS "pool_hashrate_ths!""#,
        now
    )
    .fetch_one(conn)
    .await
}

/// Shares ever and since midnight UTC, at most a minute behind.
pub(crate) async fn shares(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
) -> Result<AdminShareStats, sqlx::Error> {
    sqlx::query_as!(
        AdminShareStats,
        r#"SELECT COALESCE(sum(total), 0)::BIGINT AS "total!",
                  COALESCE(sum(accepted), 0)::BIGINT AS "accepted!",
                  COALESCE(sum(rejected), 0)::BIGINT AS "rejected!",
                  COALESCE(sum(accepted) FILTER (
                      WHERE bucket >= date_trunc('day', $1::TIMESTAMPTZ, 'UTC')), 0)::BIGINT AS "accepted_today!",
                  COALESCE(sum(rejected) FILTER (
                      WHERE bucket >= date_trunc('day', $1::TIMESTAMPTZ, 'UTC')), 0)::BIGINT AS "rejected_today!"
           FROM pool_hourly_totals"#,
        now
    )
    .fetch_one(conn)
    .await
}

/// Blocks that the pool found.
pub(crate) async fn blocks(conn: &mut PgConnection) -> Result<AdminBlockStats, sqlx::Error> {
    sqlx::query_as!(
        AdminBlockStats,
        r#"SELECT count(*) AS "total!", count(*) FILTER (WHERE confirmed) AS "confirmed!",
                  (SELECT block_height FROM blocks ORDER BY found_at DESC, id DESC LIMIT 1) AS last_height,
                  max(found_at) AS last_found_at
           FROM blocks"#
    )
    .fetch_one(conn)
    .await
}

/// What the game gave: sums over players and badges, never over the ledger.
pub(crate) async fn game(conn: &mut PgConnection) -> Result<AdminGameStats, sqlx::Error> {
    sqlx::query_as!(
        AdminGameStats,
        r#"SELECT (SELECT coalesce(sum(total_xp), 0)::BIGINT FROM user_gamification) AS "xp_awarded!",
                  (SELECT coalesce(sum(badges_earned), 0)::BIGINT FROM user_gamification) AS "badges_awarded!",
                  (SELECT count(*) FROM lottery_draws WHERE status = 'completed') AS "lottery_draws!""#
    )
    .fetch_one(conn)
    .await
}

/// What waits and what failed, through the indexes that hold only that.
pub(crate) async fn system(conn: &mut PgConnection, now: DateTime<Utc>) -> Result<SystemRow, sqlx::Error> {
    sqlx::query_as!(
        SystemRow,
        r#"SELECT pg_database_size(current_database()) AS "database_bytes!",
                  (SELECT count(*) FROM ingest_dead_letters
                   WHERE created_at > $1::TIMESTAMPTZ - INTERVAL '24 hours') AS "dead_letters_24h!",
                  (SELECT count(*) FROM domain_outbox WHERE done_at IS NULL) AS "outbox_pending!""#,
        now
    )
    .fetch_one(conn)
    .await
}

/// The audit log, and its newest seal: an anchor outside of the database. Seal 0 is none.
pub(crate) async fn audit(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
) -> Result<AdminAuditStats, sqlx::Error> {
    sqlx::query_as!(
        AdminAuditStats,
        r#"WITH head AS (SELECT seal_no, hi, hash FROM audit_seals ORDER BY seal_no DESC LIMIT 1)
           SELECT (SELECT count(*) FROM audit_log
                   WHERE timestamp > $1::TIMESTAMPTZ - INTERVAL '24 hours') AS "rows_24h!",
                  (SELECT count(*) FROM audit_log
                   WHERE timestamp >= COALESCE((SELECT hi FROM head), '-infinity')) AS "unsealed_rows!",
                  COALESCE((SELECT seal_no FROM head), 0) AS "head_seal!",
                  (SELECT encode(hash, 'hex') FROM head) AS head_hash"#,
        now
    )
    .fetch_one(conn)
    .await
}
