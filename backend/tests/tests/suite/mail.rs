//! Mail on a real database, Redis and a small SMTP server: queued in the transaction that causes it, sent
//! once, retried, limited; tokens exist only from the moment they are sent (contract `auth-users.md` §5,
//! §16.13).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::Connection as _;
use tbg_core::config::Secret;
use tbg_core::random::SeededEntropy;
use tbg_core::{MockClock, UserId};
use tbg_identity::mail::{MailConfig, MailProvider, Mailer, Template, enqueue};
use tbg_tests::program::free_port;
use tbg_tests::{TestDb, TestRedis, now};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::reaches;

const MINER: &str = "miner@example.com";
/// The limit of [`MINER`]: the hash is that of the contract.
const MINER_LIMIT: &str = "email_rate:114e184d0d596a4f81aae2a113eeaa84e65edb582d88677bae82cc6345313416";
const PENDING: &str = "SELECT count(*) FROM email_outbox WHERE status = 'pending'";
const SENDING: &str = "SELECT count(*) FROM email_outbox WHERE status = 'sending'";
const SENT: &str = "SELECT count(*) FROM email_outbox WHERE status = 'sent'";
const DROPPED: &str = "SELECT count(*) FROM email_outbox WHERE status = 'dropped'";
const FAILED: &str = "SELECT count(*) FROM email_outbox WHERE status = 'failed'";

/// What a worker stands on. Its clock is a little ahead, so that what is queued now is due.
struct Post {
    db: TestDb,
    redis: TestRedis,
    clock: MockClock,
    folder: TempDir,
}

impl Post {
    async fn new() -> Self {
        let clock = MockClock::at(now() + TimeDelta::minutes(1));
        Self {
            db: TestDb::new().await,
            redis: TestRedis::new().await,
            clock,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A worker that writes its mail into the folder.
    fn mailer(&self) -> Mailer {
        self.mailer_with(1, config(MailProvider::Log, 0, Some(self.folder.path())))
    }

    fn mailer_with(&self, seed: u64, config: MailConfig) -> Mailer {
        Mailer::new(
            self.db.pool.clone(),
            tbg_core::redis::manager(&self.redis.client()).unwrap(),
            Arc::new(self.clock.clone()),
            Arc::new(SeededEntropy::new(seed)),
            config,
        )
        .unwrap()
    }

    async fn queue(&self, user: Option<i64>, to: &str, template: Template, context: Value) -> Uuid {
        let mut conn = self.db.pool.acquire().await.unwrap();
        enqueue(&mut conn, user.map(UserId), to, template, &context).await.unwrap()
    }

    /// The mails in the folder, oldest first.
    fn mails(&self) -> Vec<Value> {
        mails_in(self.folder.path())
    }

    /// The token in the link of the newest mail.
    fn newest_token(&self, page: &str) -> String {
        let link = self.mails().last().unwrap()["link"].as_str().unwrap().to_owned();
        link.strip_prefix(&format!("https://game.test{page}?token=")).expect("a link to the page").to_owned()
    }
}

fn config(provider: MailProvider, smtp_port: u16, capture_dir: Option<&Path>) -> MailConfig {
    MailConfig {
        provider,
        from_address: "noreply@game.test".to_owned(),
        from_name: "The Bitcoin Game".to_owned(),
        support_email: "support@game.test".to_owned(),
        frontend_base_url: "https://game.test".to_owned(),
        smtp_host: "127.0.0.1".to_owned(),
        smtp_port,
        smtp_username: None,
        smtp_password: Secret::default(),
        smtp_tls: false,
        resend_api_key: Secret::default(),
        ses_region: String::new(),
        ses_access_key: Secret::default(),
        ses_secret_key: Secret::default(),
        capture_dir: capture_dir.map(Path::to_owned),
        rate_per_hour: 5,
        verification_ttl: TimeDelta::hours(24),
        reset_ttl: TimeDelta::minutes(60),
        production: false,
    }
}

fn mails_in(folder: &Path) -> Vec<Value> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|ext| ext == "json")).collect();
    files.sort();
    files.iter().map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
}

/// Sends until nothing is due; says how many mails there were.
async fn drain(mailer: &Mailer) -> usize {
    let mut handled = 0;
    loop {
        match mailer.run_once().await.unwrap() {
            0 => return handled,
            count => handled += count,
        }
    }
}

fn block_found() -> Value {
    json!({"title": "You Found a Block!", "description": "Block #900000", "action_url": "/mining/blocks"})
}

/// Whether a verification token is stored under its hash, and still unused.
async fn works(db: &TestDb, token: &str) -> bool {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM email_verification_tokens
         WHERE token_hash = encode(sha256(convert_to($1, 'UTF8')), 'hex') AND used_at IS NULL)",
    )
    .bind(token)
    .fetch_one(&db.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn mail_is_sent_only_if_the_transaction_that_queued_it_commits() {
    let post = Post::new().await;
    let mut conn = post.db.connect().await;
    for (commit, to) in [(false, "never@example.com"), (true, MINER)] {
        let mut tx = conn.begin().await.unwrap();
        enqueue(&mut tx, None, to, Template::Notification, &block_found()).await.unwrap();
        if commit { tx.commit().await.unwrap() } else { tx.rollback().await.unwrap() }
    }

    let handled = drain(&post.mailer()).await;

    assert_eq!(handled, 1);
    let mails = post.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0]["to"], MINER);
    assert_eq!(mails[0]["template"], "notification");
    assert_eq!(mails[0]["subject"], "You Found a Block!");
    assert_eq!(mails[0]["link"], "https://game.test/mining/blocks");
}

#[tokio::test]
async fn a_recipient_gets_five_mails_an_hour_and_security_notices_besides() {
    let post = Post::new().await;
    for n in 0..6 {
        let to = if n % 2 == 0 { MINER } else { "Miner@Example.com" };
        post.queue(None, to, Template::Notification, block_found()).await;
    }
    let mailer = post.mailer();

    drain(&mailer).await;
    assert_eq!((post.db.number(SENT).await, post.db.number(DROPPED).await), (5, 1));

    post.queue(None, MINER, Template::PasswordChanged, json!({})).await;
    post.queue(None, "other@example.com", Template::Notification, block_found()).await;
    drain(&mailer).await;
    assert_eq!((post.db.number(SENT).await, post.db.number(DROPPED).await), (7, 1));

    let mut redis = post.redis.client().get_multiplexed_async_connection().await.unwrap();
    let count: i64 = redis::cmd("GET").arg(MINER_LIMIT).query_async(&mut redis).await.unwrap();
    let left: i64 = redis::cmd("TTL").arg(MINER_LIMIT).query_async(&mut redis).await.unwrap();
    assert_eq!(count, 5);
    assert!((1..=3600).contains(&left), "{left}");
}

#[tokio::test]
async fn without_redis_mail_goes_out() {
    let mut post = Post::new().await;
    post.redis.server.kill().await.unwrap();
    post.queue(None, MINER, Template::Notification, block_found()).await;

    drain(&post.mailer()).await;

    assert_eq!(post.db.number(SENT).await, 1);
}

#[tokio::test]
async fn what_fails_is_tried_again_after_1_5_15_60_and_360_minutes_and_then_given_up() {
    let post = Post::new().await;
    post.queue(None, MINER, Template::Notification, block_found()).await;
    let mailer = post.mailer_with(1, config(MailProvider::Smtp, free_port(), None));

    for (attempt, minutes) in (1..).zip([1, 5, 15, 60, 360]) {
        assert_eq!(mailer.run_once().await.unwrap(), 1, "attempt {attempt}");
        assert_eq!(post.db.number(PENDING).await, 1);
        assert_eq!(post.db.number("SELECT attempts::BIGINT FROM email_outbox").await, attempt);
        post.clock.advance(TimeDelta::minutes(minutes) - TimeDelta::seconds(1));
        assert_eq!(mailer.run_once().await.unwrap(), 0, "too early after attempt {attempt}");
        post.clock.advance(TimeDelta::seconds(1));
    }
    assert_eq!(mailer.run_once().await.unwrap(), 1);
    assert_eq!(post.db.number(FAILED).await, 1);
    post.clock.advance(TimeDelta::days(1));
    assert_eq!(mailer.run_once().await.unwrap(), 0);

    let error: String =
        sqlx::query_scalar("SELECT last_error FROM email_outbox").fetch_one(&post.db.pool).await.unwrap();
    assert_eq!(error, "the mail server cannot be reached");
    // What was not sent does not count against the recipient.
    let mut redis = post.redis.client().get_multiplexed_async_connection().await.unwrap();
    let count: i64 = redis::cmd("GET").arg(MINER_LIMIT).query_async(&mut redis).await.unwrap();
    assert_eq!(count, 0);
}

/// The messages that an SMTP server has taken.
type Taken = Arc<Mutex<Vec<String>>>;

/// An SMTP server that refuses the recipient `refused@example.com` by name.
async fn smtp_server() -> (u16, Taken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, taken) = (listener.local_addr().unwrap().port(), Taken::default());
    let inbox = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, Arc::clone(&inbox)));
        }
    });
    (port, taken)
}

async fn converse(stream: TcpStream, taken: Taken) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(b"220 mail.test ESMTP\r\n").await?;
    let (mut line, mut message, mut in_data) = (String::new(), String::new(), false);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let answer = if in_data {
            if line != ".\r\n" {
                message.push_str(&line);
                continue;
            }
            in_data = false;
            taken.lock().unwrap().push(std::mem::take(&mut message));
            "250 taken"
        } else if line.starts_with("DATA") {
            in_data = true;
            "354 go on"
        } else if line.contains("refused@example.com") {
            "550 no mailbox refused@example.com here"
        } else {
            "250 mail.test"
        };
        stream.get_mut().write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
}

#[tokio::test]
async fn an_smtp_server_gets_one_message_with_both_parts() {
    let post = Post::new().await;
    let (port, taken) = smtp_server().await;
    let id = post.queue(None, MINER, Template::Notification, block_found()).await;

    drain(&post.mailer_with(1, config(MailProvider::Smtp, port, None))).await;

    assert_eq!(post.db.number(SENT).await, 1);
    let taken = taken.lock().unwrap().clone();
    assert_eq!(taken.len(), 1);
    for part in [
        "<noreply@game.test>\r\n",
        "To: miner@example.com\r\n",
        "Subject: You Found a Block!\r\n",
        &format!("Message-ID: <{id}@game.test>\r\n"),
        "multipart/alternative",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Type: text/html; charset=utf-8",
        "https://game.test/mining/blocks",
    ] {
        assert!(taken[0].contains(part), "{part} in {}", taken[0]);
    }
}

#[tokio::test]
async fn the_words_of_a_server_that_refuses_are_not_kept() {
    let post = Post::new().await;
    let (port, taken) = smtp_server().await;
    post.queue(None, "refused@example.com", Template::Notification, block_found()).await;
    post.queue(None, "not an address", Template::Notification, block_found()).await;

    drain(&post.mailer_with(1, config(MailProvider::Smtp, port, None))).await;

    let ends: Vec<(String, String)> =
        sqlx::query_as("SELECT status, last_error FROM email_outbox ORDER BY status DESC")
            .fetch_all(&post.db.pool)
            .await
            .unwrap();
    let expected = [
        ("pending".to_owned(), "the mail server answered 550".to_owned()),
        ("failed".to_owned(), "the recipient's address is not usable".to_owned()),
    ];
    assert_eq!(ends, expected);
    assert!(taken.lock().unwrap().is_empty());
}

#[tokio::test]
async fn of_two_workers_one_sends_each_mail() {
    let post = Post::new().await;
    for n in 0..40 {
        post.queue(None, &format!("miner{n}@example.com"), Template::Notification, block_found()).await;
    }
    let other = tempfile::tempdir().unwrap();
    let a = post.mailer();
    let b = post.mailer_with(2, config(MailProvider::Log, 0, Some(other.path())));

    let (by_a, by_b) = tokio::join!(drain(&a), drain(&b));

    assert_eq!(by_a + by_b, 40);
    assert_eq!(post.db.number(SENT).await, 40);
    assert_eq!(post.db.number("SELECT max(attempts)::BIGINT FROM email_outbox").await, 1);
    let mails: Vec<Value> = post.mails().into_iter().chain(mails_in(other.path())).collect();
    let recipients: BTreeSet<&str> = mails.iter().map(|mail| mail["to"].as_str().unwrap()).collect();
    assert_eq!((mails.len(), recipients.len()), (40, 40));
}

#[tokio::test]
async fn a_token_is_minted_when_the_mail_is_sent_and_only_its_hash_is_stored() {
    let post = Post::new().await;
    let user = post.db.user("bc1qexample").await;
    let context = json!({"purpose": "account", "display_name": "Satoshi"});
    post.queue(Some(user), MINER, Template::Welcome, context).await;
    assert_eq!(post.db.number("SELECT count(*) FROM email_verification_tokens").await, 0);

    drain(&post.mailer()).await;

    let token = post.newest_token("/auth/verify-email");
    assert_eq!(token.len(), 64);
    assert!(works(&post.db, &token).await);
    let row: (i64, String, String, DateTime<Utc>, DateTime<Utc>) = sqlx::query_as(
        "SELECT user_id, purpose, email, created_at, expires_at FROM email_verification_tokens",
    )
    .fetch_one(&post.db.pool)
    .await
    .unwrap();
    assert_eq!((row.0, row.1.as_str(), row.2.as_str()), (user, "account", MINER));
    assert_eq!(row.4 - row.3, TimeDelta::hours(24));
    for sql in ["SELECT * FROM email_outbox", "SELECT * FROM email_verification_tokens"] {
        assert!(!post.db.rows(sql).await.join("\n").contains(&token), "{sql}");
    }
    let mail = &post.mails()[0];
    assert!(mail["text"].as_str().unwrap().starts_with("Hi Satoshi,\n"));
    assert!(mail["html"].as_str().unwrap().contains(&token));
}

#[tokio::test]
async fn only_the_newest_token_of_a_purpose_works() {
    let post = Post::new().await;
    let user = post.db.user("bc1qexample").await;
    let mailer = post.mailer();
    let mut tokens = Vec::new();
    for purpose in ["account", "notification", "account"] {
        post.queue(Some(user), MINER, Template::VerifyEmail, json!({ "purpose": purpose })).await;
        drain(&mailer).await;
        tokens.push(post.newest_token("/auth/verify-email"));
    }

    let working = [
        works(&post.db, &tokens[0]).await,
        works(&post.db, &tokens[1]).await,
        works(&post.db, &tokens[2]).await,
    ];
    assert_eq!(working, [false, true, true]);
}

#[tokio::test]
async fn a_reset_token_works_an_hour_and_remembers_from_where_it_was_asked_for() {
    let post = Post::new().await;
    let user = post.db.user("bc1qexample").await;
    let mailer = post.mailer();
    for _ in 0..2 {
        let context = json!({"requested_from": "203.0.113.7"});
        post.queue(Some(user), MINER, Template::PasswordReset, context).await;
        drain(&mailer).await;
    }

    let token = post.newest_token("/auth/reset-password");
    let open: Vec<(bool, String, bool)> = sqlx::query_as(
        "SELECT token_hash = encode(sha256(convert_to($1, 'UTF8')), 'hex'), host(ip_address),
                expires_at - created_at = '60 minutes'
         FROM password_reset_tokens WHERE used_at IS NULL",
    )
    .bind(&token)
    .fetch_all(&post.db.pool)
    .await
    .unwrap();
    assert_eq!(open, [(true, "203.0.113.7".to_owned(), true)]);
    assert_eq!(post.db.number("SELECT count(*) FROM password_reset_tokens").await, 2);
}

#[tokio::test]
async fn mail_that_makes_no_sense_any_more_is_not_sent() {
    let post = Post::new().await;
    let user = post.db.user("bc1qexample").await;
    post.queue(Some(user), MINER, Template::VerifyEmail, json!({})).await;
    post.queue(None, MINER, Template::PasswordReset, json!({})).await;
    post.queue(Some(user), MINER, Template::Notification, json!({"purpose": "spam"})).await;
    for sql in [
        "UPDATE users SET deleted_at = now()",
        "INSERT INTO email_outbox (id, to_address, template, context, next_attempt_at)
         VALUES (gen_random_uuid(), 'miner@example.com', 'newsletter', '{}', now())",
    ] {
        sqlx::query(sql).execute(&post.db.pool).await.unwrap();
    }

    drain(&post.mailer()).await;

    assert_eq!((post.db.number(DROPPED).await, post.db.number(FAILED).await), (2, 2));
    assert!(post.mails().is_empty());
}

#[tokio::test]
async fn a_mail_whose_worker_died_is_sent_when_the_lease_ends() {
    let post = Post::new().await;
    // A server that takes the connection and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    post.queue(None, MINER, Template::Notification, block_found()).await;
    let dying = post.mailer_with(1, config(MailProvider::Smtp, port, None));
    let pass = tokio::spawn(async move { dying.run_once().await });
    reaches(&post.db, SENDING, 1).await;
    pass.abort();
    assert!(pass.await.unwrap_err().is_cancelled());

    let living = post.mailer();
    post.clock.advance(TimeDelta::minutes(5) - TimeDelta::seconds(1));
    let while_leased = living.run_once().await.unwrap();
    post.clock.advance(TimeDelta::seconds(1));
    let afterwards = living.run_once().await.unwrap();

    assert_eq!((while_leased, afterwards, post.mails().len()), (0, 1, 1));
    assert_eq!(post.db.number("SELECT attempts::BIGINT FROM email_outbox WHERE status = 'sent'").await, 2);
}

#[tokio::test]
async fn the_worker_runs_until_it_is_told_to_stop() {
    let post = Post::new().await;
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(post.mailer().run(shutdown.clone()));
    post.queue(None, MINER, Template::Notification, block_found()).await;
    reaches(&post.db, SENT, 1).await;
    shutdown.cancel();
    worker.await.unwrap();

    post.queue(None, MINER, Template::Notification, block_found()).await;
    assert_eq!((post.db.number(PENDING).await, post.mails().len()), (1, 1));
}

#[tokio::test]
async fn production_does_not_write_mail_into_its_log() {
    let post = Post::new().await;
    let log = MailConfig { production: true, ..config(MailProvider::Log, 0, None) };
    let refused = Mailer::new(
        post.db.pool.clone(),
        tbg_core::redis::manager(&post.redis.client()).unwrap(),
        Arc::new(post.clock.clone()),
        Arc::new(SeededEntropy::new(1)),
        log,
    );
    let error = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("TBG_EMAIL_PROVIDER"), "{error}");
}
