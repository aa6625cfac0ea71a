//! The audit log: who did what, to what, from where (contract `production.md` §8).
//!
//! A row about something that was done is written by [`record`] inside the transaction that does it: both
//! are there or neither. A row about something that was refused is written by [`record_refusal`] with a
//! commit of its own, and the answer does not depend on it. Nobody sends `timestamp`: it is always the start
//! of the transaction, and sealing relies on that. Details never hold passwords, tokens, signatures, keys or
//! email addresses; that is up to the caller.

mod action;
mod store;

use std::net::IpAddr;

use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};

pub use action::Action;

use crate::UserId;

/// Counts rows about refusals that could not be written.
pub const WRITE_FAILURES_TOTAL: &str = "tbg_audit_write_failures_total";

/// Longest user agent, in characters.
const MAX_USER_AGENT_CHARS: usize = 500;
/// Longest id of a resource, in characters.
const MAX_RESOURCE_ID_CHARS: usize = 200;
/// Largest details, in bytes of compact JSON.
const MAX_DETAILS_BYTES: usize = 4096;

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It was done.
    Success,
    /// It was tried and failed.
    Failure,
    /// It was not allowed.
    Denied,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Success, Self::Failure, Self::Denied];

    /// As the column holds it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Denied => "denied",
        }
    }

    /// The status of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// Where a request came from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Address of the client.
    pub ip: Option<IpAddr>,
    /// What the client calls itself.
    pub user_agent: Option<String>,
}

/// A row to be: a success without user, origin and details, unless its builder says otherwise.
#[derive(Clone, Debug)]
#[must_use = "an entry does nothing until it is recorded"]
pub struct Entry {
    action: Action,
    status: Status,
    resource_type: &'static str,
    resource_id: Option<String>,
    user: Option<UserId>,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
    details: Value,
}

impl Entry {
    /// `action` was done to a resource of this type.
    pub fn new(action: Action, resource_type: &'static str) -> Self {
        Self {
            action,
            status: Status::Success,
            resource_type,
            resource_id: None,
            user: None,
            ip: None,
            user_agent: None,
            details: json!({}),
        }
    }

    /// Who acted.
    pub fn by(mut self, user: UserId) -> Self {
        self.user = Some(user);
        self
    }

    /// The resource's id; cut at 200 characters.
    pub fn on(mut self, resource_id: impl ToString) -> Self {
        self.resource_id = Some(clean(&resource_id.to_string(), MAX_RESOURCE_ID_CHARS));
        self
    }

    /// Where the request came from; the user agent is cut at 500 characters.
    pub fn from(mut self, origin: &Origin) -> Self {
        // An IPv4 client of an IPv6 socket is the same client.
        self.ip = origin.ip.map(|ip| ip.to_canonical());
        self.user_agent = origin.user_agent.as_deref().map(|text| clean(text, MAX_USER_AGENT_CHARS));
        self
    }

    /// What else there is to know, an object of at most 4 KiB; more becomes `{"truncated":true}`.
    pub fn details(mut self, details: Value) -> Self {
        self.details = bounded(details);
        self
    }

    /// It was tried and failed.
    pub fn failed(mut self) -> Self {
        self.status = Status::Failure;
        self
    }

    /// It was not allowed.
    pub fn denied(mut self) -> Self {
        self.status = Status::Denied;
        self
    }
}

/// Control characters become spaces, and what is too long is cut.
fn clean(text: &str, max_chars: usize) -> String {
    text.chars().take(max_chars).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// PostgreSQL keeps no NUL in JSON, and a row must not fail the transaction that it tells of.
fn bounded(details: Value) -> Value {
    let details = if details.is_object() { details } else { json!({ "value": details }) };
    let text = details.to_string();
    if text.len() > MAX_DETAILS_BYTES || text.contains("\\u0000") {
        return json!({ "truncated": true });
    }
    details
}

/// Writes a row in the transaction of `conn`, the one that does what the row says.
///
/// # Errors
/// When the database does not answer; the transaction must not be committed then.
pub async fn record(conn: &mut PgConnection, entry: &Entry) -> Result<(), sqlx::Error> {
    store::insert(conn, entry).await
}

/// Writes a row about a refusal and commits it. A failure is logged and counted, never returned: the
/// answer stays what it is. The row is also written for a client who hangs up meanwhile: it runs in a task of
/// its own.
pub async fn record_refusal(pool: &PgPool, entry: &Entry) {
    let (pool, entry) = (pool.clone(), entry.clone());
    let writing = tokio::spawn(async move {
        let written = match pool.acquire().await {
            Ok(mut conn) => store::insert(&mut conn, &entry).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            metrics::counter!(WRITE_FAILURES_TOTAL).increment(1);
            tracing::error!(action = entry.action.as_str(), %error, "an audit row could not be written");
        }
    });
    if writing.await.is_err() {
        metrics::counter!(WRITE_FAILURES_TOTAL).increment(1);
        tracing::error!("writing an audit row crashed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_agent_is_cut_at_500_characters_and_has_no_controls() {
        let origin = Origin { ip: None, user_agent: Some(format!("a\r\n\0b{}", "ü".repeat(600))) };

        let entry = Entry::new(Action::AuthLogin, "session").from(&origin);

        let user_agent = entry.user_agent.unwrap();
        assert!(user_agent.starts_with("a   bü"));
        assert_eq!(user_agent.chars().count(), 500);
    }

    #[test]
    fn an_ipv4_client_is_the_same_on_both_kinds_of_socket() {
        let origin = Origin { ip: "::ffff:203.0.113.7".parse().ok(), user_agent: None };

        let entry = Entry::new(Action::AuthLogin, "session").from(&origin);

        assert_eq!(entry.ip.map(|ip| ip.to_string()).as_deref(), Some("203.0.113.7"));
    }

    #[test]
    fn details_that_cannot_be_kept_say_so() {
        let details = |value| Entry::new(Action::AuthLogin, "session").details(value).details;
        let truncated = json!({ "truncated": true });

        assert_eq!(details(json!({ "text": "x".repeat(4085) })).to_string().len(), 4096);
        assert_eq!(details(json!({ "text": "x".repeat(4086) })), truncated);
        assert_eq!(details(json!({ "text": "a\0b" })), truncated);
        assert_eq!(details(json!("text")), json!({ "value": "text" }));
    }

    #[test]
    fn ids_of_resources_are_cut_at_200_characters() {
        let entry = Entry::new(Action::AdminAccessDenied, "route").on("/ü".repeat(150)).denied();

        assert_eq!(entry.resource_id.unwrap().chars().count(), 200);
        assert_eq!(entry.status, Status::Denied);
    }

    #[test]
    fn a_status_is_parsed_from_its_name() {
        assert_eq!(Status::ALL.map(|status| Status::parse(status.as_str())), Status::ALL.map(Some));
        assert_eq!(Status::parse("Success"), None);
    }
}
