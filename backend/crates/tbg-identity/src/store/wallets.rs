//! Addresses and who may use them: the mining address of a user (`users.btc_address`), the wallets that
//! were proven by signature (`wallet_credentials`), and the history of both.
//!
//! The two are separate on purpose: an address that was only typed in signs nobody in
//! (contract `auth-users.md` §4.1).

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::types::ipnetwork::IpNetwork;
use tbg_bitcoin::BtcAddress;
use tbg_core::UserId;
use uuid::Uuid;

/// The constraint by which an address belongs to one user.
const ADDRESS_UNIQUE: &str = "users_btc_address_unique";
/// SQLSTATE of a transaction that was ended because two waited for each other.
const DEADLOCK: &str = "40P01";

/// A wallet that signs a user in.
#[derive(Clone, Debug)]
pub(crate) struct Credential {
    pub id: Uuid,
    pub user_id: i64,
}

/// What came of adding a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddOutcome {
    /// The wallet is new and the user's now.
    Added,
    /// Another user has it.
    TakenByOther,
    /// The user had it before.
    Own,
}

/// The holder of a mining address, locked until the end of the transaction.
#[derive(Clone, Debug)]
pub(crate) struct HolderRow {
    pub id: i64,
    pub auth_method: String,
    pub email: Option<String>,
    /// Wallets that sign this user in.
    pub credentials: i64,
}

/// The active credential of an address.
pub(crate) async fn credential_of(
    conn: &mut PgConnection,
    address: &str,
) -> Result<Option<Credential>, sqlx::Error> {
    sqlx::query_as!(
        Credential,
        "SELECT id, user_id FROM wallet_credentials
         WHERE btc_address = $1 AND revoked_at IS NULL",
        address
    )
    .fetch_optional(conn)
    .await
}

/// Gives a proven wallet to a user. Of two that come at once the unique index lets one through, and the
/// other sees who it was.
pub(crate) async fn add_credential(
    conn: &mut PgConnection,
    user: UserId,
    address: &BtcAddress,
    now: DateTime<Utc>,
) -> Result<AddOutcome, sqlx::Error> {
    let added = sqlx::query!(
        "INSERT INTO wallet_credentials (id, user_id, btc_address, address_type, verified_at)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (btc_address) WHERE revoked_at IS NULL DO NOTHING",
        Uuid::now_v7(),
        user.0,
        address.as_str(),
        address.address_type().as_str(),
        now
    )
    .execute(&mut *conn)
    .await?;
    if added.rows_affected() == 1 {
        return Ok(AddOutcome::Added);
    }
    // Nobody may be left here: the other one was deleted meanwhile. The next attempt succeeds.
    let present = credential_of(conn, address.as_str()).await?;
    Ok(match present {
        Some(credential) if credential.user_id == user.0 => AddOutcome::Own,
        _ => AddOutcome::TakenByOther,
    })
}

/// How many wallets sign the user in.
pub(crate) async fn credential_count(conn: &mut PgConnection, user: UserId) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM wallet_credentials WHERE user_id = $1 AND revoked_at IS NULL"#,
        user.0
    )
    .fetch_one(conn)
    .await
}

/// Notes that a wallet has just signed its user in.
pub(crate) async fn touch_credential(
    conn: &mut PgConnection,
    id: Uuid,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE wallet_credentials SET last_used_at = $2 WHERE id = $1", id, now)
        .execute(conn)
        .await?;
    Ok(())
}

/// Who holds an address, locked. The wallets are counted after the lock is had, so that those which another
/// transaction added meanwhile count.
pub(crate) async fn holder_of(
    conn: &mut PgConnection,
    address: &str,
) -> Result<Option<HolderRow>, sqlx::Error> {
    let holder = sqlx::query!(
        "SELECT id, auth_method, email FROM users
         WHERE btc_address = $1 AND deleted_at IS NULL FOR UPDATE",
        address
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(holder) = holder else { return Ok(None) };
    let credentials = credential_count(conn, UserId(holder.id)).await?;
    Ok(Some(HolderRow { id: holder.id, auth_method: holder.auth_method, email: holder.email, credentials }))
}

/// The mining address of a user, locked; `None` when the user is gone, `Some(None)` without an address.
pub(crate) async fn lock_address(
    conn: &mut PgConnection,
    user: UserId,
) -> Result<Option<Option<String>>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT btc_address FROM users WHERE id = $1 AND deleted_at IS NULL FOR UPDATE",
        user.0
    )
    .fetch_optional(conn)
    .await
}

/// Takes the mining address from a user, for the one who proved it.
pub(crate) async fn release_address(conn: &mut PgConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE users SET btc_address = NULL, is_verified = FALSE, updated_at = now() WHERE id = $1",
        user.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives a user a mining address. An address of somebody else is an error that [`is_taken`] knows.
pub(crate) async fn set_address(
    conn: &mut PgConnection,
    user: UserId,
    address: &str,
    is_verified: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE users SET btc_address = $2, is_verified = $3, updated_at = now() WHERE id = $1",
        user.0,
        address,
        is_verified
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether `error` says that the address is somebody else's. Two users who trade their addresses at the same
/// moment wait for each other; the one whom the database ends finds the address taken, too.
pub(crate) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.constraint() == Some(ADDRESS_UNIQUE) || error.code().is_some_and(|code| code == DEADLOCK)
    })
}

/// Writes one change of a mining address. `reason` is a word of the table's CHECK.
pub(crate) async fn write_history(
    conn: &mut PgConnection,
    user: UserId,
    old: Option<&str>,
    new: Option<&str>,
    reason: &str,
    ip: Option<IpAddr>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO wallet_address_history
           (id, user_id, old_address, new_address, reason, changed_at, ip_address)
         VALUES ($1, $2, $3, $4, $5, now(), $6)",
        Uuid::now_v7(),
        user.0,
        old,
        new,
        reason,
        ip.map(IpNetwork::from)
    )
    .execute(conn)
    .await?;
    Ok(())
}
