//! The API of a deployment: the domains' routes on what they stand on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use aws_lc_rs::rsa::KeySize;
use axum::Router;
use chrono::TimeDelta;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::Value;
use sqlx::PgPool;
use tbg_core::config::{Environment, Settings};
use tbg_core::live::LiveBus;
use tbg_core::random::{Entropy, SystemEntropy};
use tbg_core::redis::{Connections, Redis};
use tbg_core::{Clock, UserId};
use tbg_games::{Games, Ranking};
use tbg_gamification::Game;
use tbg_identity::mail::{MailConfig, Mailer};
use tbg_identity::{Hasher, Identity, IdentityConfig};
use tbg_mining::{Mining, MiningApiConfig};
use tbg_operations::Operations;
use tbg_realtime::{Feeds, Realtime, RealtimeConfig};
use tbg_web::auth::{Authenticator, AuthenticatorParts, Keys};
use tbg_web::limit::{Limiter, Limits};
use tbg_web::{Origins, ProbeParts, WebParts, WebState};

use super::{VERSION, lottery};
use crate::commands::keys::new_private_key;

/// The API, ready to be served.
pub struct Api {
    /// All routes with all layers.
    pub router: Router,
    /// Knows who was seen.
    pub authenticator: Arc<Authenticator>,
    /// Its sockets.
    pub realtime: Realtime,
}

/// What sockets ask of other domains.
struct SocketFeeds {
    mining: Mining,
    pool: PgPool,
    clock: Arc<dyn Clock>,
}

#[async_trait::async_trait]
impl Feeds for SocketFeeds {
    async fn dashboard_stats(&self, user: UserId) -> anyhow::Result<Value> {
        self.mining.dashboard_stats_json(user).await
    }

    async fn mark_read(&self, user: UserId, notification: i64) -> anyhow::Result<bool> {
        Ok(tbg_social::mark_read(&self.pool, user, notification, self.clock.now()).await?)
    }

    async fn address_of(&self, user: UserId) -> anyhow::Result<Option<String>> {
        Ok(tbg_core::users::address_of(&self.pool, user).await?)
    }
}

impl Api {
    /// Wires the domains; connects to nothing yet.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(
        settings: &Settings,
        pool: &PgPool,
        connections: Connections,
        metrics: &PrometheusHandle,
        clock: &Arc<dyn Clock>,
        bus: &LiveBus,
    ) -> anyhow::Result<Self> {
        let connection = &connections.serving;
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        tbg_web::limit::register_metrics();
        // Limiter, probes and rankings have deadlines of their own; everybody else serves requests.
        let limiter = Limiter::new(connection.clone(), Arc::clone(clock), Arc::clone(&entropy));
        let redis = connection.hurried();
        let authenticator = Arc::new(Authenticator::new(AuthenticatorParts {
            keys: token_keys(settings)?,
            pool: pool.clone(),
            redis: redis.clone(),
            clock: Arc::clone(clock),
            limiter: limiter.clone(),
        }));
        let identity = Identity::new(tbg_identity::Parts {
            pool: pool.clone(),
            redis: redis.clone(),
            clock: Arc::clone(clock),
            entropy,
            auth: Arc::clone(&authenticator),
            hasher: Hasher::new(std::thread::available_parallelism().map_or(1, Into::into))?,
            config: identity_config(settings)?,
        });
        let operations = Operations::new(tbg_operations::Parts {
            pool: pool.clone(),
            redis: redis.clone(),
            clock: Arc::clone(clock),
            version: VERSION,
            environment: settings.environment.as_str(),
            caches: tbg_operations::CacheRegistry::default(),
        });
        let mining = Mining::new(tbg_mining::Parts {
            pool: pool.clone(),
            redis: redis.clone(),
            clock: Arc::clone(clock),
            bus: bus.clone(),
            config: MiningApiConfig {
                network: settings.btc_network,
                cache_ttl: Duration::from_secs(settings.dashboard_cache_ttl_seconds),
                stratum_public_url: settings.stratum_public_url.clone(),
            },
        });
        let game = Game::new(tbg_gamification::Parts {
            pool: pool.clone(),
            redis: redis.clone(),
            clock: Arc::clone(clock),
            caches: true,
        });
        let games = Games::new(tbg_games::Parts {
            pool: pool.clone(),
            clock: Arc::clone(clock),
            ranking: Ranking::new(connection.clone()),
            config: lottery::config(settings),
            unknown_network_difficulty: unknown_difficulty(settings.btc_network),
        });
        let cached = (mining.clone(), game.clone());
        let realtime = Realtime::new(tbg_realtime::Parts {
            auth: Arc::clone(&authenticator),
            limiter: limiter.clone(),
            redis: connections.client().clone(),
            manager: redis,
            bus: bus.clone(),
            origins: origins(settings),
            feeds: Arc::new(SocketFeeds {
                mining: mining.clone(),
                pool: pool.clone(),
                clock: Arc::clone(clock),
            }),
            config: realtime_config(settings),
            on_cache_cleared: Arc::new(move || {
                cached.0.clear_cache();
                cached.1.clear_cache();
            }),
        });
        let routes = identity.routes().merge(operations.routes()).merge(mining.routes());
        let routes = routes.merge(game.routes()).merge(games.routes()).merge(realtime.routes());
        let state =
            web_state(settings, pool, connection.clone(), metrics, limiter, Arc::clone(&authenticator));
        Ok(Self { router: tbg_web::router(state, routes), authenticator, realtime })
    }
}

/// What the probes of a process stand on.
pub fn probe_parts(
    settings: &Settings,
    pool: &PgPool,
    redis: Redis,
    metrics: &PrometheusHandle,
) -> ProbeParts {
    ProbeParts {
        pool: pool.clone(),
        redis,
        metrics: metrics.clone(),
        version: VERSION,
        environment: settings.environment.as_str(),
    }
}

fn web_state(
    settings: &Settings,
    pool: &PgPool,
    redis: Redis,
    metrics: &PrometheusHandle,
    limiter: Limiter,
    authenticator: Arc<Authenticator>,
) -> WebState {
    WebState::new(WebParts {
        probes: probe_parts(settings, pool, redis, metrics),
        docs_enabled: settings.serves_docs(),
        authenticator,
        limiter,
        limits: Limits {
            unauth: settings.rate_limit_unauth_per_min,
            user: settings.rate_limit_user_per_min,
            api_key: settings.rate_limit_api_key_per_min,
            websocket: settings.rate_limit_ws_per_min,
            auth_endpoint: settings.rate_limit_auth_per_min,
        },
        origins: origins(settings),
        trusted_proxies: settings.trusted_proxies.0.clone().into(),
    })
}

fn origins(settings: &Settings) -> Origins {
    Origins::of(settings.environment, settings.public_base_url.clone())
}

fn realtime_config(settings: &Settings) -> RealtimeConfig {
    RealtimeConfig {
        max_connections: settings.ws_max_connections,
        max_per_user: settings.ws_max_connections_per_user,
        connects_per_min: settings.ws_connects_per_min,
        messages_per_min: settings.rate_limit_ws_per_min,
        heartbeat_interval: Duration::from_secs(settings.ws_heartbeat_interval),
        heartbeat_timeout: Duration::from_secs(settings.ws_heartbeat_timeout),
        app_ping: settings.ws_app_ping,
        reject_with_close_code: settings.ws_reject_with_close_code,
    }
}

/// What stands for the network's difficulty while nobody has heard it (contract `games.md` §2.2).
fn unknown_difficulty(network: tbg_bitcoin::Network) -> f64 {
    if network == tbg_bitcoin::Network::Mainnet { 1e14 } else { 1.0 }
}

/// The keys of tokens. Development and tests may go without one: then tokens end with the process.
///
/// # Errors
/// When one is missing or is none.
pub fn token_keys(settings: &Settings) -> anyhow::Result<Keys> {
    let private = settings.jwt_private_key.expose();
    let made;
    let private = match (private.is_empty(), settings.environment) {
        (false, _) => private,
        (true, Environment::Development | Environment::Test) => {
            tracing::warn!("TBG_JWT_PRIVATE_KEY is not set: tokens of this process end with it");
            made = new_private_key(KeySize::Rsa2048)?;
            made.as_str()
        }
        (true, _) => bail!("TBG_JWT_PRIVATE_KEY_FILE is not set: make a key with `tbg keys new`"),
    };
    let public = settings.jwt_verify_keys_dir.as_deref().map(public_keys).transpose()?.unwrap_or_default();
    Keys::new(private, &public, &settings.jwt_issuer, &settings.jwt_audience)
}

/// The `*.pem` files of a folder.
fn public_keys(dir: &Path) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).context("TBG_JWT_VERIFY_KEYS_DIR cannot be read")?;
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pem"));
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read_to_string(path).context("a file of TBG_JWT_VERIFY_KEYS_DIR cannot be read"))
        .collect()
}

fn identity_config(settings: &Settings) -> anyhow::Result<IdentityConfig> {
    let may_load_test = matches!(settings.environment, Environment::Development | Environment::Test);
    if settings.loadtest_auth && !(may_load_test && cfg!(feature = "loadtest-auth")) {
        bail!(
            "TBG_LOADTEST_AUTH needs a build with the feature loadtest-auth, and TBG_ENVIRONMENT=development or test"
        );
    }
    if settings.loadtest_auth {
        tracing::warn!("TBG_LOADTEST_AUTH is on: users of the load test sign in without a signature");
    }
    Ok(IdentityConfig {
        network: settings.btc_network,
        auth_domain: settings.auth_domain.clone(),
        challenge_ttl_seconds: settings.challenge_ttl_seconds.into(),
        lockout_threshold: settings
            .lockout_threshold
            .try_into()
            .context("TBG_LOCKOUT_THRESHOLD is too large")?,
        lockout_seconds: settings.lockout_seconds.into(),
        access_ttl_seconds: settings.jwt_access_ttl_seconds.into(),
        refresh_ttl_seconds: settings.jwt_refresh_ttl_seconds.into(),
        session_max_seconds: settings.session_max_seconds.into(),
        verification_ttl_hours: settings.email_verification_ttl_hours.into(),
        reset_ttl_minutes: settings.password_reset_ttl_minutes.into(),
        frontend_base_url: settings.frontend_base_url.clone(),
        loadtest: settings.loadtest_auth,
    })
}

/// The worker that sends mail.
///
/// # Errors
/// When a setting cannot be used.
pub fn mailer(
    settings: &Settings,
    pool: &PgPool,
    redis: Redis,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Mailer> {
    let config = MailConfig {
        provider: settings.email_provider,
        from_address: settings.email_from_address.clone(),
        from_name: settings.email_from_name.clone(),
        support_email: settings.support_email.clone(),
        frontend_base_url: settings.frontend_base_url.clone(),
        smtp_host: settings.smtp_host.clone(),
        smtp_port: settings.smtp_port,
        smtp_username: settings.smtp_username.clone(),
        smtp_password: settings.smtp_password.clone(),
        smtp_tls: settings.smtp_use_tls,
        resend_api_key: settings.resend_api_key.clone(),
        ses_region: settings.ses_region.clone(),
        ses_access_key: settings.ses_access_key.clone(),
        ses_secret_key: settings.ses_secret_key.clone(),
        capture_dir: settings.email_capture_dir.clone(),
        rate_per_hour: settings.email_rate_limit_per_hour,
        verification_ttl: TimeDelta::hours(settings.email_verification_ttl_hours.into()),
        reset_ttl: TimeDelta::minutes(settings.password_reset_ttl_minutes.into()),
        production: settings.environment == Environment::Production,
    };
    Mailer::new(pool.clone(), redis, Arc::clone(clock), Arc::new(SystemEntropy), config)
}
