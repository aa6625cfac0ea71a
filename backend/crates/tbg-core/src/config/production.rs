//! What production refuses to start with (contract `production.md` §2.1 A05, §3.6, §20 item 15).

use super::{ConfigError, MailProvider, Settings};

impl Settings {
    /// Refuses what is for development only.
    pub(super) fn check_production(&self) -> Result<(), ConfigError> {
        let limits = [
            ("rate_limit_unauth_per_min", self.rate_limit_unauth_per_min, 30, "30"),
            ("rate_limit_user_per_min", self.rate_limit_user_per_min, 120, "120"),
            ("rate_limit_api_key_per_min", self.rate_limit_api_key_per_min, 600, "600"),
            ("rate_limit_ws_per_min", self.rate_limit_ws_per_min, 60, "60"),
            ("rate_limit_auth_per_min", self.rate_limit_auth_per_min, 5, "5"),
        ];
        let rules = [
            ("loadtest_auth", !self.loadtest_auth, "false"),
            ("email_provider", self.email_provider != MailProvider::Log, "smtp"),
            ("email_capture_dir", self.email_capture_dir.is_none(), "nothing"),
            ("smtp_use_tls", self.smtp_use_tls, "true"),
            ("frontend_base_url", self.frontend_base_url.starts_with("https://"), "an https:// URL"),
        ];
        let wrong_limit = limits
            .into_iter()
            .find(|(_, is, must, _)| is != must)
            .map(|(name, _, _, expected)| (name, expected));
        let broken_rule =
            rules.into_iter().find(|(_, holds, _)| !holds).map(|(name, _, expected)| (name, expected));
        match wrong_limit.or(broken_rule) {
            Some((name, expected)) => Err(ConfigError::UnsafeInProduction { name, expected }),
            None => Ok(()),
        }
    }
}
