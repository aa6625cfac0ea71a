//! `tbg user`: bans.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use tbg_core::config::Settings;
use tbg_core::{Clock as _, SystemClock};
use tbg_identity::roles::{self, MAX_REASON_CHARS};

use super::admin::{announce, connect, find};
use crate::terminal::say;

/// Bans users and lifts bans. A banned user is signed out everywhere, cannot sign in, and is in no public
/// list. The audit log keeps the reason.
#[derive(Args)]
#[command(after_help = "Examples:
  tbg user ban 42 --reason \"Sells leaderboard places\"
  tbg user unban 42 --reason \"Appeal of 3 March\"")]
pub struct User {
    /// What to do.
    #[command(subcommand)]
    pub action: UserAction,
}

/// Changes of a ban.
#[derive(Subcommand)]
pub enum UserAction {
    /// Sign a user out everywhere and let nobody in
    Ban(Verdict),
    /// Let a user in again
    Unban(Verdict),
}

/// Whom, and why.
#[derive(Args)]
pub struct Verdict {
    /// Id or mining address
    #[arg(value_name = "USER_ID|ADDRESS")]
    pub user: String,
    /// Why, for the audit log; at most 200 characters
    #[arg(long, value_parser = parse_reason)]
    pub reason: String,
}

pub(super) fn parse_reason(text: &str) -> Result<String, String> {
    let reason = text.trim();
    let length = reason.chars().count();
    if length == 0 || length > MAX_REASON_CHARS || reason.chars().any(char::is_control) {
        return Err(format!("expected one line of at most {MAX_REASON_CHARS} characters"));
    }
    Ok(reason.to_owned())
}

pub async fn run(args: &User, settings: &Settings) -> anyhow::Result<()> {
    let (verdict, banned) = match &args.action {
        UserAction::Ban(verdict) => (verdict, true),
        UserAction::Unban(verdict) => (verdict, false),
    };
    let pool = connect(settings).await?;
    let user = find(&pool, &verdict.user, settings).await?;
    let change = roles::ban(&pool, user, &verdict.reason, banned, SystemClock.now())
        .await?
        .context("no such user: was the account deleted?")?;
    announce(settings, &change).await;
    say!("Address of user {user}: {}", change.btc_address.as_deref().unwrap_or("none"))?;
    match (change.changed, banned) {
        (true, true) => say!("User {user} is banned; {} session(s) ended.", change.ended_sessions.len()),
        (true, false) => say!("User {user} may sign in again."),
        (false, true) => {
            let ended = change.ended_sessions.len();
            say!(
                "User {user} was banned before: nothing changed; {ended} of its sessions had been ended by it."
            )
        }
        (false, false) => say!("User {user} was not banned: nothing changed."),
    }
}
