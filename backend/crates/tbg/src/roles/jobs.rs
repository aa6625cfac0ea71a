//! Scheduled work and the consumers of domain events.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tbg_core::consumer::{Consumer, Handle};
use tbg_core::jobs::{Job, Runner};
use tbg_games::{GamesEvents, Ranking};
use tbg_gamification::GameEvents;
use tbg_mining::MiningEvents;
use tbg_mining::jobs::{JobConfig, JobParts};
use tbg_mining::live::LiveStore;
use tbg_operations::GaugeParts;
use tbg_social::SocialEvents;
use tokio_util::sync::CancellationToken;

use super::running::Running;
use super::{Process, api, lottery};

/// Pause before what the database did not answer is measured again.
const MEASURE_PAUSE: Duration = Duration::from_secs(5);

impl Process {
    pub(super) fn start_jobs(
        &self,
        running: &mut Running,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        let runner = Runner::new(self.pool.clone(), Arc::clone(&self.clock), self.name.clone(), self.jobs()?);
        let (pool, clock, stop) = (self.pool.clone(), Arc::clone(&self.clock), shutdown.clone());
        let gauges = self.gauge_parts();
        running.spawn("jobs", async move {
            catch_up(&pool, clock.as_ref()).await;
            tokio::spawn(stop.clone().run_until_cancelled_owned(measure_at_start(gauges, pool)));
            runner.run(stop).await;
            Ok(())
        });
        self.start_consumer("jobs (mining events)", Arc::new(MiningEvents::new()), running, shutdown);
        self.start_consumer("jobs (game events)", Arc::new(GameEvents::new()), running, shutdown);
        self.start_consumer("jobs (games events)", Arc::new(GamesEvents::new()), running, shutdown);
        self.start_consumer("jobs (social events)", Arc::new(SocialEvents::new()), running, shutdown);
        let mailer = api::mailer(&self.settings, &self.pool, self.redis.background.clone(), &self.clock)?;
        let stop = shutdown.clone();
        running.spawn("jobs (mail)", async move {
            mailer.run(stop).await;
            Ok(())
        });
        Ok(())
    }

    fn jobs(&self) -> anyhow::Result<Vec<Job>> {
        let mut jobs = tbg_mining::jobs::jobs(&JobParts {
            pool: self.pool.clone(),
            clock: Arc::clone(&self.clock),
            live: LiveStore::new(self.redis.live.clone()),
            bus: self.bus.clone(),
            config: JobConfig {
                worker_timeout_seconds: self.settings.worker_timeout_seconds,
                snapshot_interval_seconds: self.settings.hashrate_snapshot_interval_seconds,
                feed_max_items: self.settings.activity_feed_max_items,
            },
        })?;
        jobs.extend(tbg_identity::jobs::jobs(&self.pool, &self.clock)?);
        jobs.extend(tbg_operations::jobs(&self.pool, &self.clock)?);
        jobs.push(tbg_operations::gauge_job(self.gauge_parts())?);
        jobs.extend(tbg_gamification::jobs(&tbg_gamification::JobParts {
            pool: self.pool.clone(),
            clock: Arc::clone(&self.clock),
            bus: self.bus.clone(),
            redis: self.redis.background.clone(),
        })?);
        let cycle = lottery::cycle(&self.settings, &self.pool, &self.bus)?;
        let ranking = Ranking::new(self.redis.live.clone());
        jobs.extend(tbg_games::jobs(&cycle, &ranking, &self.clock)?);
        jobs.extend(tbg_social::jobs(&self.pool, &self.clock)?);
        Ok(jobs)
    }

    fn gauge_parts(&self) -> GaugeParts {
        GaugeParts {
            pool: self.pool.clone(),
            redis: self.redis.background.clone(),
            clock: Arc::clone(&self.clock),
            backup_status_dir: self.settings.backup_status_dir.clone(),
        }
    }

    fn start_consumer(
        &self,
        name: &'static str,
        handler: Arc<dyn Handle>,
        running: &mut Running,
        shutdown: &CancellationToken,
    ) {
        let consumer = Consumer::new(self.pool.clone(), Arc::clone(&self.clock), self.bus.clone(), handler);
        let stop = shutdown.clone();
        running.spawn(name, async move {
            consumer.run(stop).await;
            Ok(())
        });
    }
}

/// Sets all gauges, so that none is missing until its job runs: the one that verifies runs nightly.
async fn measure_at_start(gauges: GaugeParts, pool: PgPool) {
    until_measured("the gauges", || {
        let gauges = gauges.clone();
        async move { tbg_operations::measure_all(&gauges).await }
    })
    .await;
    until_measured("the audit log", || {
        let pool = pool.clone();
        async move { tbg_operations::measure(&pool).await }
    })
    .await;
}

/// Tries until it succeeds: the database may be away now and there when nobody tries any more.
async fn until_measured<F: Future<Output = anyhow::Result<()>>>(what: &str, measure: impl Fn() -> F) {
    while let Err(error) = measure().await {
        tracing::warn!(what, error = format!("{error:#}"), "not measured yet");
        tokio::time::sleep(MEASURE_PAUSE).await;
    }
}

/// What a long downtime leaves behind, put right at every start. What fails here is done by its job.
async fn catch_up(pool: &PgPool, clock: &dyn tbg_core::Clock) {
    if let Err(error) = tbg_mining::jobs::keep_partitions(pool, clock.now()).await {
        tracing::warn!(error = format!("{error:#}"), "partitions were not checked; the job will");
    }
    if let Err(error) = tbg_operations::keep(pool).await {
        tracing::warn!(
            error = format!("{error:#}"),
            "the audit log's partitions were not checked; the job will"
        );
    }
    if let Err(error) = tbg_operations::catch_up_totals(pool, clock.now()).await {
        tracing::warn!(error = format!("{error:#}"), "the pool's totals were not recomputed; the job will");
    }
}
