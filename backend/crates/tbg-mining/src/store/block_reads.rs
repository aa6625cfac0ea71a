//! Blocks as they are shown. Each query asks for ban, deletion and privacy of the finder at once, so that no
//! list can forget one of them.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tbg_core::UserId;

/// A block with its finder as others may see them.
pub(crate) struct BlockRow {
    pub id: i64,
    pub block_height: i32,
    pub block_hash: Option<String>,
    pub difficulty: Option<f64>,
    pub reward_sats: Option<i64>,
    pub fees_sats: Option<i64>,
    pub found_at: DateTime<Utc>,
    pub confirmed: bool,
    pub confirmations: i32,
    pub worker_name: Option<String>,
    pub btc_address: Option<String>,
    pub coinbase_sig: Option<String>,
    pub display_name: Option<String>,
    pub country_code: Option<String>,
    /// Whether the finder hides.
    pub is_hidden: bool,
    pub is_mine: bool,
}

/// Up to `at_most` blocks, newest first, after the place `after`.
pub(crate) async fn page(
    conn: &mut PgConnection,
    me: UserId,
    after: Option<(DateTime<Utc>, i64)>,
    at_most: i64,
) -> Result<Vec<BlockRow>, sqlx::Error> {
    let (time, id) = after.unzip();
    sqlx::query_as!(
        BlockRow,
        r#"SELECT b.id, b.block_height, b.block_hash, b.difficulty,
                  (b.reward_btc * 100000000)::BIGINT AS reward_sats, (b.fees_btc * 100000000)::BIGINT AS fees_sats,
                  b.found_at, b.confirmed, b.confirmations, b.worker_name, b.btc_address, b.coinbase_sig,
                  u.display_name AS "display_name?",
                  CASE WHEN coalesce((s.privacy ->> 'showCountryFlag')::BOOLEAN, TRUE) THEN u.country_code END AS country_code,
                  coalesce(u.is_banned OR u.is_test OR u.deleted_at IS NOT NULL
                           OR NOT coalesce((s.privacy ->> 'publicProfile')::BOOLEAN, TRUE), FALSE) AS "is_hidden!",
                  coalesce(b.user_id = $1, FALSE) AS "is_mine!"
           FROM blocks b LEFT JOIN users u ON u.id = b.user_id LEFT JOIN user_settings s ON s.user_id = b.user_id
           WHERE b.found_at <= coalesce($2::TIMESTAMPTZ, 'infinity')
             AND ($2::TIMESTAMPTZ IS NULL OR (b.found_at, b.id) < ($2, $3::BIGINT))
           ORDER BY b.found_at DESC, b.id DESC LIMIT $4"#,
        me.0,
        time,
        id,
        at_most
    )
    .fetch_all(conn)
    .await
}

/// The block at a height: of two, the confirmed one, then the newer.
pub(crate) async fn at_height(
    conn: &mut PgConnection,
    me: UserId,
    height: i32,
) -> Result<Option<BlockRow>, sqlx::Error> {
    sqlx::query_as!(
        BlockRow,
        r#"SELECT b.id, b.block_height, b.block_hash, b.difficulty,
                  (b.reward_btc * 100000000)::BIGINT AS reward_sats, (b.fees_btc * 100000000)::BIGINT AS fees_sats,
                  b.found_at, b.confirmed, b.confirmations, b.worker_name, b.btc_address, b.coinbase_sig,
                  u.display_name AS "display_name?",
                  CASE WHEN coalesce((s.privacy ->> 'showCountryFlag')::BOOLEAN, TRUE) THEN u.country_code END AS country_code,
                  coalesce(u.is_banned OR u.is_test OR u.deleted_at IS NOT NULL
                           OR NOT coalesce((s.privacy ->> 'publicProfile')::BOOLEAN, TRUE), FALSE) AS "is_hidden!",
                  coalesce(b.user_id = $1, FALSE) AS "is_mine!"
           FROM blocks b LEFT JOIN users u ON u.id = b.user_id LEFT JOIN user_settings s ON s.user_id = b.user_id
           WHERE b.block_height = $2
           ORDER BY b.confirmed DESC, b.found_at DESC, b.id DESC LIMIT 1"#,
        me.0,
        height
    )
    .fetch_optional(conn)
    .await
}

/// A block that its finder has not celebrated yet.
pub(crate) struct PendingRow {
    pub celebration_id: i64,
    pub block_id: i64,
    pub block_height: i32,
    pub block_hash: Option<String>,
    pub reward_sats: Option<i64>,
    pub found_at: DateTime<Utc>,
}

/// Celebrations that wait, oldest block first.
pub(crate) async fn pending(
    conn: &mut PgConnection,
    user: UserId,
    at_most: i64,
) -> Result<Vec<PendingRow>, sqlx::Error> {
    sqlx::query_as!(
        PendingRow,
        "SELECT c.id AS celebration_id, b.id AS block_id, b.block_height, b.block_hash,
                (b.reward_btc * 100000000)::BIGINT AS reward_sats, b.found_at
         FROM block_celebrations c JOIN blocks b ON b.id = c.block_id
         WHERE c.user_id = $1 AND NOT c.celebrated ORDER BY b.found_at, c.id LIMIT $2",
        user.0,
        at_most
    )
    .fetch_all(conn)
    .await
}

/// Acknowledges a celebration; false if there is none of this user that waits.
pub(crate) async fn acknowledge(
    conn: &mut PgConnection,
    user: UserId,
    id: i64,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "UPDATE block_celebrations SET celebrated = TRUE, celebrated_at = $3
         WHERE id = $1 AND user_id = $2 AND NOT celebrated",
        id,
        user.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A block of the network.
pub(crate) struct NetworkRow {
    pub block_height: i32,
    pub difficulty: f64,
    pub block_hash: Option<String>,
    pub time: DateTime<Utc>,
}

/// The newest blocks of the network, newest first.
pub(crate) async fn network(conn: &mut PgConnection, at_most: i64) -> Result<Vec<NetworkRow>, sqlx::Error> {
    sqlx::query_as!(
        NetworkRow,
        "SELECT block_height, difficulty, block_hash, time FROM network_difficulty
         ORDER BY block_height DESC LIMIT $1",
        at_most
    )
    .fetch_all(conn)
    .await
}
