//! Every setting of the program, in one list.
//!
//! A setting `http_listen` is read, in rising order of strength, from the file named by
//! `TBG_CONFIG` (TOML, `http_listen = "…"`), the environment (`TBG_HTTP_LISTEN`), and a secret file:
//! the one that `TBG_HTTP_LISTEN_FILE` names, else `/run/secrets/http_listen` if it exists.
//! A bad value stops the start with the name of the setting and what was expected, never the value.

mod production;
mod sources;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Format as _, Serialized, Toml};
use figment::value::Value;

pub use self::sources::Sources;
pub use self::value::{Environment, IngestMode, LogFormat, MailProvider, Networks, Secret, SettingValue};
use tbg_bitcoin::Network;

/// Defines the struct, its defaults and its documentation from one list.
macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr;)+) => {
        /// The settings of a process, parsed and checked.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $name: $type,)+
        }

        impl Settings {
            /// Every setting: its name and what it is for.
            pub const DOCS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($name), concat!($($doc, "\n"),+))),+];

            /// The settings that production takes from files only.
            const SECRETS: &'static [&'static str] = &[$(
                if <$type as SettingValue>::IS_SECRET { stringify!($name) } else { "" }
            ),+];

            fn parse(texts: &BTreeMap<&'static str, String>) -> Result<Self, ConfigError> {
                Ok(Self { $($name: match texts.get(stringify!($name)) {
                    Some(text) => <$type>::parse(text)
                        .map_err(|expected| ConfigError::invalid(stringify!($name), expected))?,
                    None => $default,
                },)+ })
            }

            fn shown(&self) -> Vec<(&'static str, String)> {
                vec![$((stringify!($name), self.$name.show())),+]
            }
        }
    };
}

settings! {
    /// development, test, staging or production. Production reads secrets from files only.
    environment: Environment = Environment::Development;
    /// PostgreSQL, as a postgres:// URL. A secret.
    database_url: Secret = Secret::default();
    /// Connections that each process keeps open to PostgreSQL.
    db_min_connections: u32 = 5;
    /// Most connections that each process opens to PostgreSQL.
    db_max_connections: u32 = 20;
    /// Redis, as a redis:// or unix:// URL. A secret.
    redis_url: Secret = Secret::default();
    /// Address and port of the HTTP API.
    http_listen: SocketAddr = SocketAddr::from(([0, 0, 0, 0], 8000));
    /// Whether /docs and /openapi.json are served; by default everywhere but in production.
    docs_enabled: Option<bool> = None;
    /// Seconds that a stopping process gives running requests and batches.
    shutdown_drain_seconds: u64 = 30;
    /// text (not in production), json or auto (json in production).
    log_format: LogFormat = LogFormat::Auto;
    /// Whether numbers are kept for /metrics; off only to find out what keeping them costs, and never in production.
    metrics_enabled: bool = true;
    /// Collector of traces (OTLP over HTTP), such as http://collector:4318. None: no traces.
    otlp_endpoint: Option<String> = None;
    /// Of a hundred requests, batches and jobs, how many are traced.
    otlp_sample_percent: u32 = 10;
    /// What is logged, as in RUST_LOG: a level, or module=level pairs. Production: nothing below info.
    log_filter: String = "info".to_owned();
    /// mainnet, testnet, signet or regtest.
    btc_network: Network = Network::Mainnet;
    /// embedded (own socket receiver), streams (an external collector fills them) or off.
    ingest_mode: IngestMode = IngestMode::Embedded;
    /// Whether ingest writes mining_events and shares; by default in embedded mode only.
    ingest_persist_raw: Option<bool> = None;
    /// Events read from each stream at once; a backlog is taken several reads a transaction.
    ingest_batch_size: usize = 500;
    /// Longest time in milliseconds that a batch waits for more events; an idle stream flushes at once.
    ingest_flush_ms: u64 = 1000;
    /// Unix datagram socket into which the pool writes its events.
    event_socket_path: PathBuf = PathBuf::from("/tmp/ckpool/events.sock");
    /// Name of this consumer in the group; by default host-pid.
    consumer_name: Option<String> = None;
    /// Entries that each stream keeps, about.
    redis_stream_maxlen: usize = 100_000;
    /// Folder of the spool that takes events while Redis is away.
    spool_dir: PathBuf = PathBuf::from("/var/spool/tbg");
    /// Bytes that the spool may take; beyond, the oldest events are dropped and counted.
    spool_max_bytes: u64 = 256 * 1024 * 1024;
    /// Domain that wallets are asked to sign in to; part of the signed text.
    auth_domain: String = "thebitcoingame.com".to_owned();
    /// RSA key that signs tokens, PEM (PKCS #8). A secret: `tbg keys new` makes one.
    jwt_private_key: Secret = Secret::default();
    /// Folder of public RSA keys (*.pem) that are still accepted after a rotation.
    jwt_verify_keys_dir: Option<PathBuf> = None;
    /// Issuer of tokens.
    jwt_issuer: String = "thebitcoingame.com".to_owned();
    /// Audience of tokens.
    jwt_audience: String = "api.thebitcoingame.com".to_owned();
    /// Seconds that an access token is valid.
    jwt_access_ttl_seconds: u32 = 3600;
    /// Seconds that a refresh token is valid.
    jwt_refresh_ttl_seconds: u32 = 604_800;
    /// Seconds after which a session ends, however often it was refreshed.
    session_max_seconds: u32 = 2_592_000;
    /// Seconds that a wallet has to sign a challenge.
    challenge_ttl_seconds: u32 = 300;
    /// Failed passwords that lock an e-mail.
    lockout_threshold: u32 = 10;
    /// Seconds of the window of failures, and of the lock.
    lockout_seconds: u32 = 900;
    /// Whether /auth/connect accepts the load test's pair; needs a build with `loadtest-auth`, never in production.
    loadtest_auth: bool = false;
    /// Proxies whose X-Forwarded-For is believed: networks such as 10.0.0.0/8, separated by commas.
    trusted_proxies: Networks = Networks::default();
    /// The API's own origin, such as https://api.thebitcoingame.com: always allowed to call.
    public_base_url: Option<String> = None;
    /// Requests a minute of an anonymous client. Production: 30.
    rate_limit_unauth_per_min: u32 = 30;
    /// Requests a minute of a signed-in user. Production: 120.
    rate_limit_user_per_min: u32 = 120;
    /// Requests a minute of an API key. Production: 600.
    rate_limit_api_key_per_min: u32 = 600;
    /// Messages a minute of a WebSocket. Production: 60.
    rate_limit_ws_per_min: u32 = 60;
    /// Requests a minute of a client to /api/v1/auth. Production: 5.
    rate_limit_auth_per_min: u32 = 5;
    /// Sockets that each replica takes.
    ws_max_connections: usize = 10_000;
    /// Sockets that a user may have, over all replicas.
    ws_max_connections_per_user: usize = 5;
    /// Sockets that a user may open a minute.
    ws_connects_per_min: u32 = 5;
    /// Seconds between pings on a socket.
    ws_heartbeat_interval: u64 = 30;
    /// Seconds of silence after which a socket is closed.
    ws_heartbeat_timeout: u64 = 60;
    /// Whether an application ping is sent beside the protocol's.
    ws_app_ping: bool = false;
    /// Whether a refused socket is opened and closed with a code instead of answered with a status.
    ws_reject_with_close_code: bool = false;
    /// Seconds that statistics may be old; 0 computes them for each request.
    dashboard_cache_ttl_seconds: u64 = 10;
    /// 64 hex digits behind the salts of the lottery. A secret; never change it within a week.
    lottery_salt_key: Secret = Secret::default();
    /// Seconds from the end of a week until its lottery may be frozen.
    lottery_freeze_grace_seconds: u32 = 600;
    /// Seconds from the freeze until the draw.
    lottery_reveal_delay_seconds: u32 = 300;
    /// Seconds that a freeze waits for shares that are still on their way.
    lottery_watermark_wait_seconds: u32 = 3600;
    /// Seconds without a share after which a worker is offline.
    worker_timeout_seconds: u32 = 600;
    /// Seconds between hashrate snapshots; the charts expect 300.
    hashrate_snapshot_interval_seconds: u32 = 300;
    /// Public rows that the feed keeps.
    activity_feed_max_items: u32 = 10_000;
    /// Where miners connect, as shown to them.
    stratum_public_url: String = "stratum+tcp://mine.thebitcoingame.com:3333".to_owned();
    /// smtp, resend, ses, or log (not in production).
    email_provider: MailProvider = MailProvider::Log;
    /// Sender of mail.
    email_from_address: String = "noreply@thebitcoingame.com".to_owned();
    /// Name of the sender.
    email_from_name: String = "The Bitcoin Game".to_owned();
    /// Where people get help.
    support_email: String = "support@thebitcoingame.com".to_owned();
    /// Mails an hour to one recipient.
    email_rate_limit_per_hour: u32 = 5;
    /// Hours that a verification link is valid.
    email_verification_ttl_hours: u32 = 24;
    /// Minutes that a link to set a new password is valid.
    password_reset_ttl_minutes: u32 = 60;
    /// Folder in which the backup service leaves the time of its last success, for the metrics.
    backup_status_dir: Option<PathBuf> = None;
    /// Folder into which the log sender also writes each mail, for tests.
    email_capture_dir: Option<PathBuf> = None;
    /// The dashboard, for links in mail.
    frontend_base_url: String = "https://thebitcoingame.com".to_owned();
    /// Mail server.
    smtp_host: String = "localhost".to_owned();
    /// Its port.
    smtp_port: u16 = 587;
    /// Account on the mail server.
    smtp_username: Option<String> = None;
    /// Its password. A secret.
    smtp_password: Secret = Secret::default();
    /// Whether the connection to the mail server must be encrypted (STARTTLS).
    smtp_use_tls: bool = true;
    /// Key of the API at Resend. A secret.
    resend_api_key: Secret = Secret::default();
    /// Region of Amazon SES, such as eu-central-1.
    ses_region: String = String::new();
    /// Access key at Amazon SES. A secret.
    ses_access_key: Secret = Secret::default();
    /// Its secret key. A secret.
    ses_secret_key: Secret = Secret::default();
}

/// Why the settings cannot be used. Never contains a value.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value does not parse.
    #[error("setting TBG_{name} is not valid: expected {expected}", name = .name.to_uppercase())]
    Invalid {
        /// Setting name, lower case.
        name: String,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// The configuration file holds a key that is no setting.
    #[error("the configuration file names an unknown setting `{0}`: see `tbg config`")]
    Unknown(String),
    /// A file cannot be read.
    #[error("setting TBG_{name}: cannot read its file: {kind}", name = .name.to_uppercase())]
    File {
        /// Setting name, lower case.
        name: String,
        /// The kind of failure.
        kind: std::io::ErrorKind,
    },
    /// A variable of ours is not a text.
    #[error("the environment variable {0} is not UTF-8 text: set it anew, or remove it")]
    NotText(String),
    /// The configuration file is not TOML.
    #[error("the configuration file (TBG_CONFIG) cannot be read as TOML")]
    Toml,
    /// Production takes secrets from files only.
    #[error("production reads secrets from files only: give TBG_{name}_FILE, not TBG_{name}", name = .0.to_uppercase())]
    SecretInEnvironment(String),
    /// The value is for development only, or the deployment would be unsafe without another.
    #[error("production does not start with this setting TBG_{name}: expected {expected}", name = .name.to_uppercase())]
    UnsafeInProduction {
        /// Setting name, lower case.
        name: &'static str,
        /// What production needs.
        expected: &'static str,
    },
}

impl ConfigError {
    fn invalid(name: &str, expected: &'static str) -> Self {
        Self::Invalid { name: name.to_owned(), expected }
    }
}

/// Settings together with where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    origins: BTreeMap<&'static str, String>,
}

/// One line of `tbg config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `TBG_…`
    pub name: String,
    /// The value, or a placeholder for a secret.
    pub value: String,
    /// `default`, `file`, `environment`, or the path of a secret file.
    pub origin: String,
    /// What the setting is for.
    pub doc: &'static str,
}

impl Loaded {
    /// Reads the settings from `sources`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn from_sources(sources: &Sources) -> Result<Self, ConfigError> {
        let mut origins = BTreeMap::new();
        let mut texts = BTreeMap::new();
        let file = read_file(sources.environment.get("TBG_CONFIG"))?;
        for (name, _) in Settings::DOCS {
            let env_name = variable(name);
            if let Some(text) = file.get(*name) {
                texts.insert(*name, text.clone());
                origins.insert(*name, "file".to_owned());
            }
            if let Some(text) = sources.environment.get(&env_name) {
                texts.insert(*name, text.clone());
                origins.insert(*name, "environment".to_owned());
            }
            let named = sources.environment.get(&format!("{env_name}_FILE")).map(PathBuf::from);
            let mounted =
                || sources.secrets_dir.as_ref().map(|dir| dir.join(name)).filter(|path| path.is_file());
            if let Some(path) = named.or_else(mounted) {
                texts.insert(*name, read_secret(name, &path)?);
                origins.insert(*name, path.display().to_string());
            }
        }
        let settings = Settings::parse(&texts)?;
        if settings.environment == Environment::Production {
            // Also where a secret file is stronger: whoever reads the environment reads the secret.
            let is_exposed = |name: &str| {
                let given = [file.get(name), sources.environment.get(&variable(name))];
                given.into_iter().flatten().any(|text| !text.is_empty())
            };
            let secrets = Settings::SECRETS.iter().copied();
            if let Some(name) = secrets.filter(|name| !name.is_empty()).find(|name| is_exposed(name)) {
                return Err(ConfigError::SecretInEnvironment(name.to_owned()));
            }
            settings.check_production()?;
        }
        Ok(Self { settings, origins })
    }

    /// The files from which secrets were read.
    pub fn secret_files(&self) -> impl Iterator<Item = PathBuf> {
        let secrets = Settings::SECRETS.iter().filter_map(|name| self.origins.get(name));
        secrets
            .filter(|origin| !["default", "file", "environment"].contains(&origin.as_str()))
            .map(PathBuf::from)
    }

    /// Every setting with its value and origin, secrets hidden.
    #[must_use]
    pub fn shown(&self) -> Vec<Shown> {
        self.settings
            .shown()
            .into_iter()
            .zip(Settings::DOCS)
            .map(|((name, value), (_, doc))| Shown {
                name: variable(name),
                value,
                origin: self.origins.get(name).cloned().unwrap_or_else(|| "default".to_owned()),
                doc: doc.trim(),
            })
            .collect()
    }
}

impl Settings {
    /// Settings made of defaults and the given texts, for `tbg dev` and tests.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn from_texts(texts: &[(&'static str, String)]) -> Result<Self, ConfigError> {
        Self::parse(&texts.iter().cloned().collect())
    }

    /// Whether the ingest writes raw rows (contract `mining.md` §3.1).
    #[must_use]
    pub fn persists_raw(&self) -> bool {
        self.ingest_persist_raw.unwrap_or(self.ingest_mode == IngestMode::Embedded)
    }

    /// Whether `/docs` is served.
    #[must_use]
    pub fn serves_docs(&self) -> bool {
        self.docs_enabled.unwrap_or(self.environment != Environment::Production)
    }
}

/// The environment variable of a setting.
fn variable(name: &str) -> String {
    format!("TBG_{}", name.to_uppercase())
}

fn read_file(path: Option<&String>) -> Result<BTreeMap<String, String>, ConfigError> {
    let Some(path) = path else { return Ok(BTreeMap::new()) };
    if !Path::new(path).is_file() {
        return Err(ConfigError::File { name: "config".to_owned(), kind: std::io::ErrorKind::NotFound });
    }
    let values: BTreeMap<String, Value> =
        Figment::from(Serialized::defaults(BTreeMap::<String, Value>::new()))
            .merge(Toml::file_exact(path))
            .extract()
            .map_err(|_| ConfigError::Toml)?;
    let mut texts = BTreeMap::new();
    for (name, value) in values {
        if !Settings::DOCS.iter().any(|(known, _)| *known == name) {
            return Err(ConfigError::Unknown(name));
        }
        let text = scalar_text(&value)
            .ok_or_else(|| ConfigError::invalid(&name, "a text, a number or true/false"))?;
        texts.insert(name, text);
    }
    Ok(texts)
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Bool(_, flag) => Some(flag.to_string()),
        Value::Num(_, number) => number
            .to_i128()
            .map(|n| n.to_string())
            .or_else(|| number.to_u128().map(|n| n.to_string()))
            .or_else(|| number.to_f64().map(|n| n.to_string())),
        _ => None,
    }
}

fn read_secret(name: &str, path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
        .map_err(|error| ConfigError::File { name: name.to_owned(), kind: error.kind() })
}

#[cfg(test)]
mod tests;
