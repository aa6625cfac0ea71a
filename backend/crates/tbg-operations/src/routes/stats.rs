//! The overview.

use axum::Json;
use axum::extract::State;
use tbg_web::{Admin, ApiError, Origin};

use crate::routes::Operations;
use crate::stats::{AdminStats, stats};

/// Everything at a glance
///
/// At most 10 seconds old.
#[utoipa::path(
    get,
    path = "/api/v1/admin/stats",
    tag = "admin",
    responses((status = 200, description = "The numbers", body = AdminStats))
)]
pub(crate) async fn admin_stats(
    State(operations): State<Operations>,
    admin: Admin,
    Origin(origin): Origin,
) -> Result<Json<AdminStats>, ApiError> {
    stats(&operations, admin.user_id, &origin).await.map(Json)
}
