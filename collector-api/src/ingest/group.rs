//! One group of requests on its way through the database, and what is done when that fails.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use shared_model::ProblemCode;

use super::writer::Job;
use crate::error::Chain;
use crate::metrics::{
    CLONES_DETECTED, INGEST_COLLISIONS, INGEST_GROUP_FAILURES, INGEST_GROUP_REQUESTS,
    INGEST_GROUPS, INGEST_REPORTS, INGEST_ROWS, INGEST_SHED,
};
use crate::store::StoreError;
use crate::store::failure::Failure;
use crate::store::records::{Content, RecordBatch, Rejection};
use crate::store::reports::{Inserted, Outcome, ReportConnection, Unit};
use crate::store::series::SERIES;

/// How often a transaction that lost against another, or met a missing partition, is tried again.
const MAX_ATTEMPTS: u32 = 6;
/// Pause before the first repeat; doubles.
const PAUSE: Duration = Duration::from_millis(10);
/// When to come back after an error that will not pass quickly (disk full).
const LONG_RETRY: Duration = Duration::from_mins(1);
/// When to come back after an error nobody foresaw.
const SHORT_RETRY: Duration = Duration::from_secs(15);

/// What a waiting request is told.
#[derive(Debug)]
pub(super) enum Reply {
    /// Committed.
    Committed(Outcome),
    /// Nothing is certain: come back after this time.
    Later(Duration),
}

/// Requests that share transactions.
pub(super) struct Group {
    jobs: Vec<Entry>,
    /// A `COMMIT` was sent and not answered.
    doubtful: bool,
}

struct Entry {
    /// `None`: answered.
    job: Option<Job>,
    /// Outcome so far: a split group commits a request piece by piece.
    outcome: Option<Outcome>,
}

/// Records of one request: index of the request, and which of its records.
type Piece = (usize, Range<usize>);

/// What came of one piece of work.
enum Step {
    Done,
    /// Split it, the database refuses a row.
    Refused(StoreError),
    /// The requests of this piece were answered.
    GivenUp,
    /// The connection is of no more use.
    Lost,
}

impl Entry {
    /// Whether its next piece may be stored.
    fn goes_on(&self) -> bool {
        self.job.is_some() && matches!(self.outcome, None | Some(Outcome::Moved(_)))
    }
}

/// What came of a request after one more of its pieces. A refusal stays: the agent must hear of it.
fn merged(before: Option<Outcome>, now: Outcome) -> Outcome {
    match (before, now) {
        (Some(Outcome::Moved(before)), Outcome::Moved(mut now)) => {
            now.accepted += before.accepted;
            now.duplicates += before.duplicates;
            now.rejected.splice(0..0, before.rejected);
            Outcome::Moved(now)
        }
        (Some(Outcome::Moved(_)) | None, now) => now,
        (Some(refused), _) => refused,
    }
}

impl Group {
    pub(super) fn new(jobs: Vec<Job>) -> Self {
        let jobs = jobs.into_iter().map(|job| Entry { job: Some(job), outcome: None }).collect();
        Self { jobs, doubtful: false }
    }

    /// Series rows of a request.
    pub(super) fn rows(batch: &RecordBatch) -> usize {
        let rows = |content: &Content| match content {
            Content::Report(report) => report.row_count(),
            Content::Gap(_) | Content::Reject(_) => 1,
        };
        batch.records.iter().map(|record| rows(&record.content)).sum()
    }

    /// Whether a commit may have happened that nobody confirmed.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Tells every request that is not answered yet to come back.
    pub(super) fn answer_later(mut self, after: Duration) {
        for index in 0..self.jobs.len() {
            self.give_up(index, after);
        }
    }

    /// Stores the group and answers its requests. True: the connection was lost; requests may be
    /// left unanswered.
    pub(super) async fn store(&mut self, connection: &mut ReportConnection) -> bool {
        for entry in &mut self.jobs {
            // Of an earlier try, on a connection that was lost: its cursors answer for it now.
            entry.outcome = None;
        }
        let all: Vec<Piece> = self
            .jobs
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| Some((index, 0..entry.job.as_ref()?.batch.records.len())))
            .collect();
        let mut work = VecDeque::from([all]);
        while let Some(mut pieces) = work.pop_front() {
            // Once a piece of a request is given up, its later pieces would look like a gap; and once
            // one is refused, they must not be stored after another writer's.
            pieces.retain(|(index, _)| self.jobs[*index].goes_on());
            if pieces.is_empty() {
                continue;
            }
            match self.store_pieces(connection, &pieces).await {
                Step::Done | Step::GivenUp => {}
                Step::Lost => return true,
                Step::Refused(error) => match split(pieces) {
                    Ok((first, second)) => {
                        work.push_front(second);
                        work.push_front(first);
                    }
                    Err((index, record)) => {
                        if self.condemn(index, record, &error) {
                            work.push_front(vec![(index, record..record + 1)]);
                        }
                    }
                },
            }
        }
        self.answer_committed();
        false
    }

    /// One transaction, repeated while that may help.
    async fn store_pieces(&mut self, connection: &mut ReportConnection, pieces: &[Piece]) -> Step {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let units = self.units(pieces);
            let error = match connection.insert_reports(&units).await {
                Ok(inserted) => {
                    count(&inserted, units.len());
                    self.merge(pieces, inserted.outcomes);
                    return Step::Done;
                }
                Err(error) => error,
            };
            let failure = error.failure();
            metrics::counter!(INGEST_GROUP_FAILURES, "failure" => format!("{failure:?}"))
                .increment(1);
            tracing::warn!(?failure, attempt, error = %Chain(&error), "storing a group failed");
            match failure {
                Failure::Connection => {
                    self.doubtful |= error.is_commit();
                    return Step::Lost;
                }
                Failure::BadData => return Step::Refused(error),
                Failure::Exhausted => return self.give_up_all(pieces, LONG_RETRY),
                Failure::MissingPartition if attempt < MAX_ATTEMPTS => {
                    if let Err(error) = connection.ensure_partitions(&units).await {
                        tracing::warn!(error = %Chain(&error), "making partitions failed");
                    }
                }
                Failure::Contention if attempt < MAX_ATTEMPTS => {}
                Failure::Contention | Failure::MissingPartition => {
                    return self.give_up_all(pieces, SHORT_RETRY);
                }
                Failure::Unknown => {
                    tracing::error!(error = %Chain(&error), "the database failed in a way nobody foresaw; agents keep their reports and retry");
                    return self.give_up_all(pieces, SHORT_RETRY);
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Step::GivenUp
    }

    fn units(&self, pieces: &[Piece]) -> Vec<Unit<'_>> {
        pieces
            .iter()
            .filter_map(|(index, records)| {
                let batch = &self.jobs[*index].job.as_ref()?.batch;
                Some(Unit { batch, records: records.clone() })
            })
            .collect()
    }

    fn merge(&mut self, pieces: &[Piece], outcomes: Vec<Outcome>) {
        for ((index, _), outcome) in pieces.iter().zip(outcomes) {
            let entry = &mut self.jobs[*index];
            entry.outcome = Some(merged(entry.outcome.take(), outcome));
        }
    }

    /// Makes a record that the database refuses poison. False: it already was, and the request is
    /// given up instead.
    fn condemn(&mut self, index: usize, record: usize, error: &StoreError) -> bool {
        let Some(job) = &mut self.jobs[index].job else { return false };
        let prepared = &mut job.batch.records[record];
        if matches!(prepared.content, Content::Reject(_)) {
            tracing::error!(error = %Chain(error), "the database refuses even to record a reject");
            self.give_up(index, SHORT_RETRY);
            return false;
        }
        tracing::error!(
            host.id = %job.batch.host_id, stream.id = %job.batch.stream_id,
            sequence = prepared.sequence, error = %Chain(error),
            "the database refuses a report that passed validation; it is recorded as a reject"
        );
        prepared.content = Content::Reject(Rejection {
            code: ProblemCode::InvalidReport,
            detail: "the database refuses a row of this report; the server's log says which rule"
                .into(),
            errors: Vec::new(),
        });
        true
    }

    fn give_up_all(&mut self, pieces: &[Piece], after: Duration) -> Step {
        for (index, _) in pieces {
            self.give_up(*index, after);
        }
        Step::GivenUp
    }

    fn give_up(&mut self, index: usize, after: Duration) {
        if let Some(job) = self.jobs[index].job.take() {
            // The handler may be gone; nobody to tell then.
            drop(job.reply.send(Reply::Later(after)));
        }
    }

    fn answer_committed(&mut self) {
        for entry in &mut self.jobs {
            if let (Some(job), Some(outcome)) = (entry.job.take(), entry.outcome.take()) {
                drop(job.reply.send(Reply::Committed(outcome)));
            }
        }
    }
}

/// Halves work by request, then by record; records of one request stay in order. `Err`: one record
/// is left.
fn split(mut pieces: Vec<Piece>) -> Result<(Vec<Piece>, Vec<Piece>), (usize, usize)> {
    if pieces.len() > 1 {
        let second = pieces.split_off(pieces.len() / 2);
        return Ok((pieces, second));
    }
    let (index, records) = pieces.remove(0);
    if records.len() > 1 {
        let middle = records.start + records.len() / 2;
        return Ok((vec![(index, records.start..middle)], vec![(index, middle..records.end)]));
    }
    Err((index, records.start))
}

/// Counts what a transaction stored.
fn count(inserted: &Inserted, requests: usize) {
    let reports = |outcome: &'static str, count: u64| {
        metrics::counter!(INGEST_REPORTS, "outcome" => outcome).increment(count);
    };
    for outcome in &inserted.outcomes {
        match outcome {
            Outcome::Moved(moved) => {
                reports("accepted", u64::from(moved.accepted));
                reports("duplicate", u64::from(moved.duplicates));
                reports("rejected", moved.rejected.len() as u64);
            }
            Outcome::Gap(_) => reports("sequence_gap", 1),
            Outcome::Fork(_) => reports("stream_conflict", 1),
            Outcome::Wait(_) => reports("takeover_pending", 1),
            Outcome::Clone => reports("clone_detected", 1),
        }
    }
    for host_id in &inserted.clones {
        metrics::counter!(CLONES_DETECTED).increment(1);
        tracing::warn!(host.id = %host_id, "two machines show one host's identity: the one that was first goes on, the other is refused");
    }
    for (series, rows) in SERIES.iter().zip(inserted.rows) {
        metrics::counter!(INGEST_ROWS, "table" => series.name).increment(rows);
    }
    let collisions = inserted.collisions;
    for (dictionary, count) in
        [("processes", collisions.processes), ("process_instances", collisions.instances)]
    {
        metrics::counter!(INGEST_COLLISIONS, "table" => dictionary).increment(count);
    }
    metrics::counter!(INGEST_SHED, "place" => "reject_bodies")
        .increment(inserted.reject_bodies_dropped);
    metrics::counter!(INGEST_GROUPS).increment(1);
    metrics::counter!(INGEST_GROUP_REQUESTS).increment(requests as u64);
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::store::reports::Moved;

    fn moved(acknowledged_sequence: u64) -> Outcome {
        Outcome::Moved(Moved {
            acknowledged_sequence,
            accepted: 1,
            duplicates: 2,
            rejected: Vec::new(),
            server_time: shared_model::Timestamp::UNIX_EPOCH,
        })
    }

    #[test]
    fn a_refused_piece_decides_for_its_request() {
        let Outcome::Moved(sum) = merged(Some(moved(1)), moved(2)) else { panic!("moved") };
        assert_eq!((sum.acknowledged_sequence, sum.accepted, sum.duplicates), (2, 2, 4));
        assert!(matches!(merged(Some(moved(1)), Outcome::Fork(1)), Outcome::Fork(1)));
        assert!(matches!(merged(Some(Outcome::Fork(1)), moved(2)), Outcome::Fork(1)));
        assert!(matches!(merged(Some(Outcome::Gap(1)), moved(2)), Outcome::Gap(1)));
        let entry = |outcome| {
            let batch = RecordBatch {
                host_id: Uuid::nil(),
                stream_id: Uuid::nil(),
                place: None,
                records: Vec::new(),
            };
            Entry { job: Some(Job::of(batch).0), outcome }
        };
        assert!(entry(None).goes_on() && entry(Some(moved(1))).goes_on());
        assert!(!entry(Some(Outcome::Fork(1))).goes_on(), "what comes after it is not stored");
    }

    #[test]
    fn collisions_and_dropped_bodies_are_counted() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let inserted = Inserted {
            outcomes: vec![moved(1), Outcome::Fork(1)],
            rows: [0; SERIES.len()],
            collisions: crate::store::dictionaries::Collisions { processes: 2, instances: 3 },
            clones: vec![Uuid::nil()],
            reject_bodies_dropped: 4,
        };
        metrics::with_local_recorder(&recorder, || count(&inserted, 2));
        let shown = recorder.handle().render();
        for line in [
            "procfleet_ingest_dictionary_collisions_total{table=\"processes\"} 2",
            "procfleet_ingest_dictionary_collisions_total{table=\"process_instances\"} 3",
            "procfleet_ingest_shed_total{place=\"reject_bodies\"} 4",
            "procfleet_ingest_reports_total{outcome=\"stream_conflict\"} 1",
            "procfleet_ingest_clones_detected_total 1",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
        }
    }

    #[test]
    fn splitting_ends_at_one_record_and_keeps_order() {
        let (first, second) = split(vec![(0, 0..4), (1, 0..1), (2, 0..1)]).unwrap();
        assert_eq!((first, second), (vec![(0, 0..4)], vec![(1, 0..1), (2, 0..1)]));
        assert_eq!(split(vec![(0, 1..4)]).unwrap(), (vec![(0, 1..2)], vec![(0, 2..4)]));
        assert_eq!(split(vec![(3, 7..8)]).unwrap_err(), (3, 7));
    }
}
