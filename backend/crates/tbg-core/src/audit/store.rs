//! The one statement of this module.

use sqlx::PgConnection;

use super::Entry;

pub(super) async fn insert(conn: &mut PgConnection, entry: &Entry) -> Result<(), sqlx::Error> {
    let user_id = entry.user.map(|user| user.to_string());
    let ip_address = entry.ip.map(|ip| ip.to_string());
    sqlx::query!(
        "INSERT INTO audit_log (user_id, action, resource_type, resource_id, ip_address, user_agent,
                                details, status)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        user_id.as_deref(),
        entry.action.as_str(),
        entry.resource_type,
        entry.resource_id.as_deref(),
        ip_address.as_deref(),
        entry.user_agent.as_deref(),
        &entry.details,
        entry.status.as_str()
    )
    .execute(conn)
    .await?;
    Ok(())
}
