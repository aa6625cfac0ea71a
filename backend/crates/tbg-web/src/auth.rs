//! Who asks.
//!
//! Each route belongs to one [`Class`], given where it is registered ([`crate::Routes`]). The request
//! passes three steps: [`Authenticator::identify`] reads the credential (a token's signature, an API key's
//! row), so that the rate limiter can choose a tier by *valid* credentials only; `gate` then asks for the
//! user's state (ban, deletion, ended sessions) and refuses what the class does not admit; the handler takes
//! [`Caller`], [`Session`], [`Admin`] or [`MaybeCaller`] as an argument.
//!
//! Invariants: authority comes from the database, never from claims; a state is at most 1 s old in a replica
//! (30 s in Redis, dropped on each change); while Redis is away the database is asked, and the denylist of
//! sessions is skipped (`tokens_valid_from` still holds). Contract: `auth-users.md` §1.6, §3, §11.

mod authenticator;
mod gate;
mod keys;
mod seen;
mod state;
mod store;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tbg_core::UserId;
use uuid::Uuid;

pub use self::authenticator::{Authenticator, AuthenticatorParts, Credential};
pub use self::gate::Class;
pub(crate) use self::gate::{Presented, enforce};
pub use self::keys::{Claims, Keys, PublicKey, TokenFault, TokenKind};
use crate::error::ApiError;

/// How a session signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// By a signature.
    Wallet,
    /// By e-mail and password.
    Email,
}

impl AuthMethod {
    /// The word in tables and claims.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wallet => "wallet",
            Self::Email => "email",
        }
    }
}

/// A user who asks, by access token or API key. Extractor for routes of class user.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub user_id: UserId,
    /// The session, unless an API key was sent.
    pub session: Option<Session>,
}

/// A signed-in session. Extractor for routes of class session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Who.
    pub user_id: UserId,
    /// The session's id, the same through all refreshes.
    pub sid: Uuid,
    /// When the person signed in.
    pub auth_time: DateTime<Utc>,
    /// How.
    pub auth_method: AuthMethod,
}

/// An administrator's session. Extractor for routes of class admin.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Who.
    pub user_id: UserId,
}

/// A user, or nobody. Extractor for routes of class optional.
#[derive(Clone, Debug)]
pub struct MaybeCaller(pub Option<Caller>);

/// A handler asks for more than the class of its route gives: a fault of ours.
fn wrong_class() -> ApiError {
    ApiError::internal(anyhow::anyhow!("the route's class does not provide what its handler takes"))
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(wrong_class)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Caller>().and_then(|caller| caller.session.clone()).ok_or_else(wrong_class)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(wrong_class)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MaybeCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self(parts.extensions.get::<Caller>().cloned()))
    }
}
