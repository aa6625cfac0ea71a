//! Everything that this server keeps about one user, section by section, for the user.
//!
//! No hash of a token, key or password is read here. Every list has an end, newest first, so that an export
//! stays a bounded piece of work.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use tbg_core::UserId;
use uuid::Uuid;

/// The account itself.
#[derive(Serialize)]
pub(crate) struct Profile {
    id: i64,
    btc_address: Option<String>,
    auth_method: String,
    email: Option<String>,
    email_verified: bool,
    display_name: Option<String>,
    country_code: Option<String>,
    avatar_url: Option<String>,
    bio: Option<String>,
    is_verified: bool,
    is_admin: bool,
    created_at: DateTime<Utc>,
    last_seen: Option<DateTime<Utc>>,
    last_login: Option<DateTime<Utc>>,
    login_count: i32,
}

/// What the user set, where it differs from the defaults.
#[derive(Serialize)]
pub(crate) struct Settings {
    notifications: Value,
    privacy: Value,
    mining: Value,
    sound: Value,
    display: Value,
    notification_email_verified_at: Option<DateTime<Utc>>,
    updated_at: DateTime<Utc>,
}

/// A wallet that signs in.
#[derive(Serialize)]
pub(crate) struct Wallet {
    btc_address: String,
    address_type: String,
    verified_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

/// One change of the mining address.
#[derive(Serialize)]
pub(crate) struct AddressChange {
    old_address: Option<String>,
    new_address: Option<String>,
    reason: String,
    changed_at: DateTime<Utc>,
    ip_address: Option<String>,
}

/// One renewal of a session.
#[derive(Serialize)]
pub(crate) struct SessionRow {
    session_id: Uuid,
    auth_method: String,
    session_started_at: DateTime<Utc>,
    issued_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    is_revoked: bool,
    revoked_at: Option<DateTime<Utc>>,
    revoke_reason: Option<String>,
    ip_address: Option<String>,
    user_agent: Option<String>,
}

/// An API key, without what would let it be used.
#[derive(Serialize)]
pub(crate) struct ApiKey {
    id: Uuid,
    prefix: String,
    name: String,
    permissions: Value,
    last_used_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    is_revoked: bool,
    revoked_at: Option<DateTime<Utc>>,
}

/// A block that the user found.
#[derive(Serialize)]
pub(crate) struct Block {
    id: i64,
    block_height: i32,
    block_hash: Option<String>,
    found_at: DateTime<Utc>,
    worker_name: Option<String>,
    btc_address: Option<String>,
    reward_btc: Option<f64>,
    fees_btc: Option<f64>,
    difficulty: Option<f64>,
    confirmations: i32,
    confirmed: bool,
    coinbase_sig: Option<String>,
}

/// One day of mining.
#[derive(Serialize)]
pub(crate) struct MiningDay {
    day: NaiveDate,
    total_shares: i64,
    accepted_shares: i64,
    rejected_shares: i64,
    best_diff: f64,
    avg_diff: f64,
    work: f64,
    uptime_minutes: i32,
    workers_seen: i32,
}

/// The account; `None` when it was deleted meanwhile.
pub(crate) async fn profile(conn: &mut PgConnection, user: UserId) -> Result<Option<Profile>, sqlx::Error> {
    sqlx::query_as!(
        Profile,
        "SELECT id, btc_address, auth_method, email, email_verified, display_name, country_code, avatar_url,
                bio, is_verified, is_admin, created_at, last_seen, last_login, login_count
         FROM users WHERE id = $1 AND deleted_at IS NULL",
        user.0
    )
    .fetch_optional(conn)
    .await
}

/// The settings; `None` when all are the defaults.
pub(crate) async fn settings(conn: &mut PgConnection, user: UserId) -> Result<Option<Settings>, sqlx::Error> {
    sqlx::query_as!(
        Settings,
        "SELECT notifications, privacy, mining, sound, display, notification_email_verified_at, updated_at
         FROM user_settings WHERE user_id = $1",
        user.0
    )
    .fetch_optional(conn)
    .await
}

/// The wallets.
pub(crate) async fn wallets(conn: &mut PgConnection, user: UserId) -> Result<Vec<Wallet>, sqlx::Error> {
    sqlx::query_as!(
        Wallet,
        "SELECT btc_address, address_type, verified_at, last_used_at, revoked_at
         FROM wallet_credentials WHERE user_id = $1 ORDER BY verified_at DESC, id DESC LIMIT 1000",
        user.0
    )
    .fetch_all(conn)
    .await
}

/// The changes of the mining address.
pub(crate) async fn address_history(
    conn: &mut PgConnection,
    user: UserId,
) -> Result<Vec<AddressChange>, sqlx::Error> {
    sqlx::query_as!(
        AddressChange,
        "SELECT old_address, new_address, reason, changed_at, host(ip_address) AS ip_address
         FROM wallet_address_history WHERE user_id = $1 ORDER BY changed_at DESC, id DESC LIMIT 1000",
        user.0
    )
    .fetch_all(conn)
    .await
}

/// The sessions that are still on record.
pub(crate) async fn sessions(conn: &mut PgConnection, user: UserId) -> Result<Vec<SessionRow>, sqlx::Error> {
    sqlx::query_as!(
        SessionRow,
        "SELECT family_id AS session_id, auth_method, session_started_at, issued_at, expires_at, is_revoked,
                revoked_at, revoke_reason, host(ip_address) AS ip_address, user_agent
         FROM refresh_tokens WHERE user_id = $1 ORDER BY issued_at DESC, id DESC LIMIT 1000",
        user.0
    )
    .fetch_all(conn)
    .await
}

/// The API keys, revoked ones too.
pub(crate) async fn api_keys(conn: &mut PgConnection, user: UserId) -> Result<Vec<ApiKey>, sqlx::Error> {
    sqlx::query_as!(
        ApiKey,
        "SELECT id, key_prefix AS prefix, name, permissions, last_used_at, created_at, expires_at,
                is_revoked, revoked_at
         FROM api_keys WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1000",
        user.0
    )
    .fetch_all(conn)
    .await
}

/// The blocks.
pub(crate) async fn blocks(conn: &mut PgConnection, user: UserId) -> Result<Vec<Block>, sqlx::Error> {
    sqlx::query_as!(
        Block,
        "SELECT id, block_height, block_hash, found_at, worker_name, btc_address,
                reward_btc::DOUBLE PRECISION AS reward_btc, fees_btc::DOUBLE PRECISION AS fees_btc,
                difficulty, confirmations, confirmed, coinbase_sig
         FROM blocks WHERE user_id = $1 ORDER BY found_at DESC, id DESC LIMIT 1000",
        user.0
    )
    .fetch_all(conn)
    .await
}

/// The days of mining, of ten years at most.
pub(crate) async fn mining_days(
    conn: &mut PgConnection,
    user: UserId,
) -> Result<Vec<MiningDay>, sqlx::Error> {
    sqlx::query_as!(
        MiningDay,
        "SELECT day, total_shares, accepted_shares, rejected_shares, best_diff, avg_diff, work,
                uptime_minutes, workers_seen
         FROM user_daily_stats WHERE user_id = $1 ORDER BY day DESC LIMIT 3660",
        user.0
    )
    .fetch_all(conn)
    .await
}

/// The newest notifications.
pub(crate) async fn notifications(conn: &mut PgConnection, user: UserId) -> Result<Value, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT coalesce(jsonb_agg(to_jsonb(n)), '[]') AS "list!"
           FROM (SELECT id, type, subtype, title, description, action_url, action_label, metadata, read, read_at, created_at
                 FROM notifications WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1000) n"#,
        user.0
    )
    .fetch_one(conn)
    .await
}

/// What the game has given; `None` for who never played.
pub(crate) async fn gamification(
    conn: &mut PgConnection,
    user: UserId,
) -> Result<Option<Value>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT to_jsonb(g) - 'user_id' || jsonb_build_object(
                  'badges', (SELECT coalesce(jsonb_agg(to_jsonb(b)), '[]')
                             FROM (SELECT d.slug, b.period_key, b.earned_at, b.metadata
                                   FROM user_badges b JOIN badge_definitions d ON d.id = b.badge_id
                                   WHERE b.user_id = $1 ORDER BY b.earned_at DESC, b.id DESC LIMIT 1000) b),
                  'xp', (SELECT coalesce(jsonb_agg(to_jsonb(x)), '[]')
                         FROM (SELECT amount, source, description, created_at FROM xp_ledger
                               WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1000) x),
                  'weeks', (SELECT coalesce(jsonb_agg(to_jsonb(w)), '[]')
                            FROM (SELECT week_iso, share_count, best_diff, active_days, is_active, is_frozen
                                  FROM streak_calendar WHERE user_id = $1 ORDER BY week_start DESC LIMIT 1000) w)) AS "game!"
           FROM user_gamification g WHERE g.user_id = $1"#,
        user.0
    )
    .fetch_optional(conn)
    .await
}

/// Games and lottery, the entries with their salts.
pub(crate) async fn games(conn: &mut PgConnection, user: UserId) -> Result<Value, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT jsonb_build_object(
                  'sessions', (SELECT coalesce(jsonb_agg(to_jsonb(s)), '[]')
                               FROM (SELECT game_type, week_iso, played_at, last_played_at, plays, metadata, shared
                                     FROM game_sessions WHERE user_id = $1 ORDER BY week_start DESC, id DESC LIMIT 1000) s),
                  'results', (SELECT coalesce(jsonb_agg(to_jsonb(r)), '[]')
                              FROM (SELECT d.week_iso, r.rank, r.best_difficulty, r.best_hash, r.total_shares, r.xp_awarded,
                                           r.percentile
                                    FROM lottery_results r JOIN lottery_draws d ON d.id = r.draw_id
                                    WHERE r.user_id = $1 ORDER BY d.week_start DESC LIMIT 1000) r),
                  'entries', (SELECT coalesce(jsonb_agg(to_jsonb(e)), '[]')
                              FROM (SELECT d.week_iso, e.leaf_index, e.btc_address, encode(e.salt, 'hex') AS salt,
                                           encode(e.commitment, 'hex') AS commitment, e.best_difficulty, e.best_time,
                                           e.total_shares
                                    FROM lottery_entries e JOIN lottery_draws d ON d.id = e.draw_id
                                    WHERE e.user_id = $1 ORDER BY d.week_start DESC LIMIT 1000) e)) AS "games!""#,
        user.0
    )
    .fetch_one(conn)
    .await
}
