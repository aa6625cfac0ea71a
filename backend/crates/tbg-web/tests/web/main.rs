//! The edge without its dependencies: Postgres and Redis are addresses where nobody listens, and
//! requests go straight into the router.

#![expect(clippy::expect_used, reason = "a test fails loudly")]

mod errors;
mod extract;
mod front_door;
mod infrastructure;
mod request_id;
mod serve;

use std::sync::{Arc, LazyLock};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use chrono::{DateTime, Utc};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tbg_core::MockClock;
use tbg_core::config::Environment;
use tbg_core::random::SeededEntropy;
use tbg_core::redis::Redis;
use tbg_web::auth::{Authenticator, AuthenticatorParts, Keys};
use tbg_web::limit::{Limiter, Limits};
use tbg_web::{Origins, ProbeParts, Routes, WebParts, WebState};
use tower::ServiceExt;

/// A private key, PKCS #8 in PEM.
fn private_key() -> String {
    let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let der: Pkcs8V1Der<'_> = pair.as_der().expect("its DER");
    pem::encode(&pem::Pem::new("PRIVATE KEY", der.as_ref()))
}

/// The key that signs tokens in these tests.
static SIGNING_KEY: LazyLock<String> = LazyLock::new(private_key);

fn keys() -> anyhow::Result<Keys> {
    Keys::new(&SIGNING_KEY, &[], "thebitcoingame.com", "api.thebitcoingame.com")
}

/// The time in these tests.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_773_585_000, 0).expect("an instant")
}

/// Limits that no test reaches by accident.
const GENEROUS: Limits =
    Limits { unauth: 10_000, user: 10_000, api_key: 10_000, websocket: 10_000, auth_endpoint: 10_000 };

/// What a test may choose; database and Redis are away.
struct Setup {
    limits: Limits,
    environment: Environment,
    docs_enabled: bool,
    trusted_proxies: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Self { limits: GENEROUS, environment: Environment::Test, docs_enabled: true, trusted_proxies: "" }
    }
}

impl Setup {
    fn state(&self, metrics: PrometheusHandle) -> anyhow::Result<WebState> {
        let nowhere = PgConnectOptions::new_without_pgpass().socket("/nonexistent/tbg-web");
        let pool = PgPoolOptions::new().connect_lazy_with(nowhere);
        let client = redis::Client::open("redis://127.0.0.1:1/")?;
        let no_retries = ConnectionManagerConfig::new().set_number_of_retries(0);
        let redis = Redis::from(ConnectionManager::new_lazy_with_config(client, no_retries)?);
        let clock = Arc::new(MockClock::at(now()));
        let limiter = Limiter::new(redis.clone(), clock.clone(), Arc::new(SeededEntropy::new(1)));
        let authenticator = Authenticator::new(AuthenticatorParts {
            keys: keys()?,
            pool: pool.clone(),
            redis: redis.clone(),
            clock,
            limiter: limiter.clone(),
        });
        let proxies = self.trusted_proxies.split(',').filter_map(|network| network.parse().ok());
        Ok(WebState::new(WebParts {
            probes: ProbeParts { pool, redis, metrics, version: "1.2.3", environment: "test" },
            docs_enabled: self.docs_enabled,
            authenticator: Arc::new(authenticator),
            limiter,
            limits: self.limits,
            origins: Origins::of(self.environment, Some("https://api.example".to_owned())),
            trusted_proxies: proxies.collect(),
        }))
    }

    fn service(&self, domains: Routes) -> anyhow::Result<Router> {
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        Ok(tbg_web::router(self.state(metrics)?, domains))
    }
}

/// The service with the routes of `domains`.
fn service(domains: Routes) -> anyhow::Result<Router> {
    Setup::default().service(domains)
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
