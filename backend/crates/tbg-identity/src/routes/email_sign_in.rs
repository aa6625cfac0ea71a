//! Registering and signing in with e-mail and password (contract `auth-users.md` §4.3, §4.4).

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::json;
use tbg_bitcoin::BtcAddress;
use tbg_core::UserId;
use tbg_core::audit::{self, Action, Entry, Origin as AuditOrigin, record_refusal};
use tbg_core::outbox::{self, DomainEvent};
use tbg_web::{ApiError, AuthMethod, Body, ErrorCode, Origin, Routes, Text};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::session::TokenResponse;
use crate::Identity;
use crate::hasher::Verdict;
use crate::mail::Template;
use crate::routes::wallet_change::address_error;
use crate::rules::email::{Email, email_hash};
use crate::rules::password::is_strong;
use crate::rules::profile::{CountryCode, DisplayName};
use crate::sessions::{self, Tokens};
use crate::store::attempts::{self, Attempt};
use crate::store::users::{self, Account, NewEmailUser};
use crate::store::{mail, wallets};
use crate::wallet_accounts::refuse_banned;

/// A new account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegisterRequest {
    email: Email,
    /// At least 8 characters with an upper-case letter, a lower-case letter and a digit.
    #[schema(format = Password)]
    password: Text<1, 128>,
    /// Where the shares come from.
    btc_address: Text<1, 90>,
    #[serde(default)]
    display_name: Option<DisplayName>,
    #[serde(default)]
    country_code: Option<CountryCode>,
}

/// E-mail and password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginRequest {
    email: Email,
    #[schema(format = Password)]
    password: Text<1, 128>,
}

/// The routes of this module.
pub(crate) fn routes() -> Routes<Identity> {
    Routes::new().public(routes!(register)).public(routes!(login))
}

pub(crate) fn weak_password() -> ApiError {
    ApiError::new(
        ErrorCode::WeakPassword,
        "The password needs at least 8 characters with an upper-case letter, a lower-case letter and a digit",
    )
}

/// Creates an account with e-mail and password, and signs in
#[utoipa::path(
    post,
    path = "/api/v1/auth/register",
    tag = "auth",
    request_body = RegisterRequest,
    responses(
        (status = 200, description = "Registered and signed in", body = TokenResponse),
        (status = 400, description = "Weak password, or not an address of this network", body = tbg_web::ErrorBody),
        (status = 409, description = "E-mail, wallet or name are taken", body = tbg_web::ErrorBody),
    )
)]
pub(crate) async fn register(
    State(identity): State<Identity>,
    Origin(origin): Origin,
    Body(request): Body<RegisterRequest>,
) -> Result<Json<TokenResponse>, ApiError> {
    if !is_strong(request.password.as_str()) {
        return Err(weak_password());
    }
    let address =
        BtcAddress::parse(request.btc_address.as_str(), identity.config.network).map_err(address_error)?;
    let hash = identity.hasher.hash(identity.entropy.as_ref(), request.password.into_string()).await?;
    let name = request.display_name.map(|name| (name.as_str().to_owned(), name.normalized()));
    let new = NewEmailUser {
        email: request.email.as_str(),
        password_hash: &hash,
        address: address.as_str(),
        display_name: name.as_ref().map(|(shown, normalized)| (shown.as_str(), normalized.as_str())),
        country_code: request.country_code.as_ref().map(CountryCode::as_str),
    };
    let created = create(&identity, &new, &origin).await;
    if created.as_ref().is_err_and(|error| error.code() == ErrorCode::WalletInUse) {
        // Of two conflicts the e-mail is told first: the form was sent twice.
        let email = users::by_email(&mut *identity.pool.acquire().await?, new.email).await?;
        if email.is_some() {
            return Err(email_in_use());
        }
    }
    let (user, tokens) = created?;
    TokenResponse::of(&identity, user, tokens).await
}

async fn create(
    identity: &Identity,
    new: &NewEmailUser<'_>,
    origin: &AuditOrigin,
) -> Result<(UserId, Tokens), ApiError> {
    let now = identity.clock.now();
    let mut tx = identity.pool.begin().await?;
    users::lock_address_decision(&mut tx, new.address).await?;
    if wallets::credential_of(&mut tx, new.address).await?.is_some() {
        return Err(wallet_in_use());
    }
    let user = users::insert_email_user(&mut tx, new, now).await.map_err(taken)?;
    wallets::write_history(&mut tx, user, None, Some(new.address), "register", origin.ip).await?;
    let country_code = new.country_code.map(str::to_owned);
    outbox::write(&mut tx, &[DomainEvent::UserRegistered { user_id: user, country_code }]).await?;
    let context = json!({ "purpose": "account", "display_name": new.display_name.map(|(shown, _)| shown) });
    mail::enqueue(&mut tx, Some(user), new.email, Template::Welcome, &context).await?;
    let address = Some(new.address.to_owned());
    let (tokens, sid) = sessions::open(identity, &mut tx, user, address, AuthMethod::Email, origin).await?;
    let entry = Entry::new(Action::AuthRegister, "session")
        .by(user)
        .on(sid)
        .from(origin)
        .details(json!({ "method": "email", "new_user": true }));
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok((user, tokens))
}

/// Which unique rule was broken.
pub(crate) fn taken(error: sqlx::Error) -> ApiError {
    let constraint = error.as_database_error().and_then(|refusal| refusal.constraint());
    match constraint {
        Some("users_email_unique") => email_in_use(),
        Some("users_btc_address_unique") => wallet_in_use(),
        Some("users_display_name_unique") => {
            ApiError::new(ErrorCode::DisplayNameTaken, "Another user has this name")
        }
        _ => error.into(),
    }
}

fn email_in_use() -> ApiError {
    ApiError::new(ErrorCode::EmailInUse, "Another account has this e-mail")
}

pub(crate) fn wallet_in_use() -> ApiError {
    ApiError::new(ErrorCode::WalletInUse, "Another account has this wallet")
}

/// Signs in with e-mail and password
///
/// Answers the same whether the e-mail is unknown or the password wrong; ten failures lock the e-mail for
/// a while, known or not.
#[utoipa::path(
    post,
    path = "/api/v1/auth/login",
    tag = "auth",
    request_body = LoginRequest,
    responses(
        (status = 200, description = "Signed in", body = TokenResponse),
        (status = 401, description = "E-mail or password is wrong", body = tbg_web::ErrorBody),
        (status = 403, description = "The account is banned", body = tbg_web::ErrorBody),
    )
)]
pub(crate) async fn login(
    State(identity): State<Identity>,
    Origin(origin): Origin,
    Body(request): Body<LoginRequest>,
) -> Result<Json<TokenResponse>, ApiError> {
    let email = request.email.as_str();
    let hash = email_hash(email);
    let account = users::by_email(&mut *identity.pool.acquire().await?, email).await?;
    let attempt = PasswordAttempt { identity: &identity, email_hash: &hash, origin: &origin };
    let is_last = attempt.reserve(account.as_ref()).await?;
    let stored = account.as_ref().and_then(|account| account.password_hash.clone());
    let password = request.password.into_string();
    let checked = identity.hasher.verify(password.clone(), stored.clone()).await;
    let verdict = attempt.unless_unchecked(checked, is_last).await?;
    let known = account.as_ref().map(|account| UserId(account.id));
    let Some(account) = account.filter(|_| verdict != Verdict::Wrong) else {
        let reason = if stored.is_some() { "bad_password" } else { "unknown_email" };
        attempt.failed(known, reason, is_last).await;
        return Err(ApiError::new(ErrorCode::AuthInvalidCredentials, "E-mail or password is invalid"));
    };
    if verdict == Verdict::RightButOld {
        rehash(&identity, &account, password).await;
    }
    let (user, tokens) = finish_login(&identity, &account, &hash, &origin).await?;
    TokenResponse::of(&identity, user, tokens).await
}

/// The password was right: everything else about a sign-in.
async fn finish_login(
    identity: &Identity,
    account: &Account,
    email_hash: &str,
    origin: &AuditOrigin,
) -> Result<(UserId, Tokens), ApiError> {
    let (now, user) = (identity.clock.now(), UserId(account.id));
    let mut tx = identity.pool.begin().await?;
    attempts::clear(&mut tx, email_hash).await?;
    let current = users::lock(&mut tx, user).await?;
    let Some(current) = current.filter(|current| !current.is_banned) else {
        tx.commit().await?;
        refuse_banned(identity, user, AuthMethod::Email, origin).await;
        return Err(ApiError::new(ErrorCode::AccountBanned, "Account is banned"));
    };
    users::record_login(&mut tx, user, now).await?;
    let (tokens, sid) =
        sessions::open(identity, &mut tx, user, current.btc_address, AuthMethod::Email, origin).await?;
    let entry = Entry::new(Action::AuthLogin, "session")
        .by(user)
        .on(sid)
        .from(origin)
        .details(json!({ "method": "email", "new_user": false }));
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok((user, tokens))
}

/// Today's parameters for a hash of yesterday; a failure changes nothing for the person.
async fn rehash(identity: &Identity, account: &Account, password: String) {
    let renewed = async {
        let hash = identity.hasher.hash(identity.entropy.as_ref(), password).await?;
        let mut conn = identity.pool.acquire().await?;
        let old = account.password_hash.as_deref();
        users::set_password(&mut conn, UserId(account.id), &hash, old).await?;
        Ok::<_, ApiError>(())
    };
    if renewed.await.is_err() {
        tracing::warn!("a password hash could not be renewed; the next sign-in will");
    }
}

/// A check of a password that counts against an e-mail.
pub(crate) struct PasswordAttempt<'a> {
    pub identity: &'a Identity,
    pub email_hash: &'a str,
    pub origin: &'a AuditOrigin,
}

impl PasswordAttempt<'_> {
    /// Counts the attempt; says whether it is the last before the lock.
    ///
    /// # Errors
    /// 429 `ACCOUNT_LOCKED`.
    pub(crate) async fn reserve(&self, account: Option<&Account>) -> Result<bool, ApiError> {
        let (identity, now) = (self.identity, self.identity.clock.now());
        let config = &identity.config;
        let mut conn = identity.pool.acquire().await?;
        let attempt = attempts::reserve(
            &mut conn,
            self.email_hash,
            config.lockout_threshold,
            config.lockout_seconds,
            now,
        )
        .await?;
        match attempt {
            Attempt::Allowed { is_last } => Ok(is_last),
            Attempt::Locked(until) => {
                drop(conn);
                let entry = self.entry(Action::AuthFailedLogin, "locked", account.map(|a| UserId(a.id)));
                record_refusal(&identity.pool, &entry.denied()).await;
                let seconds = (until - now).num_milliseconds().max(1).unsigned_abs().div_ceil(1_000);
                Err(ApiError::new(ErrorCode::AccountLocked, "Account is locked after too many failures")
                    .retry_after(seconds))
            }
        }
    }

    /// Gives the attempt back if the password could not be checked, for lack of a turn.
    pub(crate) async fn unless_unchecked<T>(
        &self,
        checked: Result<T, ApiError>,
        is_last: bool,
    ) -> Result<T, ApiError> {
        if checked.is_err() {
            let threshold = self.identity.config.lockout_threshold;
            let mut conn = self.identity.pool.acquire().await?;
            attempts::give_back(&mut conn, self.email_hash, is_last, threshold).await?;
        }
        checked
    }

    /// The password was wrong.
    pub(crate) async fn failed(&self, user: Option<UserId>, reason: &str, is_last: bool) {
        let failure = self.entry(Action::AuthFailedLogin, reason, user).failed();
        record_refusal(&self.identity.pool, &failure).await;
        if is_last {
            let locked = self.entry(Action::AuthAccountLocked, reason, user).denied();
            record_refusal(&self.identity.pool, &locked).await;
        }
    }

    fn entry(&self, action: Action, reason: &str, user: Option<UserId>) -> Entry {
        let short_hash: String = self.email_hash.chars().take(16).collect();
        let details = json!({ "method": "email", "reason": reason, "email_hash": short_hash });
        let entry = Entry::new(action, "user").from(self.origin).details(details);
        match user {
            Some(user) => entry.by(user).on(user),
            None => entry,
        }
    }
}
