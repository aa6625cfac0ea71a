//! The routes that machines ask: `/health`, `/ready`, `/version`, `/metrics`.
//!
//! Both probes read one shared answer: at most [`MAX_AGE`] old, and while a check runs all callers
//! wait for that one. A thousand probes cost one round trip to each dependency per second.
//!
//! Invariant: an answer is right at most 2 s after a change. So age counts from the start of a
//! check: one that ran into [`CHECK_DEADLINE`] is used by those who waited for it and by nobody
//! after. Contract: `auth-users.md` section 1.7, `production.md` section 9.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::Serialize;
use sqlx::PgPool;
use tbg_core::db::DatabaseProbe;
use tbg_core::redis::Redis;
use tokio::sync::OnceCell;
use utoipa::ToSchema;

use crate::state::Probes;

/// With the age of an answer, the two seconds after a change within which a probe is right (`production.md` §9).
const CHECK_DEADLINE: Duration = Duration::from_secs(1);
const MAX_AGE: Duration = Duration::from_secs(1);

/// Answer of a probe.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProbeReport {
    #[schema(value_type = String)]
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<DependencyReport>,
}

/// State of each dependency in one word.
#[derive(Serialize, ToSchema)]
pub(crate) struct DependencyReport {
    #[schema(value_type = String)]
    database: &'static str,
    #[schema(value_type = String)]
    redis: &'static str,
}

/// Which program answers.
#[derive(Serialize, ToSchema)]
pub(crate) struct VersionReport {
    #[schema(value_type = String)]
    version: &'static str,
    #[schema(value_type = String)]
    environment: &'static str,
}

/// Whether the service works: database and Redis answer.
#[utoipa::path(
    get,
    path = "/health",
    tag = "infrastructure",
    responses(
        (status = 200, description = "Database and Redis answer", body = ProbeReport),
        (status = 503, description = "At least one does not", body = ProbeReport),
    )
)]
pub(crate) async fn health(State(probes): State<Probes>) -> (StatusCode, Json<ProbeReport>) {
    let health = probes.health.read(&probes.parts.pool, &probes.parts.redis).await;
    let report = ProbeReport {
        status: if health.is_good() { "healthy" } else { "degraded" },
        checks: (!health.is_good()).then(|| health.in_words("healthy", "unhealthy")),
    };
    (health.status(), Json(report))
}

/// Whether traffic should be sent here.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "infrastructure",
    responses(
        (status = 200, description = "Ready for traffic", body = ProbeReport),
        (status = 503, description = "Not ready", body = ProbeReport),
    )
)]
pub(crate) async fn ready(State(probes): State<Probes>) -> (StatusCode, Json<ProbeReport>) {
    let health = probes.health.read(&probes.parts.pool, &probes.parts.redis).await;
    let report = ProbeReport {
        status: if health.is_good() { "ready" } else { "degraded" },
        checks: Some(health.in_words("ok", "error")),
    };
    (health.status(), Json(report))
}

/// Version and environment of the program.
#[utoipa::path(
    get,
    path = "/version",
    tag = "infrastructure",
    responses(
        (status = 200, description = "Version and environment", body = VersionReport),
    )
)]
pub(crate) async fn version(State(probes): State<Probes>) -> Json<VersionReport> {
    Json(VersionReport { version: probes.parts.version, environment: probes.parts.environment })
}

/// All metrics in the Prometheus text format; not in the OpenAPI document.
pub(crate) async fn metrics(State(probes): State<Probes>) -> impl IntoResponse {
    let headers = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (headers, probes.parts.metrics.render())
}

/// Whether each dependency answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Health {
    database: bool,
    redis: bool,
}

impl Health {
    fn is_good(self) -> bool {
        self.database && self.redis
    }

    fn status(self) -> StatusCode {
        if self.is_good() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }

    fn in_words(self, good: &'static str, bad: &'static str) -> DependencyReport {
        DependencyReport {
            database: if self.database { good } else { bad },
            redis: if self.redis { good } else { bad },
        }
    }
}

impl Probes {
    /// Whether the database answered at the last check, at most a second ago.
    pub(crate) async fn database_answers(&self) -> bool {
        self.health.read(&self.parts.pool, &self.parts.redis).await.database
    }
}

/// The last check, or the one that runs now.
#[derive(Default)]
pub(crate) struct HealthCache {
    latest: Mutex<Option<Flight>>,
    database: tokio::sync::Mutex<DatabaseProbe>,
}

/// One check; the cell is empty while it runs.
struct Flight {
    started: Instant,
    outcome: Arc<OnceCell<Health>>,
}

impl HealthCache {
    async fn read(&self, pool: &PgPool, redis: &Redis) -> Health {
        let outcome = self.join(Instant::now());
        // The first caller checks, the others wait. If it goes away, the next one checks instead.
        *outcome.get_or_init(|| self.check(pool, redis)).await
    }

    /// The check that a caller at `now` shares: the running one, the fresh one, or a new one.
    fn join(&self, now: Instant) -> Arc<OnceCell<Health>> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = latest.as_ref() {
            let is_fresh = now.saturating_duration_since(flight.started) <= MAX_AGE;
            if is_fresh || !flight.outcome.initialized() {
                return Arc::clone(&flight.outcome);
            }
        }
        let outcome = Arc::default();
        *latest = Some(Flight { started: now, outcome: Arc::clone(&outcome) });
        outcome
    }

    async fn check(&self, pool: &PgPool, redis: &Redis) -> Health {
        let database = async {
            self.database.lock().await.ask(&pool.connect_options()).await?;
            Ok(())
        };
        let (database, redis) =
            tokio::join!(answers("database", database), answers("redis", ping_redis(redis.clone())));
        Health { database, redis }
    }
}

/// Whether `check` succeeds in time; if not, the log says why and the client does not.
async fn answers(dependency: &'static str, check: impl Future<Output = anyhow::Result<()>>) -> bool {
    let outcome = tokio::time::timeout(CHECK_DEADLINE, check).await;
    let error = match outcome {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => error,
        Err(elapsed) => elapsed.into(),
    };
    let error = format!("{error:#}");
    tracing::warn!(dependency, error, "health check failed");
    false
}

async fn ping_redis(mut redis: Redis) -> anyhow::Result<()> {
    redis::cmd("PING").query_async::<()>(&mut redis).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Health = Health { database: true, redis: true };

    #[test]
    fn callers_share_the_check_that_runs() {
        let cache = HealthCache::default();
        let now = Instant::now();

        let first = cache.join(now);
        let much_later = cache.join(now + 10 * MAX_AGE);

        assert!(Arc::ptr_eq(&first, &much_later));
    }

    #[test]
    fn an_answer_is_used_for_one_second_from_the_start_of_its_check() -> anyhow::Result<()> {
        let cache = HealthCache::default();
        let now = Instant::now();
        let first = cache.join(now);
        first.set(GOOD)?;

        let fresh = cache.join(now + MAX_AGE);
        let stale = cache.join(now + MAX_AGE + Duration::from_millis(1));

        assert!(Arc::ptr_eq(&first, &fresh));
        assert!(!Arc::ptr_eq(&first, &stale));
        Ok(())
    }
}
