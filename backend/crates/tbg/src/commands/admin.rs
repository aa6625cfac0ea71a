//! `tbg admin`: who may use the admin routes.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tbg_core::config::Settings;
use tbg_core::{Clock as _, SystemClock, UserId, db};
use tbg_identity::roles::{self, RoleChange};

use crate::terminal::{say, tell};

/// Gives or takes the right to use the admin routes of the API. There is no other way to get it, and each
/// change is in the audit log.
#[derive(Args)]
#[command(after_help = "Examples:
  tbg admin grant bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l     whoever mines to that address
  tbg admin grant 42                                             the user with that id
  tbg admin revoke 42")]
pub struct Admin {
    /// What to do.
    #[command(subcommand)]
    pub action: AdminAction,
}

/// Changes of the admin right.
#[derive(Subcommand)]
pub enum AdminAction {
    /// Make a user an administrator
    Grant(Whom),
    /// Make an administrator a user like all others
    Revoke(Whom),
}

/// A user.
#[derive(Args)]
pub struct Whom {
    /// Id (`/users/me` shows it) or mining address
    #[arg(value_name = "USER_ID|ADDRESS")]
    pub user: String,
}

pub async fn run(args: &Admin, settings: &Settings) -> anyhow::Result<()> {
    let (whom, granted) = match &args.action {
        AdminAction::Grant(whom) => (whom, true),
        AdminAction::Revoke(whom) => (whom, false),
    };
    let pool = connect(settings).await?;
    let user = find(&pool, &whom.user, settings).await?;
    let change = roles::grant_admin(&pool, user, granted, SystemClock.now())
        .await?
        .context("no such user: was the account deleted?")?;
    announce(settings, &change).await;
    match (change.changed, granted) {
        (true, true) => say!("User {user} is an administrator."),
        (true, false) => say!("User {user} is no administrator any more."),
        (false, true) => say!("User {user} was an administrator before: nothing changed."),
        (false, false) => say!("User {user} was no administrator: nothing changed."),
    }
}

/// A pool of one connection: a command does one thing.
pub(super) async fn connect(settings: &Settings) -> anyhow::Result<PgPool> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(db::connect_options(settings)?)
        .await
        .context(db::UNREACHABLE)?;
    db::require_schema(&mut *pool.acquire().await?).await?;
    Ok(pool)
}

/// The user whom the operator means.
pub(super) async fn find(pool: &PgPool, text: &str, settings: &Settings) -> anyhow::Result<UserId> {
    roles::find_user(pool, text, settings.btc_network).await?.with_context(|| {
        format!(
            "no user has this id, and none has proven this address on {}: name an unproven one by its id",
            settings.btc_network
        )
    })
}

/// Tells the running servers. The change is committed, so a Redis that is away only costs time.
pub(super) async fn announce(settings: &Settings, change: &RoleChange) {
    let published = async {
        let client = tbg_core::redis::client(settings)?;
        let mut redis = tbg_core::redis::manager(&client)?;
        roles::publish(&mut redis, change).await?;
        anyhow::Ok(())
    };
    if let Err(error) = published.await {
        tell!("warning: Redis was not told ({error:#}); servers follow within 30 s");
        if !change.ended_sessions.is_empty() {
            tell!("warning: open sockets of ended sessions stay open: mend TBG_REDIS_URL and run this again");
        }
    }
}
