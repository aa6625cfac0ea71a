//! The caller's settings (contract `auth-users.md` §7).

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgConnection;
use tbg_core::UserId;
use tbg_core::audit::{self, Action, Entry};
use tbg_core::outbox::{self, DomainEvent};
use tbg_web::{ApiError, Body, Caller, Origin, Routes, Session};
use utoipa_axum::routes;

use crate::Identity;
use crate::mail::Template;
use crate::routes::me;
use crate::rules::settings::{Change, EmailChange, Plan, Settings, SettingsPatch, Stored};
use crate::store;

/// The routes of the settings.
pub(crate) fn routes() -> Routes<Identity> {
    Routes::new().user(routes!(get_settings)).session(routes!(patch_settings))
}

/// Own settings
///
/// All sections, with defaults where nothing was changed.
#[utoipa::path(
    get,
    path = "/api/v1/users/me/settings",
    tag = "users",
    responses((status = 200, description = "All settings", body = Settings))
)]
async fn get_settings(State(identity): State<Identity>, caller: Caller) -> Result<Json<Settings>, ApiError> {
    let mut conn = identity.pool.acquire().await?;
    let stored = store::settings::load(&mut conn, caller.user_id).await?;
    read(&stored).map(Json)
}

/// Change own settings
///
/// Only the given keys change; nothing does when one of them is refused.
#[utoipa::path(
    patch,
    path = "/api/v1/users/me/settings",
    tag = "users",
    request_body = SettingsPatch,
    responses(
        (status = 200, description = "All settings after the change", body = Settings),
        (status = 409, description = "The name is taken, or the address is not proven", body = tbg_web::ErrorBody),
    )
)]
async fn patch_settings(
    State(identity): State<Identity>,
    session: Session,
    Origin(origin): Origin,
    Body(patch): Body<SettingsPatch>,
) -> Result<Json<Settings>, ApiError> {
    let change = patch.resolve()?;
    let applied = apply(&identity, session.user_id, &origin, &change);
    let name = &change.profile.display_name;
    let applied = me::within_name_allowance(&identity, session.user_id, name, applied).await?;
    publish(&identity, &applied).await;
    Ok(Json(applied.settings))
}

/// A change that was committed.
struct Applied {
    settings: Settings,
    btc_address: Option<String>,
    coinbase: Option<String>,
}

async fn apply(
    identity: &Identity,
    user: UserId,
    origin: &audit::Origin,
    change: &Change,
) -> Result<Applied, ApiError> {
    let now = identity.clock.now();
    let mut tx = identity.pool.begin().await?;
    let account = store::settings::lock_account(&mut tx, user).await?.ok_or_else(me::gone)?;
    let stored = store::settings::load(&mut tx, user).await?;
    let before = read(&stored)?;
    let plan = change.plan(&before, &account)?;
    if !change.profile.fields().is_empty() {
        me::write_profile(&mut tx, user, origin, &change.profile, now).await?;
    }
    let settings = if change.sections.keys().is_empty() {
        before
    } else {
        write_settings(&mut tx, user, origin, change, &plan, now).await?
    };
    tx.commit().await?;
    Ok(Applied { settings, btc_address: account.btc_address, coinbase: plan.coinbase })
}

async fn write_settings(
    conn: &mut PgConnection,
    user: UserId,
    origin: &audit::Origin,
    change: &Change,
    plan: &Plan,
    now: DateTime<Utc>,
) -> Result<Settings, ApiError> {
    let stored = store::settings::merge(conn, user, &change.sections, &plan.email, now).await?;
    if let EmailChange::Unproven(address) = &plan.email {
        let context = json!({ "purpose": "notification" });
        store::mail::enqueue(conn, Some(user), address, Template::VerifyEmail, &context).await?;
    }
    if change.concerns_privacy() {
        outbox::write(conn, &[DomainEvent::privacy_changed(user)]).await?;
    }
    let entry = Entry::new(Action::UserSettingsUpdated, "settings")
        .by(user)
        .on(user)
        .from(origin)
        .details(json!({ "keys": change.sections.keys() }));
    audit::record(conn, &entry).await?;
    read(&stored)
}

/// Tells Redis what was committed. Best effort: the settings are true whatever Redis says.
async fn publish(identity: &Identity, applied: &Applied) {
    let address = applied.btc_address.as_deref();
    me::forget_public_profile(identity, address).await;
    let Some((address, inner)) = address.zip(applied.coinbase.as_deref()) else { return };
    let key = format!("user_coinbase:{address}");
    let command = if inner.is_empty() {
        redis::cmd("DEL").arg(key).take()
    } else {
        redis::cmd("SET").arg(key).arg(inner).take()
    };
    if let Err(error) = command.query_async::<redis::Value>(&mut identity.redis.clone()).await {
        tracing::warn!(%error, "the pool does not see a changed coinbase signature");
    }
}

fn read(stored: &Stored) -> Result<Settings, ApiError> {
    Settings::of(stored).map_err(ApiError::internal)
}
