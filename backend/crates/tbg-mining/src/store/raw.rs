//! The archive: `mining_events` and `shares`.

use sqlx::PgConnection;
use sqlx::types::ipnetwork::IpNetwork;
use tbg_core::copy::{CopyRows, JsonText};

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
        r#"SELECT nextval('shares_id_seq') AS "id!" FROM generate_series(1, $1)"#,
        i64::try_from(count).unwrap_or(i64::MAX) as _
    )
    .fetch_all(conn)
    .await?;
    ids.reverse();
    Ok(ids)
}

pub(crate) async fn insert_events(conn: &mut PgConnection, events: &[RawEvent]) -> Result<(), sqlx::Error> {
    if events.is_empty() {
        return Ok(());
    }
    let statement = "COPY mining_events (ts, event_type, source, payload, region, event_key, user_id)
                     FROM STDIN (FORMAT binary)";
    let mut copy = CopyRows::begin(conn, statement, 7).await?;
    for RawEvent { event, key, user_id } in events {
        copy.row()
            .await?
            .field(event.ts)?
            .field(event.kind.name())?
            .field(&event.source)?
            .field(JsonText(&event.payload))?
            .field(&event.region)?
            .field(key)?
            .field(user_id.map(|user| user.0))?;
    }
    copy.finish().await?;
    Ok(())
}

pub(crate) async fn insert_shares(conn: &mut PgConnection, shares: &[RawShare]) -> Result<(), sqlx::Error> {
    if shares.is_empty() {
        return Ok(());
    }
    let statement =
        "COPY shares (id, time, btc_address, worker_name, difficulty, share_diff, is_valid, is_block, ip_address,
                      nonce, nonce2, block_hash, reject_reason, source, region)
         FROM STDIN (FORMAT binary)";
    let mut copy = CopyRows::begin(conn, statement, 15).await?;
    for RawShare { id, event, is_block } in shares {
        let Some(share) = event.share() else { continue };
        let reject_reason = Some(&share.reject_reason).filter(|reason| !reason.is_empty());
        copy.row()
            .await?
            .field(id)?
            .field(event.ts)?
            .field(&event.user)?
            .field(&event.worker)?
            .field(share.diff)?
            .field(share.sdiff)?
            .field(share.accepted)?
            .field(is_block)?
            .field(share.ip.map(IpNetwork::from))?
            .field(&share.nonce)?
            .field(&share.nonce2)?
            .field(&share.hash)?
            .field(reject_reason)?
            .field(&event.source)?
            .field(&event.region)?;
    }
    copy.finish().await?;
    Ok(())
}
