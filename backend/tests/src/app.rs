//! The API in this process: the domains' routes and all layers on a real database and a real Redis, with a
//! clock that the test moves. Requests go straight into the router.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use chrono::{DateTime, Utc};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::Value;
use tbg_bitcoin::Network;
use tbg_core::config::Environment;
use tbg_core::consumer::{Consumer, Handle};
use tbg_core::jobs::Job;
use tbg_core::live::LiveBus;
use tbg_core::random::{Entropy, SystemEntropy};
use tbg_core::{Clock, MockClock, UserId};
use tbg_engine::decode::decode_text;
use tbg_engine::push::Publisher;
use tbg_engine::{AfterCommit as _, Engine};
use tbg_games::rules::lottery::SaltKey;
use tbg_games::{Cycle, CycleConfig, LiveRanking, Ranking};
use tbg_identity::{Hasher, Identity, IdentityConfig};
use tbg_mining::live::{LiveCommit, LiveStore};
use tbg_mining::{Mining, MiningApiConfig};
use tbg_operations::{CacheRegistry, Operations};
use tbg_realtime::{Feeds, Realtime, RealtimeConfig};
use tbg_web::auth::{Authenticator, AuthenticatorParts, Claims, Keys, TokenKind};
use tbg_web::limit::{Limiter, Limits};
use tbg_web::{AuthMethod, Origins, ProbeParts, WebParts, WebState};
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::{TestDb, TestRedis};

/// The issuer of tokens in tests.
pub const ISSUER: &str = "thebitcoingame.com";
/// The audience of tokens in tests.
pub const AUDIENCE: &str = "api.thebitcoingame.com";

/// The key that signs tokens in tests, PKCS #8 in PEM.
pub static SIGNING_KEY: LazyLock<String> = LazyLock::new(new_key);

/// A new RSA key, PKCS #8 in PEM.
#[must_use]
pub fn new_key() -> String {
    let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let der: Pkcs8V1Der<'_> = pair.as_der().expect("its DER");
    pem::encode(&pem::Pem::new("PRIVATE KEY", der.as_ref()))
}

/// The keys of tokens in tests.
#[must_use]
pub fn keys() -> Keys {
    Keys::new(&SIGNING_KEY, &[], ISSUER, AUDIENCE).expect("keys")
}

/// Limits that no test reaches by accident.
pub const GENEROUS: Limits =
    Limits { unauth: 100_000, user: 100_000, api_key: 100_000, websocket: 100_000, auth_endpoint: 100_000 };

/// When draws are due: as in production.
const LOTTERY: CycleConfig = CycleConfig {
    freeze_grace: chrono::TimeDelta::seconds(600),
    reveal_delay: chrono::TimeDelta::seconds(300),
    watermark_wait: chrono::TimeDelta::seconds(3600),
};

/// The API of a test.
pub struct App {
    /// Its database.
    pub db: TestDb,
    /// Its Redis.
    pub redis: TestRedis,
    /// Its time.
    pub clock: MockClock,
    /// Its service.
    pub router: Router,
    /// Its authenticator.
    pub auth: Arc<Authenticator>,
    /// Publishes live events.
    pub bus: LiveBus,
    /// Live state of workers.
    pub live: LiveStore,
    engine: Arc<Engine>,
}

/// One wiring of the domains on a database and a Redis.
pub(crate) struct Wired {
    pub router: Router,
    pub auth: Arc<Authenticator>,
    pub bus: LiveBus,
    pub realtime: Realtime,
}

/// What one wiring differs in from another.
struct Wiring {
    network: Network,
    limits: Limits,
    keys: Keys,
    realtime: RealtimeConfig,
}

impl Default for Wiring {
    fn default() -> Self {
        Self { network: Network::Mainnet, limits: GENEROUS, keys: keys(), realtime: realtime_config() }
    }
}

/// Sockets as in production, but a test may open as many a minute as it likes.
#[must_use]
pub fn realtime_config() -> RealtimeConfig {
    RealtimeConfig {
        max_connections: 10_000,
        max_per_user: 5,
        connects_per_min: 100_000,
        messages_per_min: 60,
        heartbeat_interval: std::time::Duration::from_secs(30),
        heartbeat_timeout: std::time::Duration::from_secs(60),
        app_ping: false,
        reject_with_close_code: false,
    }
}

/// What sockets ask of other domains, as the program answers it.
struct TestFeeds {
    mining: Mining,
    pool: sqlx::PgPool,
    clock: Arc<dyn Clock>,
}

#[async_trait::async_trait]
impl Feeds for TestFeeds {
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

impl App {
    /// An API at the present time, with generous limits, on mainnet.
    pub async fn new() -> Self {
        Self::at(crate::now()).await
    }

    /// The same at another time.
    pub async fn at(now: DateTime<Utc>) -> Self {
        Self::with(now, Network::Mainnet, GENEROUS).await
    }

    /// The same with everything chosen.
    pub async fn with(now: DateTime<Utc>, network: Network, limits: Limits) -> Self {
        let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
        Self::on(db, redis, now, network, limits)
    }

    /// The same on a database and a Redis that are there.
    #[must_use]
    pub fn on(db: TestDb, redis: TestRedis, now: DateTime<Utc>, network: Network, limits: Limits) -> Self {
        let clock = MockClock::at(now);
        let wiring = Wiring { network, limits, ..Wiring::default() };
        let Wired { router, auth, bus, .. } = Self::build(&db, &redis, &clock, wiring);
        let live = LiveStore::new(redis.manager());
        let engine = Arc::new(crate::engine());
        Self { db, redis, clock, router, auth, bus, live, engine }
    }

    /// Another replica on the same database and Redis, with `keys`.
    pub fn replica(&self, keys: Keys) -> Router {
        self.wired(Wiring { keys, ..Wiring::default() }).router
    }

    /// Another replica with other limits.
    pub fn limited_replica(&self, limits: Limits) -> Router {
        self.wired(Wiring { limits, ..Wiring::default() }).router
    }

    /// Another replica with sockets as `realtime` says.
    pub(crate) fn wire(&self, realtime: RealtimeConfig) -> Wired {
        self.wired(Wiring { realtime, ..Wiring::default() })
    }

    fn wired(&self, wiring: Wiring) -> Wired {
        Self::build(&self.db, &self.redis, &self.clock, wiring)
    }

    fn build(db: &TestDb, redis: &TestRedis, clock: &MockClock, wiring: Wiring) -> Wired {
        let Wiring { network, limits, keys, realtime } = wiring;
        let manager = redis.manager();
        let bus = LiveBus::new(redis.manager());
        let clock: Arc<dyn Clock> = Arc::new(clock.clone());
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let limiter = Limiter::new(manager.clone(), Arc::clone(&clock), Arc::clone(&entropy))
            .with_deadline(std::time::Duration::from_secs(5));
        let auth = Arc::new(Authenticator::new(AuthenticatorParts {
            keys,
            pool: db.pool.clone(),
            redis: manager.clone(),
            clock: Arc::clone(&clock),
            limiter: limiter.clone(),
        }));
        let identity = Identity::new(tbg_identity::Parts {
            pool: db.pool.clone(),
            redis: manager.clone(),
            clock: Arc::clone(&clock),
            entropy,
            auth: Arc::clone(&auth),
            hasher: Hasher::new(2).expect("hasher"),
            config: identity_config(network),
        });
        let operations = Operations::new(tbg_operations::Parts {
            pool: db.pool.clone(),
            redis: manager.clone(),
            clock: Arc::clone(&clock),
            version: "1.2.3",
            environment: "test",
            caches: CacheRegistry::default(),
        });
        let mining = Mining::new(tbg_mining::Parts {
            pool: db.pool.clone(),
            redis: manager.clone(),
            clock: Arc::clone(&clock),
            bus: bus.clone(),
            config: MiningApiConfig {
                network,
                cache_ttl: std::time::Duration::ZERO,
                stratum_public_url: "stratum+tcp://mine.thebitcoingame.com:3333".to_owned(),
            },
        });
        let game = tbg_gamification::Game::new(tbg_gamification::Parts {
            pool: db.pool.clone(),
            redis: manager.clone(),
            clock: Arc::clone(&clock),
            caches: false,
        });
        let games = tbg_games::Games::new(tbg_games::Parts {
            pool: db.pool.clone(),
            clock: Arc::clone(&clock),
            ranking: Ranking::new(manager.clone()),
            config: LOTTERY,
            unknown_network_difficulty: 1e14,
        });
        let origins = Origins::of(Environment::Test, None);
        let realtime = Realtime::new(tbg_realtime::Parts {
            auth: Arc::clone(&auth),
            limiter: limiter.clone(),
            redis: redis.client(),
            manager: manager.clone(),
            bus: bus.clone(),
            origins: origins.clone(),
            feeds: Arc::new(TestFeeds {
                mining: mining.clone(),
                pool: db.pool.clone(),
                clock: Arc::clone(&clock),
            }),
            config: realtime,
            on_cache_cleared: Arc::new(|| {}),
        });
        let state = WebState::new(WebParts {
            probes: ProbeParts {
                pool: db.pool.clone(),
                redis: manager,
                metrics: PrometheusBuilder::new().build_recorder().handle(),
                version: "1.2.3",
                environment: "test",
            },
            docs_enabled: true,
            authenticator: Arc::clone(&auth),
            limiter,
            limits,
            origins,
            // Requests of a test have no peer: it may choose one in X-Forwarded-For.
            trusted_proxies: "0.0.0.0/32".parse().into_iter().collect(),
        });
        let routes = identity.routes().merge(operations.routes()).merge(mining.routes());
        let routes = routes.merge(game.routes()).merge(games.routes()).merge(realtime.routes());
        Wired { router: tbg_web::router(state, routes), auth, bus, realtime }
    }

    /// Applies envelopes as one batch at the app's time, as the writer does: rows, live state, pushes.
    pub async fn feed(&self, lines: &[String]) {
        let now = self.clock.now();
        let events: Vec<_> = lines.iter().map(|line| decode_text(line).expect(line)).collect();
        let mut conn = self.db.connect().await;
        let mut outcome = self.engine.apply(&mut conn, events, &[], now).await.expect("the batch is applied");
        let commit = LiveCommit::new(self.live.clone(), self.db.pool.clone());
        let live = commit.committed(&outcome.batch, now).await;
        outcome.pushes.extend(live);
        LiveRanking::new(Ranking::new(self.redis.manager())).committed(&outcome.batch, now).await;
        Publisher::default().publish(&mut self.redis.manager(), outcome.pushes, now).await;
    }

    /// The lottery's cycle, with the key of the contract's examples.
    #[must_use]
    pub fn cycle(&self) -> Cycle {
        let mut key = [0; 32];
        (0..32).zip(&mut key).for_each(|(number, byte)| *byte = number);
        Cycle { pool: self.db.pool.clone(), bus: self.bus.clone(), key: SaltKey::new(key), config: LOTTERY }
    }

    /// Drains the outbox consumers.
    pub async fn consume(&self) {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let handlers: [Arc<dyn Handle>; 4] = [
            Arc::new(tbg_games::GamesEvents::new()),
            Arc::new(tbg_mining::MiningEvents::new()),
            Arc::new(tbg_gamification::GameEvents::new()),
            Arc::new(tbg_social::SocialEvents::new()),
        ];
        for handler in handlers {
            let mut consumer =
                Consumer::new(self.db.pool.clone(), Arc::clone(&clock), self.bus.clone(), handler);
            consumer.drain().await.expect("the outbox is drained");
        }
    }

    /// The jobs of all domains.
    ///
    /// # Panics
    /// If one has no schedule that can be read.
    #[must_use]
    pub fn jobs(&self) -> Vec<Job> {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let mut jobs = tbg_mining::jobs::jobs(&tbg_mining::jobs::JobParts {
            pool: self.db.pool.clone(),
            clock: Arc::clone(&clock),
            live: self.live.clone(),
            bus: self.bus.clone(),
            config: tbg_mining::jobs::JobConfig {
                worker_timeout_seconds: 600,
                snapshot_interval_seconds: 300,
                feed_max_items: 10_000,
            },
        })
        .expect("jobs");
        let ranking = Ranking::new(self.redis.manager());
        jobs.extend(tbg_games::jobs(&self.cycle(), &ranking, &clock).expect("jobs"));
        let parts = tbg_gamification::JobParts {
            pool: self.db.pool.clone(),
            clock: Arc::clone(&clock),
            bus: self.bus.clone(),
            redis: self.redis.manager(),
        };
        jobs.extend(tbg_gamification::jobs(&parts).expect("jobs"));
        jobs.extend(tbg_social::jobs(&self.db.pool, &clock).expect("jobs"));
        jobs
    }

    /// Runs one job at the app's time.
    ///
    /// # Panics
    /// If there is no such job, or if it fails.
    pub async fn run_job(&self, name: &str) {
        let jobs = self.jobs();
        let job = jobs.iter().find(|job| job.name() == name).unwrap_or_else(|| panic!("no job {name}"));
        job.run(self.clock.now()).await.expect(name);
    }

    /// `GET path`, signed in if there is a token.
    pub async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.ask("GET", path, token, None).await
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, token: Option<&str>, body: Value) -> Answer {
        self.ask("POST", path, token, Some(body)).await
    }

    /// Any method; `token` is an access token, or an API key if it starts with `tbg_`.
    pub async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> Answer {
        send(&self.router, request(method, path, token, body)).await
    }

    /// An access token for `user` as a session of its own would have it, at the app's time.
    #[must_use]
    pub fn token(&self, user: i64) -> String {
        sign(&claims(user, self.clock.now()))
    }
}

/// How identity works in tests.
#[must_use]
pub fn identity_config(network: Network) -> IdentityConfig {
    IdentityConfig {
        network,
        auth_domain: "thebitcoingame.com".to_owned(),
        challenge_ttl_seconds: 300,
        lockout_threshold: 10,
        lockout_seconds: 900,
        access_ttl_seconds: 3600,
        refresh_ttl_seconds: 604_800,
        session_max_seconds: 2_592_000,
        verification_ttl_hours: 24,
        reset_ttl_minutes: 60,
        frontend_base_url: "https://thebitcoingame.com".to_owned(),
        loadtest: false,
    }
}

/// The claims of an access token of `user`, issued at `now`.
#[must_use]
pub fn claims(user: i64, now: DateTime<Utc>) -> Claims {
    Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: user.to_string(),
        address: None,
        auth_method: AuthMethod::Wallet,
        kind: TokenKind::Access,
        iat: now.timestamp(),
        exp: now.timestamp() + 3600,
        jti: Uuid::now_v7(),
        sid: Uuid::now_v7(),
        auth_time: now.timestamp(),
    }
}

/// A token of ours.
#[must_use]
pub fn sign(claims: &Claims) -> String {
    keys().sign(claims).expect("a token")
}

/// A request; `token` is an access token, or an API key if it starts with `tbg_`.
#[must_use]
pub fn request(method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    let request = match token {
        Some(key) if key.starts_with("tbg_") => request.header("x-api-key", key),
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    };
    // The dashboard sends the type on every call.
    let request = request.header("content-type", "application/json");
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    request.body(body).expect("a request")
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body; null if it is no JSON.
    pub json: Value,
    /// The body as text.
    pub text: String,
}

impl Answer {
    /// The `code` of an error, else an empty text.
    #[must_use]
    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    /// Status and code.
    #[must_use]
    pub fn outcome(&self) -> (u16, &str) {
        (self.status, self.code())
    }

    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The answer, if it is a success.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json
    }
}

/// Sends a request into a router.
pub async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.expect("a body");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    Answer { status: parts.status.as_u16(), headers: parts.headers, json, text }
}
