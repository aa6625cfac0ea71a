//! `tbg badge`, `tbg xp`: what operators may do in the game.

use clap::{Args, Subcommand};
use tbg_core::config::Settings;
use tbg_gamification::{GRANTABLE, Granted, parse_reference};

use super::admin::{connect, find};
use crate::terminal::say;

/// Grants badges that only people can verify. The audit log keeps the reference; the same reference twice grants
/// once.
#[derive(Args)]
#[command(after_help = "Examples:
  tbg badge grant 42 node_runner --reference ticket-17
  tbg badge grant bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l orange_piller --reference gift-3")]
pub struct Badge {
    /// What to do.
    #[command(subcommand)]
    pub action: BadgeAction,
}

/// Changes of badges.
#[derive(Subcommand)]
pub enum BadgeAction {
    /// Grant a badge
    Grant(Grant),
}

/// Which badge, to whom.
#[derive(Args)]
pub struct Grant {
    /// Id or mining address
    #[arg(value_name = "USER_ID|ADDRESS")]
    pub user: String,
    /// The badge
    #[arg(value_parser = GRANTABLE)]
    pub slug: String,
    /// Where it was verified: 1 to 64 letters, digits, dots, dashes or underscores
    #[arg(long, value_parser = parse_reference)]
    pub reference: String,
}

/// Corrects experience. The audit log keeps reference and reason; the same reference twice corrects once.
#[derive(Args)]
#[command(after_help = "Examples:
  tbg xp adjust 42 250 --reference ticket-18 --reason \"Lost in the outage of 3 March\"
  tbg xp adjust 42 --reference ticket-19 --reason \"Granted twice\" -- -250")]
pub struct Xp {
    /// What to do.
    #[command(subcommand)]
    pub action: XpAction,
}

/// Changes of experience.
#[derive(Subcommand)]
pub enum XpAction {
    /// Add to a user's experience, or take from it
    Adjust(Adjust),
}

/// How much, and why.
#[derive(Args)]
pub struct Adjust {
    /// Id or mining address
    #[arg(value_name = "USER_ID|ADDRESS")]
    pub user: String,
    /// From -100000 to 100000, not 0
    #[arg(allow_negative_numbers = true)]
    pub amount: i32,
    /// Where it was decided: 1 to 64 letters, digits, dots, dashes or underscores
    #[arg(long, value_parser = parse_reference)]
    pub reference: String,
    /// Why, as the user reads it; at most 200 characters
    #[arg(long, value_parser = super::user::parse_reason)]
    pub reason: String,
}

pub async fn badge(args: &Badge, settings: &Settings) -> anyhow::Result<()> {
    let BadgeAction::Grant(grant) = &args.action;
    let pool = connect(settings).await?;
    let user = find(&pool, &grant.user, settings).await?;
    let (slug, reference) = (&grant.slug, &grant.reference);
    match tbg_gamification::grant_badge(&pool, user, slug, reference).await? {
        Granted::Done => say!("User {user} gets the badge {slug}."),
        Granted::ReferenceUsed => say!("The reference {reference} was used before: nothing changed."),
        Granted::HeldAlready => say!("User {user} holds the badge {slug} already: nothing changed."),
    }
}

pub async fn xp(args: &Xp, settings: &Settings) -> anyhow::Result<()> {
    let XpAction::Adjust(adjust) = &args.action;
    let pool = connect(settings).await?;
    let user = find(&pool, &adjust.user, settings).await?;
    let (amount, reference) = (adjust.amount, &adjust.reference);
    if tbg_gamification::adjust_xp(&pool, user, amount, reference, &adjust.reason).await? {
        say!("{amount:+} XP for user {user}, unless that would fall below 0.")
    } else {
        say!("The reference {reference} was used before: nothing changed.")
    }
}
