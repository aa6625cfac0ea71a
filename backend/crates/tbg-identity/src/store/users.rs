//! Rows of `users` as sign-in needs them.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tbg_core::UserId;

/// An account as it signs in.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// The user.
    pub id: i64,
    /// Current mining address.
    pub btc_address: Option<String>,
    /// wallet, email or both.
    pub auth_method: String,
    /// Account e-mail, lower case.
    pub email: Option<String>,
    /// Whether the account e-mail was confirmed.
    pub email_verified: bool,
    /// PHC string.
    pub password_hash: Option<String>,
    /// Banned users get no tokens.
    pub is_banned: bool,
}

/// A user to be created by e-mail.
pub(crate) struct NewEmailUser<'a> {
    pub email: &'a str,
    pub password_hash: &'a str,
    pub address: &'a str,
    pub display_name: Option<(&'a str, &'a str)>,
    pub country_code: Option<&'a str>,
}

/// Lets one transaction at a time decide whose an address is.
pub(crate) async fn lock_address_decision(conn: &mut PgConnection, address: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1, 7))", address).fetch_one(conn).await?;
    Ok(())
}

/// The account of an e-mail.
pub(crate) async fn by_email(conn: &mut PgConnection, email: &str) -> Result<Option<Account>, sqlx::Error> {
    sqlx::query_as!(
        Account,
        "SELECT id, btc_address, auth_method, email, email_verified, password_hash, is_banned
         FROM users WHERE lower(email) = $1 AND deleted_at IS NULL",
        email
    )
    .fetch_optional(conn)
    .await
}

/// The account of a user.
pub(crate) async fn by_id(conn: &mut PgConnection, user: UserId) -> Result<Option<Account>, sqlx::Error> {
    sqlx::query_as!(
        Account,
        "SELECT id, btc_address, auth_method, email, email_verified, password_hash, is_banned
         FROM users WHERE id = $1 AND deleted_at IS NULL",
        user.0
    )
    .fetch_optional(conn)
    .await
}

/// The same, locked until the end of the transaction: always before any of the user's other rows.
pub(crate) async fn lock(conn: &mut PgConnection, user: UserId) -> Result<Option<Account>, sqlx::Error> {
    sqlx::query_as!(
        Account,
        "SELECT id, btc_address, auth_method, email, email_verified, password_hash, is_banned
         FROM users WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE",
        user.0
    )
    .fetch_optional(conn)
    .await
}

/// Creates the owner of a proven wallet. None if somebody holds the address.
pub(crate) async fn insert_wallet_user(
    conn: &mut PgConnection,
    address: &str,
    is_test: bool,
    now: DateTime<Utc>,
) -> Result<Option<UserId>, sqlx::Error> {
    let id = sqlx::query_scalar!(
        "INSERT INTO users (btc_address, auth_method, is_verified, is_test, created_at, updated_at)
         VALUES ($1, 'wallet', TRUE, $2, $3, $3)
         ON CONFLICT ON CONSTRAINT users_btc_address_unique DO NOTHING
         RETURNING id",
        address,
        is_test,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(id.map(UserId))
}

/// Creates a user by e-mail; whoever has the e-mail, the address or the name already is a violation of
/// `users_email_unique`, `users_btc_address_unique` or `users_display_name_unique`.
pub(crate) async fn insert_email_user(
    conn: &mut PgConnection,
    new: &NewEmailUser<'_>,
    now: DateTime<Utc>,
) -> Result<UserId, sqlx::Error> {
    let id = sqlx::query_scalar!(
        "INSERT INTO users (btc_address, auth_method, email, password_hash, display_name,
                            display_name_normalized, country_code, login_count, last_login, created_at, updated_at)
         VALUES ($1, 'email', $2, $3, $4, $5, $6, 1, $7, $7, $7)
         RETURNING id",
        new.address,
        new.email,
        new.password_hash,
        new.display_name.map(|(shown, _)| shown),
        new.display_name.map(|(_, normalized)| normalized),
        new.country_code,
        now
    )
    .fetch_one(conn)
    .await?;
    Ok(UserId(id))
}

/// The holder of an address proved it.
pub(crate) async fn mark_address_proven(conn: &mut PgConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE users SET is_verified = TRUE, updated_at = now() WHERE id = $1", user.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// Counts a sign-in, which also locks the row; false if the account is gone.
pub(crate) async fn record_login(
    conn: &mut PgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "UPDATE users SET last_login = $2, login_count = login_count + 1
         WHERE id = $1 AND deleted_at IS NULL",
        user.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Replaces a password hash; `only_if` makes it a no-op when the hash has changed meanwhile.
pub(crate) async fn set_password(
    conn: &mut PgConnection,
    user: UserId,
    hash: &str,
    only_if: Option<&str>,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "UPDATE users SET password_hash = $2, updated_at = now()
         WHERE id = $1 AND deleted_at IS NULL AND ($3::TEXT IS NULL OR password_hash = $3)",
        user.0,
        hash,
        only_if
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Tokens issued before `from` are void.
pub(crate) async fn reject_tokens_before(
    conn: &mut PgConnection,
    user: UserId,
    from: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE users SET tokens_valid_from = $2 WHERE id = $1", user.0, from).execute(conn).await?;
    Ok(())
}

/// Confirms the account e-mail, if it still is the one that was asked.
pub(crate) async fn verify_account_email(
    conn: &mut PgConnection,
    user: UserId,
    email: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "UPDATE users SET email_verified = TRUE, updated_at = now()
         WHERE id = $1 AND lower(email) = $2 AND deleted_at IS NULL",
        user.0,
        email
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Confirms the e-mail for notifications, if it still is the one that was asked.
pub(crate) async fn verify_notification_email(
    conn: &mut PgConnection,
    user: UserId,
    email: &str,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "UPDATE user_settings SET notification_email_verified_at = $3, updated_at = $3
         WHERE user_id = $1 AND lower(notifications ->> 'email') = $2",
        user.0,
        email,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A user with e-mail proved a wallet.
pub(crate) async fn set_auth_method(
    conn: &mut PgConnection,
    user: UserId,
    method: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE users SET auth_method = $2, updated_at = now() WHERE id = $1", user.0, method)
        .execute(conn)
        .await?;
    Ok(())
}
