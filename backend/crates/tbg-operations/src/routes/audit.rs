//! The audit log.

use axum::Json;
use axum::extract::State;
use tbg_web::{Admin, ApiError, Origin, Page, Query};

use crate::routes::Operations;
use crate::trail::{AuditQuery, AuditRecord, audit_page};

/// Search the audit log
///
/// Newest first. Looking is recorded too.
#[utoipa::path(
    get,
    path = "/api/v1/admin/audit",
    tag = "admin",
    params(AuditQuery),
    responses(
        (status = 200, description = "A page of the log", body = Page<AuditRecord>),
        (status = 400, description = "The cursor is not of this list")
    )
)]
pub(crate) async fn admin_audit(
    State(operations): State<Operations>,
    admin: Admin,
    Origin(origin): Origin,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Page<AuditRecord>>, ApiError> {
    audit_page(&operations, admin.user_id, &origin, &query).await.map(Json)
}
