//! `audit_log` as administrators search it.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::trail::AuditRecord;

/// Which rows are wanted; all conditions hold at once.
pub(crate) struct Filter<'a> {
    pub user_id: Option<&'a str>,
    /// Any of these; empty: whatever was done.
    pub actions: &'a [String],
    pub resource_type: Option<&'a str>,
    pub resource_id: Option<&'a str>,
    pub status: Option<&'a str>,
    pub ip_address: Option<&'a str>,
    /// Included.
    pub from: Option<DateTime<Utc>>,
    /// Excluded.
    pub to: Option<DateTime<Utc>>,
}

/// Up to `at_most` rows, newest first, after the row `before` in that order.
///
/// A condition that is not asked for is NULL. Such a statement is planned with its values, so a user goes
/// through idx_audit_user, actions through idx_audit_action, all else through idx_audit_timestamp. The bounds
/// of time are plain comparisons, so that even a plan without the values reads in order from the right place
/// and leaves out the months that do not matter; `timestamp <= $9` says for the index what the comparison
/// of pairs says for the rows. An address has no index: its span of time is bounded by the caller.
pub(crate) async fn page(
    conn: &mut PgConnection,
    filter: &Filter<'_>,
    before: Option<(DateTime<Utc>, Uuid)>,
    at_most: i64,
) -> Result<Vec<AuditRecord>, sqlx::Error> {
    sqlx::query_as!(
        AuditRecord,
        "SELECT id, timestamp, user_id, action, resource_type, resource_id, ip_address, user_agent, details, status
         FROM audit_log
         WHERE ($1::TEXT IS NULL OR user_id = $1)
           AND (cardinality($2::TEXT[]) = 0 OR action = ANY ($2))
           AND ($3::TEXT IS NULL OR resource_type = $3)
           AND ($4::TEXT IS NULL OR resource_id = $4)
           AND ($5::TEXT IS NULL OR status = $5)
           AND ($6::TEXT IS NULL OR ip_address = $6)
           AND timestamp >= COALESCE($7::TIMESTAMPTZ, '-infinity')
           AND timestamp < COALESCE($8::TIMESTAMPTZ, 'infinity')
           AND timestamp <= COALESCE($9::TIMESTAMPTZ, 'infinity')
           AND ($9::TIMESTAMPTZ IS NULL OR (timestamp, id) < ($9, $10::UUID))
         ORDER BY timestamp DESC, id DESC
         LIMIT $11",
        filter.user_id,
        filter.actions,
        filter.resource_type,
        filter.resource_id,
        filter.status,
        filter.ip_address,
        filter.from,
        filter.to,
        before.map(|(timestamp, _)| timestamp),
        before.map(|(_, id)| id),
        at_most
    )
    .fetch_all(conn)
    .await
}
