//! The audit log on a real database: its table, who may do what to it, its months, its writers (contract
//! `production.md` §8, §20 examples 7 and 11).

#[path = "audit_log/seals.rs"]
mod seals;
#[path = "audit_log/tampering.rs"]
mod tampering;

use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, PgPool};
use tbg_core::UserId;
use tbg_core::audit::{Action, Entry, Origin, record, record_refusal};
use tbg_operations::{Kept, Verdict, keep, seal, verify};
use tbg_tests::{TestDb, at, now};

/// Runs a statement that is written in the test.
async fn run(pool: &PgPool, sql: &'static str) {
    sqlx::query(sql).execute(pool).await.expect(sql);
}

/// The SQLSTATE with which a statement is refused.
async fn refusal(conn: &mut PgConnection, sql: &'static str) -> String {
    let error = sqlx::query(sql).execute(conn).await.expect_err(sql);
    error.as_database_error().and_then(|error| error.code()).expect(sql).into_owned()
}

async fn texts(db: &TestDb, sql: &'static str) -> Vec<String> {
    sqlx::query_scalar(sql).fetch_all(&db.pool).await.expect(sql)
}

/// A login role that may do what the program's role may.
async fn app_login(db: &TestDb) -> PgConnectOptions {
    let name = format!("app_{}", uuid::Uuid::new_v4().simple());
    // sql-audit: allow(S1, S2) a name made of hex digits
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE ROLE {name} LOGIN IN ROLE tbg_app")))
        .execute(&db.pool)
        .await
        .unwrap();
    db.options.clone().username(&name)
}

/// A month with a row in it, beside the DEFAULT partition with another.
async fn two_rows(db: &TestDb) {
    for sql in [
        "SELECT tbg_create_audit_partition('2031-05-01')",
        "INSERT INTO audit_log (timestamp, action, resource_type) VALUES
         ('2031-05-15T00:00:00Z', 'auth.login', 'session'), ('2032-01-01T00:00:00Z', 'auth.login', 'session')",
    ] {
        run(&db.pool, sql).await;
    }
}

#[tokio::test]
async fn the_table_is_the_contracts() {
    let db = TestDb::new().await;

    let columns = texts(
        &db,
        "SELECT a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
             || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
             || coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '')
         FROM pg_attribute a
         LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE a.attrelid = 'audit_log'::REGCLASS AND a.attnum > 0 ORDER BY a.attnum",
    )
    .await;
    let indexes = texts(
        &db,
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'audit_log'::REGCLASS
         ORDER BY indexrelid::REGCLASS::TEXT",
    )
    .await;

    assert_eq!(
        columns,
        [
            "id uuid NOT NULL DEFAULT gen_random_uuid()",
            "timestamp timestamp with time zone NOT NULL DEFAULT now()",
            "user_id character varying(128)",
            "action character varying(50) NOT NULL",
            "resource_type character varying(50) NOT NULL",
            "resource_id character varying(200)",
            "ip_address character varying(45)",
            "user_agent character varying(500)",
            "details jsonb NOT NULL DEFAULT '{}'::jsonb",
            "status character varying(20) NOT NULL DEFAULT 'success'::character varying",
        ]
    );
    assert_eq!(
        indexes,
        [
            r#"CREATE UNIQUE INDEX audit_log_pkey ON ONLY public.audit_log USING btree (id, "timestamp")"#,
            r#"CREATE INDEX idx_audit_action ON ONLY public.audit_log USING btree (action, "timestamp" DESC)"#,
            "CREATE INDEX idx_audit_resource ON ONLY public.audit_log USING btree (resource_type, resource_id)",
            r#"CREATE INDEX idx_audit_timestamp ON ONLY public.audit_log USING btree ("timestamp" DESC)"#,
            r#"CREATE INDEX idx_audit_user ON ONLY public.audit_log USING btree (user_id, "timestamp" DESC)"#,
        ]
    );
    let mut conn = db.connect().await;
    let bad_status =
        "INSERT INTO audit_log (action, resource_type, status) VALUES ('auth.login', 'session', 'ok')";
    assert_eq!(refusal(&mut conn, bad_status).await, "23514");
    let incomplete =
        "SELECT count(*) FROM pg_index WHERE indrelid = 'audit_log'::REGCLASS AND NOT indisvalid";
    assert_eq!(db.number(incomplete).await, 0);
}

#[tokio::test]
async fn a_record_is_one_row_with_all_that_it_tells() {
    let db = TestDb::new().await;
    let origin =
        Origin { ip: "::ffff:203.0.113.7".parse().ok(), user_agent: Some("curl/8\r\n\u{1b}[31m".to_owned()) };
    let entry = Entry::new(Action::AuthFailedLogin, "user")
        .by(UserId(42))
        .on(42)
        .from(&origin)
        .details(json!({ "method": "email", "reason": "locked" }))
        .denied();

    let mut tx = db.pool.begin().await.unwrap();
    record(&mut tx, &entry).await.unwrap();
    tx.commit().await.unwrap();

    let rows = texts(
        &db,
        "SELECT concat_ws('|', user_id, action, resource_type, resource_id, ip_address, user_agent, details,
                          status)
         FROM audit_log WHERE timestamp BETWEEN now() - INTERVAL '1 minute' AND now()",
    )
    .await;
    let expected = "42|auth.failed_login|user|42|203.0.113.7|curl/8   [31m|\
                    {\"method\": \"email\", \"reason\": \"locked\"}|denied";
    assert_eq!(rows, [expected]);
    assert_eq!(db.number("SELECT count(*) FROM audit_log").await, 1);
}

#[tokio::test]
async fn every_action_can_be_recorded_and_goes_with_its_transaction() {
    let db = TestDb::new().await;
    let mut kept = db.pool.begin().await.unwrap();
    let mut undone = db.pool.begin().await.unwrap();

    for action in Action::ALL {
        record(&mut kept, &Entry::new(*action, "thing")).await.unwrap();
        record(&mut undone, &Entry::new(*action, "thing").failed()).await.unwrap();
    }
    kept.commit().await.unwrap();
    undone.rollback().await.unwrap();

    let names = texts(&db, "SELECT action FROM audit_log WHERE status = 'success' ORDER BY action").await;
    let mut expected: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(db.number("SELECT count(*) FROM audit_log").await, i64::try_from(expected.len()).unwrap());
}

#[tokio::test]
async fn a_refusal_is_committed_by_itself_and_its_failure_is_nobodys_problem() {
    let db = TestDb::new().await;
    let entry = Entry::new(Action::AdminAccessDenied, "route").on("/api/v1/admin/stats").denied();

    record_refusal(&db.pool, &entry).await;
    let closed = PgPoolOptions::new().connect_lazy_with(db.options.clone());
    closed.close().await;
    record_refusal(&closed, &entry).await;

    let rows = "SELECT count(*) FROM audit_log WHERE action = 'admin.access_denied' AND status = 'denied'";
    assert_eq!(db.number(rows).await, 1);
}

#[tokio::test]
async fn nobody_changes_or_removes_rows_not_even_the_owner() {
    let db = TestDb::new().await;
    two_rows(&db).await;
    run(
        &db.pool,
        "INSERT INTO audit_seals VALUES
         (1, '2031-05-15', '2031-05-16', 0, sha256('a'), sha256('b'), sha256('c'))",
    )
    .await;
    let mut conn = db.connect().await;

    for role in ["SET session_replication_role = origin", "SET session_replication_role = replica"] {
        sqlx::query(role).execute(&mut conn).await.unwrap();
        for sql in [
            "UPDATE audit_log SET status = 'failure'",
            "DELETE FROM audit_log",
            "TRUNCATE audit_log",
            "UPDATE audit_log_y2031m05 SET status = 'failure'",
            "DELETE FROM audit_log_y2031m05",
            "TRUNCATE audit_log_y2031m05",
            "UPDATE audit_log_default SET status = 'failure'",
            "DELETE FROM audit_log_default",
            "TRUNCATE audit_log_default",
            "UPDATE audit_seals SET row_count = 1",
            "DELETE FROM audit_seals",
            "TRUNCATE audit_seals",
        ] {
            assert_eq!(refusal(&mut conn, sql).await, "23001", "{role}: {sql}");
        }
    }

    let rows = "SELECT count(*) FROM audit_log WHERE status = 'success'";
    assert_eq!(
        (db.number(rows).await, db.number("SELECT sum(seal_no)::BIGINT FROM audit_seals").await),
        (2, 1)
    );
    // `A`: always, whatever session_replication_role says.
    let triggers = "SELECT count(*) FROM pg_trigger t
                    WHERE t.tgname IN ('audit_log_append_only', 'audit_log_no_truncate') AND t.tgenabled = 'A'";
    let tables = "SELECT 1 + count(*) FROM pg_inherits WHERE inhparent = 'audit_log'::REGCLASS";
    assert_eq!(db.number(triggers).await, 2 * db.number(tables).await);
}

#[tokio::test]
async fn the_programs_role_reads_and_adds_and_nothing_else() {
    let db = TestDb::new().await;
    two_rows(&db).await;
    let mut conn = app_login(&db).await.connect().await.unwrap();

    record(&mut conn, &Entry::new(Action::AuthLogin, "session")).await.unwrap();
    let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_log").fetch_one(&mut conn).await.unwrap();

    assert_eq!(seen, 3);
    for sql in [
        "UPDATE audit_log SET status = 'failure'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
        "DROP TABLE audit_log",
        "SELECT * FROM audit_log_y2031m05",
        "INSERT INTO audit_log_y2031m05 (timestamp, action, resource_type)
         VALUES ('2031-05-15T00:00:00Z', 'auth.login', 'session')",
        "UPDATE audit_log_y2031m05 SET status = 'failure'",
        "DELETE FROM audit_log_default",
        "TRUNCATE audit_log_default",
        "UPDATE audit_seals SET row_count = 1",
        "DELETE FROM audit_seals",
        "TRUNCATE audit_seals",
        "SET session_replication_role = replica",
        "SELECT audit_log_retain_at('2040-01-01')",
        "SELECT audit_log_keep_partitions_at('2040-01-01')",
        "SELECT tbg_create_audit_partition('2040-01-01')",
        "SELECT tbg_grant_app()",
        "SELECT tbg_drop_partition('audit_log', 'audit_log_y2031m05')",
        "SELECT tbg_drop_partition('mining_events', 'audit_log_y2031m05')",
        "SELECT tbg_prune_default_partition('audit_log', '2040-01-01', 100)",
        "SELECT tbg_create_day_partition('audit_log', '2040-01-01')",
    ] {
        assert_eq!(refusal(&mut conn, sql).await, "42501", "{sql}");
    }
}

#[tokio::test]
async fn the_programs_role_runs_all_maintenance() {
    let db = TestDb::new().await;
    let app = PgPoolOptions::new().max_connections(2).connect_with(app_login(&db).await).await.unwrap();
    run(&db.pool, "CREATE TABLE made_later (id BIGINT GENERATED ALWAYS AS IDENTITY, text TEXT)").await;

    let days = tbg_mining::jobs::keep_partitions(&app, now() + chrono::TimeDelta::days(1)).await.unwrap();
    let months = keep(&app).await.unwrap();
    let sealed = seal(&app, now()).await.unwrap();
    let verdict = verify(&app, None, None).await.unwrap();
    run(&app, "INSERT INTO made_later (text) VALUES ('a')").await;
    run(&app, "UPDATE made_later SET text = 'b'").await;

    assert_eq!(days.created, 4, "one more day of each table");
    assert_eq!(months, Kept::default());
    assert_eq!(sealed, None);
    assert_eq!(verdict, Verdict::Good { seals: 0, rows: 0 });
}

#[tokio::test]
async fn a_month_is_dropped_a_year_after_its_end_if_it_is_sealed() {
    let db = TestDb::new().await;
    for sql in [
        "SELECT tbg_create_audit_partition('2025-10-01'), tbg_create_audit_partition('2025-11-01')",
        "INSERT INTO audit_log (timestamp, action, resource_type) VALUES
         ('2025-10-31T23:30:00Z', 'auth.login', 'session'), ('2025-11-01T00:00:00Z', 'auth.login', 'session')",
        "CREATE OR REPLACE FUNCTION tbg_audit_horizon() RETURNS TIMESTAMPTZ LANGUAGE sql
         AS $$ SELECT TIMESTAMPTZ '2200-01-01T00:00:00Z' $$",
    ] {
        run(&db.pool, sql).await;
    }
    let not_before = "SELECT audit_log_retain_at('2026-10-31T23:59:59.999999Z')::BIGINT";
    let on_time = "SELECT audit_log_retain_at('2026-11-01T00:10:00Z')::BIGINT";

    let unsealed = db.number(on_time).await;
    seal(&db.pool, at("2025-10-31T23:40:00Z")).await.unwrap().expect("a seal within the month");
    let half_sealed = db.number(on_time).await;
    let last = seal(&db.pool, at("2025-11-20T00:00:00Z")).await.unwrap().expect("the month's last seal");
    let (too_early, due, again) =
        (db.number(not_before).await, db.number(on_time).await, db.number(on_time).await);

    assert_eq!(last.hi, at("2025-11-01T00:00:00Z"));
    assert_eq!((unsealed, half_sealed, too_early, due, again), (0, 0, 0, 1, 0));
    let rows = texts(
        &db,
        "SELECT concat_ws('|', action, resource_type, resource_id, details ->> 'sealed_rows')
         FROM audit_log ORDER BY timestamp",
    )
    .await;
    assert_eq!(rows, ["auth.login|session", "system.audit_retention|partition|audit_log_y2025m10|1"]);
    assert_eq!(db.number("SELECT count(*) FROM audit_seals").await, 2);
}

#[tokio::test]
async fn rows_in_default_move_to_the_partition_of_their_month_when_it_is_made() {
    let db = TestDb::new().await;
    two_rows(&db).await;
    let before = texts(&db, "SELECT to_jsonb(a)::TEXT FROM audit_log a ORDER BY timestamp").await;

    run(&db.pool, "SELECT tbg_create_audit_partition('2032-01-31')").await;

    assert_eq!(texts(&db, "SELECT to_jsonb(a)::TEXT FROM audit_log a ORDER BY timestamp").await, before);
    let tables = texts(&db, "SELECT tableoid::REGCLASS::TEXT FROM audit_log ORDER BY timestamp").await;
    assert_eq!(tables, ["audit_log_y2031m05", "audit_log_y2032m01"]);
    assert_eq!(db.number("SELECT audit_log_default_rows()").await, 0);
    let mut conn = db.connect().await;
    run(
        &db.pool,
        "INSERT INTO audit_log (timestamp, action, resource_type)
         VALUES ('2035-01-01', 'auth.login', 'session')",
    )
    .await;
    for sql in ["DELETE FROM audit_log_y2032m01", "DELETE FROM audit_log_default"] {
        assert_eq!(refusal(&mut conn, sql).await, "23001", "{sql}");
    }
}

#[tokio::test]
async fn months_exist_three_ahead() {
    let db = TestDb::new().await;

    let created = db.number("SELECT audit_log_keep_partitions_at('2031-11-30T23:59:59Z')::BIGINT").await;
    let again = db.number("SELECT audit_log_keep_partitions_at('2031-11-30T23:59:59Z')::BIGINT").await;

    assert_eq!((created, again), (4, 0));
    let names = "SELECT relname::TEXT FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
                 WHERE i.inhparent = 'audit_log'::REGCLASS AND relname >= 'audit_log_y2031' ORDER BY 1";
    let expected = ["audit_log_y2031m11", "audit_log_y2031m12", "audit_log_y2032m01", "audit_log_y2032m02"];
    assert_eq!(texts(&db, names).await, expected);
    assert_eq!(keep(&db.pool).await.unwrap(), Kept::default(), "a fresh database has this month's");
}

#[tokio::test]
async fn the_programs_role_cannot_run_its_own_code_as_the_owner() {
    let db = TestDb::new().await;
    let mut conn = app_login(&db).await.connect().await.unwrap();
    // The migration says the same; but a clone of a database does not take over its privileges.
    let forbid = "DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()); END $$";
    run(&db.pool, forbid).await;
    assert_eq!(refusal(&mut conn, "CREATE TEMP TABLE evil (ts TIMESTAMPTZ)").await, "42501");

    // Where an administrator has allowed temporary tables again, they are no way in either.
    let allow =
        "DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database()); END $$";
    run(&db.pool, allow).await;
    for sql in [
        "CREATE TEMP TABLE evil (ts TIMESTAMPTZ) PARTITION BY RANGE (ts)",
        "CREATE TEMP TABLE evil_default PARTITION OF evil DEFAULT",
        "CREATE TEMP TABLE mining_events (ts TIMESTAMPTZ) PARTITION BY RANGE (ts)",
    ] {
        sqlx::query(sql).execute(&mut conn).await.unwrap();
    }
    for sql in [
        "SELECT tbg_create_day_partition('evil', '2031-05-01')",
        "SELECT tbg_prune_default_partition('evil', '2031-05-01', 10)",
        "SELECT tbg_drop_partition('evil', 'evil_default')",
        "SELECT tbg_drop_partition('mining_events', 'users')",
        "SELECT tbg_drop_partition('mining_events', 'audit_log_default')",
        "SELECT tbg_create_day_partition('users', '2031-05-01')",
        "SELECT tbg_create_day_partition('audit_log', '2031-05-01')",
        "SELECT tbg_prune_default_partition('audit_log', '2031-05-01', 10)",
        "SELECT tbg_create_day_partition('public.mining_events', '2031-05-01')",
        "SELECT tbg_create_day_partition('nothing', '2031-05-01')",
    ] {
        assert_eq!(refusal(&mut conn, sql).await, "42501", "{sql}");
    }

    // The real table is worked on, whatever stands before it in the session.
    sqlx::query("SELECT tbg_create_day_partition('mining_events', '2031-05-01')")
        .execute(&mut conn)
        .await
        .unwrap();
    let made = "SELECT count(*) FROM pg_class WHERE oid = to_regclass('public.mining_events_y2031m05d01')";
    assert_eq!(db.number(made).await, 1);
}
