//! The archive: `mining_events` and `shares`.

use sqlx::PgConnection;
use sqlx::types::ipnetwork::IpNetwork;

use crate::rules::{RawEvent, RawShare};

/// Ids for `count` shares, lowest last, so that they can be popped in order.
pub(crate) async fn reserve_share_ids(
    conn: &mut PgConnection,
    count: usize,
) -> Result<Vec<i64>, sqlx::Error> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut ids = sqlx::query_scalar!(
        r#"SELECT nextval(pg_get_serial_sequence('shares', 'id')) AS "id!" FROM generate_series(1, $1)"#,
        i64::try_from(count).unwrap_or(i64::MAX) as _
    )
    .fetch_all(conn)
    .await?;
    ids.reverse();
    Ok(ids)
}

pub(crate) async fn insert_events(conn: &mut PgConnection, events: Vec<RawEvent>) -> Result<(), sqlx::Error> {
    if events.is_empty() {
        return Ok(());
    }
    let count = events.len();
    let mut ts = Vec::with_capacity(count);
    let mut event_type = Vec::with_capacity(count);
    let mut source = Vec::with_capacity(count);
    let mut payload = Vec::with_capacity(count);
    let mut region = Vec::with_capacity(count);
    let mut key = Vec::with_capacity(count);
    let mut user_id = Vec::with_capacity(count);
    for event in events {
        ts.push(event.ts);
        event_type.push(event.event_type);
        source.push(event.source);
        payload.push(event.payload);
        region.push(event.region);
        key.push(event.key);
        user_id.push(event.user_id.map(|user| user.0));
    }
    sqlx::query!(
        "INSERT INTO mining_events (ts, event_type, source, payload, region, event_key, user_id)
         SELECT ts, event_type, source, payload::JSONB, region, event_key, user_id
         FROM unnest($1::TIMESTAMPTZ[], $2::TEXT[], $3::TEXT[], $4::TEXT[], $5::TEXT[], $6::UUID[], $7::BIGINT[])
              AS event (ts, event_type, source, payload, region, event_key, user_id)",
        &ts,
        &event_type,
        &source,
        &payload,
        &region,
        &key,
        &user_id as &[Option<i64>]
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(crate) async fn insert_shares(conn: &mut PgConnection, shares: Vec<RawShare>) -> Result<(), sqlx::Error> {
    if shares.is_empty() {
        return Ok(());
    }
    let mut columns = ShareColumns::default();
    shares.into_iter().for_each(|share| columns.push(share));
    sqlx::query!(
        "INSERT INTO shares (id, time, btc_address, worker_name, difficulty, share_diff, is_valid, is_block,
                             ip_address, nonce, nonce2, block_hash, reject_reason, source, region)
         SELECT * FROM unnest($1::BIGINT[], $2::TIMESTAMPTZ[], $3::TEXT[], $4::TEXT[], $5::FLOAT8[], $6::FLOAT8[],
                              $7::BOOL[], $8::BOOL[], $9::INET[], $10::TEXT[], $11::TEXT[], $12::TEXT[],
                              $13::TEXT[], $14::TEXT[], $15::TEXT[])",
        &columns.id,
        &columns.time,
        &columns.address,
        &columns.worker,
        &columns.diff,
        &columns.sdiff,
        &columns.accepted,
        &columns.is_block,
        &columns.ip as &[Option<IpNetwork>],
        &columns.nonce as &[Option<String>],
        &columns.nonce2 as &[Option<String>],
        &columns.hash as &[Option<String>],
        &columns.reject_reason as &[Option<String>],
        &columns.source,
        &columns.region
    )
    .execute(conn)
    .await?;
    Ok(())
}

#[derive(Default)]
struct ShareColumns {
    id: Vec<i64>,
    time: Vec<chrono::DateTime<chrono::Utc>>,
    address: Vec<String>,
    worker: Vec<String>,
    diff: Vec<f64>,
    sdiff: Vec<f64>,
    accepted: Vec<bool>,
    is_block: Vec<bool>,
    ip: Vec<Option<IpNetwork>>,
    nonce: Vec<Option<String>>,
    nonce2: Vec<Option<String>>,
    hash: Vec<Option<String>>,
    reject_reason: Vec<Option<String>>,
    source: Vec<String>,
    region: Vec<String>,
}

impl ShareColumns {
    fn push(&mut self, row: RawShare) {
        let RawShare { id, time, address, worker, share, is_block, source, region } = row;
        self.id.push(id);
        self.time.push(time);
        self.address.push(address);
        self.worker.push(worker);
        self.diff.push(share.diff);
        self.sdiff.push(share.sdiff);
        self.accepted.push(share.accepted);
        self.is_block.push(is_block);
        self.ip.push(share.ip.map(IpNetwork::from));
        self.nonce.push(share.nonce);
        self.nonce2.push(share.nonce2);
        self.hash.push(share.hash);
        self.reject_reason.push((!share.reject_reason.is_empty()).then_some(share.reject_reason));
        self.source.push(source);
        self.region.push(region);
    }
}
