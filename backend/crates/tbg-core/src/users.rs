//! The users table as far as every domain needs it: who holds an address.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};

/// Identifies a user.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(pub i64);

impl std::fmt::Display for UserId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The holder of an address, at the moment of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The user.
    pub id: UserId,
    /// Public name, if one was chosen.
    pub display_name: Option<String>,
    /// Banned users earn nothing.
    pub is_banned: bool,
    /// Test users stay out of statistics and feeds.
    pub is_test: bool,
    /// Whether the user shows a public profile.
    pub is_public: bool,
    /// ISO 3166-1 alpha-2, where the user shows it.
    pub country_code: Option<String>,
}

impl Holder {
    /// Whether no list may name the user.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.is_banned || self.is_test || !self.is_public
    }
}

/// The holders of `addresses`; an address that nobody holds is absent. One query; a join, because
/// PostgreSQL compares `= ANY (parameter)` one by one when it scans.
///
/// # Errors
/// When the database does not answer.
pub async fn holders(
    conn: &mut PgConnection,
    addresses: &[String],
) -> Result<HashMap<String, Holder>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT id, btc_address AS "btc_address!", display_name, is_banned, is_test,
                  coalesce((s.privacy ->> 'publicProfile')::BOOLEAN, TRUE) AS "is_public!",
                  CASE WHEN coalesce((s.privacy ->> 'showCountryFlag')::BOOLEAN, TRUE) THEN country_code END AS country_code
           FROM unnest($1::TEXT[]) AS asked (address)
           JOIN users ON btc_address = asked.address AND deleted_at IS NULL
           LEFT JOIN user_settings s ON s.user_id = id"#,
        addresses
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let holder = Holder {
                id: UserId(row.id),
                display_name: row.display_name,
                is_banned: row.is_banned,
                is_test: row.is_test,
                is_public: row.is_public,
                country_code: row.country_code,
            };
            (row.btc_address, holder)
        })
        .collect())
}

/// The address that a user holds, if any.
///
/// # Errors
/// When the database does not answer.
pub async fn address_of(pool: &PgPool, user: UserId) -> Result<Option<String>, sqlx::Error> {
    let row =
        sqlx::query_scalar!("SELECT btc_address FROM users WHERE id = $1 AND deleted_at IS NULL", user.0)
            .fetch_optional(pool)
            .await?;
    Ok(row.flatten())
}

/// Registers a user for each address that nobody holds, and returns how many were new: how `tbg dev`,
/// benchmarks and tests get players without signing in.
///
/// # Errors
/// When the database does not answer.
pub async fn register_all(conn: &mut PgConnection, addresses: &[String]) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        "INSERT INTO users (btc_address)
         SELECT DISTINCT address FROM unnest($1::TEXT[]) AS address
         ON CONFLICT (btc_address) DO NOTHING",
        addresses
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
