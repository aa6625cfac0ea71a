//! Request bodies: [`Body`] reads a request type from one, [`OptionalBody`] does without one, [`NoBody`]
//! takes none.
//!
//! Contract: `auth-users.md` section 1.1, `production.md` section 4.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::value;
use crate::error::{ApiError, ErrorCode, FieldError, FieldErrorKind};
use crate::layers::MAX_BODY_BYTES;

const BODY_DEADLINE: Duration = Duration::from_secs(15);

/// The JSON object in the body, strictly read: a body of another type or a compressed one is
/// answered 415, more than 64 KiB 413, one that takes longer than 15 s 408, and whatever does not
/// fit `T` 422 with the field named. `T` carries `#[serde(deny_unknown_fields)]`.
#[derive(Clone, Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        require_json(request.headers())?;
        decode(&read(request, state).await?).map(Self)
    }
}

/// A request that carries nothing: an empty body under any type, or `{}` as JSON. For methods that
/// could have a body and whose endpoint defines none.
#[derive(Clone, Copy, Debug)]
pub struct NoBody;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        read_if_any::<Nothing, S>(request, state).await.map(|_| Self)
    }
}

/// As [`Body`], but an empty body, under any type, reads as `T::default()`.
#[derive(Clone, Debug)]
pub struct OptionalBody<T>(pub T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        read_if_any(request, state).await.map(|body| Self(body.unwrap_or_default()))
    }
}

/// The type of a body matters only if there is one.
async fn read_if_any<T: DeserializeOwned, S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<Option<T>, ApiError> {
    let is_json = require_json(request.headers());
    let body = read(request, state).await?;
    if body.is_empty() {
        return Ok(None);
    }
    is_json?;
    decode(&body).map(Some)
}

fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, ApiError> {
    value::from_slice(json).map_err(|fault| fault.refuse("body"))
}

fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_identity = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(is_identity) {
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType, "Request body must not be compressed"));
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    match (types.next(), types.next()) {
        (Some(only), None) if is_json(only) => Ok(()),
        _ => Err(ApiError::unsupported_media_type()),
    }
}

/// `application/json`, with no parameter but UTF-8 as its charset.
fn is_json(content_type: &HeaderValue) -> bool {
    content_type.to_str().is_ok_and(|text| {
        let mut parts = text.split(';').map(str::trim);
        parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
            && parts.all(is_utf8_charset)
    })
}

fn is_utf8_charset(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, value)| {
        name.eq_ignore_ascii_case("charset") && value.trim_matches('"').eq_ignore_ascii_case("utf-8")
    })
}

async fn read<S: Send + Sync>(mut request: Request, state: &S) -> Result<Bytes, ApiError> {
    DefaultBodyLimit::max(MAX_BODY_BYTES).apply(&mut request);
    match timeout(BODY_DEADLINE, Bytes::from_request(request, state)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(ApiError::payload_too_large())
        }
        // The connection broke or its framing is wrong; mostly nobody is left to read the answer.
        Ok(Err(_)) => Err(ApiError::validation([FieldError::new(
            "body",
            FieldErrorKind::InvalidJson,
            "ended too early",
        )])),
        Err(_) => Err(ApiError::new(ErrorCode::RequestTimeout, "Request body took too long")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(content_type: &[&'static str], encoding: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in content_type {
            headers.append(CONTENT_TYPE, HeaderValue::from_static(value));
        }
        if let Some(encoding) = encoding {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        headers
    }

    #[test]
    fn json_is_json_in_utf8_and_plain() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
        ] {
            assert!(require_json(&headers(&[good], None)).is_ok(), "{good}");
        }
        assert!(require_json(&headers(&["application/json"], Some("identity"))).is_ok());
        for bad in [
            "",
            "text/plain",
            "application/jsonp",
            "application/problem+json",
            "application/json; charset=latin1",
            "application/json; version=1",
            "text/plain, application/json",
        ] {
            assert!(require_json(&headers(&[bad], None)).is_err(), "{bad}");
        }
        assert!(require_json(&headers(&[], None)).is_err());
        assert!(require_json(&headers(&["application/json"; 2], None)).is_err());
        for encoding in ["gzip", "identity, gzip", ""] {
            let refused = require_json(&headers(&["application/json"], Some(encoding))).unwrap_err();
            assert_eq!(refused.code(), ErrorCode::UnsupportedMediaType, "{encoding}");
        }
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Choice {
        #[serde(default)]
        number: u8,
    }

    async fn optional(content_type: &'static str, body: &'static str) -> Result<Choice, ApiError> {
        let body = axum::body::Body::from(body);
        let request = Request::builder().header(CONTENT_TYPE, content_type).body(body).unwrap();
        let OptionalBody(choice) =
            <OptionalBody<Choice> as FromRequest<()>>::from_request(request, &()).await?;
        Ok(choice)
    }

    #[tokio::test]
    async fn an_optional_body_is_missing_or_good() {
        assert_eq!(optional("text/plain", "").await.unwrap(), Choice::default());
        assert_eq!(optional("application/json", "{}").await.unwrap(), Choice::default());
        assert_eq!(optional("application/json", r#"{"number":7}"#).await.unwrap(), Choice { number: 7 });
        for (content_type, body, code) in [
            ("text/plain", "{}", ErrorCode::UnsupportedMediaType),
            ("application/json", "null", ErrorCode::ValidationError),
            ("application/json", r#"{"other":7}"#, ErrorCode::ValidationError),
            ("application/json", " ", ErrorCode::ValidationError),
        ] {
            assert_eq!(optional(content_type, body).await.unwrap_err().code(), code, "{body}");
        }
    }
}
