//! Blocks of the pool and of the network: `blocks`, `block_celebrations`, `activity_feed`,
//! `network_difficulty`. All rare, so rows are written one table at a time without ceremony.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tbg_core::UserId;
use tbg_core::users::Holder;
use tbg_engine::event::NetworkBlock;
use tbg_engine::{Batch, EventKind};

use crate::rules::blocks::{Block, SOLVING_SHARE_WITHIN};
use crate::rules::{FeedRow, Reserved};

/// Blocks that events of the batch may be about: of a height or hash that they name, or found so close to
/// them that a share of the batch may have solved one.
pub(crate) async fn load_blocks(conn: &mut PgConnection, batch: &Batch) -> Result<Vec<Block>, sqlx::Error> {
    let Some((first, last)) = batch.time_range() else { return Ok(Vec::new()) };
    let (mut heights, mut hashes) = (Vec::new(), Vec::new());
    for event in &batch.events {
        if let EventKind::BlockFound(found) = &event.pool.kind {
            heights.push(found.height);
            hashes.extend(found.hash.clone());
        }
    }
    let rows = sqlx::query!(
        r#"SELECT b.id, block_height, block_hash, b.btc_address, worker_name,
                  coalesce(reward_btc * 100000000, 0)::BIGINT AS "reward_sats!",
                  (fees_btc * 100000000)::BIGINT AS fees_sats, difficulty, network_difficulty,
                  (SELECT n.difficulty FROM network_difficulty n WHERE n.block_height = b.block_height)
                      AS published_difficulty,
                  found_at, coinbase_sig, source, region,
                  b.user_id, u.display_name AS "display_name?", u.is_banned AS "is_banned?", u.is_test AS "is_test?",
                  coalesce((s.privacy ->> 'publicProfile')::BOOLEAN, TRUE) AS "is_public!",
                  CASE WHEN coalesce((s.privacy ->> 'showCountryFlag')::BOOLEAN, TRUE) THEN u.country_code END AS country_code
           FROM blocks b LEFT JOIN users u ON u.id = b.user_id LEFT JOIN user_settings s ON s.user_id = b.user_id
           WHERE block_height = ANY($1) OR block_hash = ANY($2) OR found_at BETWEEN $3 AND $4
           ORDER BY b.id"#,
        &heights,
        &hashes,
        first - SOLVING_SHARE_WITHIN,
        last + SOLVING_SHARE_WITHIN
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Block {
            id: row.id,
            height: row.block_height,
            hash: row.block_hash,
            finder: row.user_id.map(|id| Holder {
                id: UserId(id),
                display_name: row.display_name,
                is_banned: row.is_banned.unwrap_or(false),
                is_test: row.is_test.unwrap_or(false),
                is_public: row.is_public,
                country_code: row.country_code,
            }),
            address: row.btc_address,
            worker: row.worker_name,
            reward_sats: row.reward_sats,
            fees_sats: row.fees_sats,
            difficulty: row.difficulty,
            network_difficulty: row.network_difficulty,
            published_difficulty: row.published_difficulty,
            found_at: row.found_at,
            coinbase_sig: row.coinbase_sig,
            source: row.source,
            region: row.region,
        })
        .collect())
}

/// Ids for `count` blocks and what comes with each.
pub(crate) async fn reserve_block_ids(
    conn: &mut PgConnection,
    count: usize,
    reserved: &mut Reserved,
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT nextval('blocks_id_seq') AS "block!",
                  nextval('block_celebrations_id_seq') AS "celebration!",
                  nextval('activity_feed_id_seq') AS "feed!"
           FROM generate_series(1, $1)"#,
        i64::try_from(count).unwrap_or(i64::MAX) as _
    )
    .fetch_all(conn)
    .await?;
    for row in rows.into_iter().rev() {
        reserved.blocks.push(row.block);
        reserved.celebrations.push(row.celebration);
        reserved.feed.push(row.feed);
    }
    Ok(())
}

/// Highest height that the network published.
pub(crate) async fn network_height(conn: &mut PgConnection) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar!("SELECT max(block_height) FROM network_difficulty").fetch_one(conn).await
}

/// Writes blocks, and marks shares stored earlier that solved one of them.
pub(crate) async fn upsert_blocks(conn: &mut PgConnection, blocks: &[Block]) -> Result<(), sqlx::Error> {
    for block in blocks {
        sqlx::query!(
            "INSERT INTO blocks (id, block_height, block_hash, user_id, btc_address, worker_name, reward_btc, fees_btc,
                                 difficulty, network_difficulty, found_at, coinbase_sig, source, region)
             VALUES ($1, $2, $3, $4, $5, $6, $7::BIGINT / 100000000::NUMERIC, $8::BIGINT / 100000000::NUMERIC,
                     $9, $10, $11, $12, $13, $14)
             ON CONFLICT (id) DO UPDATE SET
                 block_hash = EXCLUDED.block_hash, user_id = EXCLUDED.user_id, btc_address = EXCLUDED.btc_address,
                 worker_name = EXCLUDED.worker_name, reward_btc = EXCLUDED.reward_btc, fees_btc = EXCLUDED.fees_btc,
                 difficulty = EXCLUDED.difficulty, network_difficulty = EXCLUDED.network_difficulty,
                 found_at = EXCLUDED.found_at, coinbase_sig = EXCLUDED.coinbase_sig,
                 source = EXCLUDED.source, region = EXCLUDED.region",
            block.id,
            block.height,
            block.hash,
            block.user_id().map(|user| user.0),
            block.address,
            block.worker,
            block.reward_sats,
            block.fees_sats,
            block.difficulty,
            block.network_difficulty,
            block.found_at,
            block.coinbase_sig,
            block.source,
            block.region
        )
        .execute(&mut *conn)
        .await?;
        sqlx::query!(
            "UPDATE shares SET is_block = TRUE
             WHERE btc_address = $1 AND time BETWEEN $2 AND $3 AND is_valid AND NOT is_block
               AND share_diff >= coalesce($4::FLOAT8,
                       (SELECT difficulty FROM network_difficulty WHERE block_height = $5))",
            block.address,
            block.found_at - SOLVING_SHARE_WITHIN,
            block.found_at + SOLVING_SHARE_WITHIN,
            block.network_difficulty,
            block.height
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

pub(crate) async fn insert_celebrations(
    conn: &mut PgConnection,
    celebrations: &[(i64, i64, UserId, DateTime<Utc>)],
) -> Result<(), sqlx::Error> {
    for (id, block_id, user_id, since) in celebrations {
        sqlx::query!(
            "INSERT INTO block_celebrations (id, block_id, user_id, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (block_id, user_id) DO NOTHING",
            id,
            block_id,
            user_id.0,
            since
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// One feed row per block; a merge updates it.
pub(crate) async fn upsert_feed(conn: &mut PgConnection, rows: &[FeedRow]) -> Result<(), sqlx::Error> {
    for row in rows {
        sqlx::query!(
            "INSERT INTO activity_feed (id, event_type, user_id, title, metadata, created_at, dedupe_key)
             VALUES ($1, 'block', $2, $3, $4, $5, $6)
             ON CONFLICT (dedupe_key) DO UPDATE SET
                 user_id = EXCLUDED.user_id, title = EXCLUDED.title, metadata = EXCLUDED.metadata",
            row.id,
            row.user_id.map(|user| user.0),
            row.title,
            row.metadata,
            row.created_at,
            row.dedupe_key
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// One row per height; replaced only by a newer event with another hash.
pub(crate) async fn upsert_network(
    conn: &mut PgConnection,
    blocks: &[(DateTime<Utc>, NetworkBlock)],
) -> Result<(), sqlx::Error> {
    let mut by_height: BTreeMap<i32, (DateTime<Utc>, &NetworkBlock)> = BTreeMap::new();
    for (ts, block) in blocks {
        let known = by_height.entry(block.height).or_insert((*ts, block));
        if *ts > known.0 && block.hash != known.1.hash {
            *known = (*ts, block);
        }
    }
    if by_height.is_empty() {
        return Ok(());
    }
    let heights: Vec<i32> = by_height.keys().copied().collect();
    let times: Vec<DateTime<Utc>> = by_height.values().map(|(ts, _)| *ts).collect();
    let difficulties: Vec<f64> = by_height.values().map(|(_, block)| block.diff).collect();
    let hashes: Vec<String> = by_height.values().map(|(_, block)| block.hash.clone()).collect();
    sqlx::query!(
        "INSERT INTO network_difficulty AS n (block_height, time, difficulty, block_hash)
         SELECT * FROM unnest($1::INT[], $2::TIMESTAMPTZ[], $3::FLOAT8[], $4::TEXT[])
         ON CONFLICT (block_height) DO UPDATE SET
             time = EXCLUDED.time, difficulty = EXCLUDED.difficulty, block_hash = EXCLUDED.block_hash
         WHERE EXCLUDED.time > n.time AND EXCLUDED.block_hash IS DISTINCT FROM n.block_hash",
        &heights,
        &times,
        &difficulties,
        &hashes
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Confirmations after the network published `height`, the one now being mined. They never fall.
pub(crate) async fn confirm_blocks(conn: &mut PgConnection, height: Option<i32>) -> Result<(), sqlx::Error> {
    let Some(height) = height else { return Ok(()) };
    sqlx::query!(
        "UPDATE blocks SET confirmations = $1 - block_height, confirmed = confirmed OR $1 - block_height >= 6
         WHERE block_height < $1 AND confirmations < $1 - block_height",
        height
    )
    .execute(conn)
    .await?;
    Ok(())
}
