//! What administrators see and clear, on a real database and Redis (contract `production.md` §9, §20 examples
//! 12 and 13). Here the overview, with the totals behind it; below, the log and the caches.

mod caches;
mod log;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::{Value, from_value, json, to_value};
use tbg_core::audit::Origin;
use tbg_core::told::{self, Told};
use tbg_core::{MockClock, UserId};
use tbg_operations::{
    AuditQuery, CacheRegistry, Operations, Parts, Scope, TOTALS_RECENT, TOTALS_WEEK, audit_page,
    catch_up_totals, clear_caches, recompute_totals, stats,
};
use tbg_tests::{TestDb, TestRedis, at, now};
use tbg_web::{ApiError, ErrorCode};

const ADMIN: UserId = UserId(1);
const LOCK: &str = "admin:cache_clear:lock";
/// Rows about the administrator himself.
const LOOKS: &str = "SELECT count(*) FROM audit_log WHERE action LIKE 'admin.%' AND status = 'success'
                     AND user_id = '1' AND ip_address = '203.0.113.7'";

/// The domain on servers of its own.
struct Office {
    db: TestDb,
    redis: TestRedis,
    clock: MockClock,
    operations: Operations,
    origin: Origin,
}

impl Office {
    async fn new() -> Self {
        Self::at(now()).await
    }

    async fn at(now: DateTime<Utc>) -> Self {
        let (db, redis, clock) = (TestDb::new().await, TestRedis::new().await, MockClock::at(now));
        let operations = Operations::new(Parts {
            pool: db.pool.clone(),
            redis: tbg_core::redis::manager(&redis.client()).unwrap(),
            clock: Arc::new(clock.clone()),
            version: "1.2.3",
            environment: "test",
            caches: CacheRegistry::default(),
        });
        let origin = Origin { ip: "203.0.113.7".parse().ok(), user_agent: Some("curl/8".to_owned()) };
        Self { db, redis, clock, operations, origin }
    }

    async fn run(&self, sql: &'static str) {
        // sql-audit: allow(S2) statements that are written in the test
        sqlx::raw_sql(sql).execute(&self.db.pool).await.expect(sql);
    }

    async fn stats(&self) -> Result<Value, ApiError> {
        stats(&self.operations, ADMIN, &self.origin).await.map(|stats| to_value(stats).unwrap())
    }

    /// A page of the log, as the wire shows it.
    async fn page(&self, query: Value) -> Result<Value, ApiError> {
        let query: AuditQuery = from_value(query).unwrap();
        audit_page(&self.operations, ADMIN, &self.origin, &query).await.map(|page| to_value(page).unwrap())
    }

    async fn clear(&self, scope: Scope) -> Result<Value, ApiError> {
        clear_caches(&self.operations, ADMIN, &self.origin, scope).await.map(|done| to_value(done).unwrap())
    }

    async fn connect(&self) -> MultiplexedConnection {
        tbg_core::redis::dedicated(&self.redis.client()).await.unwrap()
    }

    /// From now on no row can be added to the log.
    async fn close_the_log(&self) {
        self.run(
            "CREATE TRIGGER closed BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION tbg_refuse_change()",
        )
        .await;
    }

    async fn details_of(&self, action: &'static str) -> Vec<Value> {
        let sql = "SELECT details FROM audit_log WHERE action = $1 ORDER BY timestamp, id";
        sqlx::query_scalar(sql).bind(action).fetch_all(&self.db.pool).await.unwrap()
    }
}

async fn exists(conn: &mut MultiplexedConnection, key: &str) -> bool {
    cmd("EXISTS").arg(key).query_async(conn).await.unwrap()
}

#[tokio::test]
async fn the_overview_shows_everything() {
    let office = Office::at(at("2026-11-24T12:34:56Z")).await;
    office
        .run(
            "INSERT INTO users (id, btc_address, auth_method, email, password_hash, is_verified, is_banned,
                                created_at, last_seen, deleted_at) VALUES
             (11, 'a', 'wallet', NULL, NULL, TRUE, FALSE, '2026-11-23T12:34:57Z', '2026-11-24T12:00:00Z', NULL),
             (12, 'b', 'both', 'b@example.com', 'x', FALSE, TRUE, '2026-11-01', '2026-11-23T12:34:56Z', NULL),
             (13, NULL, 'email', 'c@example.com', 'x', FALSE, FALSE, '2026-11-01', NULL, NULL),
             (14, NULL, 'wallet', NULL, NULL, FALSE, FALSE, '2026-11-24', '2026-11-24', '2026-11-24');
             INSERT INTO workers (user_id, worker_name, is_online) VALUES
             (11, 'rig1', TRUE), (11, 'rig2', TRUE), (12, 'rig1', FALSE);
             INSERT INTO hourly_shares (bucket, btc_address, user_id, total, accepted, rejected, work) VALUES
             ('2026-11-24T11:00:00Z', 'a', 11, 10, 9, 1, 900000), ('2026-11-24T11:00:00Z', 'n', NULL, 1, 1, 0, 100000),
             ('2026-11-24T12:00:00Z', 'a', 11, 3, 3, 0, 7), ('2026-11-23T12:00:00Z', 'b', 12, 5, 5, 0, 7),
             ('2026-11-23T13:00:00Z', 'c', 13, 4, 0, 4, 0);
             INSERT INTO blocks (block_height, block_hash, found_at, confirmed) VALUES
             (900, 'aa', '2026-11-20', TRUE), (899, 'bb', '2026-11-21', FALSE);
             INSERT INTO ingest_dead_letters (stream, stream_id, payload, reason, created_at) VALUES
             ('s', '1', '', 'bad_type', '2026-11-24T12:00:00Z'), ('s', '2', '', 'bad_type', '2026-11-22');
             INSERT INTO domain_outbox (topic, event_key, consumer, payload, done_at) VALUES
             ('t', 'k', 'a', '{}', NULL), ('t', 'k', 'b', '{}', '2026-11-24');
             INSERT INTO audit_log (timestamp, action, resource_type) VALUES
             ('2026-11-22T00:00:00Z', 'auth.login', 'session'), ('2026-11-24T12:00:00Z', 'auth.login', 'session'),
             ('2026-11-24T12:10:00Z', 'auth.login', 'session');
             INSERT INTO audit_seals VALUES
             (1, '2026-11-22', '2026-11-24T12:10:00Z', 2, sha256('a'), sha256('b'), sha256('c'))",
        )
        .await;
    recompute_totals(&office.db.pool, at("2026-11-24T12:34:56Z"), TOTALS_WEEK).await.unwrap();

    let mut shown = office.stats().await.unwrap();

    let system = shown["system"].take();
    assert_eq!(
        shown,
        json!({
            "generated_at": "2026-11-24T12:34:56Z",
            "users": { "total": 3, "wallet": 1, "email": 1, "both": 1, "verified": 1, "banned": 1, "new_24h": 1,
                       "active_24h": 1 },
            "miners": { "workers_online": 2, "users_mining_24h": 1,
                        "pool_hashrate_ths": 1e6 * 4_294_967_296.0 / 3600.0 / 1e12 },
            "shares": { "total": 23, "accepted": 18, "rejected": 5, "accepted_today": 13, "rejected_today": 1 },
            "blocks": { "total": 2, "confirmed": 1, "last_height": 899, "last_found_at": "2026-11-21T00:00:00Z" },
            "game": { "xp_awarded": 0, "badges_awarded": 0, "lottery_draws": 0 },
            "system": null,
            "audit": { "rows_24h": 2, "unsealed_rows": 1, "head_seal": 1,
                       "head_hash": "2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6" },
            "version": "1.2.3",
            "environment": "test",
        })
    );
    assert!(system["database_bytes"].as_i64().unwrap() > 1_000_000, "{system}");
    assert!(system["redis_used_bytes"].as_i64().unwrap() > 100_000, "{system}");
    let others = ["dead_letters_24h", "outbox_pending", "ws_connections"].map(|name| system[name].as_i64());
    assert_eq!(others, [Some(1), Some(1), Some(0)]);
    assert_eq!((&system["ingest_lag_seconds"], &system["last_backup_at"]), (&json!(0.0), &Value::Null));
    assert_eq!(office.details_of("admin.stats_viewed").await, [json!({ "filters": {} })]);
}

#[tokio::test]
async fn an_empty_system_has_an_overview() {
    let office = Office::new().await;

    let shown = office.stats().await.unwrap();

    assert_eq!(
        shown["blocks"],
        json!({ "total": 0, "confirmed": 0, "last_height": null, "last_found_at": null })
    );
    let audit = json!({ "rows_24h": 0, "unsealed_rows": 0, "head_seal": 0, "head_hash": null });
    assert_eq!(shown["audit"], audit);
    assert_eq!((&shown["shares"]["total"], &shown["miners"]["pool_hashrate_ths"]), (&json!(0), &json!(0.0)));
}

#[tokio::test]
async fn an_overview_is_kept_for_ten_seconds_and_every_look_is_recorded() {
    let office = Office::new().await;
    let first = office.stats().await.unwrap();
    office.db.user("bc1qexample").await;
    office.clock.advance(TimeDelta::seconds(5));

    let second = office.stats().await.unwrap();

    assert_eq!(second, first);
    let mut conn = office.connect().await;
    let left: i64 = cmd("TTL").arg("admin:stats").query_async(&mut conn).await.unwrap();
    assert!((1..=10).contains(&left), "{left}");
    cmd("SET")
        .arg("admin:stats")
        .arg(r#"{"from":"another version"}"#)
        .query_async::<()>(&mut conn)
        .await
        .unwrap();
    let third = office.stats().await.unwrap();
    assert_eq!((&third["users"]["total"], &first["users"]["total"]), (&json!(1), &json!(0)));
    assert_eq!(office.db.number(LOOKS).await, 3);
}

#[tokio::test]
async fn without_redis_there_is_an_overview() {
    let mut office = Office::new().await;
    office.redis.server.kill().await.unwrap();

    let shown = office.stats().await.unwrap();

    assert_eq!(shown["system"]["redis_used_bytes"], 0);
    assert_eq!(office.db.number(LOOKS).await, 1);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_shown() {
    let office = Office::new().await;
    office.stats().await.unwrap();
    office.close_the_log().await;

    let refused = [
        office.stats().await.unwrap_err().code(),
        office.page(json!({})).await.unwrap_err().code(),
        office.clear(Scope::All).await.unwrap_err().code(),
    ];

    assert_eq!(refused, [ErrorCode::ServiceUnavailable; 3]);
    assert!(!exists(&mut office.connect().await, LOCK).await);
}

/// Hours in which totals and shares differ.
const DIFFERENCES: &str = "SELECT count(*) FROM
     (SELECT bucket, sum(total) AS t, sum(accepted) AS a, sum(rejected) AS r FROM hourly_shares GROUP BY bucket) h
     FULL JOIN (SELECT * FROM pool_hourly_totals WHERE total > 0) p USING (bucket)
     WHERE (h.t, h.a, h.r) IS DISTINCT FROM (p.total, p.accepted, p.rejected)";

#[tokio::test]
async fn totals_are_the_sums_of_all_addresses() {
    let db = TestDb::new().await;
    let noon = at("2026-11-24T12:00:30Z");
    sqlx::query(
        "INSERT INTO hourly_shares (bucket, btc_address, total, accepted, rejected)
         SELECT TIMESTAMPTZ '2026-11-24T12:00:00Z' - make_interval(hours => h), 'a' || u, 10 * u + h, 9 * u + h, u
         FROM generate_series(0, 180) h, generate_series(1, 4) u",
    )
    .execute(&db.pool)
    .await
    .unwrap();

    let recent = recompute_totals(&db.pool, noon, TOTALS_RECENT).await.unwrap();
    let differing = db.number(DIFFERENCES).await;
    let week = recompute_totals(&db.pool, noon, TOTALS_WEEK).await.unwrap();

    assert_eq!((recent, differing), (2, 179), "this hour and the one before");
    assert_eq!((week, db.number(DIFFERENCES).await), (167, 12), "169 hours begin in the week");

    for sql in [
        "UPDATE hourly_shares SET total = total + 1, accepted = accepted + 1
         WHERE btc_address = 'a1' AND bucket = '2026-11-24T11:00:00Z'",
        "DELETE FROM hourly_shares WHERE bucket = '2026-11-20T00:00:00Z'",
    ] {
        sqlx::query(sql).execute(&db.pool).await.unwrap();
    }
    assert_eq!(recompute_totals(&db.pool, noon, TOTALS_RECENT).await.unwrap(), 1);
    assert_eq!(recompute_totals(&db.pool, noon, TOTALS_RECENT).await.unwrap(), 0);
    assert_eq!(db.number(DIFFERENCES).await, 13, "the hour that lost its shares waits for the night");
    assert_eq!(recompute_totals(&db.pool, noon, TOTALS_WEEK).await.unwrap(), 1);
    assert_eq!(db.number(DIFFERENCES).await, 12);
    let idle =
        "SELECT total + accepted + rejected FROM pool_hourly_totals WHERE bucket = '2026-11-20T00:00:00Z'";
    assert_eq!(db.number(idle).await, 0);
}

#[tokio::test]
async fn totals_catch_up_with_a_long_downtime() {
    let db = TestDb::new().await;
    sqlx::query(
        "INSERT INTO hourly_shares (bucket, btc_address, total, accepted, rejected)
             SELECT date_trunc('hour', now()) - make_interval(days => d), 'a', 2, 1, 1
             FROM generate_series(1, 40) AS d",
    )
    .execute(&db.pool)
    .await
    .unwrap();

    catch_up_totals(&db.pool, now()).await.unwrap();

    assert_eq!(db.number("SELECT sum(total)::BIGINT FROM pool_hourly_totals").await, 80);
}

#[tokio::test]
async fn what_only_another_process_knows_is_in_the_overview() {
    let redis = TestRedis::new().await;
    let (mut manager, now) = (redis.manager(), at("2026-11-24T12:00:00Z"));
    let silent = Told {
        at: now,
        sockets: 3,
        ingest_lag_seconds: None,
        ingest_committed_at: None,
        last_backup_at: None,
    };
    let ingest = Told { ingest_lag_seconds: Some(1.5), sockets: 0, ..silent.clone() };
    let jobs = Told { last_backup_at: Some(at("2026-11-24T02:00:05Z")), sockets: 4, ..silent.clone() };
    let quiet = Told { at: now - TimeDelta::seconds(31), sockets: 100, ..silent.clone() };
    let ahead = Told { at: now + TimeDelta::seconds(31), ..quiet.clone() };
    let gone = Told { at: now - TimeDelta::seconds(3601), ..quiet.clone() };

    for (process, told) in [
        ("api", silent),
        ("ingest", ingest),
        ("jobs", jobs),
        ("quiet", quiet),
        ("ahead", ahead),
        ("gone", gone),
    ] {
        told::tell(&mut manager, process, &told).await.unwrap();
    }
    let known = told::ask(&mut manager, now).await.unwrap();

    let backup = Some(at("2026-11-24T02:00:05Z"));
    assert_eq!((known.sockets, known.ingest_lag_seconds, known.last_backup_at), (7, Some(1.5), backup));
    let left: u32 = cmd("HLEN").arg("tbg:processes").query_async(&mut manager).await.unwrap();
    assert_eq!(left, 5, "who is gone for an hour is forgotten");
}
