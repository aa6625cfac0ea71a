//! Scheduled work (contract `games.md` §5).

use std::sync::Arc;

use tbg_core::Clock;
use tbg_core::jobs::Job;

use crate::cycle::{Cycle, Waits};
use crate::live::{self, Ranking};

/// The jobs of games and lottery.
///
/// # Errors
/// Never in practice: when a schedule does not parse.
pub fn jobs(cycle: &Cycle, ranking: &Ranking, clock: &Arc<dyn Clock>) -> anyhow::Result<Vec<Job>> {
    let (own, time) = (cycle.clone(), Arc::clone(clock));
    let drawing = Job::new("lottery_cycle", "0 * * * * *", move |_| {
        let (cycle, now) = (own.clone(), time.now());
        async move { cycle.run(now, Waits::Kept).await.map(drop) }
    })?;
    let (pool, ranking, time) = (cycle.pool.clone(), ranking.clone(), Arc::clone(clock));
    let ranking = Job::new("lottery_ranking", "*/5 * * * *", move |_| {
        let (pool, ranking, now) = (pool.clone(), ranking.clone(), time.now());
        async move { live::rebuild(&ranking, &pool, now).await }
    })?;
    Ok(vec![drawing, ranking])
}
