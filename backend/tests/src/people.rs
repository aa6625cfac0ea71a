//! People of tests: a wallet, or an e-mail and a password, and a way to sign in with them in one line.

use serde_json::{Value, json};
use tbg_bitcoin::wallet::Key;
use tbg_bitcoin::{AddressType, Network};

use crate::app::App;

/// A signed-in person.
#[derive(Clone, Debug)]
pub struct Person {
    /// User id.
    pub id: i64,
    /// Access token.
    pub access: String,
    /// Refresh token.
    pub refresh: String,
    /// Mining address.
    pub address: String,
}

impl Person {
    /// From the answer of a sign-in.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn of(answer: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            id: answer["user"]["id"].as_i64().expect("a token response"),
            access: text(&answer["access_token"]),
            refresh: text(&answer["refresh_token"]),
            address: text(&answer["user"]["btc_address"]),
        }
    }

    /// The sid of the session.
    ///
    /// # Panics
    /// If the token is not one of the tests.
    #[must_use]
    pub fn sid(&self) -> uuid::Uuid {
        let kind = tbg_web::auth::TokenKind::Access;
        crate::app::keys().verify_at_any_age(&self.access, kind).expect("a token").sid
    }
}

/// The wallet of the number: always the same key.
///
/// # Panics
/// For zero.
#[must_use]
pub fn wallet(number: u64) -> Key {
    let mut secret = [0; 32];
    secret[24..].copy_from_slice(&number.to_be_bytes());
    Key::from_secret(secret).expect("a number above zero")
}

/// The P2WPKH address of a wallet on mainnet.
#[must_use]
pub fn address_of(key: &Key) -> String {
    key.address(AddressType::P2wpkh, Network::Mainnet).expect("an address").as_str().to_owned()
}

/// The sign-in that answers a challenge.
fn proof(key: &Key, challenge: &Value, claim: bool) -> Value {
    let message = challenge["message"].as_str().expect("a message");
    let signature = key.sign_bip322(message, AddressType::P2wpkh, Network::Mainnet).expect("a signature");
    json!({
        "btc_address": address_of(key), "signature": signature, "nonce": challenge["nonce"], "claim": claim,
    })
}

/// The client address of the person with that number, as a proxy would tell it.
#[must_use]
pub fn client_address(number: u64) -> String {
    format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255)
}

/// Signs in at a program that trusts its caller as a proxy: the wallet of that number, from an address of its own.
///
/// # Errors
/// When the program does not answer or refuses.
pub async fn sign_in(client: &reqwest::Client, base: &str, number: u64) -> anyhow::Result<Person> {
    let key = wallet(number);
    let ask = async |path: &str, body: &Value| -> anyhow::Result<Value> {
        let request = client.post(format!("{base}/api/v1/auth/{path}")).json(body);
        let answer = request.header("x-forwarded-for", client_address(number)).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    };
    let challenge = ask("challenge", &json!({ "btc_address": address_of(&key) })).await?;
    Ok(Person::of(&ask("verify", &proof(&key, &challenge, false)).await?))
}

impl App {
    /// A person with the wallet of that number, signed in.
    pub async fn miner(&self, number: u64) -> Person {
        Person::of(&self.connect(&wallet(number), false).await.ok())
    }

    /// Challenge, signature and sign-in of a wallet.
    pub async fn connect(&self, key: &Key, claim: bool) -> crate::app::Answer {
        let address = address_of(key);
        let challenge =
            self.post("/api/v1/auth/challenge", None, json!({ "btc_address": address })).await.ok();
        let body = proof(key, &challenge, claim);
        self.post("/api/v1/auth/verify", None, body).await
    }

    /// A person with an e-mail (the password is `Abcdefg1`) and the address of a wallet that was not proven.
    pub async fn register(&self, email: &str, number: u64) -> Person {
        let body =
            json!({ "email": email, "password": "Abcdefg1", "btc_address": address_of(&wallet(number)) });
        Person::of(&self.post("/api/v1/auth/register", None, body).await.ok())
    }

    /// A miner with the admin right.
    pub async fn admin(&self, number: u64) -> Person {
        let person = self.miner(number).await;
        let user = tbg_core::UserId(person.id);
        tbg_identity::roles::grant_admin(&self.db.pool, user, true, crate::now()).await.expect("granted");
        self.auth.forget_user(user).await;
        person
    }

    /// An API key of a person.
    pub async fn api_key(&self, person: &Person, permissions: &[&str]) -> String {
        let body = json!({ "name": "test", "permissions": permissions });
        let answer = self.post("/api/v1/users/me/api-keys", Some(&person.access), body).await.ok();
        answer["key"].as_str().expect("a key").to_owned()
    }

    /// How many audit rows an action has, with their status.
    pub async fn audited(&self, action: &str, status: &str) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM audit_log WHERE action = $1 AND status = $2")
            .bind(action)
            .bind(status)
            .fetch_one(&self.db.pool)
            .await
            .expect("audit log")
    }
}
