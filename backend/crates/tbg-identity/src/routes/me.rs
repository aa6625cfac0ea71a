//! The caller's own profile (contract `auth-users.md` §6.1, §6.2).

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use redis::Script;
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;
use tbg_core::UserId;
use tbg_core::audit::{self, Action, Entry};
use tbg_web::{ApiError, Body, Caller, ErrorCode, Origin, Patch, Routes, Session};
use utoipa::ToSchema;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::Identity;
use crate::rules::profile::{DisplayName, ProfilePatch};
use crate::store;
use crate::store::profile::MeRow;

/// Workers that were silent for longer are not counted (`mining.md` §7).
const WORKER_SEEN_WITHIN: TimeDelta = TimeDelta::hours(24);

const NAME_CHANGES: i64 = 5;
const NAME_CHANGES_WITHIN: TimeDelta = TimeDelta::hours(24);

/// Takes a place in the sorted set of changes, or says when its oldest one was made.
/// Arguments: now and start of the window in milliseconds, member, most members, life in seconds.
const TAKE_NAME_CHANGE: &str = "
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then
  return tonumber(redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2])
end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 0
";

/// The routes of the own profile.
pub(crate) fn routes() -> Routes<Identity> {
    Routes::new().user(routes!(get_me)).session(routes!(patch_me))
}

/// A user, as only that user sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct UserMe {
    /// Identifies the user.
    pub(crate) id: i64,
    /// Current mining address.
    #[schema(required)]
    pub(crate) btc_address: Option<String>,
    /// `wallet`, `email` or `both`.
    pub(crate) auth_method: String,
    /// E-mail address of the account.
    #[schema(required)]
    pub(crate) email: Option<String>,
    /// Whether that address was verified.
    pub(crate) email_verified: bool,
    /// Public name.
    #[schema(required)]
    pub(crate) display_name: Option<String>,
    /// ISO 3166-1 alpha-2.
    #[schema(required)]
    pub(crate) country_code: Option<String>,
    /// Picture.
    #[schema(required)]
    pub(crate) avatar_url: Option<String>,
    /// Free text.
    #[schema(required)]
    pub(crate) bio: Option<String>,
    /// Whether control of the current mining address was proven.
    pub(crate) is_verified: bool,
    /// Whether the user administers the game.
    pub(crate) is_admin: bool,
    /// When the account was made.
    pub(crate) created_at: DateTime<Utc>,
    /// The last sign-in.
    #[schema(required)]
    pub(crate) last_login: Option<DateTime<Utc>>,
    /// Number of sign-ins.
    pub(crate) login_count: i32,
    /// How far the user has come; absent in the answer to a sign-in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) progress: Option<Progress>,
}

/// How far a user has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = UserProgress)]
pub(crate) struct Progress {
    /// Level.
    level: i32,
    /// Its title.
    level_title: String,
    /// Experience points, all of them.
    xp: i64,
    /// Span of the current level in points.
    xp_to_next: i64,
    /// Weeks in a row.
    streak: i32,
    /// Workers that mine now.
    workers_online: i64,
    /// Workers seen within a day.
    workers_total: i64,
}

impl Progress {
    /// Of a user without any experience.
    fn beginner(workers_online: i64, workers_total: i64) -> Self {
        Self {
            level: 1,
            level_title: "Nocoiner".to_owned(),
            xp: 0,
            xp_to_next: 100,
            streak: 0,
            workers_online,
            workers_total,
        }
    }
}

impl From<MeRow> for UserMe {
    fn from(row: MeRow) -> Self {
        let workers = row.workers_online.zip(row.workers_total);
        Self {
            id: row.id,
            btc_address: row.btc_address,
            auth_method: row.auth_method,
            email: row.email,
            email_verified: row.email_verified,
            display_name: row.display_name,
            country_code: row.country_code,
            avatar_url: row.avatar_url,
            bio: row.bio,
            is_verified: row.is_verified,
            is_admin: row.is_admin,
            created_at: row.created_at,
            last_login: row.last_login,
            login_count: row.login_count,
            progress: workers.map(|(online, total)| Progress::beginner(online, total)),
        }
    }
}

/// A user as only that user sees it, in one query. A sign-in answers without progress.
pub(crate) async fn user_me(
    identity: &Identity,
    user: UserId,
    with_progress: bool,
) -> Result<UserMe, ApiError> {
    let seen_since = identity.clock.now() - WORKER_SEEN_WITHIN;
    let mut conn = identity.pool.acquire().await?;
    let row = store::profile::me(&mut conn, user, with_progress, seen_since).await?;
    row.map(UserMe::from).ok_or_else(gone)
}

/// The user was deleted after the request was let in.
pub(crate) fn gone() -> ApiError {
    ApiError::new(ErrorCode::AuthTokenRevoked, "This session has ended")
}

/// Own profile
///
/// With progress in the game.
#[utoipa::path(
    get,
    path = "/api/v1/users/me",
    tag = "users",
    responses((status = 200, description = "The caller", body = UserMe))
)]
async fn get_me(State(identity): State<Identity>, caller: Caller) -> Result<Json<UserMe>, ApiError> {
    user_me(&identity, caller.user_id, true).await.map(Json)
}

/// Change the own profile
///
/// Absent fields stay, `null` clears.
#[utoipa::path(
    patch,
    path = "/api/v1/users/me",
    tag = "users",
    request_body = ProfilePatch,
    responses(
        (status = 200, description = "The caller after the change", body = UserMe),
        (status = 409, description = "Another user has the name", body = tbg_web::ErrorBody),
    )
)]
async fn patch_me(
    State(identity): State<Identity>,
    session: Session,
    Origin(origin): Origin,
    Body(patch): Body<ProfilePatch>,
) -> Result<Json<UserMe>, ApiError> {
    let user = session.user_id;
    if !patch.fields().is_empty() {
        let change = change_profile(&identity, user, &origin, &patch);
        let address = within_name_allowance(&identity, user, &patch.display_name, change).await?;
        forget_public_profile(&identity, address.as_deref()).await;
    }
    user_me(&identity, user, true).await.map(Json)
}

async fn change_profile(
    identity: &Identity,
    user: UserId,
    origin: &audit::Origin,
    patch: &ProfilePatch,
) -> Result<Option<String>, ApiError> {
    let mut tx = identity.pool.begin().await?;
    let address = write_profile(&mut tx, user, origin, patch, identity.clock.now()).await?;
    tx.commit().await?;
    Ok(address)
}

/// Writes and audits the given fields in the caller's transaction, and returns the user's address, under
/// which the public profile is cached. To be called [`within_name_allowance`].
///
/// # Errors
/// 409 `DISPLAY_NAME_TAKEN`.
pub(crate) async fn write_profile(
    conn: &mut PgConnection,
    user: UserId,
    origin: &audit::Origin,
    patch: &ProfilePatch,
    now: DateTime<Utc>,
) -> Result<Option<String>, ApiError> {
    let changed = store::profile::update(conn, user, patch, now).await.map_err(name_taken)?;
    let changed = changed.ok_or_else(gone)?;
    let entry = Entry::new(Action::UserProfileUpdated, "user")
        .by(user)
        .on(user)
        .from(origin)
        .details(json!({ "fields": patch.fields() }));
    audit::record(conn, &entry).await?;
    Ok(changed.btc_address)
}

fn name_taken(error: sqlx::Error) -> ApiError {
    let constraint = error.as_database_error().and_then(|error| error.constraint());
    if constraint == Some("users_display_name_unique") {
        return ApiError::new(ErrorCode::DisplayNameTaken, "Display name is taken");
    }
    error.into()
}

/// Runs `change`, which sets the public name to `name`, unless the name was changed too often. A change
/// that fails is not counted. Without Redis every change is allowed.
///
/// # Errors
/// 429 `COOLDOWN` for the sixth change within 24 hours, and whatever `change` fails with.
pub(crate) async fn within_name_allowance<T>(
    identity: &Identity,
    user: UserId,
    name: &Patch<DisplayName>,
    change: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    if !is_other_name(identity, user, name).await? {
        return change.await;
    }
    let key = format!("auth:name_changes:{user}");
    let member = Uuid::now_v7().to_string();
    take_name_change(identity, &key, &member).await?;
    let done = change.await;
    if done.is_err() {
        let mut redis = identity.redis.clone();
        let given_back = redis::cmd("ZREM").arg(&key).arg(&member).query_async::<i64>(&mut redis).await;
        if let Err(error) = given_back {
            tracing::warn!(%error, "a failed change of name stays counted");
        }
    }
    done
}

async fn is_other_name(
    identity: &Identity,
    user: UserId,
    name: &Patch<DisplayName>,
) -> Result<bool, ApiError> {
    let wanted = match name {
        Patch::Absent => return Ok(false),
        Patch::Null => None,
        Patch::Value(name) => Some(name.as_str()),
    };
    let mut conn = identity.pool.acquire().await?;
    let current = store::profile::display_name(&mut conn, user).await?;
    Ok(current.as_deref() != wanted)
}

async fn take_name_change(identity: &Identity, key: &str, member: &str) -> Result<(), ApiError> {
    let now = identity.clock.now();
    let script = Script::new(TAKE_NAME_CHANGE);
    let mut call = script.prepare_invoke();
    call.key(key)
        .arg(now.timestamp_millis())
        .arg((now - NAME_CHANGES_WITHIN).timestamp_millis())
        .arg(member)
        .arg(NAME_CHANGES)
        .arg(NAME_CHANGES_WITHIN.num_seconds());
    match call.invoke_async::<i64>(&mut identity.redis.clone()).await {
        Ok(0) => Ok(()),
        Ok(oldest) => Err(too_many_names(oldest, now)),
        Err(error) => {
            tracing::warn!(%error, "a change of name was not counted");
            Ok(())
        }
    }
}

/// `oldest`: when the oldest counted change was made, in milliseconds.
fn too_many_names(oldest: i64, now: DateTime<Utc>) -> ApiError {
    let until_free = oldest + NAME_CHANGES_WITHIN.num_milliseconds() - now.timestamp_millis();
    let seconds = u64::try_from(until_free).unwrap_or(0).div_ceil(1_000).max(1);
    ApiError::new(ErrorCode::Cooldown, "Display name was changed too often; try again later")
        .retry_after(seconds)
}

/// Drops the cached public profile of an address, after the commit that changed what it shows. It lives
/// 30 s, so a failure is only logged.
pub(crate) async fn forget_public_profile(identity: &Identity, address: Option<&str>) {
    let Some(address) = address else { return };
    let key = format!("public:profile:{address}");
    let mut redis = identity.redis.clone();
    if let Err(error) = redis::cmd("DEL").arg(&key).query_async::<i64>(&mut redis).await {
        tracing::warn!(%error, "a changed public profile stays cached");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_absent_without_workers_and_everything_else_is_there() {
        let at = DateTime::from_timestamp(1_771_804_800, 0).unwrap();
        let row = |workers: Option<i64>| MeRow {
            id: 7,
            btc_address: None,
            auth_method: "wallet".to_owned(),
            email: None,
            email_verified: false,
            display_name: None,
            country_code: None,
            avatar_url: None,
            bio: None,
            is_verified: true,
            is_admin: false,
            created_at: at,
            last_login: None,
            login_count: 1,
            workers_online: workers,
            workers_total: workers,
        };
        let without = json!({
            "id": 7, "btc_address": null, "auth_method": "wallet", "email": null, "email_verified": false,
            "display_name": null, "country_code": null, "avatar_url": null, "bio": null,
            "is_verified": true, "is_admin": false, "created_at": "2026-02-23T00:00:00Z",
            "last_login": null, "login_count": 1,
        });
        assert_eq!(json!(UserMe::from(row(None))), without);
        assert_eq!(
            json!(UserMe::from(row(Some(2))))["progress"],
            json!({
                "level": 1, "level_title": "Nocoiner", "xp": 0, "xp_to_next": 100, "streak": 0,
                "workers_online": 2, "workers_total": 2,
            })
        );
    }
}
