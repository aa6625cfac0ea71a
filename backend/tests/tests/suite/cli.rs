//! The command line of the real program.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tbg_core::config::Settings;
use tbg_core::db;
use tbg_local::Durability;
use tbg_tests::program::{Program, binary};
use tbg_tests::{TestDb, TestRedis, now, share};
use tempfile::TempDir;

use crate::support::{Ran, USER, empty_database, everything, reaches, tbg, tbg_on, ts};

/// Runs a command on a database.
async fn on(db: &TestDb, args: &[&str]) -> Ran {
    let url = db.url();
    tbg(args, &[("TBG_DATABASE_URL", url.as_str())]).await
}

fn file(dir: &TempDir, lines: &[String]) -> PathBuf {
    let path = dir.path().join("events.ndjson");
    fs::write(&path, lines.join("\n")).unwrap();
    path
}

async fn replay(db: &TestDb, path: &Path, more: &[&str]) -> Value {
    let mut args = vec!["replay", path.to_str().unwrap()];
    args.extend(more);
    let ran = on(db, &args).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    serde_json::from_str(&ran.out).expect("the output is one JSON document")
}

fn share_at(instant: DateTime<Utc>, sdiff: f64) -> String {
    share(USER, "rig1", &ts(instant), 512.0, sdiff, true)
}

#[tokio::test]
async fn a_file_is_replayed_with_exact_counts_and_the_second_time_applies_nothing() {
    let (db, dir) = (TestDb::new().await, TempDir::new().unwrap());
    let start = now() - TimeDelta::hours(1);
    let raw = format!(
        r#"{{"ts":"{}","event_type":"miner_connected","source":"hosted","payload":{{"user":"{USER}"}}}}"#,
        start.format("%Y-%m-%dT%H:%M:%S%.6fZ")
    );
    let path = file(
        &dir,
        &[
            share_at(start, 1000.0),
            share_at(start + TimeDelta::microseconds(150), 1000.0),
            String::new(),
            share_at(start + TimeDelta::seconds(1), 2000.0),
            raw,
            "garbage".to_owned(),
            r#"{"event":"share_submitted","ts":1,"data":{"user":"x","user":"y"}}"#.to_owned(),
            share_at(now() + TimeDelta::hours(1), 3000.0),
            share_at(now() - TimeDelta::days(91), 4000.0),
        ],
    );

    let first = replay(&db, &path, &[]).await;
    let before = everything(&db).await;
    let second = replay(&db, &path, &[]).await;

    assert_eq!(first, json!({"read": 8, "applied": 3, "duplicate": 1, "malformed": 2, "rejected": 2}));
    assert_eq!(second, json!({"read": 8, "applied": 0, "duplicate": 4, "malformed": 2, "rejected": 2}));
    assert_eq!(everything(&db).await, before);
    let mut reasons: Vec<String> =
        sqlx::query_scalar("SELECT reason FROM ingest_dead_letters WHERE stream = 'replay:events.ndjson'")
            .fetch_all(&db.pool)
            .await
            .unwrap();
    reasons.sort_unstable();
    assert_eq!(reasons, ["future_ts", "malformed_json", "malformed_json", "too_old"]);
}

#[tokio::test]
async fn a_dry_run_reads_and_checks_and_writes_nothing() {
    let (db, dir) = (TestDb::new().await, TempDir::new().unwrap());
    let path = file(&dir, &[share_at(now(), 1000.0), "garbage".to_owned()]);

    let summary = replay(&db, &path, &["--dry-run"]).await;

    assert_eq!(summary, json!({"read": 2, "applied": 0, "duplicate": 0, "malformed": 1, "rejected": 0}));
    assert_eq!(everything(&db).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_replay_reads_standard_input() {
    let (db, dir) = (TestDb::new().await, tempfile::tempdir().unwrap());
    let path = file(&dir, &[share_at(now(), 1000.0)]);
    let output = tokio::process::Command::new(binary())
        .args(["replay", "-"])
        .env("TBG_DATABASE_URL", db.url())
        .stdin(fs::File::open(path).unwrap())
        .output()
        .await
        .unwrap();
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["applied"], 1, "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_replay_takes_events_from_the_first_instant_up_to_but_not_at_the_last() {
    let (db, dir) = (TestDb::new().await, TempDir::new().unwrap());
    let start = DateTime::from_timestamp(now().timestamp() - 3600, 0).unwrap();
    let at = |n: i64| start + TimeDelta::seconds(n);
    let path = file(&dir, &[0_i32, 9, 10, 19, 20].map(|n| share_at(at(n.into()), 1000.0 + f64::from(n))));
    let text = |n: i64| at(n).format("%Y-%m-%dT%H:%M:%SZ").to_string();

    let summary = replay(&db, &path, &["--from", &text(9), "--to", &text(20)]).await;

    assert_eq!(summary, json!({"read": 5, "applied": 3, "duplicate": 0, "malformed": 0, "rejected": 0}));
    let kept: Vec<f64> = sqlx::query_scalar("SELECT share_diff FROM shares ORDER BY share_diff")
        .fetch_all(&db.pool)
        .await
        .unwrap();
    assert_eq!(kept, [1009.0, 1010.0, 1019.0]);
}

#[tokio::test]
async fn an_old_file_raises_bests_only_when_that_is_asked_for() {
    let (db, dir) = (TestDb::new().await, TempDir::new().unwrap());
    db.user(USER).await;
    let path = file(&dir, &[share_at(now() - TimeDelta::days(100), 4000.0)]);

    let summary = replay(&db, &path, &["--allow-old"]).await;

    assert_eq!(summary, json!({"read": 1, "applied": 1, "duplicate": 0, "malformed": 0, "rejected": 0}));
    assert_eq!(db.number("SELECT count(*) FROM personal_bests WHERE best_difficulty = 4000").await, 3);
    assert_eq!(db.number("SELECT count(*) FROM hourly_shares").await, 0);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_a_failure() {
    let db = TestDb::new().await;

    let ran = on(&db, &["replay", "/nonexistent/events.ndjson"]).await;

    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("/nonexistent/events.ndjson"), "{ran:?}");
}

#[tokio::test]
async fn the_same_seed_simulates_the_same_bytes() {
    let dir = TempDir::new().unwrap();
    let mut files = Vec::new();
    for (name, seed) in [("a", "7"), ("b", "7"), ("c", "8")] {
        let path = dir.path().join(name);
        let to = path.to_str().unwrap();
        let start = "2026-02-23T00:00:00Z";

        let args = ["simulate", "--events", "1000", "--seed", seed, "--start", start, "--to", to];
        let ran = tbg(&args, &[]).await;

        assert_eq!(ran.code, Some(0), "{ran:?}");
        files.push(fs::read_to_string(&path).unwrap());
    }
    assert_eq!(files[0].lines().count(), 1000);
    assert!(files[0] == files[1], "the same seed");
    assert!(files[0] != files[2], "another seed");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "a .partial is left");
}

#[tokio::test]
async fn a_simulation_that_cannot_be_meant_leaves_its_file_as_it_was() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("events.ndjson");
    fs::write(&path, "kept").unwrap();
    let to = path.to_str().unwrap();
    let cases: [(&[&str], &str); 6] = [
        (&[], "give --events or --duration"),
        (&["--duration=inf"], "--duration is"),
        (&["--duration=NaN"], "--duration is"),
        (&["--duration=0"], "--duration is"),
        (&["--duration=-1"], "--duration is"),
        (&["--events=1", "--share-seconds=0"], "--share-seconds is"),
    ];

    for (more, told) in cases {
        let ran = tbg(&[&["simulate", "--to", to][..], more].concat(), &[]).await;

        assert!(ran.code == Some(1) && ran.err.contains(told), "{more:?}: {ran:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept", "{more:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a .partial is left");
}

/// The streams are much shorter than the simulation: it has to wait for ingest.
#[tokio::test]
async fn a_simulation_pushes_nothing_out_of_the_streams_that_ingest_has_not_read() {
    let (db, replayed) = (TestDb::new().await, TestDb::new().await);
    let (redis, dir) = (TestRedis::new().await, TempDir::new().unwrap());
    let path = dir.path().join("events.ndjson");
    let start = (now() - TimeDelta::hours(1)).format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let what = ["simulate", "--events", "2000", "--start", &start, "--to"];
    let filed = tbg(&[&what[..], &[path.to_str().unwrap()]].concat(), &[]).await;
    assert_eq!(filed.code, Some(0), "{filed:?}");
    let applied = replay(&replayed, &path, &[]).await["applied"].as_i64().unwrap();
    let _ingest = Program::start(&db, &redis, "ingest", &[]).await;

    let args = [&what[..], &["streams", "--fast"]].concat();
    let ran = tbg_on(&db, &redis, &args, &[("TBG_REDIS_STREAM_MAXLEN", "200")]).await;

    assert_eq!(ran.code, Some(0), "{ran:?}");
    reaches(&db, "SELECT count(*) FROM ingest_ledger", applied).await;
}

#[tokio::test]
async fn migrations_are_applied_once() {
    let db = empty_database().await;

    let first = on(&db, &["migrate"]).await;
    let second = on(&db, &["migrate"]).await;

    assert!(first.code == Some(0) && first.out.starts_with("Applied "), "{first:?}");
    assert_eq!((second.code, second.out.as_str()), (Some(0), "The schema is up to date.\n"));
    let applied = db.number("SELECT count(*) FROM _sqlx_migrations WHERE success").await;
    assert_eq!(first.out, format!("Applied {applied} migration(s).\n"));
}

async fn refused(db: &TestDb, stream: &str, id: &str, payload: &str, reason: &str) {
    sqlx::query(
        "INSERT INTO ingest_dead_letters (stream, stream_id, payload, reason) VALUES ($1, $2, $3, $4)",
    )
    .bind(stream)
    .bind(id)
    .bind(payload)
    .bind(reason)
    .execute(&db.pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn dead_letters_are_listed_and_those_that_are_valid_now_are_applied_and_removed() {
    let db = TestDb::new().await;
    let line = share_at(now(), 1000.0);
    let data = format!(r#"{{"user":"{USER}","sdiff":2000}}"#);
    let entry = json!({"ts": ts(now()), "data": data}).to_string();
    for (stream, id, payload, reason) in [
        ("mining:refused", "1-0", line.as_str(), "bad_value"),
        ("mining:share_submitted", "2-0", entry.as_str(), "apply_failed"),
        ("mining:refused", "3-0", "still garbage", "malformed_json"),
    ] {
        refused(&db, stream, id, payload, reason).await;
    }

    let all = on(&db, &["dead-letters", "list"]).await;
    let some = on(&db, &["dead-letters", "list", "--reason", "malformed_json"]).await;
    let retried = on(&db, &["dead-letters", "retry"]).await;

    assert!(all.out.ends_with("3 dead letter(s)\n"), "{all:?}");
    assert!(all.out.contains("apply_failed mining:share_submitted/2-0"), "{all:?}");
    assert!(some.out.contains("still garbage") && some.out.ends_with("1 dead letter(s)\n"), "{some:?}");
    assert_eq!(retried.code, Some(0), "{retried:?}");
    assert!(retried.out.ends_with("2 applied, 0 already there, 1 still refused\n"), "{retried:?}");
    let left: Vec<String> =
        sqlx::query_scalar("SELECT stream_id FROM ingest_dead_letters").fetch_all(&db.pool).await.unwrap();
    assert_eq!(left, ["3-0"]);
    let shares: Vec<f64> = sqlx::query_scalar("SELECT share_diff FROM shares ORDER BY share_diff")
        .fetch_all(&db.pool)
        .await
        .unwrap();
    assert_eq!(shares, [1000.0, 2000.0]);
}

#[tokio::test]
async fn a_retry_goes_through_all_pages_of_letters_and_brings_the_totals_up_to_date() {
    let (db, dir) = (TestDb::new().await, TempDir::new().unwrap());
    let end = now();
    let shares =
        [0_i32, 1, 2, 3, 4].map(|n| share_at(end - TimeDelta::minutes(n.into()), 1000.0 + f64::from(n)));
    replay(&db, &file(&dir, &shares[..1]), &[]).await;
    refused(&db, "mining:refused", "first", "garbage", "bad_value").await;
    for (n, share) in shares.iter().enumerate() {
        refused(&db, "mining:refused", &n.to_string(), share, "bad_value").await;
    }
    refused(&db, "mining:refused", "last", "garbage", "bad_value").await;
    refused(&db, "mining:refused", "other", &share_at(end, 5000.0), "future_ts").await;

    let retried = on(&db, &["dead-letters", "retry", "--reason", "bad_value", "--limit", "2"]).await;

    assert_eq!(retried.code, Some(0), "{retried:?}");
    assert!(retried.out.ends_with("4 applied, 1 already there, 2 still refused\n"), "{retried:?}");
    let left: Vec<String> = sqlx::query_scalar("SELECT stream_id FROM ingest_dead_letters ORDER BY id")
        .fetch_all(&db.pool)
        .await
        .unwrap();
    assert_eq!(left, ["first", "last", "other"]);
    assert_eq!(db.number("SELECT sum(total)::BIGINT FROM pool_hourly_totals").await, 5);
}

/// A record pays if the best until then is of an earlier week (gamification.md §4.1).
#[tokio::test]
async fn letters_are_retried_in_the_order_in_which_they_came() {
    let (db, dir) = (TestDb::new().await, TempDir::new().unwrap());
    db.user(USER).await;
    let weeks_ago = |weeks, difficulty| share_at(now() - TimeDelta::weeks(weeks), difficulty);
    replay(&db, &file(&dir, &[weeks_ago(2, 1000.0)]), &[]).await;
    refused(&db, "mining:refused", "0", &weeks_ago(1, 2000.0), "bad_value").await;
    refused(&db, "mining:refused", "1", &weeks_ago(0, 3000.0), "bad_value").await;

    let retried = on(&db, &["dead-letters", "retry"]).await;

    assert!(retried.out.ends_with("2 applied, 0 already there, 0 still refused\n"), "{retried:?}");
    assert_eq!(db.number("SELECT count(*) FROM xp_ledger WHERE source = 'personal_best'").await, 2);
}

#[tokio::test]
async fn config_shows_every_setting_with_its_origin_and_hides_secrets() {
    let dir = TempDir::new().unwrap();
    let secret = dir.path().join("redis_url");
    fs::write(&secret, "redis://:hunter2@localhost/\n").unwrap();
    let secret = secret.to_str().unwrap();
    let settings = [
        ("TBG_DATABASE_URL", "postgres://u:hunter2@localhost/d"),
        ("TBG_REDIS_URL_FILE", secret),
        ("TBG_INGEST_BATCH_SIZE", "7"),
    ];

    let ran = tbg(&["config"], &settings).await;

    assert_eq!(ran.code, Some(0));
    assert!(!format!("{ran:?}").contains("hunter2"));
    for line in [
        "TBG_DATABASE_URL=(hidden)  (environment)".to_owned(),
        format!("TBG_REDIS_URL=(hidden)  ({secret})"),
        "TBG_INGEST_BATCH_SIZE=7  (environment)".to_owned(),
        "TBG_INGEST_FLUSH_MS=1000  (default)".to_owned(),
        "TBG_REDIS_STREAM_MAXLEN=100000  (default)".to_owned(),
    ] {
        assert!(ran.out.lines().any(|shown| shown == line), "{line} is missing in:\n{}", ran.out);
    }
}

#[tokio::test]
async fn the_doctor_wants_secrets_for_their_owner_alone_and_asks_a_role_for_its_own_needs() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jwt_private_key");
    fs::write(&file, tbg_tests::app::SIGNING_KEY.as_str()).unwrap();
    let path = file.display().to_string();
    let check = async |role: &str, mode| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        tbg(&["doctor", "--role", role], &[("TBG_JWT_PRIVATE_KEY_FILE", &path)]).await.out
    };

    let open = check("api", 0o644).await;
    let closed = check("api", 0o600).await;
    let other = check("ingest", 0o600).await;
    fs::write(&file, "no key").unwrap();
    let no_key = check("api", 0o600).await;

    assert!(open.contains(&format!("FIX   secret files: others may read or write {path}")), "{open}");
    assert!(closed.contains("ok    secret files: 1 on disk") && closed.contains("token key"), "{closed}");
    assert!(closed.contains("ok    token key") && no_key.contains("FIX   token key"), "{closed}{no_key}");
    assert!(other.contains("pool socket") && !other.contains("token key"), "{other}");
    assert!(!closed.contains("pool socket"), "{closed}");
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong_and_says_so_by_its_exit_code() {
    let (db, redis) = (TestDb::new().await, TestRedis::with(Durability::Production).await);
    let (empty, forgetful) = (empty_database().await, TestRedis::new().await);
    let dir = TempDir::new().unwrap();
    let (socket, spool) = (dir.path().join("events.sock"), dir.path().join("spool"));
    let examine = async |database: &str, redis: &str| {
        let settings = [
            ("TBG_DATABASE_URL", database),
            ("TBG_REDIS_URL", redis),
            ("TBG_EVENT_SOCKET_PATH", socket.to_str().unwrap()),
            ("TBG_SPOOL_DIR", spool.to_str().unwrap()),
        ];
        tbg(&["doctor"], &settings).await
    };

    let good = examine(&db.url(), &redis.server.url()).await;
    let bad = examine(&empty.url(), &forgetful.server.url()).await;
    let away = examine("postgres://u:hunter2@localhost:1/d", "redis://127.0.0.1:1/").await;
    let unreadable = tbg(&["doctor"], &[("TBG_INGEST_MODE", "hunter2")]).await;

    for name in ["settings", "database", "redis", "spool"] {
        assert!(good.out.contains(&format!("  ok    {name}: ")), "{name}: {good:?}");
    }
    // What the kernel allows is not ours to choose here.
    let machine_is_fine = !good.out.contains("  FIX   ");
    assert_eq!(good.code, Some(i32::from(!machine_is_fine)), "{good:?}");
    assert_eq!((bad.code, away.code, unreadable.code), (Some(1), Some(1), Some(1)));
    assert!(bad.out.contains("  FIX   database: ") && bad.out.contains("tbg migrate"), "{bad:?}");
    assert!(bad.out.contains("  FIX   redis: ") && bad.out.contains("appendonly yes"), "{bad:?}");
    assert!(away.out.contains("  FIX   database: cannot connect"), "{away:?}");
    assert!(away.out.contains("  FIX   redis: cannot connect"), "{away:?}");
    assert!(unreadable.out.contains("TBG_INGEST_MODE"), "{unreadable:?}");
    assert!(!format!("{away:?}{unreadable:?}").contains("hunter2"));
}

#[tokio::test]
async fn the_version_is_that_of_the_package() {
    let ran = tbg(&["version"], &[]).await;

    let expected = concat!("tbg ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), expected));
}

#[tokio::test]
async fn a_rebuild_says_from_what_it_rebuilt() {
    let (db, dir) = (TestDb::new().await, TempDir::new().unwrap());

    let empty = on(&db, &["rebuild"]).await;
    replay(&db, &file(&dir, &[share_at(now(), 1000.0)]), &[]).await;
    sqlx::query("DELETE FROM hourly_shares").execute(&db.pool).await.unwrap();
    let full = on(&db, &["rebuild"]).await;

    let expected = "The archive is empty: nothing to rebuild from.\n\
                    The game: 0 field(s) differed from ledger, awards and calendar, and are put right.\n\
                    The lottery: 0 draw(s) follow from their entries.\n";
    assert_eq!((empty.code, empty.out.as_str()), (Some(0), expected));
    assert!(full.code == Some(0) && full.out.starts_with("Rebuilt from 1 archived events"), "{full:?}");
    assert_eq!(db.number("SELECT total FROM hourly_shares").await, 1);
}

/// A rebuild reads its archive by one statement, which takes longer than a request may.
#[tokio::test]
async fn what_an_operator_waits_for_has_no_limit_of_time_and_what_a_request_waits_for_has() {
    let db = TestDb::new().await;
    let settings = Settings::from_texts(&[("database_url", db.url())]).unwrap();

    let (unhurried, served) = (db::unhurried(&settings, 1).await.unwrap(), db::pool(&settings).unwrap());

    let limits = "SELECT current_setting('statement_timeout') || ' ' ||
                         current_setting('idle_in_transaction_session_timeout')";
    for (pool, expected) in [(unhurried, "0 0"), (served, "30s 1min")] {
        let seen: String = sqlx::query_scalar(limits).fetch_one(&pool).await.unwrap();
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn settings_that_are_not_valid_are_explained_by_the_list_of_all() {
    let ran = tbg(&["config"], &[("TBG_INGEST_MODE", "x")]).await;

    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("\nTBG_INGEST_MODE\n"), "{ran:?}");
    assert!(ran.err.contains("TBG_INGEST_MODE is not valid"), "{ran:?}");
}

#[tokio::test]
async fn a_draw_is_not_forced_without_the_key_of_its_salts() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);

    let ran =
        tbg_on(&db, &redis, &["lottery", "run-due", "--no-wait"], &[("TBG_LOTTERY_SALT_KEY", "")]).await;

    assert!(ran.code == Some(1) && ran.err.contains("TBG_LOTTERY_SALT_KEY_FILE"), "{ran:?}");
    assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action = 'lottery.forced'").await, 0);
}

#[tokio::test]
async fn a_command_that_needs_the_database_fails_without_it_and_never_quotes_its_url() {
    let empty = empty_database().await;
    for args in [
        ["rebuild"].as_slice(),
        &["dead-letters", "list"],
        &["replay", "/dev/null"],
        &["admin", "grant", "1"],
    ] {
        let unmigrated = tbg(args, &[("TBG_DATABASE_URL", empty.url().as_str())]).await;

        assert!(
            unmigrated.code == Some(1) && unmigrated.err.contains("run `tbg migrate`"),
            "{args:?}: {unmigrated:?}"
        );
    }
    for args in [["migrate"].as_slice(), &["rebuild"], &["dead-letters", "list"], &["serve"]] {
        let unset = tbg(args, &[("TBG_DATABASE_URL", "")]).await;

        assert_eq!(unset.code, Some(1), "{args:?}: {unset:?}");
        assert!(unset.err.contains("TBG_DATABASE_URL"), "{args:?}: {unset:?}");
    }
    let settings = [("TBG_DATABASE_URL", "postgres://u:hunter2@localhost:1/d")];
    let away = tbg(&["migrate"], &settings).await;
    assert_eq!(away.code, Some(1), "{away:?}");
    assert!(!away.err.contains("hunter2"), "{away:?}");
}
