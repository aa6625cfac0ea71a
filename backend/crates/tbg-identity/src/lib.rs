//! Identity: who people are, how they prove it, and what they may change about themselves.
//!
//! A person signs in with a wallet (a signature over a challenge) or with e-mail and password, and gets a
//! short access token and a refresh token that works once. Programs use API keys. Mail goes through an
//! outbox. The contract is `auth-users.md`; its section numbers stand at the modules.
//!
//! | Module | Holds |
//! |---|---|
//! | `rules` | challenge text, passwords, names, settings, keys: pure |
//! | `store` | all SQL of the domain |
//! | `routes` | the endpoints, one module per subject |
//! | `sessions` | opening, refreshing and ending sessions |
//! | `wallet_accounts` | whose account a proven wallet opens |
//! | `challenges` | the challenges that wait to be signed, in Redis |
//! | `hasher` | Argon2id off the runtime, bounded |
//! | [`mail`] | templates, senders, the outbox worker |
//! | [`roles`] | what operators do: roles and bans |
//! | [`jobs`] | clean-up |
//!
//! Tables: `users` (shared), `wallet_credentials`, `wallet_address_history`, `refresh_tokens`, `api_keys`,
//! `user_settings`, `email_verification_tokens`, `password_reset_tokens`, `login_attempts`, `email_outbox`.
//!
//! Invariants: a signature signs in only where that wallet was proven; a challenge, a refresh token and a
//! mailed link work once; a ban holds on every path that issues tokens; no answer tells whether an e-mail
//! has an account; secrets are stored as hashes only.

mod challenges;
mod cooldowns;
mod hasher;
pub mod jobs;
#[cfg(feature = "loadtest-auth")]
mod loadtest;
pub mod mail;
pub mod roles;
mod routes;
mod rules;
mod sessions;
mod store;
mod wallet_accounts;

use std::ops::Deref;
use std::sync::Arc;

use sqlx::PgPool;
use tbg_bitcoin::Network;
use tbg_core::Clock;
use tbg_core::random::Entropy;
use tbg_core::redis::Redis;
use tbg_web::Routes;
use tbg_web::auth::Authenticator;

pub use crate::hasher::Hasher;

/// How identity works in this deployment.
#[derive(Clone, Debug)]
pub struct IdentityConfig {
    /// Addresses of this network only.
    pub network: Network,
    /// Domain in the signed text.
    pub auth_domain: String,
    /// Seconds that a wallet has to sign.
    pub challenge_ttl_seconds: u64,
    /// Failed passwords that lock an e-mail.
    pub lockout_threshold: i32,
    /// Seconds of the window of failures, and of the lock.
    pub lockout_seconds: i64,
    /// Seconds that an access token is valid.
    pub access_ttl_seconds: i64,
    /// Seconds that a refresh token is valid.
    pub refresh_ttl_seconds: i64,
    /// Seconds after which a session ends for good.
    pub session_max_seconds: i64,
    /// Hours that a verification link is valid.
    pub verification_ttl_hours: i64,
    /// Minutes that a link to set a new password is valid.
    pub reset_ttl_minutes: i64,
    /// The dashboard.
    pub frontend_base_url: String,
    /// Whether the load test's pair signs in; only in builds with `loadtest-auth`.
    pub loadtest: bool,
}

/// What identity stands on.
pub struct Parts {
    /// The primary database.
    pub pool: PgPool,
    /// The shared Redis.
    pub redis: Redis,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Signs tokens and knows sessions.
    pub auth: Arc<Authenticator>,
    /// Hashes passwords.
    pub hasher: Hasher,
    /// Settings.
    pub config: IdentityConfig,
}

/// The domain. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Parts>);

impl Identity {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The endpoints of the domain.
    #[must_use]
    pub fn routes(self) -> Routes {
        routes::all().with_state(self)
    }
}

impl Deref for Identity {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The endpoints without a state behind them, for the OpenAPI document.
#[must_use]
pub fn documented_routes() -> Routes<Identity> {
    routes::all()
}
