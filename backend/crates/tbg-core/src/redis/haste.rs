//! How long whoever has somebody waiting waits for Redis: once, not once for each command.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::{RedisError, RedisResult};
use tokio::time::Instant;

/// How long a command may take, the wait for a connection included.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long nobody asks after a command took longer: what a request has left to ask fails at once.
const REST: Duration = Duration::from_secs(1);

/// Until when a Redis that was silent is left alone.
#[derive(Debug, Default)]
pub(super) struct Haste(Mutex<Option<Instant>>);

impl Haste {
    fn is_resting(&self) -> bool {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn rest(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
    }
}

/// What `answer` says, in time where there is haste.
pub(super) async fn within<T>(
    haste: Option<&Haste>,
    answer: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    let Some(haste) = haste else { return answer.await };
    if haste.is_resting() {
        return Err(away());
    }
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            haste.rest();
            Err(away())
        }
    }
}

fn away() -> RedisError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    async fn asked(haste: Option<&Haste>, answer: impl Future<Output = RedisResult<()>>) -> (bool, Duration) {
        let started = Instant::now();
        let is_answered = within(haste, answer).await.is_ok();
        (is_answered, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn many_commands_to_a_silent_redis_wait_once() {
        let haste = Haste::default();
        assert_eq!(asked(Some(&haste), ready(Ok(()))).await, (true, Duration::ZERO));

        let (is_answered, took) = asked(Some(&haste), pending()).await;
        assert!(!is_answered && took >= PATIENCE && took < PATIENCE * 2, "{took:?}");
        for _ in 0..10 {
            assert_eq!(asked(Some(&haste), pending()).await, (false, Duration::ZERO));
        }

        tokio::time::advance(REST).await;
        assert_eq!(asked(Some(&haste), ready(Ok(()))).await, (true, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn without_haste_an_answer_is_waited_for() {
        let slow = async {
            tokio::time::sleep(PATIENCE * 10).await;
            Ok(())
        };
        assert!(asked(None, slow).await.0);
    }
}
