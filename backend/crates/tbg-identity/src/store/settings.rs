//! `user_settings`: per section a JSON object with what the user changed, merged in the database.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use tbg_core::UserId;

use crate::rules::settings::{Account, EmailChange, Sections, Stored};

struct Row {
    notifications: Value,
    privacy: Value,
    mining: Value,
    sound: Value,
    display: Value,
    notification_email_verified_at: Option<DateTime<Utc>>,
}

impl From<Row> for Stored {
    fn from(row: Row) -> Self {
        Self {
            sections: Sections {
                notifications: row.notifications,
                privacy: row.privacy,
                mining: row.mining,
                sound: row.sound,
                display: row.display,
            },
            email_verified_at: row.notification_email_verified_at,
        }
    }
}

/// Locks the account until the end of the transaction, so that changes of one user's settings are
/// decided one after the other; `None` when the user is gone. Rows that refer to the user can still be
/// written meanwhile.
pub(crate) async fn lock_account(
    conn: &mut PgConnection,
    user: UserId,
) -> Result<Option<Account>, sqlx::Error> {
    sqlx::query_as!(
        Account,
        r#"SELECT btc_address, is_verified,
                  CASE WHEN email_verified THEN lower(email) END AS "verified_email?"
           FROM users WHERE id = $1 AND deleted_at IS NULL
           FOR NO KEY UPDATE"#,
        user.0
    )
    .fetch_optional(conn)
    .await
}

/// The stored settings; empty for a user who never changed any.
pub(crate) async fn load(conn: &mut PgConnection, user: UserId) -> Result<Stored, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "SELECT notifications, privacy, mining, sound, display, notification_email_verified_at
         FROM user_settings WHERE user_id = $1",
        user.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Stored::from).unwrap_or_default())
}

/// Lays `overrides` over what is stored, all sections in one statement, and returns the result. Keys
/// that are not given keep what any other change, also a concurrent one, has stored.
pub(crate) async fn merge(
    conn: &mut PgConnection,
    user: UserId,
    overrides: &Sections,
    email: &EmailChange,
    now: DateTime<Utc>,
) -> Result<Stored, sqlx::Error> {
    let is_other_email = *email != EmailChange::Kept;
    let verified_at = (*email == EmailChange::Proven).then_some(now);
    let row = sqlx::query_as!(
        Row,
        "INSERT INTO user_settings AS stored
           (user_id, notifications, privacy, mining, sound, display,
            notification_email_verified_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $8, $9)
         ON CONFLICT (user_id) DO UPDATE
         SET notifications = stored.notifications || EXCLUDED.notifications,
             privacy = stored.privacy || EXCLUDED.privacy,
             mining = stored.mining || EXCLUDED.mining,
             sound = stored.sound || EXCLUDED.sound,
             display = stored.display || EXCLUDED.display,
             notification_email_verified_at = CASE WHEN $7
               THEN EXCLUDED.notification_email_verified_at
               ELSE stored.notification_email_verified_at END,
             updated_at = EXCLUDED.updated_at
         RETURNING notifications, privacy, mining, sound, display, notification_email_verified_at",
        user.0,
        overrides.notifications,
        overrides.privacy,
        overrides.mining,
        overrides.sound,
        overrides.display,
        is_other_email,
        verified_at,
        now
    )
    .fetch_one(conn)
    .await?;
    Ok(row.into())
}
