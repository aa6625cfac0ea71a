//! The routes of no domain (contract `auth-users.md` section 1.7, `production.md` section 9).

use axum::body::Body;
use axum::http::Request;
use axum::routing::get as on_get;
use flate2::read::GzDecoder;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;
use tbg_web::Routes;
use tbg_web::auth::Class;

use crate::{Setup, get, send, service};

#[tokio::test]
async fn health_names_what_is_away() -> anyhow::Result<()> {
    let answer = get(&service(Routes::new())?, "/health").await?;
    assert_eq!(answer.status, 503);
    let checks = json!({"database": "unhealthy", "redis": "unhealthy"});
    assert_eq!(answer.json()?, json!({"status": "degraded", "checks": checks}));
    Ok(())
}

#[tokio::test]
async fn ready_names_what_is_away_in_its_own_words() -> anyhow::Result<()> {
    let answer = get(&service(Routes::new())?, "/ready").await?;
    assert_eq!(answer.status, 503);
    let checks = json!({"database": "error", "redis": "error"});
    assert_eq!(answer.json()?, json!({"status": "degraded", "checks": checks}));
    Ok(())
}

#[tokio::test]
async fn version_names_program_and_deployment() -> anyhow::Result<()> {
    let answer = get(&service(Routes::new())?, "/version").await?;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()?, json!({"version": "1.2.3", "environment": "test"}));
    Ok(())
}

#[tokio::test]
async fn requests_are_counted_by_template_and_strange_ones_add_no_series() -> anyhow::Result<()> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let socket = Routes::new().hidden(Class::None, "/ws", on_get(|| async { "a socket" }));
    let service = tbg_web::router(Setup::default().state(recorder.handle())?, socket);
    let _installed = metrics::set_default_local_recorder(&recorder);

    for number in 0..50 {
        get(&service, &format!("/random/{number}")).await?;
    }
    for method in ["BREW", "SIP"] {
        let request = Request::builder().method(method).uri("/version");
        send(&service, request.body(Body::empty())?).await?;
    }
    get(&service, "/version").await?;
    get(&service, "/health").await?;
    assert_eq!(get(&service, "/ws").await?.status, 200);

    let answer = get(&service, "/metrics").await?;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = str::from_utf8(&answer.body)?;
    let mut counts: Vec<_> = text.lines().filter(|line| line.starts_with("http_requests_total{")).collect();
    counts.sort_unstable();
    assert_eq!(
        counts,
        [
            r#"http_requests_total{method="GET",handler="/version",status="2xx"} 1"#,
            r#"http_requests_total{method="GET",handler="none",status="4xx"} 50"#,
            r#"http_requests_total{method="other",handler="/version",status="4xx"} 2"#,
        ]
    );
    assert!(!text.contains(r#"handler="/ws""#), "{text}");
    Ok(())
}

#[tokio::test]
async fn the_errors_of_every_documented_route_are_there_before_the_first() -> anyhow::Result<()> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let state = Setup::default().state(recorder.handle())?;
    let _service = metrics::with_local_recorder(&recorder, || tbg_web::router(state, Routes::new()));

    let text = recorder.handle().render();
    let mut counts: Vec<_> = text.lines().filter(|line| line.starts_with("http_request")).collect();
    counts.sort_unstable();
    assert_eq!(
        counts,
        [
            r#"http_requests_total{method="GET",handler="/.well-known/jwks.json",status="5xx"} 0"#,
            r#"http_requests_total{method="GET",handler="/version",status="5xx"} 0"#,
        ]
    );
    Ok(())
}

#[tokio::test]
async fn the_document_is_served_as_generated() -> anyhow::Result<()> {
    let answer = get(&service(Routes::new())?, "/openapi.json").await?;
    let document = answer.json()?;
    assert_eq!(document, serde_json::to_value(tbg_web::openapi_with(Routes::new()))?);
    assert_eq!(document["info"]["title"], "The Bitcoin Game");
    assert_eq!(document["info"]["license"]["identifier"], "Apache-2.0");
    for route in ["/health", "/ready", "/version"] {
        assert!(document["paths"][route]["get"].is_object(), "{route}");
    }
    assert!(document["paths"]["/metrics"].is_null());
    assert!(document["components"]["schemas"]["ErrorBody"].is_object());
    Ok(())
}

#[tokio::test]
async fn the_documentation_page_needs_no_other_host() -> anyhow::Result<()> {
    let service = service(Routes::new())?;
    let moved = get(&service, "/docs").await?;
    assert_eq!(moved.header("location"), "/docs/");

    let page = get(&service, "/docs/").await?;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert_eq!(page.header("content-encoding"), "gzip");
    let html = std::io::read_to_string(GzDecoder::new(&*page.body))?;
    assert!(html.contains("<script"));
    assert!(!html.contains("http://") && !html.contains("https://"));

    let settings = get(&service, "/docs/swagger-initializer.js").await?;
    let settings = str::from_utf8(&settings.body)?;
    assert!(settings.contains("/openapi.json"));
    assert!(!settings.contains("http://") && !settings.contains("https://"));
    Ok(())
}

#[tokio::test]
async fn documentation_is_served_only_where_enabled() -> anyhow::Result<()> {
    let service = Setup { docs_enabled: false, ..Setup::default() }.service(Routes::new())?;

    for path in ["/docs", "/docs/", "/openapi.json"] {
        assert_eq!(get(&service, path).await?.status, 404, "{path}");
    }
    Ok(())
}
