//! `tbg dead-letters`: what was refused, and another try.

use anyhow::Context as _;
use sqlx::PgConnection;
use tbg_core::config::Settings;
use tbg_core::{Clock as _, SystemClock, db};
use tbg_engine::dead_letters::{self, StoredLetter};
use tbg_engine::decode::check_age;
use tbg_engine::{Engine, Outcome};

use super::replay::then_totals;
use crate::cli::{DeadLetterAction, DeadLetters, LetterFilter};
use crate::roles::engine;
use crate::terminal::say;

/// What became of the letters.
#[derive(Default)]
struct Retried {
    applied: usize,
    duplicate: usize,
    refused: usize,
}

pub async fn run(args: &DeadLetters, settings: &Settings) -> anyhow::Result<()> {
    let mut conn = db::connect(settings).await?;
    match &args.action {
        DeadLetterAction::List(filter) => {
            let limit = i64::from(filter.limit);
            let letters = dead_letters::list(&mut conn, filter.reason.as_deref(), limit).await?;
            letters.iter().try_for_each(print)?;
            say!("{} dead letter(s)", letters.len())?;
        }
        DeadLetterAction::Retry(filter) => retry(&mut conn, filter, settings).await?,
    }
    Ok(())
}

fn print(letter: &StoredLetter) -> anyhow::Result<()> {
    let start: String = letter.payload.chars().filter(|c| !c.is_control()).take(160).collect();
    say!(
        "{} {} {} {}/{} {}\n    {start}",
        letter.id,
        letter.created_at.format("%Y-%m-%dT%H:%M:%SZ"),
        letter.reason,
        letter.stream,
        letter.stream_id,
        letter.detail
    )
}

/// Tries all letters, then brings the pool's totals up to date, also when it was stopped on the way: what was
/// applied has left the list, so a second try would not do it.
async fn retry(conn: &mut PgConnection, filter: &LetterFilter, settings: &Settings) -> anyhow::Result<()> {
    let mut retried = Retried::default();
    let tried = try_all(conn, filter, settings, &mut retried).await;
    let Retried { applied, duplicate, refused } = retried;
    let told = say!("{applied} applied, {duplicate} already there, {refused} still refused");
    // Always: an earlier try may have been killed when its letters had left the list already.
    let advice = "jobs do that at night for the last week, `tbg rebuild --domain mining` for all";
    then_totals(tried, settings, advice).await.and(told)
}

/// Goes through the letters page by page, oldest first: what a record pays depends on those before it. Those that are
/// applied, or were before, leave the list. Applying is idempotent, so a crash between the two steps does no harm.
/// Letters that come meanwhile are left to the next try.
async fn try_all(
    conn: &mut PgConnection,
    filter: &LetterFilter,
    settings: &Settings,
    retried: &mut Retried,
) -> anyhow::Result<()> {
    let (engine, reason) = (engine(settings), filter.reason.as_deref());
    let newest = dead_letters::list(conn, reason, 1).await?.first().map_or(0, |letter| letter.id);
    let mut after = 0;
    while after < newest {
        let letters = dead_letters::oldest(conn, reason, after, filter.limit.into()).await?;
        let Some(last) = letters.last() else { break };
        after = last.id;
        for letter in &letters {
            match try_one(conn, &engine, letter, settings).await? {
                Ok(outcome) => {
                    retried.applied += outcome.applied;
                    retried.duplicate += outcome.duplicate;
                    dead_letters::remove(conn, &[letter.id]).await?;
                }
                Err(reason) => {
                    retried.refused += 1;
                    say!("{} still refused: {reason}", letter.id)?;
                }
            }
        }
    }
    Ok(())
}

/// Applies one letter, or says why it is still refused.
async fn try_one(
    conn: &mut PgConnection,
    engine: &Engine,
    letter: &StoredLetter,
    settings: &Settings,
) -> anyhow::Result<Result<Outcome, String>> {
    let now = SystemClock.now();
    let event = match letter.decode().and_then(|event| check_age(&event, now, false).map(|()| event)) {
        Ok(event) => event,
        Err(refusal) => return Ok(Err(format!("{} ({})", refusal.reason.as_str(), refusal.detail))),
    };
    match engine.apply_guarded(conn, vec![event], &[], now).await {
        Ok(Some(outcome)) => Ok(Ok(outcome)),
        Ok(None) => {
            *conn = db::connect(settings).await?;
            Ok(Err("a reactor panicked".to_owned()))
        }
        Err(error) if db::is_transient(&error) => {
            Err(error).context("PostgreSQL is away; what was applied before stays, so run it again")
        }
        Err(error) => Ok(Err(format!("the database says {error}"))),
    }
}
