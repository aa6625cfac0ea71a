//! The OpenAPI document and its page.
//!
//! The document is generated from the routes themselves, so router and document cannot differ. The
//! page's scripts, styles and icons are compiled in: nothing is loaded from another host, and nothing
//! breaks the Content-Security-Policy of section 6 (`make docs-check` looks with a browser). The base
//! layout has no top bar, whose logo would be a `data:` image; the online validator is off.
//! Contract: `production.md` sections 6, 9; design: section 4.

mod style;

use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::map_response;
use axum::response::Response;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa::{PartialSchema as _, ToSchema as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::error::ErrorBody;
use crate::routes::{Routes, error_responses};
use crate::state::WebState;
use crate::{health, jwks};

/// The documented infrastructure routes and those of the domains.
pub(crate) fn documented_routes(domains: Routes) -> OpenApiRouter<WebState> {
    let infrastructure = Routes::new()
        .public(routes!(health::health))
        .public(routes!(health::ready))
        .public(routes!(health::version))
        .public(routes!(jwks::jwks));
    OpenApiRouter::with_openapi(front_page())
        .merge(infrastructure.into_inner())
        .merge(domains.with_state(()).into_inner())
}

/// `/docs` and `/openapi.json`.
pub(crate) fn page(document: OpenApi) -> Router<WebState> {
    let config = Config::default().validator_url("none").use_base_layout();
    Router::from(SwaggerUi::new("/docs").url("/openapi.json", document).config(config))
        .merge(style::routes("/docs"))
        .layer(map_response(async |mut response: Response| {
            name_charset(response.headers_mut());
            response
        }))
}

/// Its files are embedded as UTF-8, and text must say so (ASVS V4.1.1).
fn name_charset(headers: &mut HeaderMap) {
    let plain = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if let Some(kind) = plain.filter(|kind| kind.starts_with("text/") && !kind.contains("charset"))
        && let Ok(named) = format!("{kind}; charset=utf-8").parse()
    {
        headers.insert(CONTENT_TYPE, named);
    }
}

fn front_page() -> OpenApi {
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("The Bitcoin Game")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Shares of home miners come in; badges, levels, streaks, ranks and games come out.",
        ))
        .license(Some(license))
        .build();
    let mut error_parts = Vec::new();
    ErrorBody::schemas(&mut error_parts);
    let components = ComponentsBuilder::new()
        .security_scheme(
            "bearer",
            SecurityScheme::Http(
                HttpBuilder::new()
                    .scheme(HttpAuthScheme::Bearer)
                    .bearer_format("JWT")
                    .description(Some("The `access_token` of a sign-in"))
                    .build(),
            ),
        )
        .security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key"))))
        .schemas_from_iter(error_parts)
        .schema("ErrorBody", ErrorBody::schema())
        .responses_from_iter(error_responses())
        .build();
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}
