//! The audit log as administrators search it (contract `production.md` §9). What they searched for is in the
//! log before they see the answer.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use tbg_core::UserId;
use tbg_core::audit::{Action, Entry, Origin};
use tbg_web::cursor::{self, Micros};
use tbg_web::{ApiError, FieldError, FieldErrorKind, Int, Page, Text};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::routes::{Operations, record};
use crate::store::audit_log::{self as store, Filter};

const DEFAULT_LIMIT: i64 = 50;
/// Addresses have no index: a search for one reads all rows of its span of time.
const MAX_ADDRESS_SPAN: TimeDelta = TimeDelta::days(31);

/// A row of the log, as it is kept.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditRecord {
    /// Identifies the row.
    #[schema(value_type = String, format = "uuid")]
    pub id: Uuid,
    /// When it happened.
    pub timestamp: DateTime<Utc>,
    /// Who acted.
    #[schema(required)]
    pub user_id: Option<String>,
    /// What was done.
    pub action: String,
    /// To what kind of thing.
    pub resource_type: String,
    /// To which one.
    #[schema(required)]
    pub resource_id: Option<String>,
    /// From where.
    #[schema(required)]
    pub ip_address: Option<String>,
    /// With what program.
    #[schema(required)]
    pub user_agent: Option<String>,
    /// What else there is to know.
    #[schema(value_type = Object)]
    pub details: Value,
    /// `success`, `failure` or `denied`.
    pub status: String,
}

/// Which rows are wanted; all filters hold at once.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Rows of a page; 50 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    limit: Option<Int<1, 100>>,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<String>, min_length = 1, max_length = 200)]
    cursor: Option<Text<0, 200>>,
    /// Who acted.
    #[param(value_type = Option<String>, min_length = 1, max_length = 128)]
    user_id: Option<Text<1, 128>>,
    /// What was done: one action, or a group as in `auth.*`.
    #[param(value_type = Option<String>, min_length = 6, max_length = 50)]
    action: Option<Actions>,
    /// To what kind of thing.
    #[param(value_type = Option<String>, min_length = 1, max_length = 50)]
    resource_type: Option<Text<1, 50>>,
    /// To which one; only with `resource_type`.
    #[param(value_type = Option<String>, min_length = 1, max_length = 200)]
    resource_id: Option<Text<1, 200>>,
    /// How it ended: `success`, `failure` or `denied`.
    #[param(value_type = Option<String>, max_length = 7, pattern = "^(success|failure|denied)$")]
    status: Option<Outcome>,
    /// From where; only with `from` and `to`, at most 31 days apart.
    #[param(value_type = Option<String>, min_length = 2, max_length = 45)]
    ip_address: Option<Address>,
    /// The earliest time, included.
    #[param(value_type = Option<String>, format = DateTime, max_length = 40)]
    from: Option<Moment>,
    /// The latest time, excluded.
    #[param(value_type = Option<String>, format = DateTime, max_length = 40)]
    to: Option<Moment>,
}

/// What was asked for, and the names of the actions that it means.
#[derive(Clone, Debug)]
struct Actions {
    asked: String,
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Success,
    Failure,
    Denied,
}

/// An address as the log writes it.
#[derive(Clone, Debug)]
struct Address(String);

/// An instant that was given with its offset.
#[derive(Clone, Copy, Debug)]
struct Moment(DateTime<Utc>);

fn broken_rule<E: Error>(word: &'static str, expected: &'static str) -> E {
    E::invalid_value(Unexpected::Other(word), &expected)
}

impl<'de> Deserialize<'de> for Actions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let asked = String::deserialize(deserializer)?;
        let names: Vec<String> =
            Action::matching(&asked).into_iter().map(|action| action.as_str().to_owned()).collect();
        if names.is_empty() {
            return Err(broken_rule("invalid_enum", "must be an action, or a group as in auth.*"));
        }
        Ok(Self { asked, names })
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse::<IpAddr>()
            .map(|address| Self(address.to_canonical().to_string()))
            .map_err(|_| broken_rule("pattern_mismatch", "must be an IP address"))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        DateTime::parse_from_rfc3339(&text)
            .map(|time| Self(time.to_utc()))
            .map_err(|_| broken_rule("pattern_mismatch", "must be an RFC 3339 time with its offset"))
    }
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Denied => "denied",
        }
    }
}

impl AuditQuery {
    /// The rules that hold between filters.
    fn check(&self) -> Result<(), ApiError> {
        let mut errors = Vec::new();
        let mut refuse = |field: &'static str, kind: FieldErrorKind, message: &'static str| {
            errors.push(FieldError::new(field, kind, message));
        };
        if self.resource_id.is_some() && self.resource_type.is_none() {
            refuse("query.resource_type", FieldErrorKind::Missing, "required with resource_id");
        }
        if self.ip_address.is_some() {
            if self.from.is_none() {
                refuse("query.from", FieldErrorKind::Missing, "required with ip_address");
            }
            if self.to.is_none() {
                refuse("query.to", FieldErrorKind::Missing, "required with ip_address");
            }
            if let (Some(from), Some(to)) = (self.from, self.to)
                && to.0 - from.0 > MAX_ADDRESS_SPAN
            {
                refuse("query.to", FieldErrorKind::OutOfRange, "with ip_address, at most 31 days after from");
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(ApiError::validation(errors)) }
    }

    fn filter(&self) -> Filter<'_> {
        Filter {
            user_id: self.user_id.as_deref(),
            actions: self.action.as_ref().map(|action| action.names.as_slice()).unwrap_or_default(),
            resource_type: self.resource_type.as_deref(),
            resource_id: self.resource_id.as_deref(),
            status: self.status.map(Outcome::as_str),
            ip_address: self.ip_address.as_ref().map(|address| address.0.as_str()),
            from: self.from.map(|from| from.0),
            to: self.to.map(|to| to.0),
        }
    }

    /// The filters as the log tells of them, each with its value: who was looked for is what a look is about.
    fn described(&self) -> Value {
        let text = |text: Option<&str>| text.map(Value::from);
        let time = |moment: Option<Moment>| moment.map(|moment| json!(moment.0));
        let filters = [
            ("user_id", text(self.user_id.as_deref())),
            ("action", text(self.action.as_ref().map(|action| action.asked.as_str()))),
            ("resource_type", text(self.resource_type.as_deref())),
            ("resource_id", text(self.resource_id.as_deref())),
            ("status", text(self.status.map(Outcome::as_str))),
            ("ip_address", text(self.ip_address.as_ref().map(|address| address.0.as_str()))),
            ("from", time(self.from)),
            ("to", time(self.to)),
        ];
        let given = filters.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(given.collect::<Map<_, _>>())
    }
}

/// A page of the log, newest first. That `admin` has seen it is in the log before it is returned.
///
/// # Errors
/// 422 when the filters do not go together, 400 `INVALID_CURSOR`, 503 when the look cannot be recorded.
pub async fn audit_page(
    operations: &Operations,
    admin: UserId,
    origin: &Origin,
    query: &AuditQuery,
) -> Result<Page<AuditRecord>, ApiError> {
    query.check()?;
    let before = query.cursor.as_deref().map(cursor::decode::<(Micros, Uuid)>).transpose()?;
    let before = before.map(|(timestamp, id)| (timestamp.0, id));
    let limit = query.limit.map_or(DEFAULT_LIMIT, Int::get);
    // The connection goes back before the next one is asked for: a small pool must not wait for itself.
    let rows = {
        let mut conn = operations.pool.acquire().await?;
        store::page(&mut conn, &query.filter(), before, limit + 1).await?
    };
    let page = Page::of(rows, limit, |row| (Micros(row.timestamp), row.id));
    let entry = Entry::new(Action::AdminAuditViewed, "audit_log").by(admin).from(origin);
    record(operations, &entry.details(json!({ "filters": query.described() }))).await?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use axum::extract::FromRequestParts as _;
    use axum::http::Request;
    use tbg_web::{ErrorCode, Query};

    use super::*;

    async fn read(query: &str) -> Result<AuditQuery, ApiError> {
        let request = Request::builder().uri(format!("/?{query}")).body(()).unwrap();
        let Query(query) = Query::<AuditQuery>::from_request_parts(&mut request.into_parts().0, &()).await?;
        query.check()?;
        Ok(query)
    }

    #[tokio::test]
    async fn filters_mean_what_they_say() {
        let query = read(
            "user_id=42&action=lottery.*&resource_type=lottery&resource_id=2026-W09&status=denied\
             &ip_address=::ffff:203.0.113.7&from=2026-03-01T01:00:00%2B01:00&to=2026-04-01T00:00:00Z&other=x",
        )
        .await
        .unwrap();

        let filter = query.filter();
        assert_eq!(filter.actions, ["lottery.frozen", "lottery.drawn", "lottery.forced"]);
        assert_eq!((filter.user_id, filter.status), (Some("42"), Some("denied")));
        assert_eq!((filter.resource_type, filter.resource_id), (Some("lottery"), Some("2026-W09")));
        assert_eq!(filter.ip_address, Some("203.0.113.7"));
        assert_eq!(filter.from, "2026-03-01T00:00:00Z".parse().ok());
        assert_eq!(
            query.described(),
            json!({
                "user_id": "42", "action": "lottery.*", "resource_type": "lottery", "resource_id": "2026-W09",
                "status": "denied", "ip_address": "203.0.113.7", "from": "2026-03-01T00:00:00Z",
                "to": "2026-04-01T00:00:00Z"
            })
        );

        let nothing = read("").await.unwrap();
        assert!(nothing.filter().actions.is_empty() && nothing.limit.is_none());
        assert_eq!(nothing.described(), json!({}));
    }

    #[tokio::test]
    async fn a_filter_that_means_nothing_is_named() {
        let week = "from=2026-03-01T00:00:00Z&to=2026-03-08T00:00:00Z";
        let long_id = format!("user_id={}", "4".repeat(129));
        let month = "ip_address=203.0.113.7&from=2026-03-01T00:00:00Z&to=2026-04-01T00:00:00.000001Z";
        let local = format!("ip_address=localhost&{week}");
        for (query, field) in [
            ("limit=0", "query.limit"),
            ("limit=101", "query.limit"),
            ("action=auth", "query.action"),
            ("action=auth.logon", "query.action"),
            ("action=*", "query.action"),
            ("action=", "query.action"),
            ("status=ok", "query.status"),
            ("user_id=", "query.user_id"),
            (long_id.as_str(), "query.user_id"),
            ("resource_id=7", "query.resource_type"),
            ("from=2026-03-01T00:00:00", "query.from"),
            ("from=2026-03-01", "query.from"),
            ("to=yesterday", "query.to"),
            (local.as_str(), "query.ip_address"),
            ("ip_address=203.0.113.7", "query.from"),
            ("ip_address=203.0.113.7&from=2026-03-01T00:00:00Z", "query.to"),
            (month, "query.to"),
        ] {
            let error = read(query).await.expect_err(query);
            assert_eq!(error.code(), ErrorCode::ValidationError, "{query}");
            assert!(format!("{error:?}").contains(&format!("\"{field}\"")), "{query}: {error:?}");
        }
        assert!(read(&format!("ip_address=2001:db8::1&{week}")).await.is_ok());
        assert!(
            read("ip_address=203.0.113.7&from=2026-03-01T00:00:00Z&to=2026-04-01T00:00:00Z").await.is_ok()
        );
    }
}
