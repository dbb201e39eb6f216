//! Start, stop and the tasks between: no task of the server outlives it, none dies unnoticed.
//!
//! Stopping has three steps, so that what is in flight can end:
//! 1. `draining`: `/readyz` answers 503 `shutting_down`; load balancers look elsewhere. Lasts the
//!    configured delay (none by default).
//! 2. `stop`: listeners close, loops end, requests in flight are answered. At most
//!    [`DRAIN_TIMEOUT`]; then `kill`, which drops what is left.
//! 3. `drained`: nobody asks any more, so the writers write what they hold and end. At most
//!    [`WRITER_TIMEOUT`].
//!
//! SIGTERM and SIGINT begin this; a second one ends the process at once. A task that panics, or ends
//! before it was told to, begins it too, and then the process reports failure: a server without its
//! maintenance or its writer must be restarted, not left half alive.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long requests in flight may take after the listeners closed.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
/// How long the writers may take to write what they hold.
pub const WRITER_TIMEOUT: Duration = Duration::from_secs(10);
/// Exit status after a second signal (128 + SIGINT, as shells count).
const FORCED_EXIT: i32 = 130;

/// A task ended when it should not have.
#[derive(Debug, thiserror::Error)]
#[error("task {task} {how}: the server stops, so that it can be restarted whole")]
pub struct TaskFailed {
    /// Name given to [`Lifecycle::spawn`].
    pub task: &'static str,
    /// `panicked` or `ended`.
    pub how: &'static str,
}

/// The tokens and the tasks of one server. Cheap to clone; clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    /// Step 1. Only `/readyz` looks at it.
    pub draining: CancellationToken,
    /// Step 2: accept nothing new, finish what runs.
    pub stop: CancellationToken,
    /// End of patience: drop what runs.
    pub kill: CancellationToken,
    /// Step 3: all requests are answered; writers finish.
    pub drained: CancellationToken,
    tasks: TaskTracker,
    writers: TaskTracker,
    failure: Arc<Mutex<Option<TaskFailed>>>,
}

impl Lifecycle {
    /// Runs a task that ends when `stop` is cancelled, and not before.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.clone().guard(name, task));
    }

    /// Runs a task that requests in flight wait for: it is not waited for before they are answered.
    /// It ends when `drained` is cancelled, or before, once nothing can ask it any more.
    pub fn spawn_writer(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.writers.spawn(self.clone().guard(name, task));
    }

    async fn guard(self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let how = match AssertUnwindSafe(task).catch_unwind().await {
            Err(_) => "panicked",
            Ok(()) if self.stop.is_cancelled() => return,
            Ok(()) => "ended",
        };
        let failed = TaskFailed { task: name, how };
        tracing::error!(task = name, "{failed}");
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failed);
        self.draining.cancel();
    }

    /// Begins to stop, as a signal does.
    pub fn shut_down(&self) {
        self.draining.cancel();
    }

    /// Waits for a signal, [`Lifecycle::shut_down`] or a failed task, then stops everything in order.
    ///
    /// `drain_delay` is how long the listeners stay open after `/readyz` turned 503.
    pub async fn run(self, drain_delay: Duration) -> Result<(), TaskFailed> {
        let failed_signals = async {
            if let Err(error) = signalled(&self.draining).await {
                tracing::error!(%error, "cannot listen for signals");
                self.draining.cancelled().await;
            }
        };
        failed_signals.await;
        self.draining.cancel();
        tokio::select! {
            biased;
            () = second_signal() => {
                tracing::warn!("second signal: ending at once");
                std::process::exit(FORCED_EXIT);
            }
            () = self.wind_down(drain_delay) => {}
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(()), Err)
    }

    async fn wind_down(&self, drain_delay: Duration) {
        tracing::info!("stopping: no new connections, requests in flight are answered");
        let crashed = self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if !crashed {
            tokio::time::sleep(drain_delay).await;
        }
        self.stop.cancel();
        finish(&self.tasks, DRAIN_TIMEOUT, "requests and loops").await;
        self.kill.cancel();
        self.drained.cancel();
        finish(&self.writers, WRITER_TIMEOUT, "writers").await;
        tracing::info!("stopped");
    }
}

async fn finish(tasks: &TaskTracker, patience: Duration, what: &str) {
    tasks.close();
    if tokio::time::timeout(patience, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "{what} did not finish in {patience:?}; dropping them");
    }
}

async fn signalled(draining: &CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM received"),
        _ = interrupt.recv() => tracing::info!("SIGINT received"),
        () = draining.cancelled() => {}
    }
    Ok(())
}

async fn second_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stops_cleanly_when_asked() {
        let lifecycle = Lifecycle::default();
        let (stop, drained) = (lifecycle.stop.clone(), lifecycle.drained.clone());
        lifecycle.spawn("loop", async move { stop.cancelled().await });
        lifecycle.spawn_writer("writer", async move { drained.cancelled().await });
        lifecycle.shut_down();
        lifecycle.run(Duration::ZERO).await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_ends_early_stops_the_server() {
        let lifecycle = Lifecycle::default();
        let stop = lifecycle.stop.clone();
        lifecycle.spawn("other", async move { stop.cancelled().await });
        lifecycle.spawn("early", async {});
        let failed = lifecycle.run(Duration::from_hours(1)).await.unwrap_err();
        assert_eq!((failed.task, failed.how), ("early", "ended"));
    }

    #[tokio::test]
    async fn a_panic_stops_the_server() {
        let lifecycle = Lifecycle::default();
        lifecycle.spawn_writer("writer", async { panic!("on purpose") });
        let failed = lifecycle.run(Duration::ZERO).await.unwrap_err();
        assert_eq!((failed.task, failed.how), ("writer", "panicked"));
    }
}
