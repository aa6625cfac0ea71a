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
    /// No such route.
    NotFound,
    /// The route exists, but not for this method; the `Allow` header says for which.
    MethodNotAllowed,
    /// The body is larger than the limit.
    PayloadTooLarge,
    /// The body is not `application/json`.
    UnsupportedMediaType,
    /// Body, query or path break a rule; `errors` says which.
    ValidationError,
    /// A fault of ours.
    Internal,
    /// Something that we need is away; `Retry-After` says when to come back.
    ServiceUnavailable,
}

impl ErrorCode {
    /// The HTTP status that belongs to the code.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::ValidationError => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
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
}

impl ApiError {
    /// Any code with its words.
    pub fn new(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), cause: None }
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
