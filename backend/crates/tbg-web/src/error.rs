//! The one error of the edge.
//!
//! [`ErrorCode`] is the closed list of codes, each with its status; [`ApiError`] is one of them with
//! its words. As a response it is only a status and an extension: the layer in `error_shape` writes
//! the body, because that is where the request id is known, and logs the cause, so that an error is
//! logged once.
//!
//! Invariant: a 5xx says nothing about its cause, and no detail repeats what the client sent.
//! Contract: `auth-users.md` section 1.2.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Extension;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Every code that a client can see, in `SCREAMING_SNAKE_CASE` on the wire.
///
/// To add one: add the variant here and its line in [`ErrorCode::status`]; the compiler and the
/// OpenAPI snapshot then name every other place. A status never depends on anything but the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// Not a Bitcoin address of a known type.
    AddressInvalid,
    /// A Bitcoin address of another network.
    AddressWrongNetwork,
    /// An address type that cannot sign messages.
    AddressNotSignable,
    /// The address is already the current one.
    AddressUnchanged,
    /// No such challenge: expired, used, or never issued.
    AuthChallengeExpired,
    /// The timestamp is not the one that was issued.
    AuthChallengeMismatch,
    /// The password does not meet the policy.
    WeakPassword,
    /// No such link.
    TokenInvalid,
    /// The link is too old.
    TokenExpired,
    /// The link was used before.
    TokenUsed,
    /// There is nothing to verify.
    EmailAlreadyVerified,
    /// The account has no e-mail and password.
    EmailAccountRequired,
    /// The cursor was not made by this endpoint.
    InvalidCursor,
    /// No such game.
    InvalidGameType,
    /// No credential was sent.
    AuthRequired,
    /// Not an access token of ours.
    AuthTokenInvalid,
    /// The access token is too old: refresh it.
    AuthTokenExpired,
    /// The session was ended.
    AuthTokenRevoked,
    /// The signature does not prove the wallet.
    AuthSignatureInvalid,
    /// E-mail or password is wrong.
    AuthInvalidCredentials,
    /// The current password is wrong.
    AuthPasswordIncorrect,
    /// Not a live refresh token.
    AuthRefreshInvalid,
    /// The refresh token was used before: all sessions were ended.
    AuthRefreshReused,
    /// Not a live API key.
    ApiKeyInvalid,
    /// The account is banned.
    AccountBanned,
    /// Only for administrators.
    AdminRequired,
    /// Not for API keys.
    SessionRequired,
    /// The API key lacks the permission.
    ApiKeyPermission,
    /// Sign in again first.
    ReauthRequired,
    /// The page's origin may not call this API.
    OriginNotAllowed,
    /// No such route.
    NotFound,
    /// No such user, or not a public one.
    UserNotFound,
    /// No such API key of this user.
    ApiKeyNotFound,
    /// No such worker of this user.
    WorkerNotFound,
    /// No best in this time frame yet.
    PersonalBestNotFound,
    /// No block of ours at this height.
    BlockNotFound,
    /// No such game.
    GameNotFound,
    /// No completed draw yet.
    LotteryNoResults,
    /// No draw of this week, or not yet.
    LotteryDrawNotFound,
    /// The caller took no part in this week.
    LotteryEntryNotFound,
    /// No such badge, or not one that can be earned.
    BadgeNotFound,
    /// No such celebration of this user, or it was acknowledged before.
    CelebrationNotFound,
    /// The route exists, but not for this method; the `Allow` header says for which.
    MethodNotAllowed,
    /// The body did not arrive in time.
    RequestTimeout,
    /// Another account has the e-mail.
    EmailInUse,
    /// Another account has the wallet.
    WalletInUse,
    /// The address is named by an account that never proved it; `claim` takes it over.
    WalletUnlinked,
    /// The current address is not proven.
    WalletUnverified,
    /// No more wallets can be linked.
    WalletLimit,
    /// Another user has the name.
    DisplayNameTaken,
    /// No more API keys can be made.
    ApiKeyLimit,
    /// Neither the current week nor one that was drawn with the caller in it.
    WeekNotPlayable,
    /// The cache is being cleared already.
    CacheClearRunning,
    /// The body is larger than the limit.
    PayloadTooLarge,
    /// Path and query are longer than the limit.
    UriTooLong,
    /// The body is not `application/json`.
    UnsupportedMediaType,
    /// Body, query or path break a rule; `errors` says which.
    ValidationError,
    /// Too many requests; `Retry-After` says when to come back.
    RateLimited,
    /// The user has as many sockets as they may.
    WsTooManyConnections,
    /// Too many failed passwords; `Retry-After` says when to come back.
    AccountLocked,
    /// Too soon; `Retry-After` says when to come back.
    Cooldown,
    /// The headers are larger than the limit.
    HeadersTooLarge,
    /// A fault of ours.
    Internal,
    /// Something that we need is away; `Retry-After` says when to come back.
    ServiceUnavailable,
}

impl ErrorCode {
    /// The HTTP status that belongs to the code.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::AddressInvalid
            | Self::AddressWrongNetwork
            | Self::AddressNotSignable
            | Self::AddressUnchanged
            | Self::AuthChallengeExpired
            | Self::AuthChallengeMismatch
            | Self::WeakPassword
            | Self::TokenInvalid
            | Self::TokenExpired
            | Self::TokenUsed
            | Self::EmailAlreadyVerified
            | Self::EmailAccountRequired
            | Self::InvalidCursor
            | Self::InvalidGameType => StatusCode::BAD_REQUEST,
            Self::AuthRequired
            | Self::AuthTokenInvalid
            | Self::AuthTokenExpired
            | Self::AuthTokenRevoked
            | Self::AuthSignatureInvalid
            | Self::AuthInvalidCredentials
            | Self::AuthPasswordIncorrect
            | Self::AuthRefreshInvalid
            | Self::AuthRefreshReused
            | Self::ApiKeyInvalid => StatusCode::UNAUTHORIZED,
            Self::AccountBanned
            | Self::AdminRequired
            | Self::SessionRequired
            | Self::ApiKeyPermission
            | Self::ReauthRequired
            | Self::OriginNotAllowed => StatusCode::FORBIDDEN,
            Self::NotFound
            | Self::UserNotFound
            | Self::ApiKeyNotFound
            | Self::WorkerNotFound
            | Self::PersonalBestNotFound
            | Self::BlockNotFound
            | Self::GameNotFound
            | Self::LotteryNoResults
            | Self::LotteryDrawNotFound
            | Self::LotteryEntryNotFound
            | Self::BadgeNotFound
            | Self::CelebrationNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::EmailInUse
            | Self::WalletInUse
            | Self::WalletUnlinked
            | Self::WalletUnverified
            | Self::WalletLimit
            | Self::DisplayNameTaken
            | Self::ApiKeyLimit
            | Self::WeekNotPlayable
            | Self::CacheClearRunning => StatusCode::CONFLICT,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::ValidationError => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited | Self::WsTooManyConnections | Self::AccountLocked | Self::Cooldown => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Whether the access token of the request is at fault, so that `WWW-Authenticate` belongs on the answer.
    pub(crate) const fn is_about_access(self) -> bool {
        matches!(
            self,
            Self::AuthRequired
                | Self::AuthTokenInvalid
                | Self::AuthTokenExpired
                | Self::AuthTokenRevoked
                | Self::ApiKeyInvalid
        )
    }
}

/// What is wrong with one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FieldErrorKind {
    /// Required and absent.
    Missing,
    /// Not a field of this request.
    ExtraForbidden,
    /// Another JSON type than required.
    TypeError,
    /// Fewer characters than required.
    StringTooShort,
    /// More characters than allowed.
    StringTooLong,
    /// Not of the required form.
    PatternMismatch,
    /// A number below or above its bounds.
    OutOfRange,
    /// Not one of the allowed words.
    InvalidEnum,
    /// Not JSON at all.
    InvalidJson,
    /// A string with control characters.
    ControlCharacters,
}

/// One broken rule of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Dotted path rooted at `body`, `query` or `path`.
    #[schema(value_type = String)]
    field: Cow<'static, str>,
    #[serde(rename = "type")]
    kind: FieldErrorKind,
    /// A sentence for people. Never the rejected value.
    #[schema(value_type = String)]
    message: Cow<'static, str>,
}

impl FieldError {
    /// Names the `field` (dotted path rooted at `body`, `query` or `path`) and the broken rule.
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        kind: FieldErrorKind,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { field: field.into(), kind, message: message.into() }
    }
}

/// The body of every response that is not a success.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// A sentence for people.
    #[schema(value_type = String)]
    detail: Cow<'static, str>,
    /// The word for programs.
    code: ErrorCode,
    /// Equal to the `X-Request-Id` header.
    request_id: String,
    /// The broken rules; only with 422.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

/// An error as the edge knows it: code, words, and for a 5xx the cause that only the log sees.
///
/// A handler returns it with `?`. Headers beside it are kept, so `([(header, value)], error)` works.
#[derive(Clone, Debug)]
pub struct ApiError {
    code: ErrorCode,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    cause: Option<Arc<anyhow::Error>>,
    retry_after_s: Option<u64>,
}

impl ApiError {
    /// Any code with its words.
    pub fn new(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), cause: None, retry_after_s: None }
    }

    /// The same with `Retry-After`, in seconds; at least one.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after_s: Some(seconds.max(1)), ..self }
    }

    /// 404 for a route that does not exist.
    pub fn not_found() -> Self {
        Self::new(ErrorCode::NotFound, "Not Found")
    }

    /// 405; the `Allow` header comes from the router.
    pub fn method_not_allowed() -> Self {
        Self::new(ErrorCode::MethodNotAllowed, "Method Not Allowed")
    }

    /// 413.
    pub fn payload_too_large() -> Self {
        Self::new(ErrorCode::PayloadTooLarge, "Request body is too large")
    }

    /// 415.
    pub fn unsupported_media_type() -> Self {
        Self::new(ErrorCode::UnsupportedMediaType, "Request body must be application/json")
    }

    /// 422 with at least one broken rule.
    pub fn validation(errors: impl Into<Vec<FieldError>>) -> Self {
        let errors = errors.into();
        debug_assert!(!errors.is_empty(), "a 422 says what is wrong");
        Self { errors, ..Self::new(ErrorCode::ValidationError, "Request is not valid") }
    }

    /// 500: logged once at the edge, opaque outside.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Self {
            cause: Some(Arc::new(cause.into())),
            ..Self::new(ErrorCode::Internal, "Internal server error")
        }
    }

    /// 503 without a cause worth a log line, such as a missed deadline.
    pub fn unavailable() -> Self {
        Self::new(ErrorCode::ServiceUnavailable, "Service temporarily unavailable")
    }

    /// 503: logged once at the edge, opaque outside.
    pub fn unavailable_because(cause: impl Into<anyhow::Error>) -> Self {
        Self { cause: Some(Arc::new(cause.into())), ..Self::unavailable() }
    }

    /// The code of this error.
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    pub(crate) const fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after_s
    }

    pub(crate) fn into_body(self, request_id: String) -> ErrorBody {
        ErrorBody { detail: self.detail, code: self.code, request_id, errors: self.errors }
    }

    /// Writes the cause to the log, in the span of the request.
    pub(crate) fn log_cause(&self) {
        let Some(cause) = &self.cause else { return };
        let cause = format!("{cause:#}");
        if self.code == ErrorCode::ServiceUnavailable {
            tracing::warn!(cause, "a dependency is unavailable");
        } else {
            tracing::error!(cause, "internal error");
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.code.status(), Extension(self)).into_response()
    }
}
