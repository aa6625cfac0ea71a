//! `/ws` and its statistics (contract `realtime.md` §1, §10).

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, ORIGIN};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::{Map, Value};
use tbg_core::UserId;
use tbg_web::auth::{Claims, Class, TokenFault};
use tbg_web::limit::{Subject, Tier, count_denial, redis_key};
use tbg_web::{ApiError, ErrorCode, FieldError, FieldErrorKind, Origin, Routes};
use utoipa::ToSchema;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::Realtime;
use crate::connection::{Closing, Connection, Talk, turn_away};
use crate::hub::{NoSeat, Seat};
use crate::metrics;
use crate::rules::RENDERED_MAX_BYTES;

/// Failed handshakes a minute of an address.
const FAILURES_PER_MIN: u32 = 10;
/// Seconds until a full replica may be tried again.
const RETRY_FULL_SECONDS: u64 = 5;
/// What a socket buffers when it is quiet: ten thousand of them should cost little.
const READ_BUFFER_BYTES: usize = 2 * 1024;
const WRITE_BUFFER_BYTES: usize = 8 * 1024;

/// All routes.
pub(crate) fn all() -> Routes<Realtime> {
    Routes::new().hidden(Class::None, "/ws", get(open)).public(routes!(ws_stats))
}

/// Open sockets of the answering replica.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WsStats {
    total_connections: usize,
    unique_users: usize,
    /// Subscribers by channel, of channels that have any.
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    channels: Map<String, Value>,
}

/// Sockets of the replica that answers.
#[utoipa::path(get, path = "/api/v1/dashboard/ws-stats", tag = "dashboard", responses((status = OK, body = WsStats)))]
pub(crate) async fn ws_stats(State(realtime): State<Realtime>) -> Json<WsStats> {
    let (total_connections, unique_users, channels) = realtime.hub.statistics();
    Json(WsStats { total_connections, unique_users, channels })
}

/// Who gets a socket.
struct Admitted {
    connection: Arc<Connection>,
    seat: Seat,
}

async fn open(
    State(realtime): State<Realtime>,
    origin: Origin,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        let field = FieldError::new("header.upgrade", FieldErrorKind::Missing, "Open a WebSocket here");
        return ApiError::validation([field]).into_response();
    };
    let upgrade = upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(RENDERED_MAX_BYTES)
        .max_frame_size(RENDERED_MAX_BYTES);
    match admit(&realtime, &origin, &headers, query.as_deref().unwrap_or_default()).await {
        Ok(admitted) => {
            metrics::handshake("accepted");
            upgrade.on_upgrade(move |socket| async move {
                let Admitted { connection, seat } = admitted;
                let registration = realtime.hub.register(Arc::clone(&connection));
                let mut ended = Ended(1011);
                ended.0 = Talk::new(socket, connection, realtime).run().await;
                drop((registration, seat));
            })
        }
        Err(error) => {
            metrics::handshake(result_of(error.code()));
            if realtime.config.reject_with_close_code {
                let closing = closing_of(error.code());
                return upgrade.on_upgrade(move |socket| turn_away(socket, closing));
            }
            error.into_response()
        }
    }
}

/// Counts a socket's end by its code; 1011 if the task that served it crashed.
struct Ended(u16);

impl Drop for Ended {
    fn drop(&mut self) {
        metrics::closed(self.0);
    }
}

/// All checks before the upgrade, in the contract's order.
async fn admit(
    realtime: &Realtime,
    origin: &Origin,
    headers: &HeaderMap,
    query: &str,
) -> Result<Admitted, ApiError> {
    let config = &realtime.config;
    if !realtime.hub.has_room(config.max_connections) {
        return Err(full());
    }
    if headers.get(ORIGIN).is_some_and(|origin| !realtime.origins.admits(origin.as_bytes())) {
        return Err(ApiError::new(ErrorCode::OriginNotAllowed, "Origin is not allowed"));
    }
    let failures = origin.0.ip.map(|ip| redis_key(Tier::WsHandshake, Subject::Ip(ip)));
    if let Some(key) = &failures {
        let decision = realtime.limiter.peek(key, FAILURES_PER_MIN).await;
        if !decision.allowed {
            // A peek counts nothing, not even what comes of it.
            count_denial(Tier::WsHandshake);
            return Err(too_many(decision.retry_after_s));
        }
    }
    let (user, claims) = match identify(realtime, headers, query).await {
        Ok(who) => who,
        Err(error) => {
            if let (Some(key), true) = (&failures, error.code() != ErrorCode::ServiceUnavailable) {
                realtime.limiter.decide(Tier::WsHandshake, key, FAILURES_PER_MIN).await;
            }
            return Err(error);
        }
    };
    let key = redis_key(Tier::WsHandshake, Subject::User(user));
    let decision = realtime.limiter.decide(Tier::WsHandshake, &key, config.connects_per_min).await;
    if !decision.allowed {
        return Err(too_many(decision.retry_after_s));
    }
    seat(realtime, user, claims).await
}

async fn identify(
    realtime: &Realtime,
    headers: &HeaderMap,
    query: &str,
) -> Result<(UserId, Arc<Claims>), ApiError> {
    let Some(token) = token(headers, query) else {
        return Err(ApiError::new(ErrorCode::AuthRequired, "Authentication required"));
    };
    let claims = realtime.auth.access_token(&token).map_err(|fault| match fault {
        TokenFault::Expired => ApiError::new(ErrorCode::AuthTokenExpired, "Access token has expired"),
        TokenFault::Invalid => ApiError::new(ErrorCode::AuthTokenInvalid, "Access token is invalid"),
    })?;
    let (session, _) = realtime.auth.session(&claims).await?;
    Ok((session.user_id, claims))
}

/// The query's only `token`; if there is none, the bearer of the header.
fn token<'a>(headers: &'a HeaderMap, query: &'a str) -> Option<Cow<'a, str>> {
    let mut tokens = url::form_urlencoded::parse(query.as_bytes())
        .filter(|(key, _)| key == "token")
        .map(|(_, value)| value);
    match (tokens.next(), tokens.next()) {
        (Some(token), None) => Some(token),
        (Some(_), Some(_)) => None,
        (None, _) => {
            let header = headers.get(AUTHORIZATION)?.to_str().ok()?;
            let (scheme, token) = header.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| Cow::Borrowed(token.trim()))
        }
    }
}

/// A seat here and in the ledger of all replicas; while Redis is away, here alone.
async fn seat(realtime: &Realtime, user: UserId, claims: Arc<Claims>) -> Result<Admitted, ApiError> {
    let config = &realtime.config;
    let seat = realtime.hub.take_seat(user, config.max_connections, config.max_per_user);
    let seat = seat.map_err(|reason| match reason {
        NoSeat::Full => full(),
        NoSeat::TooManyOfUser => too_many_sockets(),
    })?;
    let id = Uuid::new_v4();
    if realtime.limiter.redis_is_up() {
        match realtime.store.admit(user, id, config.max_per_user).await {
            Ok(true) => {}
            Ok(false) => return Err(too_many_sockets()),
            Err(error) => tracing::warn!(%error, "sockets are counted by this replica alone"),
        }
    }
    let seat = seat.in_ledger(realtime.store.clone(), id);
    // Only publishers of old need it: a socket without works all the same.
    let address = realtime.feeds.address_of(user).await.unwrap_or_else(|error| {
        tracing::debug!(error = format!("{error:#}"), "a socket opens without its user's address");
        None
    });
    Ok(Admitted { connection: Connection::new(user, address, claims, id), seat })
}

fn full() -> ApiError {
    ApiError::unavailable().retry_after(RETRY_FULL_SECONDS)
}

fn too_many(retry_after_s: Option<u64>) -> ApiError {
    ApiError::new(ErrorCode::RateLimited, "Too many requests").retry_after(retry_after_s.unwrap_or(1))
}

fn too_many_sockets() -> ApiError {
    ApiError::new(ErrorCode::WsTooManyConnections, "Too many open sockets")
}

fn closing_of(code: ErrorCode) -> Closing {
    match code.status().as_u16() {
        429 => Closing::TOO_MANY,
        503 => Closing::OVERLOAD,
        _ => Closing::REFUSED,
    }
}

fn result_of(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::AuthRequired => "auth_required",
        ErrorCode::AuthTokenExpired => "auth_token_expired",
        ErrorCode::AuthTokenInvalid => "auth_token_invalid",
        ErrorCode::AuthTokenRevoked => "auth_token_revoked",
        ErrorCode::AccountBanned => "account_banned",
        ErrorCode::OriginNotAllowed => "origin_not_allowed",
        ErrorCode::RateLimited => "rate_limited",
        ErrorCode::WsTooManyConnections => "ws_too_many_connections",
        ErrorCode::ServiceUnavailable => "service_unavailable",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_once_in_the_query_or_else_in_the_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(token(&headers, ""), None);
        assert_eq!(token(&headers, "x=1&token=a%2Eb").as_deref(), Some("a.b"));
        assert_eq!(token(&headers, "token=a&token=a"), None);
        headers.insert(AUTHORIZATION, "Bearer c".parse().unwrap());
        assert_eq!(token(&headers, "").as_deref(), Some("c"));
        assert_eq!(token(&headers, "token=a").as_deref(), Some("a"));
    }
}
