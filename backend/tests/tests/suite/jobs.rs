//! Scheduled work on a real database: once per scheduled time, retried, taken over; partitions and indexes
//! that keep up (contract `mining.md` §5.1).

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use tbg_core::jobs::{Job, NotYet, Runner};
use tbg_core::partitions::Maintained;
use tbg_core::{MockClock, db};
use tbg_mining::jobs::keep_partitions;
use tbg_tests::{TestDb, at};

use crate::support::empty_database;

/// The scheduled times for which the job was called.
type Runs = Arc<Mutex<Vec<DateTime<Utc>>>>;

/// A job that notes its scheduled times and fails the first `failures` times.
fn job(runs: &Runs, schedule: &str, failures: usize) -> Job {
    let runs = Arc::clone(runs);
    Job::new("test_job", schedule, move |at| {
        let runs = Arc::clone(&runs);
        async move {
            let mut runs = runs.lock().unwrap();
            runs.push(at);
            ensure!(runs.len() > failures, "not yet");
            Ok(())
        }
    })
    .unwrap()
}

/// The runner of a process that is called `owner`.
fn runner(db: &TestDb, clock: &MockClock, owner: &str, jobs: Vec<Job>) -> Runner {
    Runner::new(db.pool.clone(), Arc::new(clock.clone()), owner.to_owned(), jobs)
}

/// The work of a job that is broken.
async fn panics(_: DateTime<Utc>) -> anyhow::Result<()> {
    panic!("on purpose")
}

/// The scheduled times so far.
fn times(runs: &Runs) -> Vec<DateTime<Utc>> {
    runs.lock().unwrap().clone()
}

#[tokio::test]
async fn of_two_runners_one_runs_the_job_at_each_scheduled_time() {
    let (db, runs) = (TestDb::new().await, Runs::default());
    let clock = MockClock::at(at("2026-02-23T02:30:00Z"));
    let mut a = runner(&db, &clock, "a", vec![job(&runs, "30 2 * * *", 0)]);
    let mut b = runner(&db, &clock, "b", vec![job(&runs, "30 2 * * *", 0)]);

    let (first_a, first_b) = tokio::join!(a.run_due(), b.run_due());
    clock.advance(TimeDelta::days(1) - TimeDelta::seconds(1));
    let too_early = b.run_due().await + a.run_due().await;
    clock.advance(TimeDelta::seconds(1));
    let (second_b, second_a) = tokio::join!(b.run_due(), a.run_due());
    clock.advance(TimeDelta::minutes(1));
    let again = a.run_due().await + b.run_due().await;

    assert_eq!((first_a + first_b, too_early, second_a + second_b, again), (1, 0, 1, 0));
    assert_eq!(times(&runs), [at("2026-02-23T02:30:00Z"), at("2026-02-24T02:30:00Z")]);
    assert_eq!(db.number("SELECT count(*) FROM job_runs WHERE finished_at IS NOT NULL").await, 2);
}

#[tokio::test]
async fn a_clock_that_is_put_back_stops_no_job_and_runs_none_twice() {
    let (db, runs) = (TestDb::new().await, Runs::default());
    let clock = MockClock::at(at("2026-02-23T10:05:00Z"));
    let mut runner = runner(&db, &clock, "one", vec![job(&runs, "* * * * *", 0)]);
    assert_eq!(runner.run_due().await, 1);

    clock.set(at("2026-02-23T09:05:00Z"));
    let back = runner.run_due().await;
    clock.set(at("2026-02-23T10:05:30Z"));
    let forth = runner.run_due().await;
    clock.set(at("2026-02-23T10:06:00Z"));
    let next = runner.run_due().await;

    assert_eq!((back, forth, next), (1, 0, 1));
    let expected = ["2026-02-23T10:05:00Z", "2026-02-23T09:05:00Z", "2026-02-23T10:06:00Z"].map(at);
    assert_eq!(times(&runs), expected);
}

#[tokio::test]
async fn after_a_downtime_only_the_latest_missed_time_runs() {
    let (db, runs) = (TestDb::new().await, Runs::default());
    let clock = MockClock::at(at("2026-02-23T10:05:00Z"));
    let mut before = runner(&db, &clock, "before", vec![job(&runs, "0 * * * *", 0)]);
    before.run_due().await;

    clock.set(at("2026-02-23T15:30:00Z"));
    let mut after = runner(&db, &clock, "after", vec![job(&runs, "0 * * * *", 0)]);
    let ran = after.run_due().await + before.run_due().await;

    assert_eq!(ran, 1);
    assert_eq!(times(&runs), [at("2026-02-23T10:00:00Z"), at("2026-02-23T15:00:00Z")]);
}

#[tokio::test]
async fn a_failed_run_is_tried_again_after_thirty_seconds_until_it_succeeds() {
    let (db, runs) = (TestDb::new().await, Runs::default());
    let clock = MockClock::at(at("2026-02-23T10:00:00Z"));
    let mut runner = runner(&db, &clock, "a", vec![job(&runs, "0 * * * *", 1)]);
    let mut counts = Vec::new();

    counts.push(runner.run_due().await);
    let error: Option<String> =
        sqlx::query_scalar("SELECT error FROM job_runs").fetch_one(&db.pool).await.unwrap();
    for seconds in [29, 1, 30, 30] {
        clock.advance(TimeDelta::seconds(seconds));
        counts.push(runner.run_due().await);
    }

    assert_eq!(counts, [1, 0, 1, 0, 0]);
    assert_eq!(error.as_deref(), Some("not yet"));
    assert_eq!(times(&runs), [at("2026-02-23T10:00:00Z"); 2]);
    let row: (i32, Option<String>, bool) =
        sqlx::query_as("SELECT attempt, error, finished_at IS NOT NULL FROM job_runs")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert_eq!(row, (2, None, true));
}

#[tokio::test]
async fn a_run_that_has_to_wait_is_asked_again_when_it_said_by_whoever_is_there() {
    let (db, runs) = (TestDb::new().await, Runs::default());
    let clock = MockClock::at(at("2026-02-23T10:00:00Z"));
    let patient = || {
        let runs = Arc::clone(&runs);
        Job::new("test_job", "0 * * * *", move |at| {
            let runs = Arc::clone(&runs);
            async move {
                runs.lock().unwrap().push(at);
                if runs.lock().unwrap().len() < 2 {
                    return Err(NotYet(TimeDelta::minutes(5))).context("too early");
                }
                Ok(())
            }
        })
        .unwrap()
    };
    let mut first = runner(&db, &clock, "first", vec![patient()]);
    let mut second = runner(&db, &clock, "second", vec![patient()]);

    assert_eq!(first.run_due().await, 1);
    let waiting = "SELECT count(*) FROM job_runs WHERE finished_at IS NULL AND error = 'too early: asked again in 300 s'";
    assert_eq!(db.number(waiting).await, 1);
    // The first process ends; the other one is there when the time has come.
    drop(first);
    clock.advance(TimeDelta::seconds(299));
    assert_eq!(second.run_due().await, 0);
    clock.advance(TimeDelta::seconds(1));
    assert_eq!(second.run_due().await, 1);
    clock.advance(TimeDelta::minutes(5));
    assert_eq!(second.run_due().await, 0);

    assert_eq!(times(&runs), [at("2026-02-23T10:00:00Z"); 2]);
    assert_eq!(
        db.number("SELECT count(*) FROM job_runs WHERE finished_at IS NOT NULL AND error IS NULL").await,
        1
    );
}

#[tokio::test]
async fn a_job_that_panics_has_failed_and_harms_no_other() {
    let (db, runs) = (TestDb::new().await, Runs::default());
    let clock = MockClock::at(at("2026-02-23T10:00:00Z"));
    let broken = Job::new("broken", "0 * * * *", panics).unwrap();
    let mut runner = runner(&db, &clock, "a", vec![broken, job(&runs, "0 * * * *", 0)]);

    let ran = runner.run_due().await;

    assert_eq!((ran, times(&runs).len()), (2, 1));
    let broken = "SELECT count(*) FROM job_runs WHERE job = 'broken' AND finished_at IS NULL
                  AND error LIKE 'job panicked%'";
    assert_eq!(db.number(broken).await, 1);
}

#[tokio::test]
async fn a_run_whose_process_died_is_taken_over_when_its_lease_ends() {
    let (db, runs) = (TestDb::new().await, Runs::default());
    let clock = MockClock::at(at("2026-02-23T10:00:05Z"));
    db.change(
        "INSERT INTO job_runs (job, scheduled_at, leased_by, leased_until)
         VALUES ('test_job', '2026-02-23T10:00:00Z', 'dead', '2026-02-23T10:01:00Z')",
    )
    .await;
    let mut runner = runner(&db, &clock, "living", vec![job(&runs, "0 * * * *", 0)]);

    let while_leased = runner.run_due().await;
    clock.set(at("2026-02-23T10:01:00Z"));
    let afterwards = runner.run_due().await;

    assert_eq!((while_leased, afterwards), (0, 1));
    assert_eq!(times(&runs), [at("2026-02-23T10:00:00Z")]);
    let row: (String, i32) =
        sqlx::query_as("SELECT leased_by, attempt FROM job_runs").fetch_one(&db.pool).await.unwrap();
    assert_eq!(row, ("living".to_owned(), 2));
}

#[tokio::test]
async fn partitions_exist_a_week_ahead_take_strays_and_go_when_they_expire() {
    let database = empty_database().await;
    db::migrate(&database.options).await.unwrap();
    for sql in [
        "SELECT tbg_create_day_partition('mining_events', '2026-01-23')",
        "SELECT tbg_create_day_partition('mining_events', '2026-01-24')",
        "INSERT INTO mining_events (ts, event_type, payload) VALUES
         ('2026-02-20T23:59:59.999999Z', 'stray', '{}'), ('2026-02-23T10:00:00Z', 'today', '{}'),
         ('2026-01-10T00:00:00Z', 'expired', '{}'), ('2026-01-23T12:00:00Z', 'expired', '{}')",
        "INSERT INTO shares (time, btc_address, difficulty, share_diff) VALUES ('2026-02-21T12:00:00Z', 'a', 1, 1)",
        "INSERT INTO ingest_ledger (event_key, ts) VALUES (gen_random_uuid(), '2025-01-01T00:00:00Z')",
    ] {
        database.change(sql).await;
    }
    let now = at("2026-02-23T10:00:00Z");

    let first = keep_partitions(&database.pool, now).await.unwrap();
    let second = keep_partitions(&database.pool, now).await.unwrap();

    // Eight days of four tables, and the days of two strays.
    assert_eq!(first, Maintained { created: 34, dropped: 1, pruned: 2 });
    assert_eq!(second, Maintained::default());
    let events: Vec<(String, String)> =
        sqlx::query_as("SELECT event_type, tableoid::REGCLASS::TEXT FROM mining_events ORDER BY ts")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    let text = str::to_owned;
    let expected = [
        (text("stray"), text("mining_events_y2026m02d20")),
        (text("today"), text("mining_events_y2026m02d23")),
    ];
    assert_eq!(events, expected);
    let share: String = sqlx::query_scalar("SELECT tableoid::REGCLASS::TEXT FROM shares")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(share, "shares_y2026m02d21");
    let mut children: Vec<(String, i64)> = sqlx::query_as(
        "SELECT inhparent::REGCLASS::TEXT, count(*) FROM pg_inherits
         WHERE inhparent IN ('mining_events'::REGCLASS, 'shares'::REGCLASS,
                             'hashrate_snapshots'::REGCLASS, 'ingest_ledger'::REGCLASS)
         GROUP BY 1",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    children.sort_unstable();
    // Each with its DEFAULT; the archive also keeps its last day and a stray's, the shares a stray's.
    let expected = [("hashrate_snapshots", 9), ("ingest_ledger", 9), ("mining_events", 11), ("shares", 10)];
    assert_eq!(children, expected.map(|(name, count)| (text(name), count)));
    assert_eq!(
        database.number("SELECT count(*) FROM pg_class WHERE relname = 'mining_events_y2026m03d02'").await,
        1
    );
}

#[tokio::test]
async fn new_rows_of_the_week_ahead_fall_into_the_partition_of_their_day() {
    let database = empty_database().await;
    db::migrate(&database.options).await.unwrap();
    keep_partitions(&database.pool, at("2026-02-23T10:00:00Z")).await.unwrap();

    database
        .change(
            "INSERT INTO ingest_ledger (event_key, ts) VALUES
             (gen_random_uuid(), '2026-03-02T23:59:59.999999Z'), (gen_random_uuid(), '2026-03-03T00:00:00Z')",
        )
        .await;

    let tables: Vec<String> =
        sqlx::query_scalar("SELECT tableoid::REGCLASS::TEXT FROM ingest_ledger ORDER BY ts")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    assert_eq!(tables, ["ingest_ledger_y2026m03d02", "ingest_ledger_default"]);
}

#[tokio::test]
async fn dead_letters_and_consumed_domain_events_go_when_they_expire() {
    let db = TestDb::new().await;
    for sql in [
        "INSERT INTO ingest_dead_letters (stream, stream_id, payload, reason, created_at) VALUES
         ('s', 'old', '', 'bad_value', '2026-01-24T09:59:59Z'),
         ('s', 'new', '', 'bad_value', '2026-01-24T10:00:00Z')",
        "INSERT INTO domain_outbox (topic, event_key, consumer, payload, created_at, done_at) VALUES
         ('T', 'old', 'social', '{}', '2026-01-01T00:00:00Z', '2026-02-16T09:59:59Z'),
         ('T', 'new', 'social', '{}', '2026-01-01T00:00:00Z', '2026-02-16T10:00:00Z'),
         ('T', 'open', 'social', '{}', '2026-01-01T00:00:00Z', NULL),
         ('NodeVerified', 'operator', 'gamification', '{}', '2026-01-01T00:00:00Z', '2026-01-01T00:00:00Z')",
    ] {
        db.change(sql).await;
    }

    keep_partitions(&db.pool, at("2026-02-23T10:00:00Z")).await.unwrap();

    let letters: Vec<String> =
        sqlx::query_scalar("SELECT stream_id FROM ingest_dead_letters").fetch_all(&db.pool).await.unwrap();
    assert_eq!(letters, ["new"]);
    let events: Vec<String> = sqlx::query_scalar("SELECT event_key FROM domain_outbox ORDER BY id")
        .fetch_all(&db.pool)
        .await
        .unwrap();
    assert_eq!(events, ["new", "open", "operator"]);
}

#[tokio::test]
async fn an_index_on_the_parent_only_is_completed_on_every_partition_by_the_next_migration() {
    let database = TestDb::new().await;
    for sql in [
        "CREATE INDEX idx_test_region ON ONLY mining_events (region, ts DESC)",
        // A leftover of a build that was interrupted.
        "CREATE INDEX mining_events_default_idx_test_region ON mining_events_default (region)",
        "UPDATE pg_index SET indisvalid = FALSE
         WHERE indexrelid = 'mining_events_default_idx_test_region'::REGCLASS",
    ] {
        database.change(sql).await;
    }
    let valid = "SELECT indisvalid::INT::BIGINT FROM pg_index WHERE indexrelid = 'idx_test_region'::REGCLASS";
    assert_eq!(database.number(valid).await, 0);

    let applied = db::migrate(&database.options).await.unwrap();

    assert_eq!(applied, 0);
    assert_eq!(database.number(valid).await, 1);
    let partitions =
        database.number("SELECT count(*) FROM pg_inherits WHERE inhparent = 'mining_events'::REGCLASS").await;
    let attached = "SELECT count(*) FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid
                    WHERE i.inhparent = 'idx_test_region'::REGCLASS AND x.indisvalid";
    assert!(partitions >= 9, "{partitions} partitions");
    assert_eq!(database.number(attached).await, partitions);
    assert_eq!(database.number("SELECT count(*) FROM tbg_missing_partition_indexes()").await, 0);
}
