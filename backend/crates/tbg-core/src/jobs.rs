//! Scheduled work: each job runs once per scheduled time, whatever the number of replicas.
//!
//! The table `job_runs` has one row per (job, scheduled time). Claiming a run is one `INSERT … ON
//! CONFLICT`; a run whose process died is taken over when its lease ends, a run that failed is tried
//! again after [`RETRY_AFTER`], one that has to wait ([`NotYet`]) after the time that it names. After a
//! downtime only the **latest** missed time runs: jobs work from state, not from the number of times they
//! were called.
//!
//! Why not a library: graphile_worker schedules by the minute, and both it and apalis bring their own
//! schema and worker model; the contracts want 15-second jobs and a lease that can be read in a table.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use croner::Cron;
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::Clock;
use crate::metrics::{JOB_DURATION, JOB_INTERVAL, JOB_LAST_SUCCESS};

/// How long a claimed run belongs to its process; extended while it runs. A process that died is replaced within
/// ten seconds (contract `production.md` §14).
const LEASE: TimeDelta = TimeDelta::seconds(8);
/// How often a running job extends its lease.
const LEASE_RENEWAL: Duration = Duration::from_secs(2);
/// Wait before a failed run is tried again.
pub const RETRY_AFTER: TimeDelta = TimeDelta::seconds(30);
/// How often due jobs are looked for.
const TICK: Duration = Duration::from_secs(1);
/// Wait while the database is away.
const RECHECK_AFTER_ERROR: TimeDelta = TimeDelta::seconds(5);
/// Pause before the table is asked again when jobs last ran.
const REPORT_PAUSE: Duration = Duration::from_secs(2);
/// Scheduled times that are looked at to know how often a job runs.
const INTERVALS: usize = 10;
/// Rows of finished runs are kept this long.
const KEEP_RUNS: TimeDelta = TimeDelta::days(7);

/// The end of a run that must wait: it is asked for again after that time, by whichever process is there then. It
/// has not failed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("asked again in {} s", .0.num_seconds())]
pub struct NotYet(pub TimeDelta);

/// What a job does; called with its scheduled time.
pub type Work =
    Arc<dyn Fn(DateTime<Utc>) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> + Send + Sync>;

/// A named piece of scheduled work.
#[derive(Clone)]
pub struct Job {
    name: &'static str,
    schedule: Cron,
    work: Work,
}

impl Job {
    /// A job that runs by `schedule`, a cron pattern in UTC (six fields start with seconds).
    ///
    /// # Errors
    /// When the pattern is not valid.
    pub fn new<F, Fut>(name: &'static str, schedule: &str, work: F) -> anyhow::Result<Self>
    where
        F: Fn(DateTime<Utc>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let schedule = Cron::from_str(schedule).with_context(|| format!("schedule of job {name}"))?;
        Ok(Self { name, schedule, work: Arc::new(move |at| Box::pin(work(at))) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Does the work once, beside the schedule: for tests and operators.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn run(&self, scheduled_at: DateTime<Utc>) -> anyhow::Result<()> {
        (self.work)(scheduled_at).await
    }

    /// The longest time between two of its next scheduled times.
    fn longest_interval(&self, now: DateTime<Utc>) -> Option<TimeDelta> {
        let times: Vec<DateTime<Utc>> = self.schedule.iter_after(now).take(INTERVALS).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max()
    }

    /// The latest scheduled time at or before `now`.
    fn due(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.schedule.find_previous_occurrence(&now, true).ok()
    }
}

/// Runs jobs for one process.
pub struct Runner {
    pool: PgPool,
    clock: Arc<dyn Clock>,
    owner: String,
    jobs: Vec<Job>,
    /// Per job: the time before which there is nothing to do, as far as this process knows.
    idle_until: HashMap<&'static str, DateTime<Utc>>,
    /// When due jobs were last looked for.
    looked_at: DateTime<Utc>,
    succeeded: Succeeded,
}

/// The jobs that have succeeded in this process: what the table said of them before is old.
#[derive(Clone, Default)]
struct Succeeded(Arc<Mutex<HashSet<&'static str>>>);

impl Succeeded {
    fn now(&self, job: &'static str, at: DateTime<Utc>) {
        let mut here = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        here.insert(job);
        metrics::gauge!(JOB_LAST_SUCCESS, "task" => job).set(at.timestamp() as f64);
    }

    fn before(&self, job: &'static str, at: DateTime<Utc>) {
        let here = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !here.contains(job) {
            metrics::gauge!(JOB_LAST_SUCCESS, "task" => job).set(at.timestamp() as f64);
        }
    }
}

/// Says how often each job is to run, and when it last did: an alert must not wait for the first run.
struct Report {
    pool: PgPool,
    clock: Arc<dyn Clock>,
    jobs: Vec<Job>,
    succeeded: Succeeded,
}

impl Report {
    /// Tries until the database has answered, or `shutdown`.
    async fn until_made(&self, shutdown: &CancellationToken) {
        let made = async {
            while let Err(error) = self.make().await {
                tracing::warn!(%error, "when jobs last ran is not known yet");
                tokio::time::sleep(REPORT_PAUSE).await;
            }
        };
        shutdown.run_until_cancelled(made).await;
    }

    async fn make(&self) -> Result<(), sqlx::Error> {
        for job in &self.jobs {
            if let Some(interval) = job.longest_interval(self.clock.now()) {
                metrics::gauge!(JOB_INTERVAL, "task" => job.name).set(interval.as_seconds_f64());
            }
        }
        let names: Vec<String> = self.jobs.iter().map(|job| job.name.to_owned()).collect();
        let last = sqlx::query!(
            r#"SELECT job, max(finished_at) AS "at!" FROM job_runs
               WHERE job = ANY($1) AND finished_at IS NOT NULL GROUP BY job"#,
            &names
        )
        .fetch_all(&self.pool)
        .await?;
        for row in last {
            let name = self.jobs.iter().map(Job::name).find(|name| *name == row.job);
            if let Some(name) = name {
                self.succeeded.before(name, row.at);
            }
        }
        Ok(())
    }
}

/// What became of the attempt to claim a run.
enum Claimed {
    /// It is ours.
    Ours(Box<Claim>),
    /// It belongs to somebody, or waits for its next attempt, until then.
    Leased(DateTime<Utc>),
    /// It is done.
    Done,
}

impl Runner {
    /// A runner of `jobs`; `owner` names this process in `job_runs.leased_by`.
    #[must_use]
    pub fn new(pool: PgPool, clock: Arc<dyn Clock>, owner: String, jobs: Vec<Job>) -> Self {
        let looked_at = clock.now();
        let (idle_until, succeeded) = (HashMap::new(), Succeeded::default());
        Self { pool, clock, owner, jobs, idle_until, looked_at, succeeded }
    }

    /// Runs until `shutdown`, then lets running jobs finish.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let report = Report {
            pool: self.pool.clone(),
            clock: Arc::clone(&self.clock),
            jobs: self.jobs.clone(),
            succeeded: self.succeeded.clone(),
        };
        // Beside the jobs: they do not wait for a report that waits for the database.
        tokio::join!(report.until_made(&shutdown), self.run_jobs(&shutdown));
    }

    async fn run_jobs(&mut self, shutdown: &CancellationToken) {
        let mut running = JoinSet::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = tick.tick() => {}
            }
            while running.try_join_next().is_some() {}
            for claim in self.claim_due().await {
                running.spawn(claim.execute());
            }
        }
        running.join_all().await;
    }

    /// Claims and runs what is due now, to its end. Returns how many runs there were.
    pub async fn run_due(&mut self) -> usize {
        let claims = self.claim_due().await;
        let count = claims.len();
        for claim in claims {
            claim.execute().await;
        }
        count
    }

    async fn claim_due(&mut self) -> Vec<Claim> {
        let now = self.clock.now();
        if now < self.looked_at {
            // The clock was put back: what was known of times to come is void.
            self.idle_until.clear();
        }
        self.looked_at = now;
        let mut claims = Vec::new();
        let mut is_database_away = false;
        for job in &self.jobs {
            // While the database is away each question takes as long as a connection may: one is enough.
            if is_database_away || self.idle_until.get(job.name).is_some_and(|until| now < *until) {
                continue;
            }
            let Some(scheduled_at) = job.due(now) else { continue };
            let next = job.schedule.find_next_occurrence(&now, false).unwrap_or(now + LEASE);
            let idle_until = match self.claim(job, scheduled_at, now).await {
                Ok(Claimed::Ours(claim)) => {
                    claims.push(*claim);
                    now + LEASE
                }
                Ok(Claimed::Leased(until)) => until,
                Ok(Claimed::Done) => next,
                Err(error) => {
                    tracing::warn!(job = job.name, %error, "cannot claim a job");
                    is_database_away = crate::db::is_transient(&error);
                    now + RECHECK_AFTER_ERROR
                }
            };
            self.idle_until.insert(job.name, idle_until.min(next));
        }
        claims
    }

    /// One statement decides who runs it: a new row, or the row of a run whose lease has ended.
    async fn claim(
        &self,
        job: &Job,
        scheduled_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Claimed, sqlx::Error> {
        let run = sqlx::query!(
            r#"WITH claimed AS (
                   INSERT INTO job_runs (job, scheduled_at, leased_by, leased_until, started_at)
                   VALUES ($1, $2, $3, $4, $5)
                   ON CONFLICT (job, scheduled_at) DO UPDATE
                   SET attempt = job_runs.attempt + 1, leased_by = $3, leased_until = $4, started_at = $5
                   WHERE job_runs.finished_at IS NULL AND job_runs.leased_until <= $5
                   RETURNING attempt
               )
               SELECT c.attempt AS "attempt?", r.leased_until AS "leased_until?", r.finished_at
               FROM (SELECT) AS one LEFT JOIN claimed c ON TRUE
               LEFT JOIN job_runs r ON r.job = $1 AND r.scheduled_at = $2"#,
            job.name,
            scheduled_at,
            self.owner,
            now + LEASE,
            now
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(match (run.attempt, run.finished_at) {
            (Some(attempt), _) => Claimed::Ours(Box::new(Claim {
                pool: self.pool.clone(),
                clock: Arc::clone(&self.clock),
                job: job.clone(),
                scheduled_at,
                attempt,
                succeeded: self.succeeded.clone(),
            })),
            (None, Some(_)) => Claimed::Done,
            // The row of somebody who was faster by a moment is not seen yet.
            (None, None) => Claimed::Leased(run.leased_until.unwrap_or(now)),
        })
    }
}

/// A run that belongs to this process.
struct Claim {
    pool: PgPool,
    clock: Arc<dyn Clock>,
    job: Job,
    scheduled_at: DateTime<Utc>,
    attempt: i32,
    succeeded: Succeeded,
}

impl Claim {
    async fn execute(self) {
        let started = Instant::now();
        let work = tokio::spawn(
            (self.job.work)(self.scheduled_at).instrument(tracing::info_span!("job", task = self.job.name)),
        );
        let abort = work.abort_handle();
        tokio::pin!(work);
        let result = loop {
            tokio::select! {
                joined = &mut work => {
                    break joined.unwrap_or_else(|_| Err(anyhow::anyhow!("job panicked; the log says where")));
                }
                () = tokio::time::sleep(LEASE_RENEWAL) => {
                    // Losing the lease means that another replica has taken the run over: stop.
                    if let Ok(false) = self.renew().await {
                        abort.abort();
                    }
                }
            }
        };
        metrics::gauge!(JOB_DURATION, "task" => self.job.name).set(started.elapsed().as_secs_f64());
        self.finish(result).await;
    }

    async fn renew(&self) -> Result<bool, sqlx::Error> {
        let done = sqlx::query!(
            "UPDATE job_runs SET leased_until = $4
             WHERE job = $1 AND scheduled_at = $2 AND attempt = $3 AND finished_at IS NULL",
            self.job.name,
            self.scheduled_at,
            self.attempt,
            self.clock.now() + LEASE
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn finish(self, result: anyhow::Result<()>) {
        let now = self.clock.now();
        let mut again_after = RETRY_AFTER;
        let (finished_at, error) = match &result {
            Ok(()) => {
                self.succeeded.now(self.job.name, now);
                (Some(now), None)
            }
            Err(error) => {
                let text = format!("{error:#}");
                if let Some(NotYet(wait)) = error.downcast_ref() {
                    again_after = *wait;
                    tracing::info!(job = self.job.name, reason = text, "job waits");
                } else {
                    tracing::error!(job = self.job.name, error = text, "job failed");
                }
                (None, Some(text.chars().take(500).collect::<String>()))
            }
        };
        let saved = sqlx::query!(
            "WITH pruned AS (
                 DELETE FROM job_runs WHERE job = $1 AND finished_at < $7
             )
             UPDATE job_runs SET finished_at = $4, error = $5, leased_until = $6
             WHERE job = $1 AND scheduled_at = $2 AND attempt = $3",
            self.job.name,
            self.scheduled_at,
            self.attempt,
            finished_at,
            error,
            now + again_after,
            now - KEEP_RUNS
        )
        .execute(&self.pool)
        .await;
        if let Err(error) = saved {
            tracing::warn!(job = self.job.name, %error, "cannot record the end of a job: it may run again");
        }
    }
}
