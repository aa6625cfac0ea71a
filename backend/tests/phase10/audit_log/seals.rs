//! Seals against real transactions (contract `production.md` §20, examples 8 to 10).

use std::time::Duration;

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tbg_core::audit::{Action, Entry, record};
use tbg_operations::{Fault, FaultKind, Verdict, head, hex, seal, verify};
use tbg_tests::program::until;
use tbg_tests::{TestDb, at, now};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::run;

/// Nothing holds seals back: for rows whose timestamps are written in the test.
pub(super) async fn nothing_is_open(db: &TestDb) {
    run(
        &db.pool,
        "CREATE OR REPLACE FUNCTION tbg_audit_horizon() RETURNS TIMESTAMPTZ LANGUAGE sql
         AS $$ SELECT TIMESTAMPTZ '2200-01-01T00:00:00Z' $$",
    )
    .await;
}

/// From now on a second of this database is a minute of 2026-11-24 after 12:00, in the timestamps of rows
/// and in the horizon, whose distance from the present shrinks from a minute to a second as well.
async fn seconds_are_minutes(db: &TestDb) {
    for sql in [
        "CREATE TABLE test_start AS SELECT now() AS at",
        "CREATE FUNCTION test_time(t TIMESTAMPTZ) RETURNS TIMESTAMPTZ LANGUAGE sql STABLE
         AS $$ SELECT TIMESTAMPTZ '2026-11-24T12:00:00Z' + 60 * (t - test_start.at) FROM test_start $$",
        "ALTER TABLE audit_log ALTER timestamp SET DEFAULT test_time(now())",
        "CREATE OR REPLACE FUNCTION tbg_audit_horizon() RETURNS TIMESTAMPTZ LANGUAGE sql
         AS $$ SELECT test_time(least(min(xact_start), now() - INTERVAL '1 second'))
               FROM pg_stat_activity WHERE datname = current_database() AND usesysid IS NOT NULL $$",
    ] {
        run(&db.pool, sql).await;
    }
}

/// Later than everything: leaves the horizon to decide.
fn far() -> DateTime<Utc> {
    at("2100-01-01T00:00:00Z")
}

async fn add(pool: &PgPool) {
    let mut tx = pool.begin().await.unwrap();
    record(&mut tx, &Entry::new(Action::AuthLogin, "session")).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn the_examples_give_the_contracts_hashes_and_a_changed_row_breaks_its_seal() {
    let db = TestDb::new().await;
    nothing_is_open(&db).await;
    run(
        &db.pool,
        r#"INSERT INTO audit_log VALUES
           ('01936000-0000-7000-8000-000000000002', '2026-11-24T12:00:00.000001Z', NULL, 'auth.failed_login',
            'user', NULL, '203.0.113.7', NULL, '{}', 'failure'),
           ('01936000-0000-7000-8000-000000000001', '2026-11-24T12:00:00Z', '42', 'auth.login',
            'session', NULL, '203.0.113.7', NULL, '{"method":"wallet"}', 'success')"#,
    )
    .await;

    let too_early = seal(&db.pool, at("2026-11-24T12:01:59Z")).await.unwrap();
    let first = seal(&db.pool, at("2026-11-24T12:02:00Z")).await.unwrap().unwrap();
    let within_the_hour = seal(&db.pool, at("2026-11-24T13:01:59.999Z")).await.unwrap();
    let second = seal(&db.pool, at("2026-11-24T13:02:00Z")).await.unwrap().unwrap();

    assert_eq!((too_early, within_the_hour), (None, None));
    assert_eq!(
        (first.seal_no, first.lo, first.hi),
        (1, at("2026-11-24T12:00:00Z"), at("2026-11-24T12:01:00Z"))
    );
    assert_eq!((second.seal_no, second.hi), (2, at("2026-11-24T13:01:00Z")));
    assert_eq!(hex(&first.hash), "2e3857ae0eb8d58e132b811887435eeff769f9525af3fec8d26aa665f4f9d4ac");
    assert_eq!(hex(&second.hash), "5bc851f3af0cbc54d131ef1fe2b1ce41f46008abbbf5092184ceeaa6a164db69");
    assert_eq!(head(&db.pool).await.unwrap(), Some(second.clone()));
    let good = verify(&db.pool, None, Some((2, second.hash))).await.unwrap();
    assert_eq!(good, Verdict::Good { seals: 2, rows: 2 });

    for sql in [
        "ALTER TABLE audit_log DISABLE TRIGGER USER",
        "UPDATE audit_log SET status = 'success' WHERE id = '01936000-0000-7000-8000-000000000002'",
    ] {
        run(&db.pool, sql).await;
    }
    let verdict = verify(&db.pool, None, None).await.unwrap();
    assert_eq!(verdict, Verdict::Fault(Fault { seal_no: 1, kind: FaultKind::RowsDiffer }));
    assert_eq!(verify(&db.pool, Some(2), None).await.unwrap(), Verdict::Good { seals: 1, rows: 0 });
}

#[tokio::test]
async fn an_open_transaction_holds_seals_back_and_nobody_waits() {
    let db = TestDb::new().await;
    seconds_are_minutes(&db).await;
    run(
        &db.pool,
        "INSERT INTO audit_log (timestamp, action, resource_type)
         VALUES ('2026-11-24T11:58:30Z', 'auth.login', 'session')",
    )
    .await;
    // Half past the first minute, give or take a busy machine.
    sleep(Duration::from_millis(500)).await;
    let mut open = db.pool.begin().await.unwrap();
    let since: DateTime<Utc> =
        sqlx::query_scalar("SELECT test_time(now())").fetch_one(&mut *open).await.unwrap();
    let its_minute = since.duration_trunc(TimeDelta::minutes(1)).unwrap();

    sleep(Duration::from_secs(3)).await;
    timeout(Duration::from_secs(10), add(&db.pool)).await.expect("a writer waits for nobody");
    sleep(Duration::from_millis(2500)).await;
    let sealed = timeout(Duration::from_secs(10), seal(&db.pool, far())).await.expect("neither does a seal");
    let held_back = seal(&db.pool, far()).await.unwrap();
    record(&mut open, &Entry::new(Action::AuthLogin, "session")).await.unwrap();
    open.commit().await.unwrap();
    let mut rows = 0;
    let all = until(async || {
        seal(&db.pool, far()).await.unwrap();
        rows = db.number("SELECT coalesce(sum(row_count), 0)::BIGINT FROM audit_seals").await;
        rows == 3
    })
    .await;

    let sealed = sealed.unwrap().unwrap();
    assert_eq!((sealed.lo, sealed.hi, sealed.row_count), (at("2026-11-24T11:58:00Z"), its_minute, 1));
    assert_eq!(held_back, None);
    assert!(all, "{rows} rows are sealed");
    let verdict = verify(&db.pool, None, None).await.unwrap();
    assert!(matches!(verdict, Verdict::Good { rows: 3, .. }), "{verdict:?}");
}

#[tokio::test]
async fn no_row_of_fifty_writers_is_lost_to_the_seals() {
    let db = TestDb::new().await;
    seconds_are_minutes(&db).await;
    let pool = PgPoolOptions::new().max_connections(50).connect_with(db.options.clone()).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..50 {
        let pool = pool.clone();
        writers.spawn(async move {
            for round in 0..6 {
                // Transactions of up to 0.9 s cross the ends of minutes at any point.
                let mut tx = pool.begin().await.unwrap();
                record(&mut tx, &Entry::new(Action::UserProfileUpdated, "user").on(writer)).await.unwrap();
                sleep(Duration::from_millis((writer * 7 + round * 3) % 10 * 100)).await;
                record(&mut tx, &Entry::new(Action::UserSettingsUpdated, "settings")).await.unwrap();
                tx.commit().await.unwrap();
            }
        });
    }

    while !writers.is_empty() {
        seal(&db.pool, far()).await.unwrap();
        if let Ok(Some(ended)) = timeout(Duration::from_millis(50), writers.join_next()).await {
            ended.unwrap();
        }
    }
    let mut sealed = 0;
    let all = until(async || {
        seal(&db.pool, far()).await.unwrap();
        sealed = db.number("SELECT coalesce(sum(row_count), 0)::BIGINT FROM audit_seals").await;
        sealed == 600
    })
    .await;

    assert!(all, "{sealed} of 600 rows are sealed");
    let seals = db.number("SELECT count(*) FROM audit_seals").await;
    assert!(seals >= 2, "{seals} seals");
    assert_eq!(db.number("SELECT max(seal_no) FROM audit_seals").await, seals);
    let verdict = verify(&db.pool, None, None).await.unwrap();
    assert_eq!(verdict, Verdict::Good { seals: seals.unsigned_abs(), rows: 600 });
}

#[tokio::test]
async fn while_one_process_seals_another_does_not() {
    let db = TestDb::new().await;
    nothing_is_open(&db).await;
    run(
        &db.pool,
        "INSERT INTO audit_log (timestamp, action, resource_type)
         VALUES ('2026-11-24T12:00:00Z', 'auth.login', 'session')",
    )
    .await;

    let later = at("2026-11-24T12:10:00Z");
    let (a, b, c) = tokio::join!(seal(&db.pool, later), seal(&db.pool, later), seal(&db.pool, later));

    let sealed = [a, b, c].into_iter().filter_map(Result::unwrap).count();
    assert_eq!(sealed, 1);
}

#[tokio::test]
async fn of_a_month_that_retention_has_dropped_only_the_chain_is_checked() {
    let db = TestDb::new().await;
    nothing_is_open(&db).await;
    let old = now() - TimeDelta::days(430);
    sqlx::query("SELECT tbg_create_audit_partition($1)")
        .bind(old.date_naive())
        .execute(&db.pool)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO audit_log (timestamp, action, resource_type) VALUES ($1, 'auth.login', 'session')",
    )
    .bind(old)
    .execute(&db.pool)
    .await
    .unwrap();
    seal(&db.pool, now()).await.unwrap().expect("the rest of its month");
    let month = seal(&db.pool, old + TimeDelta::days(33)).await.unwrap();
    assert!(month.is_some(), "a quiet stretch of the next month");

    let before = verify(&db.pool, None, None).await.unwrap();
    let dropped = db.number("SELECT audit_log_retain()::BIGINT").await;
    let after = verify(&db.pool, None, None).await.unwrap();

    assert_eq!((before, dropped), (Verdict::Good { seals: 2, rows: 1 }, 1));
    assert_eq!(after, Verdict::Good { seals: 2, rows: 0 });
    for sql in [
        "ALTER TABLE audit_seals DISABLE TRIGGER USER",
        "UPDATE audit_seals SET row_count = 0 WHERE seal_no = 1",
    ] {
        run(&db.pool, sql).await;
    }
    let verdict = verify(&db.pool, None, None).await.unwrap();
    assert_eq!(verdict, Verdict::Fault(Fault { seal_no: 1, kind: FaultKind::SealChanged }));
}
