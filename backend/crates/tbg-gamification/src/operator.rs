//! What operators may do: badges that only people can verify, corrections (contract `gamification.md` §4.3). Both
//! are events like any other domain's, so the same reference twice changes nothing.

use anyhow::{Context as _, bail};
use serde_json::json;
use sqlx::PgPool;
use tbg_core::UserId;
use tbg_core::audit::{self, Action, Entry};
use tbg_core::outbox::{self, DomainEvent};

use crate::store;

/// Badges that an operator may grant.
pub const GRANTABLE: [&str; 4] = ["node_runner", "node_pruned", "node_archival", "orange_piller"];
/// The most that one correction may change.
const MAX_ADJUSTMENT: i32 = 100_000;

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

/// Reports that `user` deserves one of [`GRANTABLE`]. Returns false if the reference was used before.
///
/// # Errors
/// When the slug or the user does not fit, or the database does not answer.
pub async fn grant_badge(pool: &PgPool, user: UserId, slug: &str, reference: &str) -> anyhow::Result<bool> {
    let event = match slug {
        "node_runner" => node(user, "full", reference),
        "node_pruned" => node(user, "pruned", reference),
        "node_archival" => node(user, "archival", reference),
        "orange_piller" => DomainEvent::GiftRedeemed { user_id: user, gift_id: reference.to_owned() },
        _ => bail!("{slug} is not granted by hand: one of {}", GRANTABLE.join(", ")),
    };
    let details = json!({ "slug": slug, "reference": reference });
    emit(pool, user, event, Action::AdminBadgeGranted, details).await
}

fn node(user_id: UserId, kind: &'static str, reference: &str) -> DomainEvent {
    DomainEvent::NodeVerified { user_id, kind: kind.into(), reference: reference.to_owned() }
}

/// Corrects a user's experience. Returns false if the reference was used before. A correction that would make
/// the sum negative changes nothing.
///
/// # Errors
/// When the amount or the user does not fit, or the database does not answer.
pub async fn adjust_xp(
    pool: &PgPool,
    user: UserId,
    amount: i32,
    reference: &str,
    reason: &str,
) -> anyhow::Result<bool> {
    if amount == 0 || amount.abs() > MAX_ADJUSTMENT {
        bail!("the amount is from -{MAX_ADJUSTMENT} to {MAX_ADJUSTMENT}, and not 0");
    }
    let event = DomainEvent::XpAdjusted {
        user_id: user,
        amount,
        reference: reference.to_owned(),
        reason: reason.to_owned(),
    };
    let details = json!({ "amount": amount, "reference": reference, "reason": reason });
    emit(pool, user, event, Action::AdminXpAdjusted, details).await
}

/// Writes the event with its audit row.
async fn emit(
    pool: &PgPool,
    user: UserId,
    event: DomainEvent,
    action: Action,
    details: serde_json::Value,
) -> anyhow::Result<bool> {
    if !store::is_player(pool, user).await? {
        bail!("user {user} does not exist, is banned or was deleted");
    }
    let mut tx = pool.begin().await?;
    let written = outbox::write(&mut tx, &[event]).await? > 0;
    if written {
        let entry = Entry::new(action, "user").on(user.to_string()).details(details);
        audit::record(&mut tx, &entry).await.context("audit")?;
    }
    tx.commit().await?;
    Ok(written)
}
