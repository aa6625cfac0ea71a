//! `tbg rebuild`: the derived tables, from the archive.

use indicatif::{ProgressBar, ProgressStyle};
use sqlx::PgPool;
use tbg_core::config::Settings;
use tbg_core::{Clock as _, SystemClock, db};

use crate::cli::{Domain, Rebuild};
use crate::roles::mining_config;
use crate::terminal::say;

/// Connections of a rebuild: one reads the archive while another writes.
const CONNECTIONS: u32 = 4;

pub async fn run(args: &Rebuild, settings: &Settings) -> anyhow::Result<()> {
    let pool = db::unhurried(settings, CONNECTIONS).await?;
    db::require_schema(&mut *pool.acquire().await?).await?;
    let wants = |domain| args.domain.is_none_or(|one| one == domain);
    if wants(Domain::Mining) {
        mining(&pool, settings).await?;
    }
    if wants(Domain::Gamification) {
        let wrong = tbg_gamification::check(&pool, None).await?;
        tbg_gamification::keep_statistics(&pool, SystemClock.now()).await?;
        say!("The game: {wrong} field(s) differed from ledger, awards and calendar, and are put right.")?;
    }
    if wants(Domain::Games) {
        let (draws, wrong) = tbg_games::check(&pool).await?;
        anyhow::ensure!(
            wrong.is_empty(),
            "draws that do not follow from their entries: {}",
            wrong.join(", ")
        );
        say!("The lottery: {draws} draw(s) follow from their entries.")?;
    }
    Ok(())
}

async fn mining(pool: &PgPool, settings: &Settings) -> anyhow::Result<()> {
    let mut conn = pool.acquire().await?;
    let bar = ProgressBar::new_spinner()
        .with_style(ProgressStyle::with_template("{spinner} {pos} events, {per_sec}, {elapsed}")?);
    let rebuilt =
        tbg_mining::rebuild(pool, &mut conn, mining_config(settings), |events| bar.set_position(events))
            .await?;
    bar.finish_and_clear();
    let now = SystemClock.now();
    tbg_operations::recompute_totals(pool, now, tbg_operations::TOTALS_REPLAY).await?;
    match rebuilt.since {
        Some(since) => say!("Rebuilt from {} archived events since {since}.", rebuilt.events),
        None => say!("The archive is empty: nothing to rebuild from."),
    }
}
