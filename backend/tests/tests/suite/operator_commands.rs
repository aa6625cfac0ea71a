//! The commands of operators and of people who try the game: keys, wallets, roles, the audit log; and what
//! production does not start with (contract `auth-users.md` §4.2, §9, `production.md` §8.3, §20 item 15).

use std::fs;

use serde_json::{Value, json};
use tbg_core::audit::{self, Action, Entry};
use tbg_tests::app::{ISSUER, claims};
use tbg_tests::program::Program;
use tbg_tests::{TestDb, TestRedis, now};
use tbg_web::auth::{Keys, TokenKind};
use tempfile::TempDir;

use crate::support::{Ran, empty_database, tbg, tbg_on};

async fn on(db: &TestDb, redis: &TestRedis, args: &[&str]) -> Ran {
    tbg_on(db, redis, args, &[]).await
}

/// The word after `name` at the start of a line.
fn field(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.expect(text).trim().to_owned()
}

#[tokio::test]
async fn a_person_without_a_wallet_signs_in_with_a_throwaway_one() {
    let (db, redis, dir) = (TestDb::new().await, TestRedis::new().await, TempDir::new().unwrap());
    let program = Program::start(&db, &redis, "api", &[]).await;
    program.wait_for("/health", 200).await;
    let client = reqwest::Client::new();
    let post = async |path: &str, body: Value| -> (u16, Value) {
        let answer = client.post(format!("{}{path}", program.base)).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    };

    // A key that stands in a file is nobody else's to read; on the command line it is.
    for (kind, in_file) in [("p2wpkh", true), ("p2tr", false), ("p2sh", true), ("p2pkh", false)] {
        let made = tbg(&["wallet", "new", "--type", kind], &[]).await;
        let (address, key) = (field(&made.out, "address"), field(&made.out, "key"));
        let (_, challenge) = post("/api/v1/auth/challenge", json!({ "btc_address": address })).await;
        let file = dir.path().join(kind);
        fs::write(&file, challenge.to_string()).unwrap();
        let wallet = dir.path().join(format!("{kind}.wallet"));
        fs::write(&wallet, &made.out).unwrap();
        let by = if in_file { ["--key-file", wallet.to_str().unwrap()] } else { ["--key", &key] };
        let what = ["--type", kind, "--challenge", file.to_str().unwrap()];
        let signed = tbg(&[&["wallet", "sign"][..], &by[..], &what[..]].concat(), &[]).await;
        let body = json!({ "btc_address": address, "signature": signed.out.trim() });
        let (status, answer) = post("/api/v1/auth/connect", body).await;

        assert_eq!((status, &answer["user"]["btc_address"]), (200, &json!(address)), "{kind}: {answer}");
    }
}

#[tokio::test]
async fn an_operator_makes_an_administrator_and_takes_the_right_back() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    let user = db.user("bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l").await.to_string();
    db.change("UPDATE users SET is_verified = TRUE").await;

    for (args, admins) in [
        (["admin", "grant", "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l"], 1),
        (["admin", "revoke", user.as_str()], 0),
    ] {
        let ran = on(&db, &redis, &args).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(db.number("SELECT count(*) FROM users WHERE is_admin").await, admins);
    }
    let nobody = on(&db, &redis, &["admin", "grant", "4242"]).await;

    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action LIKE 'admin.role_%'").await, 2);
}

#[tokio::test]
async fn a_grant_says_that_it_was_done_or_why_it_was_not() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    let (one, two) = (db.user("bc1qone").await, db.user("bc1qtwo").await);
    sqlx::query("INSERT INTO user_badges (user_id, badge_id, earned_at) VALUES ($1, 12, now())")
        .bind(two)
        .execute(&db.pool)
        .await
        .unwrap();

    for (user, reference, said) in [
        (one, "ticket-1", format!("User {one} gets the badge node_runner.")),
        (one, "ticket-1", "The reference ticket-1 was used before: nothing changed.".to_owned()),
        (two, "ticket-1", "The reference ticket-1 was used before: nothing changed.".to_owned()),
        (two, "ticket-2", format!("User {two} holds the badge node_runner already: nothing changed.")),
    ] {
        let user = user.to_string();
        let ran = on(&db, &redis, &["badge", "grant", &user, "node_runner", "--reference", reference]).await;
        assert_eq!((ran.code, ran.out.trim()), (Some(0), said.as_str()), "{}", ran.err);
    }
}

#[tokio::test]
async fn the_audit_log_is_verified_with_an_exit_code_for_each_outcome() {
    let (db, redis) = (TestDb::new().await, TestRedis::new().await);
    let entry = Entry::new(Action::AuthLogin, "session").on("1");
    audit::record(&mut db.connect().await, &entry).await.unwrap();
    // The row was written two hours ago, and nobody writes now.
    db.change("ALTER TABLE audit_log DISABLE TRIGGER USER").await;
    db.change("UPDATE audit_log SET timestamp = timestamp - INTERVAL '2 hours'").await;
    tbg_operations::seal(&db.pool, now()).await.unwrap().expect("a seal");

    let good = on(&db, &redis, &["audit", "verify"]).await;
    let wrong_anchor = format!("1:{}", "0".repeat(64));
    let other = on(&db, &redis, &["audit", "verify", "--anchor", &wrong_anchor]).await;
    let nonsense = on(&db, &redis, &["audit", "verify", "--anchor", "nonsense"]).await;
    let nowhere = tbg(&["audit", "verify"], &[("TBG_DATABASE_URL", "postgres://nobody@127.0.0.1:1/x")]).await;

    assert_eq!(good.code, Some(0), "{good:?}");
    assert_eq!(other.code, Some(1), "{other:?}");
    assert_eq!(nonsense.code, Some(2), "{nonsense:?}");
    assert_eq!(nowhere.code, Some(2), "{nowhere:?}");
}

#[tokio::test]
async fn a_new_key_signs_and_its_public_half_verifies() {
    let dir = TempDir::new().unwrap();
    let private = tbg(&["keys", "new"], &[]).await.out;
    let path = dir.path().join("key.pem");
    fs::write(&path, &private).unwrap();
    let public = std::process::Command::new(tbg_tests::program::binary())
        .args(["keys", "public"])
        .stdin(fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    let public = String::from_utf8(public.stdout).unwrap();
    let audience = claims(1, now()).aud;
    let old = Keys::new(&private, &[], ISSUER, &audience).unwrap();
    let new = Keys::new(&tbg_tests::app::SIGNING_KEY, &[public], ISSUER, &audience).unwrap();

    let token = old.sign(&claims(1, now())).unwrap();

    assert!(new.verify(&token, TokenKind::Access, now()).is_ok());
    assert_eq!(new.public().len(), 2);
}

#[tokio::test]
async fn production_does_not_start_with_what_is_for_development() {
    let dir = TempDir::new().unwrap();
    let secret = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (database, redis) = (secret("d", "postgres://u@127.0.0.1:1/d"), secret("r", "redis://127.0.0.1:1"));
    let zeros = secret("z", &"0".repeat(64));
    let base = [
        ("TBG_ENVIRONMENT", "production"),
        ("TBG_DATABASE_URL_FILE", database.as_str()),
        ("TBG_REDIS_URL_FILE", redis.as_str()),
        ("TBG_EMAIL_PROVIDER", "smtp"),
    ];
    let serve = async |name: &str, value: &str| {
        let settings: Vec<_> =
            base.into_iter().filter(|(other, _)| *other != name).chain([(name, value)]).collect();
        let ran = tbg(&["serve", "--role", "api"], &settings).await;
        assert_eq!(ran.code, Some(1), "{name}: {ran:?}");
        assert!(!ran.err.contains("hunter2"), "{name}: {ran:?}");
        ran.err
    };
    for (name, value, expected) in [
        ("TBG_RATE_LIMIT_USER_PER_MIN", "121", "120"),
        ("TBG_RATE_LIMIT_AUTH_PER_MIN", "6", "5"),
        ("TBG_LOADTEST_AUTH", "true", "false"),
        ("TBG_TRUSTED_PROXIES", "0.0.0.0/0", "the proxies' own networks, none of them a /0"),
        ("TBG_JWT_ACCESS_TTL_SECONDS", "3601", "at most 3600 seconds"),
        ("TBG_PUBLIC_BASE_URL", "http://api.thebitcoingame.com", "an https:// URL"),
        ("TBG_EMAIL_PROVIDER", "log", "smtp, resend or ses"),
        ("TBG_LOG_FILTER", "info,tbg_engine=debug", "a filter of error, warn, info and off alone"),
        ("TBG_LOG_FORMAT", "text", "json or auto"),
        ("TBG_METRICS_ENABLED", "false", "true"),
        ("TBG_LOTTERY_SALT_KEY_FILE", zeros.as_str(), "a key of its own: `openssl rand -hex 32` makes one"),
    ] {
        let told = serve(name, value).await;
        // One line, to its end: the value is not in it.
        let setting = name.trim_end_matches("_FILE");
        let reason = format!("production does not start with this setting {setting}: expected {expected}\n");
        assert!(told.ends_with(&reason) && told.lines().count() == 1, "{name}: {told}");
    }
    for (name, value) in [
        ("TBG_JWT_PRIVATE_KEY", "hunter2"),
        ("TBG_SMTP_PASSWORD", "hunter2"),
        // Also where its file is there.
        ("TBG_DATABASE_URL", "postgres://u:hunter2@h/d"),
    ] {
        let told = serve(name, value).await;
        let reason = format!("production reads secrets from files only: give {name}_FILE, not {name}\n");
        assert!(told.ends_with(&reason), "{name}: {told}");
    }
    // Nothing wrong but that there is no key.
    let told = serve("TBG_LOG_FILTER", "info").await;
    assert!(told.contains("TBG_JWT_PRIVATE_KEY_FILE is not set"), "{told}");
}

#[tokio::test]
async fn the_load_tests_sign_in_is_not_in_this_build() {
    let ran = tbg(
        &["serve", "--role", "api"],
        &[
            ("TBG_LOADTEST_AUTH", "true"),
            ("TBG_DATABASE_URL", "postgres://u@h/d"),
            ("TBG_REDIS_URL", "redis://h"),
        ],
    )
    .await;

    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("TBG_LOADTEST_AUTH"), "{ran:?}");
}

#[tokio::test]
async fn a_variable_that_is_no_text_is_named_if_it_is_ours() {
    use std::os::unix::ffi::OsStrExt as _;
    let broken = std::ffi::OsStr::from_bytes(b"hunter2\xff");
    for (name, code) in [("TBG_AUTH_DOMAIN", 1), ("NOT_OURS", 0)] {
        let ran = std::process::Command::new(tbg_tests::program::binary())
            .arg("config")
            .env(name, broken)
            .output()
            .unwrap();

        let told = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(code), "{name}: {told}");
        assert_eq!(told.contains(name), code == 1, "{told}");
        assert!(!told.contains("hunter2") && !told.contains("panicked"), "{told}");
    }
}

#[tokio::test]
async fn every_hole_in_the_walls_around_the_audit_log_is_named() {
    let unharmed: (&[&'static str], &[&str]) = (&[], &[]);
    let unguarded: (&[&'static str], &[&str]) = (
        // Another trigger that is always on does not make up for the one that is missing.
        &[
            "ALTER TRIGGER audit_seals_no_truncate ON audit_seals RENAME TO something_else",
            "CREATE FUNCTION pass() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "CREATE OR REPLACE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log
             FOR EACH STATEMENT EXECUTE FUNCTION pass()",
            "ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_no_truncate",
            "ALTER TABLE audit_log_default ENABLE TRIGGER audit_log_append_only",
        ],
        &[
            "audit_log: the trigger audit_log_no_truncate is missing, changed or not always on",
            "audit_log_default: the trigger audit_log_append_only is missing, changed or not always on",
            "audit_seals: the trigger audit_seals_no_truncate is missing, changed or not always on",
        ],
    );
    let granted: (&[&'static str], &[&str]) = (
        &[
            "GRANT UPDATE (status), TRUNCATE ON audit_log TO tbg_app",
            "GRANT SELECT (action) ON audit_log_default TO tbg_app",
            "GRANT TRIGGER ON audit_seals TO PUBLIC",
            "REVOKE INSERT ON audit_seals FROM tbg_app",
        ],
        &[
            "audit_log: tbg_app has the right to TRUNCATE",
            "audit_log: tbg_app has the right to UPDATE",
            "audit_log_default: tbg_app has the right to SELECT",
            "audit_seals: tbg_app has the right to TRIGGER",
            "audit_seals: tbg_app lacks the right to INSERT",
        ],
    );
    for (statements, holes) in [unharmed, unguarded, granted] {
        let db = TestDb::new().await;
        for sql in statements {
            db.change(sql).await;
        }

        assert_eq!(tbg_operations::guards(&mut db.connect().await).await.unwrap(), holes);
    }
}

#[tokio::test]
async fn the_walls_are_judged_for_the_role_that_connects() {
    let db = TestDb::new().await;
    let mut conn = db.connect().await;
    let powers = tbg_operations::session_powers(&mut conn).await.unwrap();
    assert!(powers.len() == 1 && powers[0].contains("is a superuser"), "{powers:?}");

    let mut acting = async |sql: &'static str| {
        sqlx::query(sql).execute(&mut conn).await.expect(sql);
        let powers = tbg_operations::session_powers(&mut conn).await.unwrap();
        (powers, tbg_operations::guards(&mut conn).await.unwrap())
    };
    let app = acting("SET SESSION AUTHORIZATION tbg_app").await;
    let (powers, stranger) = acting("SET SESSION AUTHORIZATION pg_signal_backend").await;
    db.change("ALTER TABLE audit_log OWNER TO tbg_owner").await;
    let (owner, _) = acting("SET SESSION AUTHORIZATION tbg_owner").await;

    assert_eq!(app, (vec![], vec![]));
    assert_eq!(powers, Vec::<String>::new());
    assert!(stranger.contains(&"audit_log: pg_signal_backend lacks the right to INSERT".to_owned()));
    assert!(stranger.iter().any(|hole| hole.contains("no member of pg_read_all_stats")), "{stranger:?}");
    assert_eq!(owner, ["tbg_owner owns audit_log, or may act as its owner"]);
}

#[tokio::test]
async fn the_doctor_tells_a_hole_from_a_database_that_it_cannot_ask() {
    let (db, redis, empty) = (TestDb::new().await, TestRedis::new().await, empty_database().await);
    let redis_url = redis.server.url();
    let examine = async |environment: &str, url: &str| {
        let settings = [
            ("TBG_ENVIRONMENT", environment),
            ("TBG_DATABASE_URL", url),
            ("TBG_REDIS_URL", redis_url.as_str()),
        ];
        tbg(&["doctor"], &settings).await.out
    };

    let developing = examine("development", &db.url()).await;
    let rehearsing = examine("staging", &db.url()).await;
    let unmigrated = examine("test", &empty.url()).await;
    let away = examine("test", "postgres://u:hunter2@localhost:1/d").await;
    db.change("GRANT DELETE ON audit_log TO tbg_app").await;
    let open = examine("test", &db.url()).await;

    assert!(developing.contains("  ok    audit log: "), "{developing}");
    assert!(developing.contains("  note  database role: "), "{developing}");
    assert!(rehearsing.contains("  FIX   database role: "), "{rehearsing}");
    assert!(unmigrated.contains("  note  audit log: not checked"), "{unmigrated}");
    assert!(away.contains("  FIX   audit log: cannot connect"), "{away}");
    assert!(away.contains("  FIX   database role: cannot connect"), "{away}");
    assert!(!away.contains("hunter2"), "{away}");
    assert!(open.contains("  FIX   audit log: audit_log: tbg_app has the right to DELETE"), "{open}");
}
