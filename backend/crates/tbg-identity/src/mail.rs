//! Mail (contract `auth-users.md` §5): queued in the transaction that causes it, sent later by a worker.
//!
//! - [`enqueue`] writes a row of `email_outbox`. The row holds no token.
//! - [`Mailer`] claims due rows, mints the token, sends, and records the outcome. What fails is tried again;
//!   what was claimed by a process that died is claimed again when its lease ends.
//! - [`Template`] and [`Context`] say what a mail can be about; `template` words it, `layout` gives it its
//!   looks and escapes every value.
//!
//! Mail goes out through SMTP, that of Resend and Amazon SES included (`provider`), or, outside production, into the
//! log.

mod layout;
mod limit;
mod outbox;
mod provider;
mod sender;
mod template;

use std::path::PathBuf;

use chrono::TimeDelta;
use tbg_core::config::Secret;

pub use tbg_core::config::MailProvider;

pub use self::outbox::Mailer;
pub use self::template::{Context, Purpose, Template};
pub use crate::store::mail::enqueue;

/// The settings of mail.
#[derive(Clone, Debug)]
pub struct MailConfig {
    /// Who carries the mail.
    pub provider: MailProvider,
    /// Address in `From`.
    pub from_address: String,
    /// Name in `From`; also how mails call the game.
    pub from_name: String,
    /// Address that mails name for help.
    pub support_email: String,
    /// Where links lead, such as `https://thebitcoingame.com`.
    pub frontend_base_url: String,
    /// Host of the SMTP server.
    pub smtp_host: String,
    /// Port of the SMTP server. On 465 TLS starts at once, on any other by STARTTLS.
    pub smtp_port: u16,
    /// User name at the SMTP server, if it asks for one.
    pub smtp_username: Option<String>,
    /// Password at the SMTP server.
    pub smtp_password: Secret,
    /// Whether the connection must be encrypted; without it, mail travels in clear text.
    pub smtp_tls: bool,
    /// Key of the API at Resend.
    pub resend_api_key: Secret,
    /// Region of Amazon SES.
    pub ses_region: String,
    /// Access key at Amazon SES.
    pub ses_access_key: Secret,
    /// Its secret key.
    pub ses_secret_key: Secret,
    /// Folder that gets a JSON file per mail that the log provider takes, for tests. Not in production.
    pub capture_dir: Option<PathBuf>,
    /// Most mails to one recipient in a window of 3600 seconds.
    pub rate_per_hour: u32,
    /// How long a link that proves an address works.
    pub verification_ttl: TimeDelta,
    /// How long a link that resets a password works.
    pub reset_ttl: TimeDelta,
    /// Whether this is production.
    pub production: bool,
}
