//! The edge without its dependencies: Postgres and Redis are addresses where nobody listens, and
//! requests go straight into the router.

mod errors;
mod infrastructure;
mod request_id;
mod serve;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tbg_web::WebState;
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;

/// A state whose database and Redis are away.
fn stranded_state(metrics: PrometheusHandle) -> anyhow::Result<WebState> {
    let nowhere = PgConnectOptions::new_without_pgpass().socket("/nonexistent/tbg-web");
    let pool = PgPoolOptions::new().connect_lazy_with(nowhere);
    let client = redis::Client::open("redis://127.0.0.1:1/")?;
    let no_retries = ConnectionManagerConfig::new().set_number_of_retries(0);
    let redis = ConnectionManager::new_lazy_with_config(client, no_retries)?;
    Ok(WebState::new(pool, redis, metrics, "1.2.3", "test", true))
}

/// The service with the routes of `domains`.
fn service(domains: OpenApiRouter<WebState>) -> anyhow::Result<Router> {
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    Ok(tbg_web::router(stranded_state(metrics)?, domains))
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

async fn send(service: &Router, request: Request<Body>) -> anyhow::Result<Answer> {
    let response = service.clone().oneshot(request).await?;
    let (parts, body) = response.into_parts();
    Ok(Answer { status: parts.status, headers: parts.headers, body: to_bytes(body, usize::MAX).await? })
}

async fn get(service: &Router, path: &str) -> anyhow::Result<Answer> {
    send(service, Request::get(path).body(Body::empty())?).await
}
