//! The roles that run in this process, and how they end.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::anyhow;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// What runs, each part with the name under which the operator reads of its end.
#[derive(Default)]
pub struct Running {
    tasks: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
}

impl Running {
    /// Starts a part, which must not end before the shutdown.
    pub fn spawn(
        &mut self,
        name: &'static str,
        work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let id = self.tasks.spawn(work).id();
        self.names.insert(id, name);
    }

    /// Waits for `shutdown` or for the first part that ends, which takes the others with it; then gives the
    /// rest `drain` to finish.
    ///
    /// # Errors
    /// When a part fails, crashes, or ends although nobody asked it to: a process that does only half of
    /// its work must not look healthy.
    pub async fn wait(mut self, shutdown: &CancellationToken, drain: Duration) -> anyhow::Result<()> {
        let mut result = Ok(());
        while result.is_ok() && !shutdown.is_cancelled() {
            tokio::select! {
                () = shutdown.cancelled() => {}
                Some((name, ended)) = self.next() => {
                    result = match ended {
                        Err(error) => Err(error.context(format!("the role {name} failed"))),
                        Ok(()) if shutdown.is_cancelled() => Ok(()),
                        Ok(()) => Err(anyhow!("the role {name} ended although nobody asked it to stop")),
                    };
                }
            }
        }
        shutdown.cancel();
        let rest = async {
            while let Some((name, ended)) = self.next().await {
                if let Err(error) = ended {
                    tracing::error!(error = format!("{error:#}"), "the role {name} failed while stopping");
                }
            }
        };
        if tokio::time::timeout(drain, rest).await.is_err() {
            tracing::warn!("not everything stopped in time: leaving it");
            self.tasks.abort_all();
        }
        result
    }

    /// The next part that ends; nothing when none is left.
    async fn next(&mut self) -> Option<(&'static str, anyhow::Result<()>)> {
        let (id, ended) = match self.tasks.join_next_with_id().await? {
            Ok((id, ended)) => (id, ended),
            Err(error) => (error.id(), Err(anyhow!("it crashed"))),
        };
        Some((self.names.remove(&id).unwrap_or("without a name"), ended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(5);

    /// Runs until told to stop.
    fn steady(running: &mut Running, shutdown: &CancellationToken) {
        let stop = shutdown.clone();
        running.spawn("steady", async move {
            stop.cancelled().await;
            Ok(())
        });
    }

    #[tokio::test]
    async fn a_role_that_ends_too_early_stops_the_process_and_is_named() {
        let early: [fn() -> anyhow::Result<()>; 3] =
            [|| Ok(()), || Err(anyhow!("no luck")), || panic!("a bug")];
        for (end, told) in early.into_iter().zip(["nobody asked", "no luck", "crashed"]) {
            let (mut running, shutdown) = (Running::default(), CancellationToken::new());
            steady(&mut running, &shutdown);
            running.spawn("hasty", async move { end() });

            let error = format!("{:#}", running.wait(&shutdown, DRAIN).await.unwrap_err());

            assert!(error.contains("hasty") && error.contains(told), "{error}");
            assert!(shutdown.is_cancelled(), "the others must stop too");
        }
    }

    #[tokio::test]
    async fn roles_that_end_after_the_shutdown_end_well() {
        let (mut running, shutdown) = (Running::default(), CancellationToken::new());
        steady(&mut running, &shutdown);
        steady(&mut running, &shutdown);
        let stop = shutdown.clone();
        tokio::spawn(async move { stop.cancel() });

        assert!(running.wait(&shutdown, DRAIN).await.is_ok());
    }

    #[tokio::test]
    async fn a_process_without_roles_waits_for_the_shutdown() {
        let shutdown = CancellationToken::new();
        let waiting = Running::default().wait(&shutdown, DRAIN);
        assert!(tokio::time::timeout(Duration::from_millis(20), waiting).await.is_err());
    }
}
