//! Adding a wallet to an account (contract `auth-users.md` §4).

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tbg_bitcoin::{BtcAddress, verify_message};
use tbg_core::UserId;
use tbg_core::audit::{self, Action, Entry, Origin as AuditOrigin};
use tbg_core::outbox::{self, DomainEvent};
use tbg_web::{ApiError, Body, ErrorCode, Origin, Routes, Session, Text, present};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::email_sign_in::wallet_in_use;
use super::me::forget_public_profile;
use super::wallet_change::{address_error, move_coinbase};
use super::wallet_sign_in::{
    ChallengeRequest, ChallengeResponse, Nonce, bad_signature, check_challenge, signable_address,
};
use crate::Identity;
use crate::challenges;
use crate::rules::challenge::Purpose;
use crate::store::wallets::AddOutcome;
use crate::store::{users, wallets};

/// Wallets of one account.
const MAX_WALLETS: i64 = 5;

/// A signed challenge.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkRequest {
    btc_address: Text<1, 90>,
    /// Base64 of a compact or BIP-322 signature.
    signature: Text<1, 2048>,
    nonce: Nonce,
    /// If sent, it must be the one in the text.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Text<0, 40>)]
    timestamp: Option<Text<0, 40>>,
    /// Make it the mining address too.
    #[serde(default)]
    replace: bool,
}

/// The wallet that was added.
#[derive(Serialize, ToSchema)]
pub(crate) struct Linked {
    #[schema(value_type = String)]
    status: &'static str,
    btc_address: String,
    #[schema(value_type = String)]
    address_type: &'static str,
    auth_method: String,
}

/// The routes of this module.
pub(crate) fn routes() -> Routes<Identity> {
    Routes::new().session(routes!(link_challenge)).session(routes!(link_verify))
}

/// Asks for a text to sign with another wallet
#[utoipa::path(
    post,
    path = "/api/v1/auth/link-wallet/challenge",
    tag = "auth",
    request_body = ChallengeRequest,
    responses(
        (status = 200, description = "The text to sign", body = ChallengeResponse),
        (status = 400, description = "Not an address that can sign here", body = tbg_web::ErrorBody),
        (status = 409, description = "Another account has the wallet", body = tbg_web::ErrorBody),
    )
)]
pub(crate) async fn link_challenge(
    State(identity): State<Identity>,
    session: Session,
    Body(request): Body<ChallengeRequest>,
) -> Result<Json<ChallengeResponse>, ApiError> {
    let address = signable_address(&identity, request.btc_address.as_str())?;
    let credential = wallets::credential_of(&mut *identity.pool.acquire().await?, address.as_str()).await?;
    if credential.is_some_and(|credential| credential.user_id != session.user_id.0) {
        return Err(wallet_in_use());
    }
    let (nonce, message) = challenges::issue(&identity, Purpose::Link(session.user_id), &address).await?;
    Ok(Json(ChallengeResponse { nonce, message, expires_in: identity.config.challenge_ttl_seconds }))
}

/// Adds a wallet with a signed challenge
#[utoipa::path(
    post,
    path = "/api/v1/auth/link-wallet/verify",
    tag = "auth",
    request_body = LinkRequest,
    responses(
        (status = 200, description = "The wallet signs in from now on", body = Linked),
        (status = 400, description = "No such challenge", body = tbg_web::ErrorBody),
        (status = 409, description = "Another account has the wallet, or there are five", body = tbg_web::ErrorBody),
    )
)]
pub(crate) async fn link_verify(
    State(identity): State<Identity>,
    session: Session,
    Origin(origin): Origin,
    Body(request): Body<LinkRequest>,
) -> Result<Json<Linked>, ApiError> {
    let network = identity.config.network;
    let address = BtcAddress::parse(request.btc_address.as_str(), network).map_err(address_error)?;
    let purpose = Purpose::Link(session.user_id);
    let taken = challenges::take(&identity, purpose, &address, request.nonce.as_str()).await?;
    let challenge = check_challenge(taken, request.timestamp.as_ref())?;
    if !verify_message(&address, network, &challenge.message, request.signature.as_str()) {
        return Err(bad_signature());
    }
    let (auth_method, old) = link(&identity, session.user_id, &address, request.replace, &origin).await?;
    move_coinbase(&identity, old.as_deref(), address.as_str()).await;
    forget_public_profile(&identity, old.as_deref()).await;
    forget_public_profile(&identity, Some(address.as_str())).await;
    Ok(Json(Linked {
        status: "wallet_linked",
        btc_address: address.as_str().to_owned(),
        address_type: address.address_type().as_str(),
        auth_method,
    }))
}

/// Adds the wallet in one transaction; returns how the account signs in from now on, and the mining address
/// that the wallet replaces.
async fn link(
    identity: &Identity,
    user: UserId,
    address: &BtcAddress,
    replace: bool,
    origin: &AuditOrigin,
) -> Result<(String, Option<String>), ApiError> {
    let now = identity.clock.now();
    let mut tx = identity.pool.begin().await?;
    users::lock_address_decision(&mut tx, address.as_str()).await?;
    let Some(account) = users::lock(&mut tx, user).await? else {
        return Err(ApiError::new(ErrorCode::AuthTokenRevoked, "Session has ended"));
    };
    match wallets::add_credential(&mut tx, user, address, now).await? {
        AddOutcome::TakenByOther => return Err(wallet_in_use()),
        AddOutcome::Own => {}
        AddOutcome::Added if wallets::credential_count(&mut tx, user).await? > MAX_WALLETS => {
            return Err(ApiError::new(ErrorCode::WalletLimit, "No more than five wallets can be linked"));
        }
        AddOutcome::Added => {}
    }
    let current = account.btc_address;
    let becomes_current = replace || current.is_none();
    let is_current = becomes_current || current.as_deref() == Some(address.as_str());
    let old = current.filter(|current| becomes_current && current != address.as_str());
    if is_current {
        let set = wallets::set_address(&mut tx, user, address.as_str(), true).await;
        set.map_err(|error| if wallets::is_taken(&error) { wallet_in_use() } else { error.into() })?;
        let proven = DomainEvent::address_proven(user, address.as_str().to_owned());
        outbox::write(&mut tx, &[proven]).await?;
    }
    let auth_method = if account.auth_method == "wallet" { "wallet" } else { "both" };
    users::set_auth_method(&mut tx, user, auth_method).await?;
    let new = Some(address.as_str());
    wallets::write_history(&mut tx, user, old.as_deref(), new, "link", origin.ip).await?;
    let entry = Entry::new(Action::UserWalletLinked, "wallet")
        .by(user)
        .on(address.as_str())
        .from(origin)
        .details(json!({ "old": old, "new": new }));
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok((auth_method.to_owned(), old))
}
