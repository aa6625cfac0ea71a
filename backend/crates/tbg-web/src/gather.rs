//! What many ask at once, answered together.
//!
//! While questions are being answered, those that come wait for a moment; then one statement and one round trip
//! answer all of them. A question that comes alone is asked at once. So a hot read costs the database a share of a statement when
//! there are many of them, and nobody sees a row that is older than their question: nothing is kept.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::error::ApiError;

/// Questions that are answered together at most.
const TOGETHER: usize = 64;
/// Groups of questions that are on their way at once, at most.
const GROUPS: usize = 4;
/// How long the next group waits for the one before: what comes meanwhile goes with it. A group that takes longer
/// holds nobody up.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long a group may be answered. Who asked has left by then, and nobody else ends what a dead connection swallowed:
/// its turn would be gone for good.
const LIMIT: Duration = Duration::from_secs(5);
/// Questions that may wait; whoever comes then waits to be let in.
const WAITING: usize = 1_024;

/// Where one kind of question is asked. Clones share everything.
#[derive(Clone)]
pub struct Gather<Q, A> {
    questions: mpsc::Sender<Asked<Q, A>>,
}

/// A question, and where its answer goes.
struct Asked<Q, A> {
    question: Q,
    answer: oneshot::Sender<Result<A, ApiError>>,
}

impl<Q: Send + 'static, A: Send + 'static> Gather<Q, A> {
    /// Answers by `load`, which gets questions and returns as many answers in their order. Ends with the last clone.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new<F>(load: impl Fn(Vec<Q>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<A>, ApiError>> + Send + 'static,
    {
        let (questions, mut asked) = mpsc::channel(WAITING);
        let (turns, load) = (Arc::new(Semaphore::new(GROUPS)), Arc::new(load));
        tokio::spawn(async move {
            while let Ok(turn) = Arc::clone(&turns).acquire_owned().await {
                let mut group = Vec::with_capacity(TOGETHER);
                if asked.recv_many(&mut group, TOGETHER).await == 0 {
                    return;
                }
                let (questions, listeners): (_, Vec<_>) =
                    group.into_iter().map(|Asked { question, answer }| (question, answer)).unzip();
                // Questions that found the group full need not wait for more.
                let (load, are_more) = (Arc::clone(&load), !asked.is_empty());
                let told = tokio::spawn(async move {
                    let _turn = turn;
                    let late = |_| {
                        Err(ApiError::unavailable_because(anyhow!("questions were not answered in time")))
                    };
                    tell(listeners, timeout(LIMIT, load(questions)).await.unwrap_or_else(late));
                });
                if !are_more {
                    let _late = timeout(PATIENCE, told).await;
                }
            }
        });
        Self { questions }
    }

    /// The answer to a question.
    ///
    /// # Errors
    /// What the answering of its group ended with.
    pub async fn ask(&self, question: Q) -> Result<A, ApiError> {
        let lost = || ApiError::internal(anyhow!("questions were asked together and not answered"));
        let (answer, told) = oneshot::channel();
        self.questions.send(Asked { question, answer }).await.map_err(|_| lost())?;
        told.await.map_err(|_| lost())?
    }
}

/// Rows of many questions as the answers to them, one for each: a row says which question it answers, from 1 on.
pub fn in_order<A>(questions: usize, rows: Vec<A>, place: impl Fn(&A) -> i64) -> Vec<Option<A>> {
    let mut answers: Vec<Option<A>> = (0..questions).map(|_| None).collect();
    for row in rows {
        let slot = usize::try_from(place(&row) - 1).ok().and_then(|place| answers.get_mut(place));
        if let Some(slot) = slot {
            *slot = Some(row);
        }
    }
    answers
}

/// Tells everybody their answer, or what went wrong. Whoever has left meanwhile is not told.
fn tell<A>(listeners: Vec<oneshot::Sender<Result<A, ApiError>>>, answers: Result<Vec<A>, ApiError>) {
    match answers {
        Ok(answers) => {
            for (listener, answer) in listeners.into_iter().zip(answers) {
                let _left = listener.send(Ok(answer));
            }
        }
        Err(error) => {
            for listener in listeners {
                let _left = listener.send(Err(error.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::future::join_all;

    use super::*;
    use crate::error::ErrorCode;

    #[tokio::test]
    async fn everybody_gets_their_own_answer_and_few_groups_are_asked() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sizes);
        let doubled = Gather::new(move |numbers: Vec<u32>| {
            seen.lock().unwrap().push(numbers.len());
            async move {
                tokio::task::yield_now().await;
                Ok(numbers.into_iter().map(|number| number * 2).collect())
            }
        });
        let answers = join_all((0..1_000).map(|number| doubled.ask(number))).await;
        for (number, answer) in (0..).zip(answers) {
            assert_eq!(answer.unwrap(), number * 2);
        }
        let sizes = sizes.lock().unwrap().clone();
        assert_eq!(sizes.iter().sum::<usize>(), 1_000);
        assert!(sizes.len() < 100 && sizes.iter().all(|size| *size <= TOGETHER), "{sizes:?}");
    }

    #[test]
    fn a_question_without_a_row_has_no_answer() {
        let rows = vec![(3, "c"), (1, "a")];
        assert_eq!(in_order(4, rows, |row| row.0), [Some((1, "a")), None, Some((3, "c")), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_takes_long_holds_the_next_up_for_a_moment_only() {
        let slow = Gather::new(|numbers: Vec<u32>| async move {
            if numbers.contains(&13) {
                tokio::time::sleep(LIMIT - Duration::from_millis(1)).await;
            }
            Ok(numbers)
        });
        let (first, started) = (slow.ask(13), tokio::time::Instant::now());
        tokio::pin!(first);
        assert!(futures_util::poll!(&mut first).is_pending());
        tokio::task::yield_now().await;
        assert_eq!(slow.ask(14).await.unwrap(), 14);
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        assert_eq!(first.await.unwrap(), 13);
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_a_group_full_does_not_wait_for_more() {
        let slow = Gather::new(|numbers: Vec<usize>| async move {
            tokio::time::sleep(Duration::from_secs(4)).await;
            Ok(numbers)
        });
        let started = tokio::time::Instant::now();
        let asked = join_all((0..3 * TOGETHER).map(|number| slow.ask(number)));
        tokio::task::unconstrained(asked).await;
        assert!(started.elapsed() < Duration::from_secs(4) + PATIENCE, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn groups_that_are_never_answered_give_their_turns_back() {
        let silent = Gather::new(|numbers: Vec<u32>| async move {
            if numbers.contains(&13) {
                std::future::pending::<()>().await;
            }
            Ok(numbers)
        });
        for _ in 0..2 * GROUPS {
            assert_eq!(silent.ask(13).await.unwrap_err().code(), ErrorCode::ServiceUnavailable);
        }
        assert_eq!(silent.ask(14).await.unwrap(), 14);
    }

    #[tokio::test]
    async fn what_fails_fails_for_its_group_alone() {
        let picky = Gather::new(|numbers: Vec<u32>| async move {
            if numbers.contains(&13) { Err(ApiError::unavailable()) } else { Ok(numbers) }
        });
        assert_eq!(picky.ask(13).await.unwrap_err().code(), ErrorCode::ServiceUnavailable);
        assert_eq!(picky.ask(14).await.unwrap(), 14);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_its_group_and_takes_no_turn_away() {
        let fragile = Gather::new(|numbers: Vec<u32>| async move {
            assert!(!numbers.contains(&13), "as this test wants it");
            Ok(numbers)
        });
        for _ in 0..2 * GROUPS {
            assert_eq!(fragile.ask(13).await.unwrap_err().code(), ErrorCode::Internal);
        }
        assert_eq!(fragile.ask(14).await.unwrap(), 14);
    }
}
