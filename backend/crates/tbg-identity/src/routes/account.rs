//! The user's right to a copy of everything and to be forgotten (contract `auth-users.md` §6.5).

use axum::Json;
use axum::body::Body as ResponseBody;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use serde::{Deserialize, Serialize};
use tbg_core::UserId;
use tbg_core::audit::{self, Action, Entry};
use tbg_core::outbox::{self, DomainEvent};
use tbg_web::{ApiError, Body, ErrorCode, Origin, Routes, Session};
use utoipa::ToSchema;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::routes::me::forget_public_profile;
use crate::store::{deletion, export, wallets};
use crate::{Identity, cooldowns};

/// Seconds between two exports of a user.
const EXPORT_COOLDOWN_SECONDS: u64 = 3600;
/// How long ago the person may have signed in for a deletion.
const REAUTH_WITHIN: TimeDelta = TimeDelta::seconds(900);

/// The sections of an export, in the order in which they are sent.
const SECTIONS: [(&str, Section); 14] = [
    ("profile", Section::Profile),
    ("settings", Section::Settings),
    ("wallets", Section::Wallets),
    ("address_history", Section::AddressHistory),
    ("sessions", Section::Sessions),
    ("api_keys", Section::ApiKeys),
    ("notifications", Section::Notifications),
    ("gamification", Section::Gamification),
    ("games", Section::Games),
    ("competitions", Section::Nothing("null")),
    ("cooperative", Section::Nothing("null")),
    ("education", Section::Nothing("null")),
    ("blocks", Section::Blocks),
    ("daily_mining_stats", Section::MiningDays),
];

/// Where a section comes from.
#[derive(Clone, Copy)]
enum Section {
    Profile,
    Settings,
    Wallets,
    AddressHistory,
    Sessions,
    ApiKeys,
    Notifications,
    Gamification,
    Games,
    Blocks,
    MiningDays,
    /// Of a part of the game that keeps no rows yet: this JSON.
    Nothing(&'static str),
}

/// The wish to go.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccountDeletion {
    confirm: Confirmation,
}

/// The word that makes a deletion deliberate.
#[derive(Deserialize, ToSchema)]
pub(crate) enum Confirmation {
    /// The only one.
    #[serde(rename = "DELETE")]
    Delete,
}

/// The account is gone.
#[derive(Serialize, ToSchema)]
pub(crate) struct AccountDeleted {
    /// `account_deleted`
    #[schema(value_type = String)]
    status: &'static str,
}

/// The routes of this module.
pub(crate) fn routes() -> Routes<Identity> {
    Routes::new().session(routes!(export_account)).session(routes!(delete_account))
}

/// Downloads everything that is kept about the user
///
/// One JSON object: `exported_at`, then one member per section. Once an hour.
#[utoipa::path(
    get,
    path = "/api/v1/users/me/export",
    tag = "users",
    responses((status = 200, description = "The file `tbg-export-{id}.json`", body = serde_json::Value))
)]
pub(crate) async fn export_account(
    State(identity): State<Identity>,
    session: Session,
    Origin(origin): Origin,
) -> Result<Response, ApiError> {
    let user = session.user_id;
    take_export_turn(&identity, user).await?;
    if let Err(error) = record_export(&identity, user, &origin).await {
        give_export_turn_back(&identity, user).await;
        return Err(error.into());
    }
    let headers = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"tbg-export-{user}.json\"")),
    ];
    let exported_at = identity.clock.now();
    Ok((headers, export_body(identity, user, exported_at)).into_response())
}

/// Deletes the account
///
/// Needs a sign-in of the last 15 minutes. Nothing brings the account back; address, email and name are free
/// for a new one.
#[utoipa::path(
    delete,
    path = "/api/v1/users/me",
    tag = "users",
    request_body = AccountDeletion,
    responses((status = 200, description = "The account is gone", body = AccountDeleted))
)]
pub(crate) async fn delete_account(
    State(identity): State<Identity>,
    session: Session,
    Origin(origin): Origin,
    Body(request): Body<AccountDeletion>,
) -> Result<Json<AccountDeleted>, ApiError> {
    let AccountDeletion { confirm: Confirmation::Delete } = request;
    let now = identity.clock.now();
    if !is_recent(session.auth_time, now) {
        return Err(ApiError::new(ErrorCode::ReauthRequired, "Sign in again to delete your account"));
    }
    let gone = delete(&identity, session.user_id, &origin, now).await?;
    forget(&identity, session.user_id, &gone).await;
    Ok(Json(AccountDeleted { status: "account_deleted" }))
}

/// What the caches must still forget about a deleted user.
struct Gone {
    btc_address: Option<String>,
    sids: Vec<Uuid>,
}

async fn delete(
    identity: &Identity,
    user: UserId,
    origin: &audit::Origin,
    now: DateTime<Utc>,
) -> Result<Gone, ApiError> {
    let mut tx = identity.pool.begin().await?;
    // The lock comes first: whoever is about to give this user a session or a wallet locks the row, too, and
    // then finds nobody.
    let btc_address = wallets::lock_address(&mut tx, user)
        .await?
        .ok_or_else(|| ApiError::new(ErrorCode::AuthTokenRevoked, "This session has ended"))?;
    let sids = deletion::live_sessions(&mut tx, user).await?;
    deletion::delete_belongings(&mut tx, user).await?;
    deletion::bury(&mut tx, user, now).await?;
    wallets::write_history(&mut tx, user, btc_address.as_deref(), None, "deleted", None).await?;
    let event = DomainEvent::UserDeleted { user_id: user, btc_address: btc_address.clone() };
    outbox::write(&mut tx, &[event]).await?;
    let entry = Entry::new(Action::UserAccountDeleted, "user").by(user).on(user).from(origin);
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(Gone { btc_address, sids })
}

/// The account is gone whether or not Redis answers: the database says so to every request.
async fn forget(identity: &Identity, user: UserId, gone: &Gone) {
    identity.auth.revoke_sessions(user, &gone.sids).await;
    identity.auth.forget_user(user).await;
    forget_public_profile(identity, gone.btc_address.as_deref()).await;
    let Some(address) = &gone.btc_address else { return };
    let forgotten = redis::cmd("DEL")
        .arg(format!("user_coinbase:{address}"))
        .query_async::<()>(&mut identity.redis.clone())
        .await;
    if let Err(error) = forgotten {
        tracing::warn!(%error, "the coinbase text of a deleted user is still in Redis");
    }
}

fn is_recent(auth_time: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    now - auth_time <= REAUTH_WITHIN
}

fn export_turn_key(user: UserId) -> String {
    format!("auth:export:{user}")
}

/// One export an hour; the answer to a second one says when it is time.
async fn take_export_turn(identity: &Identity, user: UserId) -> Result<(), ApiError> {
    cooldowns::start(identity, &export_turn_key(user), EXPORT_COOLDOWN_SECONDS).await
}

async fn give_export_turn_back(identity: &Identity, user: UserId) {
    let given_back =
        redis::cmd("DEL").arg(export_turn_key(user)).query_async::<()>(&mut identity.redis.clone()).await;
    if let Err(error) = given_back {
        tracing::warn!(%error, "an export that did not begin counts against its hour");
    }
}

async fn record_export(identity: &Identity, user: UserId, origin: &audit::Origin) -> Result<(), sqlx::Error> {
    let entry = Entry::new(Action::UserDataExported, "user").by(user).on(user).from(origin);
    let mut tx = identity.pool.begin().await?;
    audit::record(&mut tx, &entry).await?;
    tx.commit().await
}

/// The sections one after the other. Each takes a connection for its query only, so a client that reads
/// slowly keeps none; a section that fails breaks the body off, which no client takes for a whole file.
fn export_body(identity: Identity, user: UserId, exported_at: DateTime<Utc>) -> ResponseBody {
    let head = json_text(&exported_at).map(|at| format!("{{\"exported_at\":{at}"));
    let sections = stream::iter(SECTIONS).then(move |(name, section)| {
        let identity = identity.clone();
        async move {
            let text = section_text(&identity, user, section).await?;
            anyhow::Ok(format!(",\"{name}\":{text}"))
        }
    });
    let parts = stream::once(future::ready(head))
        .chain(sections)
        .chain(stream::once(future::ready(Ok("}".to_owned()))))
        .inspect_err(|error: &anyhow::Error| {
            tracing::error!(error = format!("{error:#}"), "an export broke off");
        });
    ResponseBody::from_stream(parts)
}

async fn section_text(identity: &Identity, user: UserId, section: Section) -> anyhow::Result<String> {
    if let Section::Nothing(text) = section {
        return Ok(text.to_owned());
    }
    let mut conn = identity.pool.acquire().await?;
    match section {
        Section::Profile => json_text(&export::profile(&mut conn, user).await?),
        Section::Settings => json_text(&export::settings(&mut conn, user).await?),
        Section::Wallets => json_text(&export::wallets(&mut conn, user).await?),
        Section::AddressHistory => json_text(&export::address_history(&mut conn, user).await?),
        Section::Sessions => json_text(&export::sessions(&mut conn, user).await?),
        Section::ApiKeys => json_text(&export::api_keys(&mut conn, user).await?),
        Section::Notifications => json_text(&export::notifications(&mut conn, user).await?),
        Section::Gamification => json_text(&export::gamification(&mut conn, user).await?),
        Section::Games => json_text(&export::games(&mut conn, user).await?),
        Section::Blocks => json_text(&export::blocks(&mut conn, user).await?),
        Section::MiningDays => json_text(&export::mining_days(&mut conn, user).await?),
        Section::Nothing(text) => Ok(text.to_owned()),
    }
}

fn json_text(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_needs_a_sign_in_of_the_last_quarter_of_an_hour() {
        let now = DateTime::from_timestamp(1_773_585_000, 0).unwrap();
        assert!(is_recent(now - TimeDelta::seconds(900), now));
        assert!(!is_recent(now - TimeDelta::seconds(901), now));
        assert!(is_recent(now + TimeDelta::seconds(3), now), "a clock that runs a little ahead");
    }

    #[test]
    fn only_the_word_itself_confirms() {
        let of = |text| serde_json::from_str::<AccountDeletion>(text).is_ok();
        assert!(of(r#"{"confirm":"DELETE"}"#));
        assert!(!of(r#"{"confirm":"delete"}"#));
        assert!(!of(r#"{"confirm":"DELETE","x":1}"#));
    }
}
