//! The week that runs, of many users at once: every dashboard asks for it, and it is never kept (contract `games.md`
//! §6).

use sqlx::PgPool;
use tbg_core::UserId;
use tbg_core::period::IsoWeek;
use tbg_web::{ApiError, Gather, in_order};

use crate::live::{Ranking, Standing};
use crate::store::{self, WeekRow};

/// Where weeks that run are asked for: rows and place of a user who exists.
pub(crate) type CurrentWeeks = Gather<(UserId, IsoWeek), Option<(WeekRow, Standing)>>;

/// By one statement, then one round trip to Redis; by a second statement while Redis does not know the network's
/// difficulty.
pub(crate) fn gather(pool: PgPool, ranking: Ranking) -> CurrentWeeks {
    Gather::new(move |asked| {
        let (pool, ranking) = (pool.clone(), ranking.clone());
        async move { load(&pool, &ranking, &asked).await }
    })
}

async fn load(
    pool: &PgPool,
    ranking: &Ranking,
    asked: &[(UserId, IsoWeek)],
) -> Result<Vec<Option<(WeekRow, Standing)>>, ApiError> {
    let (users, mondays): (Vec<_>, Vec<_>) = asked.iter().map(|(user, week)| (user.0, week.monday())).unzip();
    let rows = store::current_weeks(pool, &users, &mondays).await?;
    let rows = in_order(asked.len(), rows, |row| row.place);
    let best = |row: &Option<WeekRow>| row.as_ref().and_then(|row| row.live().best).unwrap_or(0.0);
    let asked: Vec<_> =
        asked.iter().zip(&rows).map(|((user, week), row)| (*week, *user, best(row))).collect();
    let mut standings = ranking.standings(pool, &asked).await;
    if standings.iter().any(|standing| standing.network_difficulty.is_none()) {
        let newest = store::network_difficulty(pool).await?;
        for standing in &mut standings {
            standing.network_difficulty = standing.network_difficulty.or(newest);
        }
    }
    Ok(rows.into_iter().zip(standings).map(|(row, standing)| Some((row?, standing))).collect())
}
