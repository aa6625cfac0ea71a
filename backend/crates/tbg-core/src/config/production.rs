//! What production refuses to start with (contract `production.md` §2.1 A05, §3.6, §20 item 15).

use super::{ConfigError, MailProvider, Settings};

/// The longest time for which an access token may be worth something to a thief (contract `auth-users.md` §14).
const MAX_ACCESS_TTL_SECONDS: u32 = 3600;

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
        let is_https = |url: &str| url.starts_with("https://");
        // Who trusts the whole Internet lets every client choose its own address.
        let trusts_everybody = self.trusted_proxies.0.iter().any(|network| network.prefix_len() == 0);
        let rules = [
            ("loadtest_auth", !self.loadtest_auth, "false"),
            ("email_provider", self.email_provider != MailProvider::Log, "smtp"),
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
        ] {
            assert!(check(name, value).is_ok(), "{name}={value}");
        }
    }
}
