//! What production refuses to start with (contract `production.md` §2.1 A05, §3.6, §20 item 15).

use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use super::{ConfigError, LogFormat, MailProvider, Settings};

/// The longest time for which an access token may be worth something to a thief (contract `auth-users.md` §14).
const MAX_ACCESS_TTL_SECONDS: u32 = 3600;

impl Settings {
    /// Refuses what is for development only.
    pub(super) fn check_production(&self) -> Result<(), ConfigError> {
        match self.wrong_limit().or_else(|| self.broken_rule()) {
            Some((name, expected)) => Err(ConfigError::UnsafeInProduction { name, expected }),
            None => Ok(()),
        }
    }

    /// A limit that is not the contract's: its setting, and what it must be.
    fn wrong_limit(&self) -> Option<(&'static str, &'static str)> {
        let limits = [
            ("rate_limit_unauth_per_min", self.rate_limit_unauth_per_min, 30, "30"),
            ("rate_limit_user_per_min", self.rate_limit_user_per_min, 120, "120"),
            ("rate_limit_api_key_per_min", self.rate_limit_api_key_per_min, 600, "600"),
            ("rate_limit_ws_per_min", self.rate_limit_ws_per_min, 60, "60"),
            ("rate_limit_auth_per_min", self.rate_limit_auth_per_min, 5, "5"),
        ];
        let wrong = limits.into_iter().find(|(_, is, must, _)| is != must);
        wrong.map(|(name, _, _, expected)| (name, expected))
    }

    /// A value that production cannot be run with: its setting, and what is expected.
    fn broken_rule(&self) -> Option<(&'static str, &'static str)> {
        let is_https = |url: &str| url.starts_with("https://");
        // Who trusts the whole Internet lets every client choose its own address.
        let trusts_everybody = self.trusted_proxies.0.iter().any(|network| network.prefix_len() == 0);
        let rules = [
            ("loadtest_auth", !self.loadtest_auth, "false"),
            ("email_provider", self.email_provider != MailProvider::Log, "smtp, resend or ses"),
            ("email_capture_dir", self.email_capture_dir.is_none(), "nothing"),
            ("smtp_use_tls", self.smtp_use_tls, "true"),
            ("frontend_base_url", is_https(&self.frontend_base_url), "an https:// URL"),
            ("public_base_url", self.public_base_url.as_deref().is_none_or(is_https), "an https:// URL"),
            ("trusted_proxies", !trusts_everybody, "the proxies' own networks, none of them a /0"),
            (
                "jwt_access_ttl_seconds",
                self.jwt_access_ttl_seconds <= MAX_ACCESS_TTL_SECONDS,
                "at most 3600 seconds",
            ),
            ("log_filter", !logs_details(&self.log_filter), "a filter of error, warn, info and off alone"),
            ("log_format", self.log_format != LogFormat::Text, "json or auto"),
            ("metrics_enabled", self.metrics_enabled, "true"),
            (
                "lottery_salt_key",
                !is_development_key(self.lottery_salt_key.expose()),
                "a key of its own: `openssl rand -hex 32` makes one",
            ),
        ];
        let broken = rules.into_iter().find(|(_, holds, _)| !holds);
        broken.map(|(name, _, expected)| (name, expected))
    }
}

/// Whether anything below info gets through: details quote what people send. What is no filter is left to whoever
/// starts the log, who says so.
fn logs_details(filter: &str) -> bool {
    let finest = EnvFilter::try_new(filter).ok().and_then(|filter| filter.max_level_hint());
    finest.is_some_and(|level| level > LevelFilter::INFO)
}

/// Whether this is the key of zeros with which development goes without one: everybody knows it.
fn is_development_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|digit| digit == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What production says to its defaults with a mail server and one other value.
    fn check(name: &'static str, value: &str) -> Result<(), ConfigError> {
        let texts = [("email_provider", "smtp".to_owned()), (name, value.to_owned())];
        Settings::from_texts(&texts).unwrap().check_production()
    }

    #[test]
    fn what_is_for_development_is_named_and_not_quoted() {
        for (name, value) in [
            ("rate_limit_unauth_per_min", "31"),
            ("loadtest_auth", "true"),
            ("email_provider", "log"),
            ("email_capture_dir", "/tmp/mail"),
            ("smtp_use_tls", "false"),
            ("frontend_base_url", "http://thebitcoingame.com"),
            ("public_base_url", "http://api.thebitcoingame.com"),
            ("public_base_url", "api.thebitcoingame.com"),
            ("trusted_proxies", "0.0.0.0/0"),
            ("trusted_proxies", "10.0.0.0/8,::/0"),
            ("jwt_access_ttl_seconds", "3601"),
            ("log_filter", "debug"),
            ("log_filter", "TRACE"),
            ("log_filter", "5"),
            ("log_filter", "info,tbg_engine=debug"),
            ("log_filter", "tbg_web=trace,warn"),
            // A module without a level lets all of it through.
            ("log_filter", "warn,tbg_engine"),
            ("log_filter", "warn,[job]=debug"),
            ("log_format", "text"),
            ("metrics_enabled", "false"),
            ("lottery_salt_key", "0".repeat(64).as_str()),
        ] {
            let error = check(name, value).expect_err(name).to_string();
            let variable = format!("TBG_{}", name.to_uppercase());
            assert!(error.contains(&variable) && !error.contains(value), "{error}");
        }
    }

    #[test]
    fn what_is_safe_is_accepted() {
        for (name, value) in [
            ("public_base_url", ""),
            ("public_base_url", "https://api.thebitcoingame.com"),
            ("trusted_proxies", ""),
            ("trusted_proxies", "10.0.0.0/8,fd00::/8,203.0.113.7"),
            ("jwt_access_ttl_seconds", "3600"),
            ("jwt_access_ttl_seconds", "900"),
            ("log_filter", "info"),
            ("log_filter", "warn,tbg_engine=info,sqlx=off"),
            ("log_format", "json"),
            ("log_format", "auto"),
            ("lottery_salt_key", ""),
            ("lottery_salt_key", "5a".repeat(32).as_str()),
        ] {
            assert!(check(name, value).is_ok(), "{name}={value}");
        }
    }
}
