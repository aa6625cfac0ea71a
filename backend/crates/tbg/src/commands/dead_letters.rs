//! `tbg dead-letters`: what was refused, and another try.

use anyhow::Context as _;
use sqlx::{Connection as _, PgConnection};
use tbg_core::config::Settings;
use tbg_core::{Clock as _, SystemClock, db};
use tbg_engine::dead_letters::{self, StoredLetter};
use tbg_engine::decode::check_age;

use crate::cli::{DeadLetterAction, DeadLetters, LetterFilter};
use crate::roles::engine;
use crate::terminal::say;

pub async fn run(args: &DeadLetters, settings: &Settings) -> anyhow::Result<()> {
    let mut conn = PgConnection::connect_with(&db::connect_options(settings)?)
        .await
        .context("cannot connect to PostgreSQL: is TBG_DATABASE_URL right?")?;
    match &args.action {
        DeadLetterAction::List(filter) => {
            let letters = select(&mut conn, filter).await?;
            letters.iter().try_for_each(print)?;
            say!("{} dead letter(s)", letters.len())?;
        }
        DeadLetterAction::Retry(filter) => retry(&mut conn, filter, settings).await?,
    }
    Ok(())
}

async fn select(conn: &mut PgConnection, filter: &LetterFilter) -> anyhow::Result<Vec<StoredLetter>> {
    let limit = i64::from(filter.limit);
    Ok(dead_letters::list(conn, filter.reason.as_deref(), None, limit).await?)
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

/// Applies each letter that decodes now; those leave the list. Applying is idempotent, so a crash between
/// the two steps does no harm.
async fn retry(conn: &mut PgConnection, filter: &LetterFilter, settings: &Settings) -> anyhow::Result<()> {
    let engine = engine(settings);
    let (mut done, mut refused) = (0, 0);
    for letter in select(conn, filter).await? {
        let now = SystemClock.now();
        let event = letter.decode().and_then(|event| check_age(&event, now, false).map(|()| event));
        let event = match event {
            Ok(event) => event,
            Err(refusal) => {
                refused += 1;
                say!("{} still refused: {} ({})", letter.id, refusal.reason.as_str(), refusal.detail)?;
                continue;
            }
        };
        match engine.apply(conn, vec![event], &[], now).await {
            Ok(_) => {
                dead_letters::remove(conn, &[letter.id]).await?;
                done += 1;
            }
            Err(error) if db::is_transient(&error) => return Err(error).context("PostgreSQL is away"),
            Err(error) => {
                refused += 1;
                say!("{} still refused by the database: {error}", letter.id)?;
            }
        }
    }
    say!("{done} applied, {refused} still refused")
}
