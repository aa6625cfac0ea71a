//! The worker that empties `email_outbox` (contract `auth-users.md` §5). Several may run: a row belongs to
//! who claimed it, until the lease ends. No transaction is open while a mail is on its way.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use sqlx::PgPool;
use tbg_core::Clock;
use tbg_core::random::{self, Entropy};
use tbg_core::redis::Redis;
use tokio_util::sync::CancellationToken;

use super::MailConfig;
use super::layout::Brand;
use super::limit::Limiter;
use super::sender::{Outgoing, Sender};
use super::template::{Context, Template, Token, render};
use crate::rules::email::token_hash;
use crate::store::mail::{self as store, OutboxRow};
use crate::store::tokens;

/// Mails that wait or are being sent.
const MAIL_PENDING: &str = "tbg_mail_pending";
/// Mails sent at once.
const BATCH: i64 = 10;
/// How long a claimed mail belongs to its worker; a mail is given up long before.
const LEASE: TimeDelta = TimeDelta::minutes(5);
/// Waits before the second, third, … attempt.
const RETRY_AFTER: [TimeDelta; 5] = [
    TimeDelta::minutes(1),
    TimeDelta::minutes(5),
    TimeDelta::minutes(15),
    TimeDelta::minutes(60),
    TimeDelta::minutes(360),
];
/// Wait when there was nothing to do.
const IDLE: Duration = Duration::from_secs(1);
/// Wait when the database did not answer.
const AFTER_ERROR: Duration = Duration::from_secs(5);
/// Random bytes of a token: 64 characters.
const TOKEN_BYTES: usize = 48;

/// Sends what is due.
pub struct Mailer {
    pool: PgPool,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    limiter: Limiter,
    sender: Sender,
    brand: Brand,
    verification_ttl: TimeDelta,
    reset_ttl: TimeDelta,
}

/// How an attempt ended.
enum Outcome {
    Sent,
    Retry { at: DateTime<Utc>, error: String },
    Failed(String),
    Dropped(&'static str),
}

/// The token of a mail.
enum Minted {
    Token(Token),
    /// The template has none.
    NotNeeded,
    /// The account is gone.
    NoAccount,
}

impl Mailer {
    /// A worker; connects to nothing yet.
    ///
    /// # Errors
    /// When a setting is missing or unsafe. The message names it without its value.
    pub fn new(
        pool: PgPool,
        redis: Redis,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        config: MailConfig,
    ) -> anyhow::Result<Self> {
        metrics::describe_gauge!(MAIL_PENDING, "Mails that wait or are being sent.");
        Ok(Self {
            pool,
            clock,
            entropy,
            limiter: Limiter::new(redis, config.rate_per_hour),
            sender: Sender::new(&config)?,
            brand: Brand::new(&config.from_name, &config.frontend_base_url, &config.support_email),
            verification_ttl: config.verification_ttl,
            reset_ttl: config.reset_ttl,
        })
    }

    /// Sends until `shutdown`; mails that are on their way then are finished.
    pub async fn run(self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let wait = match self.run_once().await {
                Ok(0) => IDLE,
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "mail waits");
                    AFTER_ERROR
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes up to ten due mails, each to the end of its attempt. Returns how many there were.
    ///
    /// # Errors
    /// When the database does not answer. What was claimed is claimed again when its lease ends.
    pub async fn run_once(&self) -> anyhow::Result<usize> {
        let now = self.clock.now();
        let mut conn = self.pool.acquire().await?;
        let rows = store::claim(&mut conn, BATCH, now, now + LEASE).await?;
        drop(conn);
        let handled = join_all(rows.into_iter().map(|row| self.handle(row))).await;
        let mut conn = self.pool.acquire().await?;
        let pending = store::pending_count(&mut conn).await?;
        metrics::gauge!(MAIL_PENDING).set(pending as f64);
        let count = handled.len();
        handled.into_iter().collect::<Result<(), sqlx::Error>>()?;
        Ok(count)
    }

    /// One attempt and its record.
    async fn handle(&self, row: OutboxRow) -> Result<(), sqlx::Error> {
        let outcome = self.attempt(&row).await?;
        let now = self.clock.now();
        let (id, template) = (row.id, row.template.as_str());
        let mut conn = self.pool.acquire().await?;
        match outcome {
            Outcome::Sent => {
                tracing::debug!(%id, template, "mail sent");
                store::mark_sent(&mut conn, &row, now).await
            }
            Outcome::Retry { at, error } => {
                tracing::warn!(%id, template, attempt = row.attempts, error, "mail not sent, it waits");
                store::mark_retry(&mut conn, &row, at, &error).await
            }
            Outcome::Failed(error) => {
                tracing::error!(%id, template, attempt = row.attempts, error, "mail given up");
                store::mark_failed(&mut conn, &row, &error).await
            }
            Outcome::Dropped(reason) => {
                tracing::warn!(%id, template, reason, "mail dropped");
                store::mark_dropped(&mut conn, &row, reason).await
            }
        }
    }

    async fn attempt(&self, row: &OutboxRow) -> Result<Outcome, sqlx::Error> {
        if usize::try_from(row.attempts).is_ok_and(|attempt| attempt > RETRY_AFTER.len() + 1) {
            return Ok(Outcome::Failed("the process ended during the last attempt".to_owned()));
        }
        let Some(template) = Template::parse(&row.template) else {
            return Ok(Outcome::Failed("there is no such template".to_owned()));
        };
        let Ok(context) = serde_json::from_value::<Context>(row.context.clone()) else {
            return Ok(Outcome::Failed("the context cannot be read".to_owned()));
        };
        if template.is_limited() && !self.limiter.take(&row.to_address).await {
            return Ok(Outcome::Dropped("the recipient has had enough mail for now"));
        }
        let token = match self.mint(row, template, &context).await? {
            Minted::Token(token) => Some(token),
            Minted::NotNeeded => None,
            Minted::NoAccount => return Ok(Outcome::Dropped("the account is gone")),
        };
        let mail = render(template, &context, token.as_ref(), &self.brand);
        let at = self.clock.now();
        let outgoing = Outgoing { id: row.id, to: &row.to_address, template, mail: &mail, at };
        let Err(error) = self.sender.send(&outgoing).await else { return Ok(Outcome::Sent) };
        if template.is_limited() {
            self.limiter.give_back(&row.to_address).await;
        }
        Ok(match self.retry_at(row.attempts) {
            Some(at) if !error.is_final() => Outcome::Retry { at, error: error.to_string() },
            _ => Outcome::Failed(error.to_string()),
        })
    }

    /// When the next attempt is due after the `attempts`-th, if there is one.
    fn retry_at(&self, attempts: i32) -> Option<DateTime<Utc>> {
        let past = usize::try_from(attempts).ok()?.checked_sub(1)?;
        RETRY_AFTER.get(past).map(|wait| self.clock.now() + *wait)
    }

    /// Makes the token of the mail and stores its hash. It exists from now on only: no row that waits, and no
    /// copy of one, opens an account.
    async fn mint(
        &self,
        row: &OutboxRow,
        template: Template,
        context: &Context,
    ) -> Result<Minted, sqlx::Error> {
        let valid_for = match template {
            Template::Welcome | Template::VerifyEmail => self.verification_ttl,
            Template::PasswordReset => self.reset_ttl,
            Template::PasswordChanged | Template::Notification => return Ok(Minted::NotNeeded),
        };
        let Some(user) = row.user_id else { return Ok(Minted::NoAccount) };
        let text = URL_SAFE_NO_PAD.encode(random::bytes::<TOKEN_BYTES>(&*self.entropy));
        let (hash, now) = (token_hash(&text), self.clock.now());
        let expires = now + valid_for;
        let mut tx = self.pool.begin().await?;
        let issued = if template == Template::PasswordReset {
            tokens::issue_reset(&mut tx, user, context.requested_from, &hash, expires, now).await?
        } else {
            let (purpose, email) = (context.purpose, row.to_address.as_str());
            tokens::issue_verification(&mut tx, user, purpose, email, &hash, expires, now).await?
        };
        tx.commit().await?;
        Ok(if issued { Minted::Token(Token { text, valid_for }) } else { Minted::NoAccount })
    }
}
