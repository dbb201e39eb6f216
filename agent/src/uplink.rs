//! The way of the spool's records to the server: mutual TLS, one request in flight, in order.
//!
//! A loop with one decision per answer ([`disposition`](disposition::disposition)): ask the server for
//! its cursor, send what follows it, take the cursor of the answer, go on. The server's cursor is the
//! only truth about what it has; an answer that got lost is made up for by sending the same bytes again.
//!
//! Identity, key and reports survive every answer. A host that is refused (401, 403, 410) keeps
//! everything and asks again, slowly.
//!
//! Deliberately absent: several requests in flight (order is what makes the cursor work), and sending
//! fresh reports before the backlog (a second stream would do it).

pub mod artifacts;
pub mod configuration;
mod cursor;
mod dead;
mod disposition;
mod exchange;
pub mod fallback;
mod goodbye;
pub mod news;
mod pace;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder, Url};
use shared_model::limits::{MAX_BODY_BYTES, MAX_INFLATED_BYTES, MAX_RECORDS_PER_REQUEST};
use shared_model::{
    ENDPOINTS_DOWN_HEADER, MAX_ENDPOINTS_DOWN, PLACE_HEADER, Problem, ProblemCode, RejectedReport,
    ReportsAnswer,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::identity::Identity;
use crate::metrics;
use crate::server_clock::ServerClock;
use crate::spool::{PeekLimits, Spool, SpooledRecord, Standing};
use crate::tls::{self, TlsError};
use disposition::{Disposition, disposition};
use exchange::{Answer, exchange};
use news::{Contact, Delivered};
use pace::{Endpoints, Pace};

/// Refusals of one record alone before it is given up: a damaged transfer is no reason.
const REFUSALS_BEFORE_REJECT: u32 = 3;

/// What an uplink needs to know.
#[derive(Clone, Debug)]
pub struct UplinkConfig {
    /// Endpoints in order of preference; empty: those of the identity.
    pub endpoints: Vec<String>,
    /// Where records go that a server cannot read (`<state_dir>/dead`). Bounded.
    pub dead_dir: PathBuf,
    /// Where this agent runs: [`crate::machine::place`].
    pub place: Uuid,
}

/// How delivery is going.
#[derive(Clone, Debug, Default)]
pub struct UplinkStatus {
    /// The endpoint of the last request.
    pub endpoint: Option<String>,
    /// When a server last took something or answered the cursor.
    pub last_success_at: Option<Instant>,
    /// When a server last answered anything, were it a refusal.
    pub last_answer_at: Option<Instant>,
    /// Failures since then.
    pub consecutive_failures: u32,
    /// The last failure, in words.
    pub last_error: Option<String>,
}

/// Why there can be no uplink.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The identity's certificate, key or CA bundle is not usable.
    #[error("the host's identity cannot be used for TLS")]
    Tls(#[from] TlsError),
    /// There is nobody to report to.
    #[error("no endpoints: set `endpoints` in the configuration, or enrol again")]
    NoEndpoints,
    /// An endpoint is not `https://host:port`.
    #[error("the endpoint {0} is not an https:// address")]
    Endpoint(String),
}

/// The only part of the agent that speaks to a server, but for enrolment.
#[derive(Debug)]
pub struct Uplink {
    endpoints: Vec<Url>,
    dead_dir: PathBuf,
    place: String,
    pace: Pace,
    client: Mutex<Client>,
    status: Mutex<UplinkStatus>,
    trust: watch::Sender<Option<String>>,
    contact: watch::Sender<Contact>,
    delivered: watch::Sender<Delivered>,
    release: watch::Sender<Option<u64>>,
    clock: ServerClock,
    /// Hosts of the fleet, as the server last said; 0: it did not.
    fleet_size: AtomicU32,
    /// Another certificate: what failed with the last one need not wait.
    renewed: Notify,
}

/// One delivery: what its loop remembers between two requests.
struct Delivery<'a> {
    uplink: &'a Uplink,
    spool: &'a Spool,
    stop: &'a CancellationToken,
    endpoints: Endpoints,
    /// The server told its cursor since the start, or since the last new stream.
    synchronised: bool,
    /// A stream began and nothing of it was taken yet.
    untried_stream: bool,
    /// Most records of the next request: halved by 413 and by time-outs, doubled by success.
    most_records: usize,
    /// The record that was refused alone last, and how often.
    refused: (u64, u32),
    /// The server said that another machine holds the identity, and nothing else since.
    cloned: bool,
    failures: u32,
}

/// How one request ended.
enum Outcome {
    /// The server took or told something: go on, after the pause it asked for.
    Progress(Option<Duration>),
    /// Nothing to wait for, nothing gained.
    Again,
    /// Wait as after any failure, or as long as the server asked.
    Failed(String, Option<Duration>),
    /// Wait for people.
    Refused(String),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Uplink {
    /// Builds the TLS configuration; contacts nobody.
    pub fn new(identity: &Identity, config: UplinkConfig) -> Result<Self, UplinkError> {
        let names =
            if config.endpoints.is_empty() { &identity.endpoints } else { &config.endpoints };
        let endpoints = names
            .iter()
            .map(|name| {
                let url = name.parse().ok().filter(|url: &Url| url.scheme() == "https");
                url.ok_or_else(|| UplinkError::Endpoint(name.clone()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(UplinkError::NoEndpoints);
        }
        Ok(Self {
            endpoints,
            dead_dir: config.dead_dir,
            place: config.place.to_string(),
            pace: Pace::default(),
            client: Mutex::new(client(identity)?),
            status: Mutex::default(),
            trust: watch::channel(None).0,
            contact: watch::channel(Contact::default()).0,
            delivered: watch::channel(Delivered::default()).0,
            release: watch::channel(None).0,
            clock: ServerClock::default(),
            fleet_size: AtomicU32::new(0),
            renewed: Notify::new(),
        })
    }

    /// Uses another certificate from the next request on, which comes at once if the last one failed; the connection
    /// with the old one is closed.
    pub fn replace_identity(&self, identity: &Identity) -> Result<(), UplinkError> {
        *lock(&self.client) = client(identity)?;
        self.renewed.notify_one();
        Ok(())
    }

    /// Delivers until `stop`, then for at most 5 s more what is still in the spool.
    pub async fn run(&self, spool: Arc<Spool>, stop: CancellationToken) {
        let appended = Arc::new(Notify::new());
        let wake = Arc::clone(&appended);
        spool.on_append(move || wake.notify_one());
        let mut delivery = Delivery {
            uplink: self,
            spool: &spool,
            stop: &stop,
            endpoints: Endpoints::new(self.endpoints.len()),
            synchronised: false,
            untried_stream: false,
            most_records: MAX_RECORDS_PER_REQUEST,
            refused: (0, 0),
            cloned: false,
            failures: 0,
        };
        let too_late = async {
            stop.cancelled().await;
            tokio::time::sleep(self.pace.drain).await;
        };
        tokio::select! {
            () = delivery.run(&appended) => {}
            () = too_late => tracing::info!("stopped with reports left in the spool"),
        }
    }

    /// What time it is by the servers' answers.
    pub fn clock(&self) -> ServerClock {
        self.clock.clone()
    }

    /// How delivery is going, from any thread.
    pub fn status(&self) -> UplinkStatus {
        lock(&self.status).clone()
    }
}

fn client(identity: &Identity) -> Result<Client, TlsError> {
    let roots = tls::certificates("CA bundle", &identity.ca_bundle_pem)?;
    tls::http_client(tls::client_config(roots, Some(identity), Some(identity))?)
}

impl Delivery<'_> {
    async fn run(&mut self, appended: &Notify) {
        loop {
            let records = if self.synchronised { self.next_batch() } else { Vec::new() };
            if self.synchronised && records.is_empty() {
                tokio::select! {
                    () = appended.notified() => {}
                    () = self.stop.cancelled() => {
                        // The last report may have come together with the stop.
                        if self.next_batch().is_empty() {
                            return;
                        }
                    }
                }
                continue;
            }
            let now = Instant::now();
            let index = self.endpoints.choose(now, self.uplink.pace.probe, tls::random_unit());
            let endpoint = &self.uplink.endpoints[index];
            let outcome = match self.request(endpoint, &records) {
                Ok(request) => match exchange(request).await {
                    Ok(mut answer) => {
                        self.uplink.note_headers(&mut answer, !records.is_empty());
                        self.decide(&answer, &records)
                    }
                    Err(error) => {
                        if error.is_timeout() {
                            self.send_less(&records);
                        }
                        Outcome::Failed(tls::chain(&error), None)
                    }
                },
                Err(error) => Outcome::Failed(error, None),
            };
            if !self.account(endpoint, outcome).await {
                return;
            }
        }
    }

    /// A request that took too long may have been too much for a slow line: all of it again would take too long again.
    fn send_less(&mut self, records: &[SpooledRecord]) {
        if !records.is_empty() {
            self.most_records = (records.len() / 2).max(1);
        }
    }

    fn next_batch(&self) -> Vec<SpooledRecord> {
        self.spool.peek(PeekLimits {
            bytes: MAX_BODY_BYTES,
            inflated_bytes: MAX_INFLATED_BYTES,
            records: self.most_records,
        })
    }

    /// The batch, or without records the question for the cursor.
    fn request(&self, endpoint: &Url, records: &[SpooledRecord]) -> Result<RequestBuilder, String> {
        let client = lock(&self.uplink.client).clone();
        if records.is_empty() {
            let mut url = endpoint.join("/v1/cursor").map_err(|error| error.to_string())?;
            url.query_pairs_mut().append_pair("stream_id", &self.spool.stream_id().to_string());
            return Ok(client.get(url));
        }
        let url = endpoint.join("/v1/reports").map_err(|error| error.to_string())?;
        let body: Vec<u8> = records.iter().flat_map(|record| &record.frame).copied().collect();
        let request = client.post(url).header(PLACE_HEADER, &self.uplink.place);
        let down = self.endpoints_down();
        let request =
            if down.is_empty() { request } else { request.header(ENDPOINTS_DOWN_HEADER, down) };
        Ok(request
            .timeout(self.uplink.pace.request)
            .header(reqwest::header::CONTENT_TYPE, "application/x-ndjson")
            .header(reqwest::header::CONTENT_ENCODING, "zstd")
            .body(body))
    }

    /// As in the header: whoever reports through another endpoint tells of those that failed.
    fn endpoints_down(&self) -> String {
        let down = self.endpoints.down().take(MAX_ENDPOINTS_DOWN);
        let names = down.map(|index| self.uplink.endpoints[index].as_str().trim_end_matches('/'));
        names.collect::<Vec<_>>().join(",")
    }

    fn decide(&mut self, answer: &Answer, records: &[SpooledRecord]) -> Outcome {
        let problem: Option<Problem> =
            (answer.status != 200).then(|| serde_json::from_slice(&answer.body).ok()).flatten();
        let words = match &problem {
            Some(problem) => {
                format!("{} {}: {}", answer.status, problem.code.as_str(), problem.detail)
            }
            None => format!("HTTP {}", answer.status),
        };
        if answer.status == 200 || problem.is_some() {
            lock(&self.uplink.status).last_answer_at = Some(Instant::now());
        }
        let cloned = problem.as_ref().is_some_and(|p| p.code == ProblemCode::CloneDetected);
        if cloned && !std::mem::replace(&mut self.cloned, cloned) {
            tracing::error!(
                "another machine reports with this host's identity: this one's reports are kept and not taken. Is this disk a copy? Then stop this agent, remove its state directory, and enrol anew"
            );
        }
        match disposition(answer.status, problem.as_ref()) {
            Disposition::Settled => self.settle(answer, problem, records, &words),
            Disposition::NewStream => self.begin_stream(),
            Disposition::Retry => Outcome::Failed(words, answer.retry_after),
            Disposition::RetrySlowly => Outcome::Refused(words),
            Disposition::Split => match records {
                [] => Outcome::Refused(words),
                [record] => {
                    self.refuse(record, problem.map_or(ProblemCode::Unknown, |p| p.code), words)
                }
                more => {
                    self.most_records = more.len() / 2;
                    Outcome::Again
                }
            },
        }
    }

    /// Takes the cursor of an answer.
    fn settle(
        &mut self,
        answer: &Answer,
        problem: Option<Problem>,
        records: &[SpooledRecord],
        words: &str,
    ) -> Outcome {
        let stream_id = self.spool.stream_id();
        let (cursor, rejected, pause) = match problem {
            Some(problem) => (problem.acknowledged_sequence, problem.rejected, None),
            None => match serde_json::from_slice::<ReportsAnswer>(&answer.body) {
                Ok(told) if told.stream_id == stream_id => {
                    let (asked, answered) = answer.exchanged;
                    self.uplink.clock.learn(told.server_time, asked, answered);
                    let pause = told.next_send_after_ms.map(u64::from).map(Duration::from_millis);
                    (Some(told.acknowledged_sequence), told.rejected, pause)
                }
                _ => (None, Vec::new(), None),
            },
        };
        let Some(cursor) = cursor else {
            return Outcome::Failed(format!("{words}: not an answer about our stream"), None);
        };
        for rejected in &rejected {
            self.bury(stream_id, records, rejected);
        }
        let before = self.spool.stats().acknowledged_sequence;
        let standing = self.spool.acknowledge(cursor, Instant::now());
        if standing == Standing::NewStreamNeeded {
            return self.begin_stream();
        }
        let first = !std::mem::replace(&mut self.synchronised, true);
        let after = self.spool.stats().acknowledged_sequence;
        let moved = after != before;
        self.uplink.note_delivered(stream_id, after);
        self.untried_stream &= !moved;
        if first || moved {
            self.most_records = (self.most_records * 2).min(MAX_RECORDS_PER_REQUEST);
            Outcome::Progress(pause)
        } else {
            // An answer that moves nothing must not be asked for in a tight loop.
            Outcome::Failed(format!("{words}: the cursor does not move"), None)
        }
    }

    /// Beginning one writes the whole spool anew: a server that refuses stream after stream must not
    /// make the host do that in a tight loop.
    fn begin_stream(&mut self) -> Outcome {
        self.synchronised = false;
        match self.spool.begin_stream() {
            Ok(()) if std::mem::replace(&mut self.untried_stream, true) => {
                Outcome::Failed("a stream that had just begun was refused".into(), None)
            }
            Ok(()) => Outcome::Progress(None),
            Err(error) => Outcome::Failed(tls::chain(&error), None),
        }
    }

    /// A record that the server could not read even alone.
    fn refuse(&mut self, record: &SpooledRecord, code: ProblemCode, words: String) -> Outcome {
        let times = if self.refused.0 == record.sequence { self.refused.1 + 1 } else { 1 };
        self.refused = (record.sequence, times);
        if times < REFUSALS_BEFORE_REJECT {
            return Outcome::Failed(words, None);
        }
        let rejected =
            RejectedReport { sequence: record.sequence, code, detail: words, errors: Vec::new() };
        self.bury(self.spool.stream_id(), std::slice::from_ref(record), &rejected);
        Outcome::Again
    }

    /// Keeps a record for people and gives it up.
    fn bury(&self, stream_id: Uuid, records: &[SpooledRecord], rejected: &RejectedReport) {
        let sequence = rejected.sequence;
        let code = rejected.code;
        tracing::warn!(sequence, code = code.as_str(), detail = rejected.detail, "report rejected");
        if let Some(record) = records.iter().find(|record| record.sequence == sequence)
            && let Err(error) =
                dead::keep(&self.uplink.dead_dir, (stream_id, sequence), code, &record.frame)
        {
            tracing::warn!(%error, path = %self.uplink.dead_dir.display(), "cannot keep it");
        }
        self.spool.reject(sequence);
        self.uplink.note_rejected(stream_id, rejected);
    }

    /// As long as the server asked, unless the agent is stopping.
    async fn pause(&self, asked: Option<Duration>) {
        let Some(pause) = asked else { return };
        tokio::select! {
            () = tokio::time::sleep(pause.min(self.uplink.pace.longest_asked)) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn note_success(&self, endpoint: &Url) {
        let mut status = lock(&self.uplink.status);
        *status = UplinkStatus {
            endpoint: Some(endpoint.to_string()),
            last_success_at: Some(Instant::now()),
            last_answer_at: status.last_answer_at,
            ..UplinkStatus::default()
        };
    }

    /// Notes how a request ended and waits as long as that asks for. False: stop.
    async fn account(&mut self, endpoint: &Url, outcome: Outcome) -> bool {
        let (error, wait) = match outcome {
            Outcome::Progress(pause) => {
                self.endpoints.succeeded();
                self.cloned = false;
                self.failures = 0;
                self.note_success(endpoint);
                self.pause(pause).await;
                return true;
            }
            Outcome::Again => {
                self.endpoints.succeeded();
                return true;
            }
            Outcome::Failed(error, asked) => {
                self.failures += 1;
                (error, self.uplink.pace.wait(self.failures, asked, tls::random_unit()))
            }
            Outcome::Refused(error) => {
                self.failures += 1;
                (error, self.uplink.pace.wait_slowly(self.failures, tls::random_unit()))
            }
        };
        self.endpoints.failed();
        metrics::REQUESTS_FAILED.add(1);
        if self.failures == 1 || self.failures.is_multiple_of(100) {
            tracing::warn!(%endpoint, error, failures = self.failures, "delivery fails; reports are kept");
        } else {
            tracing::debug!(%endpoint, error, wait_ms = wait.as_millis(), "request failed");
        }
        {
            let mut status = lock(&self.uplink.status);
            status.endpoint = Some(endpoint.to_string());
            status.consecutive_failures = self.failures;
            status.last_error = Some(error);
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            () = self.uplink.renewed.notified() => true,
            () = self.stop.cancelled() => false,
        }
    }
}
