//! The OpenAPI document and its page.
//!
//! The document is generated from the routes themselves, so router and document cannot differ. The
//! page's scripts and styles are compiled in: nothing is loaded from another host, and the online
//! validator of Swagger UI is off. Contract: `production.md` section 9; design: section 4.

use utoipa::openapi::{InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::health;
use crate::state::WebState;

/// The documented infrastructure routes and those of the domains.
pub(crate) fn documented_routes(domains: OpenApiRouter<WebState>) -> OpenApiRouter<WebState> {
    OpenApiRouter::with_openapi(front_page())
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(health::version))
        .merge(domains)
}

/// `/docs` and `/openapi.json`.
pub(crate) fn page(document: OpenApi) -> SwaggerUi {
    SwaggerUi::new("/docs").url("/openapi.json", document).config(Config::default().validator_url("none"))
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
    OpenApiBuilder::new().info(info).build()
}
