//! Another mining address (contract `auth-users.md` §6.3). The wallets that sign in stay as they are, so a
//! typing error locks nobody out.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tbg_bitcoin::{AddressError, BtcAddress};
use tbg_core::UserId;
use tbg_core::audit::{self, Action, Entry};
use tbg_core::outbox::{self, DomainEvent};
use tbg_web::{ApiError, Body, ErrorCode, Origin, Routes, Session, Text};
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::Identity;
use crate::routes::me::forget_public_profile;
use crate::store::wallets;

const WARNING: &str =
    "Miners must reconnect with the new address; shares sent until then count for the old one.";

/// The mining address that shall be used from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WalletChange {
    /// An address of any of the five types.
    btc_address: Text<1, 90>,
}

/// What changed.
#[derive(Serialize, ToSchema)]
pub(crate) struct WalletChanged {
    /// The new address in its normal form.
    btc_address: String,
    /// The one before.
    previous_address: Option<String>,
    /// p2pkh, p2sh, p2wpkh, p2wsh or p2tr.
    #[schema(value_type = String)]
    address_type: &'static str,
    /// What to do now.
    #[schema(value_type = String)]
    warning: &'static str,
}

/// The routes of this module.
pub(crate) fn routes() -> Routes<Identity> {
    Routes::new().session(routes!(change_wallet))
}

/// Changes the mining address
///
/// Sign-in wallets are unchanged. The new address counts as proven only if it is one of them.
#[utoipa::path(
    patch,
    path = "/api/v1/users/me/wallet",
    tag = "users",
    request_body = WalletChange,
    responses(
        (status = 200, description = "The address was changed", body = WalletChanged),
        (status = 400, description = "Not an address of this network, or the current one", body = tbg_web::ErrorBody),
        (status = 409, description = "Another account has the address", body = tbg_web::ErrorBody),
    )
)]
pub(crate) async fn change_wallet(
    State(identity): State<Identity>,
    session: Session,
    Origin(origin): Origin,
    Body(request): Body<WalletChange>,
) -> Result<Json<WalletChanged>, ApiError> {
    let address =
        BtcAddress::parse(request.btc_address.as_str(), identity.config.network).map_err(address_error)?;
    let previous = change(&identity, session.user_id, &address, &origin).await?;
    move_coinbase(&identity, previous.as_deref(), address.as_str()).await;
    forget_public_profile(&identity, previous.as_deref()).await;
    forget_public_profile(&identity, Some(address.as_str())).await;
    Ok(Json(WalletChanged {
        address_type: address.address_type().as_str(),
        btc_address: address.as_str().to_owned(),
        previous_address: previous,
        warning: WARNING,
    }))
}

/// The change with everything that belongs to it, in one transaction. Returns the address of before.
async fn change(
    identity: &Identity,
    user: UserId,
    address: &BtcAddress,
    origin: &audit::Origin,
) -> Result<Option<String>, ApiError> {
    let new = address.as_str();
    let mut tx = identity.pool.begin().await?;
    let old = wallets::lock_address(&mut tx, user)
        .await?
        .ok_or_else(|| ApiError::new(ErrorCode::AuthTokenRevoked, "This session has ended"))?;
    if old.as_deref() == Some(new) {
        return Err(ApiError::new(ErrorCode::AddressUnchanged, "This is already your address"));
    }
    let credential = wallets::credential_of(&mut tx, new).await?;
    let is_proven = match credential {
        Some(credential) if credential.user_id != user.0 => return Err(in_use()),
        credential => credential.is_some(),
    };
    wallets::set_address(&mut tx, user, new, is_proven)
        .await
        .map_err(|error| if wallets::is_taken(&error) { in_use() } else { error.into() })?;
    wallets::write_history(&mut tx, user, old.as_deref(), Some(new), "update", origin.ip).await?;
    if is_proven {
        outbox::write(&mut tx, &[DomainEvent::address_proven(user, new.to_owned())]).await?;
    }
    let entry = Entry::new(Action::UserWalletUpdated, "wallet")
        .by(user)
        .on(new)
        .from(origin)
        .details(json!({ "old": old, "new": new }));
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(old)
}

/// Lets the user's text go into the coinbase of blocks of the new address. Without a text there is no key to
/// rename, which is no failure.
pub(crate) async fn move_coinbase(identity: &Identity, old: Option<&str>, new: &str) {
    // What an earlier holder of the new address left there is not the user's.
    forget_coinbase(identity, new).await;
    let Some(old) = old else { return };
    let moved = redis::cmd("RENAME")
        .arg(format!("user_coinbase:{old}"))
        .arg(format!("user_coinbase:{new}"))
        .query_async::<()>(&mut identity.redis.clone())
        .await;
    let no_such_key = redis::ErrorKind::Server(redis::ServerErrorKind::ResponseError);
    if let Err(error) = moved
        && error.kind() != no_such_key
    {
        tracing::warn!(%error, "a coinbase text could not be moved to its user's new address");
    }
}

/// The address has another holder from now on: a text of the earlier one must not stand in their blocks.
pub(crate) async fn forget_coinbase(identity: &Identity, address: &str) {
    let mut delete = redis::cmd("DEL");
    delete.arg(format!("user_coinbase:{address}"));
    if let Err(error) = delete.query_async::<()>(&mut identity.redis.clone()).await {
        tracing::warn!(%error, "the coinbase text of an address could not be dropped");
    }
}

fn in_use() -> ApiError {
    ApiError::new(ErrorCode::WalletInUse, "This address is in use by another account")
}

/// 400 for a text that is no address of this deployment.
pub(crate) fn address_error(error: AddressError) -> ApiError {
    match error {
        AddressError::Invalid => ApiError::new(ErrorCode::AddressInvalid, "This is not a Bitcoin address"),
        AddressError::WrongNetwork => {
            ApiError::new(ErrorCode::AddressWrongNetwork, "This address belongs to another Bitcoin network")
        }
    }
}
