//! Signing in with a wallet: challenge, signature, account (contract `auth-users.md` §4.1, §4.2).

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tbg_bitcoin::{AddressError, BtcAddress, verify_message};
use tbg_core::audit::{Action, Entry, Origin as AuditOrigin, record_refusal};
use tbg_web::{ApiError, Body, ErrorCode, Origin, Routes, Text, present};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::session::TokenResponse;
use crate::Identity;
use crate::challenges::{self, Challenge};
use crate::routes::wallet_change::address_error;
use crate::rules::challenge::Purpose;
use crate::wallet_accounts::sign_in;

/// An address that wants to sign in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChallengeRequest {
    /// P2PKH, P2WPKH, P2TR, or P2SH around P2WPKH.
    pub(crate) btc_address: Text<1, 90>,
}

/// What to sign.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChallengeResponse {
    /// Names the challenge; 32 hex digits.
    pub(crate) nonce: String,
    /// The exact text to sign.
    pub(crate) message: String,
    /// Seconds until it is void.
    pub(crate) expires_in: u64,
}

/// A signed challenge.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyRequest {
    btc_address: Text<1, 90>,
    /// Base64 of a compact or BIP-322 signature.
    signature: Text<1, 2048>,
    nonce: Nonce,
    /// If sent, it must be the one in the text.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Text<0, 40>)]
    timestamp: Option<Text<0, 40>>,
    /// Take the address over from an account that never proved it.
    #[serde(default)]
    claim: bool,
}

/// Address and signature in one call.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectRequest {
    btc_address: Text<1, 90>,
    /// Base64 of a compact or BIP-322 signature.
    signature: Text<1, 2048>,
    /// Which challenge was signed; without it all outstanding ones are tried.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Nonce)]
    nonce: Option<Nonce>,
    /// Take the address over from an account that never proved it.
    #[serde(default)]
    claim: bool,
}

/// 32 lower-case hex digits.
pub(crate) struct Nonce(String);

impl Nonce {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::{Error as _, Unexpected};
        let text = String::deserialize(deserializer)?;
        let good = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if good {
            Ok(Self(text))
        } else {
            Err(D::Error::invalid_value(
                Unexpected::Other("pattern_mismatch"),
                &"32 lower-case hexadecimal digits",
            ))
        }
    }
}

impl utoipa::PartialSchema for Nonce {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::Type::String)
            .pattern(Some("^[0-9a-f]{32}$"))
            .min_length(Some(32))
            .max_length(Some(32))
            .into()
    }
}

impl ToSchema for Nonce {}

/// The routes of this module.
pub(crate) fn routes() -> Routes<Identity> {
    Routes::new().public(routes!(challenge)).public(routes!(verify)).public(routes!(connect))
}

/// Asks for a text to sign
///
/// Creates no user, and answers the same for known and unknown addresses.
#[utoipa::path(
    post,
    path = "/api/v1/auth/challenge",
    tag = "auth",
    request_body = ChallengeRequest,
    responses(
        (status = 200, description = "The text to sign", body = ChallengeResponse),
        (status = 400, description = "Not an address that can sign here", body = tbg_web::ErrorBody),
    )
)]
pub(crate) async fn challenge(
    State(identity): State<Identity>,
    Body(request): Body<ChallengeRequest>,
) -> Result<Json<ChallengeResponse>, ApiError> {
    let address = signable_address(&identity, request.btc_address.as_str())?;
    let (nonce, message) = challenges::issue(&identity, Purpose::SignIn, &address).await?;
    Ok(Json(ChallengeResponse { nonce, message, expires_in: identity.config.challenge_ttl_seconds }))
}

/// An address of this network whose wallet can sign.
pub(crate) fn signable_address(identity: &Identity, text: &str) -> Result<BtcAddress, ApiError> {
    let address = BtcAddress::parse(text, identity.config.network).map_err(address_error)?;
    if address.can_sign() {
        Ok(address)
    } else {
        Err(ApiError::new(ErrorCode::AddressNotSignable, "This address type cannot sign messages"))
    }
}

/// Signs in with a signed challenge
#[utoipa::path(
    post,
    path = "/api/v1/auth/verify",
    tag = "auth",
    request_body = VerifyRequest,
    responses(
        (status = 200, description = "Signed in", body = TokenResponse),
        (status = 400, description = "No such challenge", body = tbg_web::ErrorBody),
        (status = 401, description = "The signature does not prove the wallet", body = tbg_web::ErrorBody),
        (status = 403, description = "The account is banned", body = tbg_web::ErrorBody),
        (status = 409, description = "Another account names the address", body = tbg_web::ErrorBody),
    )
)]
pub(crate) async fn verify(
    State(identity): State<Identity>,
    Origin(origin): Origin,
    Body(request): Body<VerifyRequest>,
) -> Result<Json<TokenResponse>, ApiError> {
    let address =
        BtcAddress::parse(request.btc_address.as_str(), identity.config.network).map_err(address_error)?;
    let taken = challenges::take(&identity, Purpose::SignIn, &address, request.nonce.as_str()).await?;
    let checked = check_challenge(taken, request.timestamp.as_ref());
    let challenge = match checked {
        Ok(challenge) => challenge,
        Err(error) => {
            audit_failure(&identity, &origin, "no_challenge", Some(&address)).await;
            return Err(error);
        }
    };
    if !verify_message(&address, identity.config.network, &challenge.message, request.signature.as_str()) {
        audit_failure(&identity, &origin, "bad_signature", Some(&address)).await;
        return Err(bad_signature());
    }
    let (user, tokens) = sign_in(&identity, &address, request.claim, false, &origin).await?;
    TokenResponse::of(&identity, user, tokens).await
}

/// The challenge that was taken, if it was there and is the one that the client means.
pub(crate) fn check_challenge(
    taken: Option<Challenge>,
    timestamp: Option<&Text<0, 40>>,
) -> Result<Challenge, ApiError> {
    let Some(challenge) = taken else {
        return Err(ApiError::new(ErrorCode::AuthChallengeExpired, "Challenge expired or not found"));
    };
    if timestamp.is_some_and(|sent| sent.as_str() != challenge.timestamp) {
        return Err(ApiError::new(
            ErrorCode::AuthChallengeMismatch,
            "Timestamp is not that of the challenge",
        ));
    }
    Ok(challenge)
}

/// Signs in with address and signature
///
/// Any failure of the proof is the same 401.
#[utoipa::path(
    post,
    path = "/api/v1/auth/connect",
    tag = "auth",
    request_body = ConnectRequest,
    responses(
        (status = 200, description = "Signed in", body = TokenResponse),
        (status = 401, description = "Nothing proves the wallet", body = tbg_web::ErrorBody),
        (status = 403, description = "The account is banned", body = tbg_web::ErrorBody),
        (status = 409, description = "Another account names the address", body = tbg_web::ErrorBody),
    )
)]
pub(crate) async fn connect(
    State(identity): State<Identity>,
    Origin(origin): Origin,
    Body(request): Body<ConnectRequest>,
) -> Result<Json<TokenResponse>, ApiError> {
    #[cfg(feature = "loadtest-auth")]
    if let Some((user, tokens)) =
        crate::loadtest::sign_in(&identity, request.btc_address.as_str(), request.signature.as_str(), &origin)
            .await?
    {
        return TokenResponse::of(&identity, user, tokens).await;
    }
    let address = BtcAddress::parse(request.btc_address.as_str(), identity.config.network);
    if !proves(&identity, &address, &request).await? {
        audit_failure(&identity, &origin, "bad_signature", address.as_ref().ok()).await;
        return Err(bad_signature());
    }
    let Ok(address) = address else { return Err(bad_signature()) };
    let (user, tokens) = sign_in(&identity, &address, request.claim, false, &origin).await?;
    TokenResponse::of(&identity, user, tokens).await
}

/// Whether the signature fits an outstanding challenge of the address. Only the one that fits is taken.
async fn proves(
    identity: &Identity,
    address: &Result<BtcAddress, AddressError>,
    request: &ConnectRequest,
) -> Result<bool, ApiError> {
    let Ok(address) = address else { return Ok(false) };
    let network = identity.config.network;
    let fits = |challenge: &Challenge| {
        verify_message(address, network, &challenge.message, request.signature.as_str())
    };
    if let Some(nonce) = &request.nonce {
        let taken = challenges::take(identity, Purpose::SignIn, address, nonce.as_str()).await?;
        return Ok(taken.is_some_and(|challenge| fits(&challenge)));
    }
    let outstanding = challenges::outstanding(identity, address).await?;
    let Some((nonce, _)) = outstanding.iter().find(|(_, challenge)| fits(challenge)) else {
        return Ok(false);
    };
    // Somebody may have taken it meanwhile: then it was used.
    Ok(challenges::take(identity, Purpose::SignIn, address, nonce).await?.is_some())
}

pub(crate) fn bad_signature() -> ApiError {
    ApiError::new(ErrorCode::AuthSignatureInvalid, "Signature is invalid")
}

async fn audit_failure(
    identity: &Identity,
    origin: &AuditOrigin,
    reason: &str,
    address: Option<&BtcAddress>,
) {
    let details = json!({ "method": "wallet", "reason": reason, "address": address.map(BtcAddress::as_str) });
    let entry = Entry::new(Action::AuthFailedLogin, "user").from(origin).details(details).failed();
    record_refusal(&identity.pool, &entry).await;
}
