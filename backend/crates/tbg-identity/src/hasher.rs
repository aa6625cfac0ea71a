//! Argon2id off the runtime, and never more of it than the machine has processors (contract §4.3).
//!
//! A hash takes a processor for a tenth of a second. It runs on threads of its own, which give way to all
//! others: while fifty people sign in, everybody else's requests are answered as fast as before.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tbg_core::random::{Entropy, bytes};
use tbg_web::ApiError;
use tokio::sync::{Semaphore, oneshot};

const MEMORY_KIB: u32 = 65_536;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 32;
/// How long a log-in may wait for its turn; then it is a 503.
const QUEUE_DEADLINE: Duration = Duration::from_secs(5);
/// The niceness of the hashing threads: the lowest priority there is.
const LOWEST_PRIORITY: i32 = 19;
/// What an e-mail without an account is checked against. No password has this tag.
const DUMMY: &str =
    "$argon2id$v=19$m=65536,t=2,p=1$bm8tYWNjb3VudC1oZXJl$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes and verifies passwords.
#[derive(Clone)]
pub struct Hasher {
    argon2: Argon2<'static>,
    turns: Arc<Semaphore>,
    threads: Arc<rayon::ThreadPool>,
}

/// What a verification found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Another password.
    Wrong,
    /// The password.
    Right,
    /// The password, but the hash has other parameters than today's: hash it again.
    RightButOld,
}

impl Hasher {
    /// A hasher for `processors` hashes at once.
    ///
    /// # Errors
    /// When the parameters are not valid, which is a fault of ours, or the threads do not start.
    pub fn new(processors: usize) -> anyhow::Result<Self> {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(TAG_BYTES))
            .map_err(|error| anyhow::anyhow!("Argon2 parameters: {error}"))?;
        let processors = processors.max(1);
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(processors)
            .thread_name(|n| format!("password-hash-{n}"))
            .start_handler(|_| give_way())
            .build()?;
        Ok(Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            turns: Arc::new(Semaphore::new(processors)),
            threads: Arc::new(threads),
        })
    }

    /// The PHC string of a password.
    ///
    /// # Errors
    /// 503 when no turn comes in time.
    pub(crate) async fn hash(&self, entropy: &dyn Entropy, password: String) -> Result<String, ApiError> {
        let salt = SaltString::encode_b64(&bytes::<SALT_BYTES>(entropy)).map_err(fault)?;
        let argon2 = self.argon2.clone();
        self.in_turn(move || {
            argon2.hash_password(password.as_bytes(), &salt).map(|hash| hash.to_string()).map_err(fault)
        })
        .await
    }

    /// Whether `password` has the hash; without one, the same work is done for nothing.
    ///
    /// # Errors
    /// 503 when no turn comes in time.
    pub(crate) async fn verify(&self, password: String, hash: Option<String>) -> Result<Verdict, ApiError> {
        let argon2 = self.argon2.clone();
        self.in_turn(move || {
            let text = hash.as_deref().unwrap_or(DUMMY);
            let parsed = PasswordHash::new(text).map_err(fault)?;
            let matches = argon2.verify_password(password.as_bytes(), &parsed).is_ok();
            let today = argon2.params();
            let is_todays = Params::try_from(&parsed).is_ok_and(|params| {
                (params.m_cost(), params.t_cost(), params.p_cost())
                    == (today.m_cost(), today.t_cost(), today.p_cost())
            });
            Ok(match (matches && hash.is_some(), is_todays) {
                (false, _) => Verdict::Wrong,
                (true, true) => Verdict::Right,
                (true, false) => Verdict::RightButOld,
            })
        })
        .await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = tokio::time::timeout(QUEUE_DEADLINE, Arc::clone(&self.turns).acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            return Err(ApiError::unavailable_because(anyhow::anyhow!(
                "the queue of password hashes is full"
            )));
        };
        let (answer, answered) = oneshot::channel();
        // The turn goes with the work, not with the request: a client that leaves does not free a processor.
        self.threads.spawn(move || {
            let _ = answer.send(work());
            drop(turn);
        });
        answered.await.map_err(|_| ApiError::internal(anyhow::anyhow!("a password hash was lost")))?
    }
}

/// Puts the calling thread behind all others.
fn give_way() {
    // On Linux, `None` is the calling thread, not its process.
    if let Err(error) = rustix::process::setpriority_process(None, LOWEST_PRIORITY) {
        tracing::warn!(%error, "password hashes compete with requests");
    }
}

fn fault(error: argon2::password_hash::Error) -> ApiError {
    ApiError::internal(anyhow::anyhow!("password hash: {error}"))
}

#[cfg(test)]
mod tests {
    use tbg_core::random::SeededEntropy;

    use super::*;

    #[tokio::test]
    async fn only_the_password_verifies_and_old_parameters_are_seen() {
        let hasher = Hasher::new(2).unwrap();
        let hash = hasher.hash(&SeededEntropy::new(1), "Abcdefg1".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=65536,t=2,p=1$"), "{hash}");
        let verify = async |password: &str, hash: Option<&str>| {
            hasher.verify(password.to_owned(), hash.map(str::to_owned)).await.unwrap()
        };
        assert_eq!(verify("Abcdefg1", Some(&hash)).await, Verdict::Right);
        assert_eq!(verify("Abcdefg2", Some(&hash)).await, Verdict::Wrong);
        assert_eq!(verify("Abcdefg1", None).await, Verdict::Wrong);

        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(16, 1, 1, None).unwrap());
        let salt = SaltString::encode_b64(&[7; 16]).unwrap();
        let old = weak.hash_password(b"Abcdefg1", &salt).unwrap().to_string();
        assert_eq!(verify("Abcdefg1", Some(&old)).await, Verdict::RightButOld);
    }
}
