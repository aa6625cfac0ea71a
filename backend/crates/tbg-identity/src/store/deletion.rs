//! What is left of a user who goes: a row without a person, and the history of its addresses.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tbg_core::UserId;
use uuid::Uuid;

/// The sessions of a user that are still good.
pub(crate) async fn live_sessions(conn: &mut PgConnection, user: UserId) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT DISTINCT family_id FROM refresh_tokens WHERE user_id = $1 AND NOT is_revoked",
        user.0
    )
    .fetch_all(conn)
    .await
}

/// Deletes whatever belongs to a user in the tables of this domain. From the history of addresses only the
/// network addresses go.
pub(crate) async fn delete_belongings(conn: &mut PgConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH credentials AS (DELETE FROM wallet_credentials WHERE user_id = $1),
              sessions AS (DELETE FROM refresh_tokens WHERE user_id = $1),
              keys AS (DELETE FROM api_keys WHERE user_id = $1),
              settings AS (DELETE FROM user_settings WHERE user_id = $1),
              verifications AS (DELETE FROM email_verification_tokens WHERE user_id = $1),
              resets AS (DELETE FROM password_reset_tokens WHERE user_id = $1),
              mails AS (DELETE FROM email_outbox WHERE user_id = $1)
         UPDATE wallet_address_history SET ip_address = NULL
         WHERE user_id = $1 AND ip_address IS NOT NULL",
        user.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Empties the row of a user. It stays because other rows of the game name it; address, email and name are
/// free for a new user.
pub(crate) async fn bury(
    conn: &mut PgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE users
         SET deleted_at = $2, updated_at = $2, tokens_valid_from = $2, btc_address = NULL,
             auth_method = 'wallet', email = NULL, email_verified = FALSE, password_hash = NULL,
             display_name = NULL, display_name_normalized = NULL, country_code = NULL, avatar_url = NULL,
             bio = NULL, is_verified = FALSE, is_admin = FALSE, last_seen = NULL, last_login = NULL,
             login_count = 0
         WHERE id = $1",
        user.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}
