//! `/.well-known/jwks.json`: the public keys of tokens (contract `auth-users.md` §1.7, §3).

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::PublicKey;
use crate::state::WebState;

/// A JSON Web Key Set (RFC 7517).
#[derive(Serialize, ToSchema)]
pub(crate) struct KeySet {
    keys: Vec<PublicKey>,
}

/// Public keys that verify access tokens.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "infrastructure",
    responses((status = 200, description = "All keys that are accepted now", body = KeySet))
)]
pub(crate) async fn jwks(State(state): State<WebState>) -> impl IntoResponse {
    let keys = state.parts.authenticator.keys().public().to_vec();
    ([(CACHE_CONTROL, "public, max-age=300")], Json(KeySet { keys }))
}
