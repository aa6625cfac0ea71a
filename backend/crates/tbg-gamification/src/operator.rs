//! What operators may do: badges that only people can verify, corrections (contract `gamification.md` §4.3). Both
//! are events like any other domain's, so the same reference twice changes nothing; and as these events are never
//! pruned, it does so for good.

use anyhow::{Context as _, bail};
use serde_json::json;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use tbg_core::UserId;
use tbg_core::audit::{self, Action, Entry};
use tbg_core::outbox::{self, DomainEvent};

use crate::store;

/// Badges that an operator may grant.
pub const GRANTABLE: [&str; 4] = ["node_runner", "node_pruned", "node_archival", "orange_piller"];
/// The most that one correction may change.
const MAX_ADJUSTMENT: u32 = 100_000;

/// What became of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// The user gets the badge.
    Done,
    /// The reference was used before, for whomever: nothing changed.
    ReferenceUsed,
    /// The user holds the badge already: nothing changed, and the reference can still be used.
    HeldAlready,
}

/// A reference of an operator: 1 to 64 of letters, digits, `.`, `_`, `-`.
///
/// # Errors
/// Says what is expected.
pub fn parse_reference(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 64 letters, digits, dots, dashes or underscores".to_owned())
    }
}

/// Reports that `user` deserves one of [`GRANTABLE`].
///
/// # Errors
/// When the slug or the user does not fit, or the database does not answer.
pub async fn grant_badge(
    pool: &PgPool,
    user: UserId,
    slug: &str,
    reference: &str,
) -> anyhow::Result<Granted> {
    let event = match slug {
        "node_runner" => node(user, "full", reference),
        "node_pruned" => node(user, "pruned", reference),
        "node_archival" => node(user, "archival", reference),
        "orange_piller" => gift(user, reference),
        _ => bail!("{slug} is not granted by hand: one of {}", GRANTABLE.join(", ")),
    };
    let details = json!({ "slug": slug, "reference": reference });
    let mut tx = begin(pool, user).await?;
    let grants = [node(user, "full", reference), gift(user, reference)].map(|event| event.key());
    let is_used = !outbox::written(&mut tx, &grants).await?.is_empty();
    if is_used || !emit(&mut tx, user, event, Action::AdminBadgeGranted, details).await? {
        return Ok(Granted::ReferenceUsed);
    }
    if store::holds(&mut tx, user, slug).await? {
        return Ok(Granted::HeldAlready);
    }
    tx.commit().await?;
    Ok(Granted::Done)
}

fn node(user_id: UserId, kind: &'static str, reference: &str) -> DomainEvent {
    DomainEvent::NodeVerified { user_id, kind: kind.into(), reference: reference.to_owned() }
}

/// Its id is no number of a gift, whose own event would be taken for this one.
fn gift(user_id: UserId, reference: &str) -> DomainEvent {
    DomainEvent::GiftRedeemed { user_id, gift_id: format!("operator:{reference}") }
}

/// Corrects a user's experience. Returns false if the reference was used before.
///
/// # Errors
/// When the amount or the user does not fit, the sum would fall below 0, or the database does not answer.
pub async fn adjust_xp(
    pool: &PgPool,
    user: UserId,
    amount: i32,
    reference: &str,
    reason: &str,
) -> anyhow::Result<bool> {
    if amount == 0 || amount.unsigned_abs() > MAX_ADJUSTMENT {
        bail!("the amount is from -{MAX_ADJUSTMENT} to {MAX_ADJUSTMENT}, and not 0");
    }
    let event = DomainEvent::XpAdjusted {
        user_id: user,
        amount,
        reference: reference.to_owned(),
        reason: reason.to_owned(),
    };
    let details = json!({ "amount": amount, "reference": reference, "reason": reason });
    let mut tx = begin(pool, user).await?;
    let before = store::adjustable_xp(&mut tx, user).await?;
    if !emit(&mut tx, user, event, Action::AdminXpAdjusted, details).await? {
        return Ok(false);
    }
    if before + i64::from(amount) < 0 {
        bail!("user {user} has {before} XP: {amount} would make it less than 0, nothing changed");
    }
    tx.commit().await?;
    Ok(true)
}

/// A transaction that has `user` to itself among operators.
async fn begin(pool: &PgPool, user: UserId) -> anyhow::Result<Transaction<'static, Postgres>> {
    let mut tx = pool.begin().await?;
    if !store::lock_player(&mut tx, user).await? {
        bail!("user {user} does not exist, is banned or was deleted");
    }
    Ok(tx)
}

/// Writes the event with its audit row. False if there is such an event already.
async fn emit(
    conn: &mut PgConnection,
    user: UserId,
    event: DomainEvent,
    action: Action,
    details: serde_json::Value,
) -> anyhow::Result<bool> {
    let written = outbox::write(conn, &[event]).await? > 0;
    if written {
        let entry = Entry::new(action, "user").on(user.to_string()).details(details);
        audit::record(conn, &entry).await.context("audit")?;
    }
    Ok(written)
}
