//! What the hourly job forgets, and what it must keep (contract `auth-users.md` §12).

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tbg_core::Clock as _;
use tbg_identity::jobs::clean_up;
use tbg_tests::TestDb;
use tbg_tests::app::{Answer, App};
use tbg_tests::at;

const REFRESH_TOKENS: &str = "SELECT count(*) FROM refresh_tokens";
const VERIFICATION_TOKENS: &str = "SELECT count(*) FROM email_verification_tokens";
const RESET_TOKENS: &str = "SELECT count(*) FROM password_reset_tokens";
const ATTEMPTS: &str = "SELECT count(*) FROM login_attempts";

fn today() -> DateTime<Utc> {
    at("2026-03-15T14:07:00Z")
}

/// Runs a statement with the user as `$1`, an instant as `$2` and a number of rows as `$3`.
async fn insert(db: &TestDb, sql: &'static str, user: i64, instant: DateTime<Utc>, rows: i32) {
    sqlx::query(sql).bind(user).bind(instant).bind(rows).execute(&db.pool).await.unwrap();
}

/// Live refresh tokens that expire at an instant.
async fn refresh_tokens(db: &TestDb, user: i64, expires_at: DateTime<Utc>, rows: i32) {
    let sql =
        "INSERT INTO refresh_tokens (id, user_id, family_id, token_hash, auth_method, session_started_at,
                                           issued_at, expires_at)
               SELECT gen_random_uuid(), $1, gen_random_uuid(),
                      encode(sha256(convert_to(gen_random_uuid()::TEXT, 'UTF8')), 'hex'), 'wallet',
                      $2::TIMESTAMPTZ - INTERVAL '7 days', $2 - INTERVAL '7 days', $2
               FROM generate_series(1, $3::INT)";
    insert(db, sql, user, expires_at, rows).await;
}

async fn verification_tokens(db: &TestDb, user: i64, expires_at: DateTime<Utc>, rows: i32) {
    let sql = "INSERT INTO email_verification_tokens (id, user_id, email, token_hash, expires_at, used_at)
               SELECT gen_random_uuid(), $1, 'miner@example.com',
                      encode(sha256(convert_to(gen_random_uuid()::TEXT, 'UTF8')), 'hex'), $2,
                      CASE WHEN n % 2 = 0 THEN $2 END
               FROM generate_series(1, $3::INT) n";
    insert(db, sql, user, expires_at, rows).await;
}

async fn reset_tokens(db: &TestDb, user: i64, expires_at: DateTime<Utc>, rows: i32) {
    let sql = "INSERT INTO password_reset_tokens (id, user_id, token_hash, expires_at, used_at)
               SELECT gen_random_uuid(), $1,
                      encode(sha256(convert_to(gen_random_uuid()::TEXT, 'UTF8')), 'hex'), $2,
                      CASE WHEN n % 2 = 0 THEN $2 END
               FROM generate_series(1, $3::INT) n";
    insert(db, sql, user, expires_at, rows).await;
}

/// Failures of e-mails, the last of each at an instant.
async fn attempts(db: &TestDb, updated_at: DateTime<Utc>, rows: i32) {
    sqlx::query(
        "INSERT INTO login_attempts (email_hash, failed_count, window_started_at, updated_at)
         SELECT encode(sha256(convert_to(gen_random_uuid()::TEXT, 'UTF8')), 'hex'), 1, $1, $1
         FROM generate_series(1, $2::INT)",
    )
    .bind(updated_at)
    .bind(rows)
    .execute(&db.pool)
    .await
    .unwrap();
}

/// Mail in a status, queued at an instant.
async fn mail(db: &TestDb, status: &str, created_at: DateTime<Utc>, rows: i32) {
    sqlx::query(
        "INSERT INTO email_outbox (id, to_address, template, context, status, next_attempt_at, created_at)
         SELECT gen_random_uuid(), 'miner@example.com', 'notification', '{}'::JSONB, $1, $2, $2
         FROM generate_series(1, $3::INT)",
    )
    .bind(status)
    .bind(created_at)
    .bind(rows)
    .execute(&db.pool)
    .await
    .unwrap();
}

async fn refresh(app: &App, token: &str) -> Answer {
    app.post("/api/v1/auth/refresh", None, json!({ "refresh_token": token })).await
}

#[tokio::test]
async fn what_is_old_goes_in_batches_of_a_thousand() {
    let db = TestDb::new().await;
    let (user, now) = (db.user("bc1qexample").await, today());
    refresh_tokens(&db, user, now - TimeDelta::seconds(1), 2_500).await;
    // A note of how many rows each statement deletes.
    for sql in [
        "CREATE TABLE swept (number INT GENERATED ALWAYS AS IDENTITY, deleted BIGINT)",
        "CREATE FUNCTION note_sweep() RETURNS TRIGGER LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO swept (deleted) SELECT count(*) FROM gone HAVING count(*) > 0;
             RETURN NULL;
         END
         $$",
        "CREATE TRIGGER note_sweep AFTER DELETE ON refresh_tokens REFERENCING OLD TABLE AS gone
         FOR EACH STATEMENT EXECUTE FUNCTION note_sweep()",
    ] {
        sqlx::query(sql).execute(&db.pool).await.unwrap();
    }

    clean_up(&db.pool, now).await.unwrap();

    assert_eq!(db.number(REFRESH_TOKENS).await, 0);
    let swept: Vec<i64> =
        sqlx::query_scalar("SELECT deleted FROM swept ORDER BY number").fetch_all(&db.pool).await.unwrap();
    assert_eq!(swept, [1_000, 1_000, 500]);
}

#[tokio::test]
async fn each_table_keeps_what_is_not_old_enough() {
    let db = TestDb::new().await;
    let (user, now) = (db.user("bc1qexample").await, today());
    let (day_ago, month_ago) = (now - TimeDelta::hours(24), now - TimeDelta::days(30));
    let second = TimeDelta::seconds(1);
    refresh_tokens(&db, user, now - second, 3).await;
    refresh_tokens(&db, user, now, 1).await;
    refresh_tokens(&db, user, now + second, 2).await;
    // More than a batch here, so that one table does not have to wait for the next hour.
    verification_tokens(&db, user, day_ago - second, 2_500).await;
    verification_tokens(&db, user, day_ago, 4).await;
    reset_tokens(&db, user, day_ago - second, 2_500).await;
    reset_tokens(&db, user, day_ago, 5).await;
    attempts(&db, day_ago - second, 2_500).await;
    attempts(&db, day_ago, 6).await;
    for status in ["sent", "dropped"] {
        mail(&db, status, month_ago - second, 1_250).await;
        mail(&db, status, month_ago, 7).await;
    }
    for status in ["pending", "sending", "failed"] {
        mail(&db, status, month_ago - second, 1).await;
    }

    // The second run finds nothing more.
    for _ in 0..2 {
        clean_up(&db.pool, now).await.unwrap();

        assert_eq!(db.number(REFRESH_TOKENS).await, 3);
        assert_eq!(db.number(VERIFICATION_TOKENS).await, 4);
        assert_eq!(db.number(RESET_TOKENS).await, 5);
        assert_eq!(db.number(ATTEMPTS).await, 6);
        let kept: Vec<(String, i64)> =
            sqlx::query_as("SELECT status, count(*) FROM email_outbox GROUP BY status ORDER BY status")
                .fetch_all(&db.pool)
                .await
                .unwrap();
        let expected = [("dropped", 7), ("failed", 1), ("pending", 1), ("sending", 1), ("sent", 7)];
        assert_eq!(kept, expected.map(|(status, count)| (status.to_owned(), count)));
    }
}

#[tokio::test]
async fn a_rotated_token_stays_as_long_as_it_could_be_used_and_is_still_a_trap() {
    let app = App::new().await;
    let first = app.miner(1).await;
    app.clock.advance(TimeDelta::days(6));
    let second = refresh(&app, &first.refresh).await.ok();
    let expires_at = app.clock.now() + TimeDelta::days(1);

    app.clock.set(expires_at - TimeDelta::seconds(10));
    clean_up(&app.db.pool, app.clock.now()).await.unwrap();
    assert_eq!(app.db.number(REFRESH_TOKENS).await, 2);
    assert_eq!(refresh(&app, &first.refresh).await.outcome(), (401, "AUTH_REFRESH_REUSED"));

    // When it goes, its successor knows nothing of it and stays.
    app.clock.set(expires_at + TimeDelta::seconds(1));
    clean_up(&app.db.pool, app.clock.now()).await.unwrap();
    assert_eq!(app.db.number(REFRESH_TOKENS).await, 1);
    let left = second["refresh_token"].as_str().unwrap();
    assert_eq!(refresh(&app, left).await.outcome(), (401, "AUTH_REFRESH_INVALID"));
}
