//! Secrets change while people read: each replica is replaced by one with the new secret, and nobody is refused
//! (contract `production.md` §15; the steps are those of the runbook `KeyRotation`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use redis::AsyncCommands as _;
use tbg_core::{Clock as _, SystemClock};
use tbg_tests::app::{SIGNING_KEY, claims, new_key, sign};
use tbg_tests::program::{Program, binary};
use tbg_tests::{TestDb, TestRedis};
use tbg_web::auth::Keys;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::RwLock;
use tokio::task::JoinHandle;

type Settings<'a> = &'a [(&'a str, &'a str)];

/// Two replicas behind one door, and somebody who never stops reading through it.
struct House {
    replicas: Vec<Program>,
    door: Arc<Door>,
    reader: JoinHandle<()>,
}

#[derive(Default)]
struct Door {
    /// The replicas that are in service; held while one answers, so that none leaves in the middle.
    bases: RwLock<Vec<String>>,
    tokens: RwLock<Vec<String>>,
    is_closed: AtomicBool,
    answered: AtomicUsize,
    refused: AtomicUsize,
}

impl Door {
    async fn read(&self) {
        let client = reqwest::Client::new();
        let mut turn = 0;
        while !self.is_closed.load(Ordering::Relaxed) {
            let (bases, tokens) = (self.bases.read().await, self.tokens.read().await);
            let base = &bases[turn % bases.len()];
            let token = &tokens[turn / 2 % tokens.len()];
            let answer = client.get(format!("{base}/api/v1/mining/summary")).bearer_auth(token).send().await;
            let is_good = answer.is_ok_and(|answer| answer.status() == 200);
            (if is_good { &self.answered } else { &self.refused }).fetch_add(1, Ordering::Relaxed);
            turn += 1;
        }
    }
}

impl House {
    async fn open(db: &TestDb, redis: &TestRedis, settings: Settings<'_>, token: String) -> Self {
        let mut replicas = Vec::new();
        for _ in 0..2 {
            replicas.push(replica(db, redis, settings).await);
        }
        let door = Arc::new(Door::default());
        *door.bases.write().await = replicas.iter().map(|replica| replica.base.clone()).collect();
        door.tokens.write().await.push(token);
        let at_the_door = Arc::clone(&door);
        let reader = tokio::spawn(async move { at_the_door.read().await });
        Self { replicas, door, reader }
    }

    /// Replaces one replica after the other, the new one first.
    async fn deploy(&mut self, db: &TestDb, redis: &TestRedis, settings: Settings<'_>) {
        for place in 0..self.replicas.len() {
            let new = replica(db, redis, settings).await;
            self.door.bases.write().await[place].clone_from(&new.base);
            let mut old = std::mem::replace(&mut self.replicas[place], new);
            assert_eq!(old.stop().await, Some(0));
        }
    }

    /// How often somebody read, and how often in vain.
    async fn close(self) -> (usize, usize) {
        self.door.is_closed.store(true, Ordering::Relaxed);
        self.reader.await.unwrap();
        (self.door.answered.load(Ordering::Relaxed), self.door.refused.load(Ordering::Relaxed))
    }
}

async fn replica(db: &TestDb, redis: &TestRedis, settings: Settings<'_>) -> Program {
    let program = Program::start(db, redis, "api", settings).await;
    program.wait_for("/ready", 200).await;
    program
}

/// `tbg keys public`: what a key shows of itself.
async fn public(key: &str) -> String {
    let mut command = tokio::process::Command::new(binary());
    command.args(["keys", "public"]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(key.as_bytes()).await.unwrap();
    String::from_utf8(child.wait_with_output().await.unwrap().stdout).unwrap()
}

#[tokio::test]
async fn signing_keys_change_while_people_read() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let user = db.user("bc1qreader").await;
    let claims = claims(user, SystemClock.now());
    let new = new_key();
    let signed_by_new = Keys::new(&new, &[], &claims.iss, &claims.aud).unwrap().sign(&claims).unwrap();
    let (olds, news) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(olds.path().join("old.pem"), public(&SIGNING_KEY).await).unwrap();
    std::fs::write(news.path().join("new.pem"), public(&new).await).unwrap();
    let (olds, news) = (olds.path().to_str().unwrap(), news.path().to_str().unwrap());
    let mut house = House::open(&db, &redis, &[], sign(&claims)).await;

    house.deploy(&db, &redis, &[("TBG_JWT_VERIFY_KEYS_DIR", news)]).await;
    house.door.tokens.write().await.push(signed_by_new.clone());
    let both = [("TBG_JWT_PRIVATE_KEY", &*new), ("TBG_JWT_VERIFY_KEYS_DIR", olds)];
    house.deploy(&db, &redis, &both).await;
    // Eight days later nobody has a token of the old key.
    house.door.tokens.write().await.remove(0);
    house.deploy(&db, &redis, &[("TBG_JWT_PRIVATE_KEY", &new)]).await;

    let url = format!("{}/api/v1/mining/summary", house.replicas[0].base);
    let status = async |token: String| {
        reqwest::Client::new().get(&url).bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    assert_eq!((status(sign(&claims)).await, status(signed_by_new).await), (401, 200));
    let (answered, refused) = house.close().await;
    assert!(answered > 20 && refused == 0, "{answered} answered, {refused} refused");
}

#[tokio::test]
async fn the_databases_login_changes_while_people_read() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let user = db.user("bc1qreader").await;
    // Roles belong to the whole server, which other tests use too.
    let (old, new) = (
        format!("service_a_{user}_{}", std::process::id()),
        format!("service_b_{user}_{}", std::process::id()),
    );
    let url = |role: &str| {
        let url = db.url();
        let (_, rest) = url.split_once('@').unwrap();
        format!("postgres://{role}:secret@{rest}")
    };
    let make = async |role: &str| {
        // sql-audit: allow(S1) a name that is made above
        db.execute(format!("CREATE ROLE {role} LOGIN PASSWORD 'secret' IN ROLE tbg_app")).await;
    };
    make(&old).await;
    let token = sign(&claims(user, SystemClock.now()));
    let mut house = House::open(&db, &redis, &[("TBG_DATABASE_URL", &url(&old))], token).await;

    make(&new).await;
    house.deploy(&db, &redis, &[("TBG_DATABASE_URL", &url(&new))]).await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE usename = $1")
        .bind(&old)
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(left, 0, "nobody is left at the old login");
    // sql-audit: allow(S1) a name that is made above
    db.execute(format!("DROP ROLE {old}")).await;

    let (answered, refused) = house.close().await;
    assert!(answered > 10 && refused == 0, "{answered} answered, {refused} refused");
}

#[tokio::test]
async fn the_password_of_redis_changes_while_people_read() {
    let (db, redis) = tokio::join!(TestDb::new(), TestRedis::new());
    let user = db.user("bc1qreader").await;
    let mut operator = redis.manager();
    let mut acl = async |rules: &[&str]| {
        redis::cmd("ACL")
            .arg("SETUSER")
            .arg("tbg")
            .arg(rules)
            .query_async::<()>(&mut operator)
            .await
            .unwrap();
    };
    let url = |password: &str| format!("{}?user=tbg&pass={password}", redis.server.url());
    acl(&["on", ">old", "~*", "&*", "+@all"]).await;
    let token = sign(&claims(user, SystemClock.now()));
    let mut house = House::open(&db, &redis, &[("TBG_REDIS_URL", &url("old"))], token).await;

    acl(&[">new"]).await;
    house.deploy(&db, &redis, &[("TBG_REDIS_URL", &url("new"))]).await;
    acl(&["<old"]).await;

    let refused = redis::Client::open(url("old")).unwrap().get_multiplexed_async_connection().await;
    assert!(refused.is_err(), "the old password is void");
    let mut new = redis::Client::open(url("new")).unwrap().get_multiplexed_async_connection().await.unwrap();
    let _: Option<String> = new.get("network:difficulty").await.unwrap();
    let (answered, refused) = house.close().await;
    assert!(answered > 10 && refused == 0, "{answered} answered, {refused} refused");
}
