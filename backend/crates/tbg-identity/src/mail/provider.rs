//! Where the mail server of each provider is, and who one is there. Resend and Amazon SES take mail by SMTP too, so there
//! is one way out for all three.

use anyhow::ensure;
use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::transport::smtp::authentication::Credentials;

use super::{MailConfig, MailProvider};

/// The port on which STARTTLS comes first (RFC 6409).
const SUBMISSION_PORT: u16 = 587;

/// A mail server.
#[derive(Debug, PartialEq)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether the connection must be encrypted.
    pub(super) tls: bool,
    pub(super) credentials: Option<Credentials>,
}

impl Server {
    /// The server of the provider that the settings name; `None` where mail goes into the log.
    ///
    /// # Errors
    /// When a setting is missing or unsafe. The message names it without its value.
    pub(super) fn of(config: &MailConfig) -> anyhow::Result<Option<Self>> {
        match config.provider {
            MailProvider::Log => Ok(None),
            MailProvider::Smtp => own(config).map(Some),
            MailProvider::Resend => resend(config).map(Some),
            MailProvider::Ses => ses(config).map(Some),
        }
    }

    fn encrypted(host: String, username: &str, password: &str) -> Self {
        let credentials = Some(Credentials::new(username.to_owned(), password.to_owned()));
        Self { host, port: SUBMISSION_PORT, tls: true, credentials }
    }
}

fn own(config: &MailConfig) -> anyhow::Result<Server> {
    ensure!(!config.smtp_host.is_empty(), "TBG_SMTP_HOST is not set: the smtp provider needs it");
    let credentials = config
        .smtp_username
        .as_ref()
        .map(|username| Credentials::new(username.clone(), config.smtp_password.expose().to_owned()));
    ensure!(
        !config.production || config.smtp_tls || credentials.is_none(),
        "TBG_SMTP_USE_TLS=false would send TBG_SMTP_PASSWORD in clear text"
    );
    Ok(Server { host: config.smtp_host.clone(), port: config.smtp_port, tls: config.smtp_tls, credentials })
}

/// The key of the API is the password of everybody's one account (Resend, "Send with SMTP").
fn resend(config: &MailConfig) -> anyhow::Result<Server> {
    let key = config.resend_api_key.expose();
    ensure!(!key.is_empty(), "TBG_RESEND_API_KEY_FILE is not set: the resend provider needs it");
    Ok(Server::encrypted("smtp.resend.com".to_owned(), "resend", key))
}

fn ses(config: &MailConfig) -> anyhow::Result<Server> {
    let region = config.ses_region.as_str();
    ensure!(!region.is_empty(), "TBG_SES_REGION is not set: the ses provider needs it");
    ensure!(
        region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
        "TBG_SES_REGION is no region such as eu-central-1"
    );
    let (access, secret) = (config.ses_access_key.expose(), config.ses_secret_key.expose());
    ensure!(!access.is_empty(), "TBG_SES_ACCESS_KEY_FILE is not set: the ses provider needs it");
    ensure!(!secret.is_empty(), "TBG_SES_SECRET_KEY_FILE is not set: the ses provider needs it");
    Ok(Server::encrypted(format!("email-smtp.{region}.amazonaws.com"), access, &ses_password(secret, region)))
}

/// The password for SMTP that belongs to a secret key in a region (Amazon SES, "Obtaining SMTP credentials by converting
/// existing AWS credentials"): a chain of HMACs over fixed words, with the version of the way before it.
fn ses_password(secret: &str, region: &str) -> String {
    const VERSION: u8 = 0x04;
    let words = ["11111111", region, "ses", "aws4_request", "SendRawEmail"];
    let signature = words.iter().fold(format!("AWS4{secret}").into_bytes(), |key, word| {
        hmac::sign(&Key::new(HMAC_SHA256, &key), word.as_bytes()).as_ref().to_vec()
    });
    STANDARD.encode([&[VERSION], signature.as_slice()].concat())
}

#[cfg(test)]
mod tests {
    use tbg_core::config::Secret;

    use super::super::sender::tests::config;
    use super::*;

    fn secret(text: &str) -> Secret {
        <Secret as tbg_core::config::SettingValue>::parse(text).unwrap()
    }

    #[test]
    fn resend_takes_its_key_as_the_password() {
        let config = MailConfig {
            provider: MailProvider::Resend,
            resend_api_key: secret("re_123"),
            smtp_host: "elsewhere.test".to_owned(),
            ..config()
        };
        let expected = Server {
            host: "smtp.resend.com".to_owned(),
            port: 587,
            tls: true,
            credentials: Some(Credentials::new("resend".to_owned(), "re_123".to_owned())),
        };
        assert_eq!(Server::of(&config).unwrap(), Some(expected));
    }

    #[test]
    fn ses_has_a_host_and_a_password_for_each_region() {
        let config = |region: &str| MailConfig {
            provider: MailProvider::Ses,
            ses_region: region.to_owned(),
            ses_access_key: secret("AKIAIOSFODNN7EXAMPLE"),
            ses_secret_key: secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            ..config()
        };
        // Both passwords are of another program, on the key that the provider's documents give as an example.
        for (region, password) in [
            ("us-east-1", "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9"),
            ("eu-central-1", "BF0/eIJm0ruTHsSjOkRuOGzGF+zeSyE3aiRzrzUQ8LwG"),
        ] {
            let credentials = Credentials::new("AKIAIOSFODNN7EXAMPLE".to_owned(), password.to_owned());
            let expected = Server {
                host: format!("email-smtp.{region}.amazonaws.com"),
                port: 587,
                tls: true,
                credentials: Some(credentials),
            };
            assert_eq!(Server::of(&config(region)).unwrap(), Some(expected));
        }
    }

    #[test]
    fn what_a_provider_needs_is_asked_for_by_name() {
        let refused = |config: MailConfig| Server::of(&config).unwrap_err().to_string();
        let resend = MailConfig { provider: MailProvider::Resend, ..config() };
        assert!(refused(resend).contains("TBG_RESEND_API_KEY"));
        let ses = MailConfig { provider: MailProvider::Ses, ..config() };
        assert!(refused(ses.clone()).contains("TBG_SES_REGION is not set"));
        let elsewhere = MailConfig { ses_region: "evil.test/".to_owned(), ..ses.clone() };
        assert!(refused(elsewhere).contains("TBG_SES_REGION is no region"));
        let ses = MailConfig { ses_region: "eu-central-1".to_owned(), ..ses };
        assert!(refused(ses.clone()).contains("TBG_SES_ACCESS_KEY"));
        let ses = MailConfig { ses_access_key: secret("AKIA"), ..ses };
        assert!(refused(ses).contains("TBG_SES_SECRET_KEY"));
    }
}
