//! The way out: a mail server, or the log of a developer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use uuid::Uuid;

use super::MailConfig;
use super::provider::Server;
use super::template::{Rendered, Template};

/// Longest time for one answer of the server.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Longest time for a mail; far below the lease of its row.
const SEND_LIMIT: Duration = Duration::from_secs(60);
/// The port on which TLS starts without being asked for (RFC 8314).
const IMPLICIT_TLS_PORT: u16 = 465;

/// A mail on its way.
pub(super) struct Outgoing<'a> {
    /// Row in `email_outbox`; the same for every attempt, so that a receiver can tell a repetition.
    pub(super) id: Uuid,
    /// Address of the recipient.
    pub(super) to: &'a str,
    /// What it is about.
    pub(super) template: Template,
    /// What it says.
    pub(super) mail: &'a Rendered,
    /// When it is sent.
    pub(super) at: DateTime<Utc>,
}

/// Why a mail could not be sent. Shown as `email_outbox.last_error`, so it repeats no word of the server:
/// servers quote addresses.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SendError {
    /// The address is not one that mail can be sent to.
    #[error("the recipient's address is not usable")]
    Recipient,
    /// The message could not be put together.
    #[error("the message cannot be built")]
    Message,
    /// It took too long.
    #[error("the mail server took too long")]
    TimedOut,
    /// The server said no.
    #[error("the mail server answered {0}")]
    Answered(String),
    /// There was no usable answer.
    #[error("{0}")]
    Failed(&'static str),
    /// The file of a captured mail could not be written.
    #[error("the mail cannot be captured: {0}")]
    Capture(io::ErrorKind),
}

impl SendError {
    /// Whether another attempt cannot help.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Recipient | Self::Message)
    }
}

impl From<lettre::transport::smtp::Error> for SendError {
    fn from(error: lettre::transport::smtp::Error) -> Self {
        if let Some(code) = error.status() {
            Self::Answered(code.to_string())
        } else if error.is_timeout() {
            Self::TimedOut
        } else if error.is_tls() {
            Self::Failed("the connection to the mail server cannot be encrypted")
        } else if error.is_response() {
            Self::Failed("the mail server's answer is not SMTP")
        } else if error.is_client() {
            Self::Failed("the mail server lacks what the settings ask for")
        } else {
            Self::Failed("the mail server cannot be reached")
        }
    }
}

/// Carries mail.
pub(super) enum Sender {
    /// Through an SMTP server.
    Smtp(Box<Smtp>),
    /// Into the log, and into a folder if one is named.
    Log(Option<PathBuf>),
}

impl Sender {
    /// The sender that the settings ask for; connects to nothing yet.
    ///
    /// # Errors
    /// When a setting is missing or unsafe. The message names it without its value.
    pub(super) fn new(config: &MailConfig) -> anyhow::Result<Self> {
        match Server::of(config)? {
            Some(server) => Ok(Self::Smtp(Box::new(Smtp::new(server, config)?))),
            None if config.production => {
                bail!("TBG_EMAIL_PROVIDER=log sends nothing: production needs smtp, resend or ses")
            }
            None => Ok(Self::Log(config.capture_dir.clone())),
        }
    }

    /// Sends one mail.
    pub(super) async fn send(&self, outgoing: &Outgoing<'_>) -> Result<(), SendError> {
        match self {
            Self::Smtp(smtp) => smtp.send(outgoing).await,
            Self::Log(capture_dir) => {
                let (template, mail) = (outgoing.template.as_str(), outgoing.mail);
                let link = mail.link.as_deref().unwrap_or("none");
                tracing::info!(template, subject = mail.subject, link, "mail is written here, not sent");
                match capture_dir {
                    Some(dir) => {
                        capture(dir, outgoing).await.map_err(|error| SendError::Capture(error.kind()))
                    }
                    None => Ok(()),
                }
            }
        }
    }
}

/// Writes the mail as a file that appears whole.
async fn capture(dir: &Path, outgoing: &Outgoing<'_>) -> io::Result<()> {
    let mail = outgoing.mail;
    let json = serde_json::json!({
        "to": outgoing.to,
        "template": outgoing.template.as_str(),
        "subject": mail.subject,
        "text": mail.text,
        "html": mail.html,
        "link": mail.link,
    });
    tokio::fs::create_dir_all(dir).await?;
    let unfinished = dir.join(format!(".{}", outgoing.id));
    tokio::fs::write(&unfinished, json.to_string()).await?;
    tokio::fs::rename(&unfinished, dir.join(format!("{}.json", outgoing.id))).await
}

/// An SMTP server. A connection per mail: there are few, and nothing can go stale.
pub(super) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Smtp {
    fn new(server: Server, config: &MailConfig) -> anyhow::Result<Self> {
        let address: Address = config
            .from_address
            .parse()
            .map_err(|_| anyhow::anyhow!("TBG_EMAIL_FROM_ADDRESS is not an e-mail address"))?;
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server.host.as_str())
            .port(server.port)
            .hello_name(ClientId::Domain(address.domain().to_owned()))
            .timeout(Some(ANSWER_LIMIT));
        if server.tls {
            let parameters =
                TlsParameters::new(server.host).context("TLS cannot be set up for the mail server")?;
            builder = builder.tls(match server.port {
                IMPLICIT_TLS_PORT => Tls::Wrapper(parameters),
                _ => Tls::Required(parameters),
            });
        }
        if let Some(credentials) = server.credentials {
            builder = builder.credentials(credentials);
        }
        let from = Mailbox::new(Some(config.from_name.clone()), address);
        Ok(Self { transport: builder.build(), from })
    }

    async fn send(&self, outgoing: &Outgoing<'_>) -> Result<(), SendError> {
        let message = self.message(outgoing)?;
        match tokio::time::timeout(SEND_LIMIT, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(SendError::TimedOut),
        }
    }

    fn message(&self, outgoing: &Outgoing<'_>) -> Result<Message, SendError> {
        let to: Address = outgoing.to.parse().map_err(|_| SendError::Recipient)?;
        let mail = outgoing.mail;
        Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(mail.subject.as_str())
            .date(SystemTime::from(outgoing.at))
            .message_id(Some(format!("<{}@{}>", outgoing.id, self.from.email.domain())))
            // Asks holiday responders to stay silent (RFC 3834).
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ))
            .multipart(MultiPart::alternative_plain_html(mail.text.clone(), mail.html.clone()))
            .map_err(|_| SendError::Message)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use chrono::TimeDelta;
    use tbg_core::config::{MailProvider, Secret};

    use super::*;

    /// Mail by a server of this machine.
    pub(in super::super) fn config() -> MailConfig {
        MailConfig {
            provider: MailProvider::Smtp,
            from_address: "noreply@game.test".to_owned(),
            from_name: "The Bitcoin Game".to_owned(),
            support_email: "support@game.test".to_owned(),
            frontend_base_url: "https://game.test".to_owned(),
            smtp_host: "localhost".to_owned(),
            smtp_port: 587,
            smtp_username: None,
            smtp_password: Secret::default(),
            smtp_tls: false,
            resend_api_key: Secret::default(),
            ses_region: String::new(),
            ses_access_key: Secret::default(),
            ses_secret_key: Secret::default(),
            capture_dir: None,
            rate_per_hour: 5,
            verification_ttl: TimeDelta::hours(24),
            reset_ttl: TimeDelta::minutes(60),
            production: false,
        }
    }

    fn message(to: &str, subject: &str) -> Result<String, SendError> {
        let mail = Rendered {
            subject: subject.to_owned(),
            html: "<p>Hi</p>".to_owned(),
            text: "Hi".to_owned(),
            link: None,
        };
        let at = "2026-03-15T14:30:00Z".parse().unwrap();
        let outgoing = Outgoing { id: Uuid::nil(), to, template: Template::Welcome, mail: &mail, at };
        let config = config();
        let server = Server::of(&config).unwrap().unwrap();
        let message = Smtp::new(server, &config).unwrap().message(&outgoing)?;
        Ok(String::from_utf8(message.formatted()).unwrap())
    }

    #[test]
    fn a_message_has_both_parts_and_its_headers() {
        let text = message("miner@example.com", "Welcome").unwrap();
        for part in [
            "noreply@game.test",
            "To: miner@example.com\r\n",
            "Subject: Welcome\r\n",
            "Date: Sun, 15 Mar 2026 14:30:00 +0000\r\n",
            "Message-ID: <00000000-0000-0000-0000-000000000000@game.test>\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "multipart/alternative",
            "text/plain",
            "text/html",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn no_header_can_be_smuggled_in() {
        let text = message("miner@example.com", "Hi\r\nBcc: victim@example.com").unwrap();
        assert!(!text.contains("\nBcc:"), "{text}");
        let to = message("miner@example.com\r\nBcc: victim@example.com", "Hi");
        assert_eq!(to.unwrap_err(), SendError::Recipient);
    }

    #[test]
    fn unsafe_settings_are_refused_by_name() {
        let refused = |config: &MailConfig| Sender::new(config).err().map(|error| error.to_string()).unwrap();
        let production = MailConfig { production: true, ..config() };
        let log = MailConfig { provider: MailProvider::Log, ..production.clone() };
        assert!(refused(&log).contains("TBG_EMAIL_PROVIDER"));
        let clear = MailConfig { smtp_username: Some("user".to_owned()), ..production.clone() };
        assert!(refused(&clear).contains("TBG_SMTP_USE_TLS"));
        let nowhere = MailConfig { smtp_host: String::new(), ..production.clone() };
        assert!(refused(&nowhere).contains("TBG_SMTP_HOST"));
        let nobody = MailConfig { from_address: "s3cret".to_owned(), ..production.clone() };
        let error = refused(&nobody);
        assert!(error.contains("TBG_EMAIL_FROM_ADDRESS") && !error.contains("s3cret"));
        assert!(Sender::new(&MailConfig { smtp_tls: true, ..production }).is_ok());
    }
}
