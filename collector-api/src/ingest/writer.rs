//! Group commit: requests wait here until the transaction that stores them is committed.
//!
//! One bounded queue, a few writer tasks, each with a database connection of its own. A task gathers
//! requests for as long as another task is writing, at most for a moment ([`GATHER`]) and until the group is
//! large, stores the group in one transaction, and only then answers each request. So a request that
//! comes alone is written at once, and groups grow by themselves when the database is slow.
//!
//! A request never fails because of another one. When the database refuses a row, the group is split
//! in two until the record at fault is alone; that record becomes a reject, the others are stored.
//! Errors that pass are tried again. Everything else is answered "retry later", never discarded:
//! the agent still has the reports, and the cursors make its repeat harmless, even if the connection
//! broke during `COMMIT` and nobody knows whether it happened.
//!
//! When no writer has a connection, requests are refused at once, from memory. A handler that gives
//! up (its client went away) leaves its request in the queue: it is stored all the same, and its
//! share of the memory budget is freed then. Deliberately absent: a queue on disk. The agents' spools
//! are that queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use shared_model::ProblemCode;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::IngestSettings;
use super::admission::Admitted;
use super::group::{Group, Reply};
use super::pace;
use crate::error::{ApiError, ApiResult};
use crate::metrics::{INGEST_GROUP_SECONDS, INGEST_QUEUE_DEPTH, INGEST_SHED};
use crate::store::Store;
use crate::store::records::RecordBatch;
use crate::store::reports::{Outcome, ReportConnection};

/// Longest a group is gathered while another one is being written.
const GATHER: Duration = Duration::from_millis(25);
/// Rows from which a group is written at once.
const GATHER_ROWS: usize = 5000;
/// Bytes of JSON from which a group is written at once.
const GATHER_BYTES: usize = 4 << 20;
/// Requests waiting for a writer. Beyond: 503 `overloaded`.
const QUEUE_REQUESTS: usize = 1024;
/// Longest a request waits for its commit before it is told to repeat itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest a group may take before its connection is given up: the database hangs.
const GROUP_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// First and longest pause between attempts to connect.
const BACKOFF: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(3)];
/// When an agent should come back after the database was gone.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A request on its way through the queue.
pub(super) struct Job {
    pub(super) batch: RecordBatch,
    pub(super) reply: oneshot::Sender<Reply>,
    /// Held until the request is answered.
    _admitted: Option<Admitted>,
    rows: usize,
    bytes: usize,
}

#[cfg(test)]
impl Job {
    /// A job that nobody admitted, and where its answer arrives.
    pub(super) fn of(batch: RecordBatch) -> (Self, oneshot::Receiver<Reply>) {
        let (reply, answer) = oneshot::channel();
        (Self { batch, reply, _admitted: None, rows: 0, bytes: 0 }, answer)
    }
}

/// Handle to the writer tasks, cheap to clone.
#[derive(Clone, Debug)]
pub struct ReportWriter {
    queue: mpsc::Sender<Job>,
    connected: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl ReportWriter {
    /// The handle, and one future per writer task for the app to spawn. After `stop` the tasks write
    /// what is queued and end; so cancel it when the agent door no longer takes requests.
    pub fn new(
        store: &Store,
        settings: &IngestSettings,
        stop: &CancellationToken,
    ) -> (Self, Vec<BoxFuture<'static, ()>>) {
        let (queue, receiver) = mpsc::channel(QUEUE_REQUESTS);
        let connected = Arc::new(AtomicUsize::new(0));
        let receiver = Arc::new(Mutex::new(receiver));
        let writing = watch::Sender::new(0);
        let tasks = (0..settings.writers.max(1))
            .map(|_| -> BoxFuture<'static, ()> {
                let task = WriterTask {
                    store: store.clone(),
                    queue: Arc::clone(&receiver),
                    connected: Arc::clone(&connected),
                    writing: writing.clone(),
                    stop: stop.clone(),
                };
                Box::pin(task.run())
            })
            .collect();
        (Self { queue, connected, stop: stop.clone() }, tasks)
    }

    /// Whether the database answers, as far as this replica knows.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed) > 0
    }

    /// Refuses at once what could not be written anyway.
    pub fn check_available(&self) -> ApiResult<()> {
        if self.stop.is_cancelled() {
            Err(shutting_down())
        } else if self.is_connected() {
            Ok(())
        } else {
            Err(database_unavailable())
        }
    }

    /// Refuses, before its body is read, what the queue has no room for.
    pub(super) fn check_room(&self) -> ApiResult<()> {
        if self.queue.capacity() == 0 { Err(queue_full()) } else { Ok(()) }
    }

    /// Share of the queue in use, 0 to 1.
    pub(super) fn load(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = self.queue.capacity() as f64 / self.queue.max_capacity() as f64;
        1.0 - share
    }

    /// Stores the records and returns after the commit.
    pub async fn write(&self, batch: RecordBatch) -> ApiResult<Outcome> {
        self.write_admitted(batch, None).await
    }

    pub(super) async fn write_admitted(
        &self,
        batch: RecordBatch,
        admitted: Option<Admitted>,
    ) -> ApiResult<Outcome> {
        self.check_available()?;
        let (reply, answer) = oneshot::channel();
        let rows = Group::rows(&batch);
        let bytes = batch.records.iter().map(|record| record.line.len()).sum();
        let job = Job { batch, reply, _admitted: admitted, rows, bytes };
        self.queue.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => queue_full(),
            mpsc::error::TrySendError::Closed(_) => shutting_down(),
        })?;
        match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(Reply::Committed(outcome))) => Ok(outcome),
            Ok(Ok(Reply::Later(after))) => Err(database_unavailable().retry_after(after)),
            Ok(Err(_)) => Err(shutting_down()),
            Err(_) => Err(database_unavailable()),
        }
    }
}

fn queue_full() -> ApiError {
    metrics::counter!(INGEST_SHED, "place" => "writer_queue").increment(1);
    ApiError::new(ProblemCode::Overloaded, "Too many requests wait for the database.")
        .retry_after(pace::retry_after(pace::random_unit()))
}

fn shutting_down() -> ApiError {
    ApiError::new(ProblemCode::ShuttingDown, "This server is stopping; retry, or use another.")
        .retry_after(Duration::from_secs(1))
}

fn database_unavailable() -> ApiError {
    metrics::counter!(INGEST_SHED, "place" => "database").increment(1);
    ApiError::new(
        ProblemCode::DatabaseUnavailable,
        "The database did not confirm; retry. Repeating is safe.",
    )
    .retry_after(RETRY_AFTER)
}

struct WriterTask {
    store: Store,
    queue: Arc<Mutex<mpsc::Receiver<Job>>>,
    connected: Arc<AtomicUsize>,
    /// Tasks that are writing a group now.
    writing: watch::Sender<usize>,
    stop: CancellationToken,
}

/// One task is writing a group, for as long as this lives.
struct Writing<'a>(&'a watch::Sender<usize>);

impl<'a> Writing<'a> {
    fn begin(writing: &'a watch::Sender<usize>) -> Self {
        writing.send_modify(|count| *count += 1);
        Self(writing)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl WriterTask {
    async fn run(self) {
        let mut again = None;
        while let Some(mut connection) = self.connect(&mut again).await {
            self.connected.fetch_add(1, Ordering::Relaxed);
            let lost = self.serve(&mut connection, &mut again).await;
            self.connected.fetch_sub(1, Ordering::Relaxed);
            if !lost {
                connection.close().await;
                break;
            }
        }
        if let Some(group) = again {
            group.answer_later(RETRY_AFTER);
        }
    }

    /// Connects, however long it takes. `None`: stopped meanwhile. A group that waits to be repeated
    /// is worth one attempt, not more.
    async fn connect(&self, again: &mut Option<Group>) -> Option<ReportConnection> {
        let mut pause = BACKOFF[0];
        loop {
            match timeout(CONNECT_TIMEOUT, self.store.report_connection()).await {
                Ok(Ok(connection)) => return Some(connection),
                Ok(Err(error)) => {
                    tracing::warn!(error = %crate::error::Chain(&error), "a writer cannot connect to the database");
                }
                Err(_) => tracing::warn!("the database does not answer a writer's connection"),
            }
            if let Some(group) = again.take() {
                group.answer_later(RETRY_AFTER);
            }
            self.refuse_queued();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => {
                    self.refuse_queued();
                    return None;
                }
            }
            pause = (pause * 2).min(BACKOFF[1]);
        }
    }

    /// Answers what is queued while nobody can write it.
    fn refuse_queued(&self) {
        if self.connected.load(Ordering::Relaxed) > 0 {
            return;
        }
        // Taken: the other task connected meanwhile and gathers.
        let Ok(mut queue) = self.queue.try_lock() else { return };
        while let Ok(job) = queue.try_recv() {
            Group::new(vec![job]).answer_later(RETRY_AFTER);
        }
    }

    /// Writes groups until the connection is lost (true) or the queue is closed and empty (false).
    /// A group that met a lost connection before its commit is left in `again` for the next one.
    async fn serve(&self, connection: &mut ReportConnection, again: &mut Option<Group>) -> bool {
        loop {
            let (mut group, repeated, _writing) = match again.take() {
                Some(group) => (group, true, Writing::begin(&self.writing)),
                None => match self.gather().await {
                    Some((group, writing)) => (group, false, writing),
                    None => return false,
                },
            };
            let started = Instant::now();
            let Ok(lost) = timeout(GROUP_TIMEOUT, group.store(connection)).await else {
                tracing::error!(
                    seconds = GROUP_TIMEOUT.as_secs(),
                    "the database does not finish a group"
                );
                group.answer_later(RETRY_AFTER);
                return true;
            };
            metrics::histogram!(INGEST_GROUP_SECONDS).record(started.elapsed().as_secs_f64());
            if lost {
                if repeated || group.is_doubtful() {
                    group.answer_later(RETRY_AFTER);
                } else {
                    *again = Some(group);
                }
                return true;
            }
        }
    }

    /// The next group. `None`: stopped, and nothing is left.
    async fn gather(&self) -> Option<(Group, Writing<'_>)> {
        let mut queue = self.queue.lock().await;
        let first = tokio::select! {
            biased;
            job = queue.recv() => job?,
            () = self.stop.cancelled() => {
                queue.close();
                queue.recv().await?
            }
        };
        let deadline = Instant::now() + GATHER;
        let (mut rows, mut bytes) = (first.rows, first.bytes);
        let mut jobs = vec![first];
        let mut writing = self.writing.subscribe();
        while rows < GATHER_ROWS && bytes < GATHER_BYTES {
            let next = async {
                tokio::select! {
                    biased;
                    job = queue.recv() => job,
                    // Nobody is writing: what is here goes now. The senders live as long as we do.
                    _ = writing.wait_for(|count| *count == 0) => None,
                }
            };
            let Ok(Some(job)) = timeout_at(deadline, next).await else { break };
            rows += job.rows;
            bytes += job.bytes;
            jobs.push(job);
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!(INGEST_QUEUE_DEPTH).set(queue.len() as f64);
        // Before the queue is free, so that the next task to gather sees it.
        let writing = Writing::begin(&self.writing);
        Some((Group::new(jobs), writing))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use uuid::Uuid;

    use super::*;

    fn once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
        let (queue, mut receiver) = mpsc::channel(1);
        let connected = Arc::new(AtomicUsize::new(1));
        let writer = ReportWriter { queue, connected, stop: CancellationToken::new() };
        let batch = || RecordBatch {
            host_id: Uuid::nil(),
            stream_id: Uuid::nil(),
            place: None,
            records: Vec::new(),
        };
        let mut waiting = pin!(writer.write(batch()));
        assert!(once(waiting.as_mut()).is_pending(), "queued");
        let Poll::Ready(Err(refused)) = once(pin!(writer.write(batch()))) else {
            panic!("must not wait")
        };
        assert_eq!(refused.problem.code, ProblemCode::Overloaded);
        assert!(refused.retry_after.is_some());
        // The one that waits was not harmed; and there is room again.
        let job = receiver.recv().await.unwrap();
        assert!(once(pin!(writer.write(batch()))).is_pending());
        job.reply.send(Reply::Committed(Outcome::Gap(0))).unwrap();
        assert!(matches!(waiting.await, Ok(Outcome::Gap(0))));
    }
}
