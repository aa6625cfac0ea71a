//! API keys of the caller (contract `auth-users.md` §8). Only a session manages keys, never a key.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use tbg_core::UserId;
use tbg_core::audit::{self, Action, Entry};
use tbg_web::{ApiError, Body, ErrorCode, FieldError, FieldErrorKind, Origin, Routes, Session, Text};
use utoipa::ToSchema;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::Identity;
use crate::routes::me;
use crate::routes::session::Done;
use crate::rules::api_key::{ApiKey, Expiry, MAX_ACTIVE, Permission, Permissions};
use crate::store;
use crate::store::api_keys::{KeyRow, NewKey};

/// A prefix is one of 2×10^14: three draws in a row that are all taken are a fault.
const DRAWS: usize = 3;

/// The routes of the keys.
pub(crate) fn routes() -> Routes<Identity> {
    Routes::new().session(routes!(list_keys, create_key)).session(routes!(revoke_key))
}

/// A key to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ApiKeyRequest)]
struct CreateKey {
    /// What the key is for.
    name: Text<1, 128>,
    /// What it may do; `read` unless given. `write` includes `read`.
    #[serde(default, deserialize_with = "tbg_web::present")]
    #[schema(value_type = Vec<Permission>, min_items = 1, max_items = 2)]
    permissions: Option<Permissions>,
    /// When it ends, at most 366 days from now; never unless given.
    #[serde(default, deserialize_with = "tbg_web::present")]
    #[schema(nullable = false)]
    expires_at: Option<Expiry>,
}

/// A key that was created, with its text for this one time.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedApiKey)]
struct CreatedKey {
    /// Identifies the key.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// The key. It is not shown again.
    key: String,
    /// By which its owner recognises it.
    prefix: String,
    /// What the key is for.
    name: String,
    /// What it may do.
    #[schema(value_type = Vec<Permission>)]
    permissions: &'static [Permission],
    /// When it was created.
    created_at: DateTime<Utc>,
    /// When it ends.
    #[schema(required)]
    expires_at: Option<DateTime<Utc>>,
}

/// A key as its owner sees it later.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeyInfo)]
struct KeyInfo {
    /// Identifies the key.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// By which its owner recognises it.
    prefix: String,
    /// What the key is for.
    name: String,
    /// What it may do.
    #[schema(value_type = Vec<Permission>)]
    permissions: &'static [Permission],
    /// The last use, to the minute.
    #[schema(required)]
    last_used_at: Option<DateTime<Utc>>,
    /// When it was created.
    created_at: DateTime<Utc>,
    /// When it ends.
    #[schema(required)]
    expires_at: Option<DateTime<Utc>>,
    /// Always false: revoked keys are not listed.
    is_revoked: bool,
}

impl From<KeyRow> for KeyInfo {
    fn from(row: KeyRow) -> Self {
        Self {
            id: row.id,
            prefix: row.key_prefix,
            name: row.name,
            permissions: Permissions::of(&row.permissions).list(),
            last_used_at: row.last_used_at,
            created_at: row.created_at,
            expires_at: row.expires_at,
            is_revoked: false,
        }
    }
}

/// List API keys
///
/// Newest first, without revoked ones.
#[utoipa::path(
    get,
    path = "/api/v1/users/me/api-keys",
    tag = "api keys",
    responses((status = 200, description = "The caller's keys", body = Vec<KeyInfo>))
)]
async fn list_keys(
    State(identity): State<Identity>,
    session: Session,
) -> Result<Json<Vec<KeyInfo>>, ApiError> {
    let mut conn = identity.pool.acquire().await?;
    let rows = store::api_keys::list(&mut conn, session.user_id).await?;
    Ok(Json(rows.into_iter().map(KeyInfo::from).collect()))
}

/// Create an API key
///
/// The answer is the only place where the key is ever shown.
#[utoipa::path(
    post,
    path = "/api/v1/users/me/api-keys",
    tag = "api keys",
    request_body = CreateKey,
    responses(
        (status = 200, description = "The new key", body = CreatedKey),
        (status = 409, description = "There are ten keys", body = tbg_web::ErrorBody),
    )
)]
async fn create_key(
    State(identity): State<Identity>,
    session: Session,
    Origin(origin): Origin,
    Body(wanted): Body<CreateKey>,
) -> Result<Json<CreatedKey>, ApiError> {
    let (user, now) = (session.user_id, identity.clock.now());
    let expires_at = wanted.expires_at.map(|at| at.within(now).ok_or_else(bad_expiry)).transpose()?;
    let permissions = wanted.permissions.unwrap_or_default();
    let mut tx = identity.pool.begin().await?;
    check_room(&mut tx, user, now).await?;
    let (key, row) =
        insert_key(&identity, &mut tx, user, wanted.name.as_str(), permissions, (now, expires_at)).await?;
    record(&mut tx, Action::UserApiKeyCreated, user, &origin, row.id, (row.key_prefix.as_str(), permissions))
        .await?;
    tx.commit().await?;
    Ok(Json(CreatedKey {
        id: row.id,
        key: key.into_text(),
        prefix: row.key_prefix,
        name: row.name,
        permissions: permissions.list(),
        created_at: row.created_at,
        expires_at: row.expires_at,
    }))
}

/// Revoke an API key
///
/// Revoking it again changes nothing and answers the same.
#[utoipa::path(
    delete,
    path = "/api/v1/users/me/api-keys/{id}",
    tag = "api keys",
    params(("id" = String, Path, description = "Id of the key")),
    responses(
        (status = 200, description = "The key works no more", body = Done),
        (status = 404, description = "No such key of this user", body = tbg_web::ErrorBody),
    )
)]
async fn revoke_key(
    State(identity): State<Identity>,
    session: Session,
    Origin(origin): Origin,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Done>, ApiError> {
    let (user, now) = (session.user_id, identity.clock.now());
    // A path that is no id, even one that is not UTF-8, names no key.
    let id = id.ok().and_then(|Path(id)| Uuid::try_parse(&id).ok()).ok_or_else(unknown_key)?;
    let mut tx = identity.pool.begin().await?;
    let key = store::api_keys::lock(&mut tx, user, id).await?.ok_or_else(unknown_key)?;
    if !key.is_revoked {
        store::api_keys::revoke(&mut tx, id, now).await?;
        let permissions = Permissions::of(&key.permissions);
        record(&mut tx, Action::UserApiKeyRevoked, user, &origin, id, (key.key_prefix.as_str(), permissions))
            .await?;
    }
    tx.commit().await?;
    // Also when it was revoked before: an earlier attempt may have failed at this point.
    identity.auth.forget_api_key(&key.key_hash).await;
    Ok(Json(Done { status: "api_key_revoked" }))
}

/// Refuses an eleventh key. The lock on the owner keeps the count true until the commit.
async fn check_room(conn: &mut PgConnection, user: UserId, now: DateTime<Utc>) -> Result<(), ApiError> {
    if !store::api_keys::lock_owner(conn, user).await? {
        return Err(me::gone());
    }
    if store::api_keys::count_active(conn, user, now).await? >= MAX_ACTIVE {
        return Err(ApiError::new(ErrorCode::ApiKeyLimit, "At most 10 API keys can be active"));
    }
    Ok(())
}

/// `(created_at, expires_at)` is the life of the key.
async fn insert_key(
    identity: &Identity,
    conn: &mut PgConnection,
    user: UserId,
    name: &str,
    permissions: Permissions,
    (created_at, expires_at): (DateTime<Utc>, Option<DateTime<Utc>>),
) -> Result<(ApiKey, KeyRow), ApiError> {
    let permissions = json!(permissions.list());
    for _ in 0..DRAWS {
        let key = ApiKey::generate(&*identity.entropy);
        let (prefix, hash) = (key.prefix(), key.hash());
        let new =
            NewKey { user, prefix, hash: &hash, name, permissions: &permissions, created_at, expires_at };
        if let Some(row) = store::api_keys::insert(conn, &new).await? {
            return Ok((key, row));
        }
    }
    Err(ApiError::internal(anyhow::anyhow!("{DRAWS} new API keys had prefixes that were taken")))
}

/// `(prefix, permissions)` are the details: what the owner recognises the key by, nothing secret.
async fn record(
    conn: &mut PgConnection,
    action: Action,
    user: UserId,
    origin: &audit::Origin,
    id: Uuid,
    (prefix, permissions): (&str, Permissions),
) -> Result<(), sqlx::Error> {
    let details = json!({ "prefix": prefix, "permissions": permissions.list() });
    let entry = Entry::new(action, "api_key").by(user).on(id).from(origin).details(details);
    audit::record(conn, &entry).await
}

fn bad_expiry() -> ApiError {
    let message = "must be in the future and at most 366 days away";
    ApiError::validation([FieldError::new("body.expires_at", FieldErrorKind::OutOfRange, message)])
}

fn unknown_key() -> ApiError {
    ApiError::new(ErrorCode::ApiKeyNotFound, "API key not found")
}
