//! What anybody may see of a user. Each query asks for the address, the ban, the deletion and the privacy
//! setting at once, so that no lookup can forget one of them.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// The public face of a user.
pub(crate) struct PublicRow {
    pub btc_address: String,
    pub display_name: Option<String>,
    /// Absent where the user hides it.
    pub country_code: Option<String>,
    pub avatar_url: Option<String>,
    pub bio: Option<String>,
    pub is_verified: bool,
    pub created_at: DateTime<Utc>,
}

/// Public numbers of a user.
pub(crate) struct StatsRow {
    pub best_difficulty: f64,
    /// Accepted shares.
    pub total_shares: i64,
    pub blocks_found: i32,
    /// The streak as of its last active week, with what shows it live.
    pub current_streak: i32,
    pub freezes: i16,
    pub last_active_week: Option<String>,
    /// Slugs, in the order of the catalogue.
    pub badges: Vec<String>,
}

/// The user who shows an address in public, if there is one.
pub(crate) async fn user(conn: &mut PgConnection, address: &str) -> Result<Option<PublicRow>, sqlx::Error> {
    sqlx::query_as!(
        PublicRow,
        r#"SELECT u.btc_address AS "btc_address!", u.display_name,
                  CASE WHEN COALESCE((s.privacy ->> 'showCountryFlag')::BOOLEAN, TRUE)
                       THEN u.country_code END AS country_code,
                  u.avatar_url, u.bio, u.is_verified AS "is_verified!", u.created_at AS "created_at!"
           FROM users u LEFT JOIN user_settings s ON s.user_id = u.id
           WHERE u.btc_address = $1 AND u.deleted_at IS NULL AND NOT u.is_banned
             AND COALESCE((s.privacy ->> 'publicProfile')::BOOLEAN, TRUE)"#,
        address
    )
    .fetch_optional(conn)
    .await
}

/// The numbers of that user, as the game counts them; zeros without a row.
pub(crate) async fn stats(conn: &mut PgConnection, address: &str) -> Result<Option<StatsRow>, sqlx::Error> {
    sqlx::query_as!(
        StatsRow,
        r#"SELECT COALESCE(g.best_difficulty, 0) AS "best_difficulty!", COALESCE(g.total_shares, 0) AS "total_shares!",
                  COALESCE(g.blocks_found, 0) AS "blocks_found!", COALESCE(g.current_streak, 0) AS "current_streak!",
                  COALESCE(g.freezes, 0::SMALLINT) AS "freezes!", g.last_active_week AS "last_active_week?",
                  ARRAY(SELECT d.slug FROM badge_definitions d
                        WHERE d.id IN (SELECT b.badge_id FROM user_badges b WHERE b.user_id = u.id)
                        ORDER BY d.sort_order) AS "badges!"
           FROM users u LEFT JOIN user_settings s ON s.user_id = u.id
           LEFT JOIN user_gamification g ON g.user_id = u.id
           WHERE u.btc_address = $1 AND u.deleted_at IS NULL AND NOT u.is_banned
             AND COALESCE((s.privacy ->> 'publicProfile')::BOOLEAN, TRUE)"#,
        address
    )
    .fetch_optional(conn)
    .await
}
