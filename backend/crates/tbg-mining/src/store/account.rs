//! The caller, as far as mining asks.

use sqlx::PgConnection;
use tbg_core::UserId;

/// Whose data is asked for.
pub(crate) struct Account {
    /// The address that the caller holds.
    pub address: Option<String>,
    /// Whether it is proven.
    pub is_verified: bool,
}

/// Reads the caller; somebody deleted a moment ago has no address.
pub(crate) async fn load(conn: &mut PgConnection, user: UserId) -> Result<Account, sqlx::Error> {
    let row = sqlx::query_as!(
        Account,
        "SELECT btc_address AS address, is_verified FROM users WHERE id = $1 AND deleted_at IS NULL",
        user.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.unwrap_or(Account { address: None, is_verified: false }))
}

/// Whether an address ever had an accepted share.
///
/// # Errors
/// When the database does not answer.
pub async fn has_mined(conn: &mut PgConnection, address: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM weekly_best_diff WHERE btc_address = $1) AS "has_mined!""#,
        address
    )
    .fetch_one(conn)
    .await
}
