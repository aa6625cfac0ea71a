//! Clearing caches.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use tbg_web::{Admin, ApiError, OptionalBody, Origin};
use utoipa::ToSchema;

use crate::caches::{Cleared, Scope, clear_caches};
use crate::routes::Operations;

/// What to clear.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CacheClearRequest)]
pub(crate) struct ClearRequest {
    /// Whose caches; all unless given.
    #[serde(default)]
    scope: Scope,
}

/// Clear caches
///
/// The body may be left out: then all caches are cleared.
#[utoipa::path(
    post,
    path = "/api/v1/admin/cache/clear",
    tag = "admin",
    request_body = ClearRequest,
    extensions(("x-optional-body" = json!(true))),
    responses(
        (status = 200, description = "They are gone", body = Cleared),
        (status = 409, description = "They are being cleared already")
    )
)]
pub(crate) async fn clear_cache(
    State(operations): State<Operations>,
    admin: Admin,
    Origin(origin): Origin,
    OptionalBody(request): OptionalBody<ClearRequest>,
) -> Result<Json<Cleared>, ApiError> {
    // A task of its own: what has begun is finished and recorded, also for a client who hangs up.
    let clearing =
        tokio::spawn(async move { clear_caches(&operations, admin.user_id, &origin, request.scope).await });
    clearing.await.map_err(ApiError::internal)?.map(Json)
}
