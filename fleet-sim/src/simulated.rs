//! A simulated agent: speaks the protocol over real mutual TLS, and remembers every record it made.
//!
//! Written against the protocol alone, not with the agent's code: what both get wrong in the same way,
//! no test would find. Its reports come from a seeded generator ([`generator`]).

pub mod configuration;
pub mod generator;
pub mod plan;
mod tls;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use shared_model::limits::MAX_RECORDS_PER_REQUEST;
use shared_model::{
    EnrollRequest, EnrollResponse, HostFacts, JoinToken, PROTOCOL_VERSION, Problem, ProblemCode,
    Record, ReportsAnswer, Timestamp,
};
use uuid::Uuid;

pub use tls::install_crypto;

use configuration::Followed;
use generator::Generator;
use plan::{ClockJump, Plan};

/// Time a request may take; shorter than the real agent's, so that tests with stalls stay short.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time enrolment may take: a test that waits for it in full fails anyway.
const ENROLL_TIMEOUT: Duration = Duration::from_mins(1);
/// Bytes of frames per request.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// Pause after a failure. Real agents back off further; tests want trouble.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What the servers answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerCounts {
    /// Requests answered 200.
    pub successes: u64,
    /// Records stored, as the answers say.
    pub accepted: u64,
    /// Records that had been stored before, as the answers say.
    pub duplicates: u64,
    /// Records refused for good.
    pub rejected: u64,
    /// Problem documents, by code.
    pub problems: BTreeMap<String, u64>,
    /// Of these, those that named a `Retry-After`.
    pub retry_after: u64,
    /// Requests without an answer.
    pub lost: u64,
    /// Answers whose cursor was behind an earlier one: the database had lost records.
    pub rewinds: u64,
    /// Records that had been acknowledged and were sent again after that.
    pub refilled: u64,
    /// Answers that asked for a pause.
    pub paced: u64,
}

/// One host that is not there.
#[derive(Debug)]
pub struct SimulatedAgent {
    /// From enrolment.
    pub host_id: Uuid,
    /// Of its only stream.
    pub stream_id: Uuid,
    /// Everything it ever made, by sequence: the oracle. Empty if it is forgetful.
    pub records: BTreeMap<u64, Record>,
    /// Makes each report again when it is sent, which takes no memory: for fleets of thousands.
    pub forgetful: bool,
    /// Pause that the last answer asked for; for the caller to take and obey.
    pub pause: Option<Duration>,
    /// The newest record's sequence.
    last_sequence: u64,
    /// The server's cursor as last answered.
    pub acknowledged_sequence: u64,
    /// What the servers answered.
    pub counts: AnswerCounts,
    /// What it knows of its configuration.
    pub followed: Followed,
    endpoints: Vec<String>,
    endpoint: usize,
    client: reqwest::Client,
    generator: Generator,
}

impl SimulatedAgent {
    /// Enrols over TLS, pinned by the token. The same `seed` and `now` make the same reports.
    pub async fn enroll(token: &JoinToken, name: &str, seed: u64, now: Timestamp) -> Result<Self> {
        Self::enroll_planned(token, name, Plan::past(seed, now), REQUEST_TIMEOUT).await
    }

    /// Enrols a host that reports by `plan`, and waits for answers for `timeout`.
    pub async fn enroll_planned(
        token: &JoinToken,
        name: &str,
        plan: Plan,
        timeout: Duration,
    ) -> Result<Self> {
        let (key, csr_pem) = tls::new_key()?;
        let facts = HostFacts {
            host_name: name.into(),
            kernel_release: "6.1.0-sim".into(),
            host_arch: "x86_64".into(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            ..HostFacts::default()
        };
        let endpoint = token.endpoints.first().context("a token without endpoints")?;
        let body = EnrollRequest { version: PROTOCOL_VERSION, csr_pem, facts: facts.clone() };
        let response = tls::client(tls::pinned(&token.pins)?, ENROLL_TIMEOUT)?
            .post(format!("{endpoint}/v1/enroll"))
            .header("authorization", token.authorization())
            .json(&body)
            .send()
            .await
            .context("enrol")?;
        let status = response.status();
        let text = response.text().await.context("read the enrolment's answer")?;
        if !status.is_success() {
            bail!("enrolment answered {status}: {text}");
        }
        let identity: EnrollResponse = serde_json::from_str(&text).context("enrolment's answer")?;
        let config = tls::mutual(&identity.ca_bundle_pem, &identity.certificate_chain_pem, &key)?;
        let stream_id = Uuid::new_v4();
        Ok(Self {
            host_id: identity.host_id,
            stream_id,
            records: BTreeMap::new(),
            forgetful: false,
            pause: None,
            last_sequence: 0,
            acknowledged_sequence: 0,
            counts: AnswerCounts::default(),
            followed: Followed::default(),
            endpoints: identity.endpoints,
            endpoint: 0,
            client: tls::client(config, timeout)?,
            generator: Generator::planned(identity.host_id, stream_id, facts, plan),
        })
    }

    /// Talks to these instead of what enrolment said.
    pub fn set_endpoints(&mut self, endpoints: Vec<String>) {
        self.endpoints = endpoints;
        self.endpoint = 0;
    }

    /// Makes `count` more reports.
    pub fn produce(&mut self, count: u64) {
        for _ in 0..count {
            self.last_sequence += 1;
            if !self.forgetful {
                let record = self.generator.report(self.last_sequence);
                self.records.insert(self.last_sequence, record);
            }
        }
    }

    /// The newest record's sequence.
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// When its clock is wrong, if ever.
    pub fn clock_jump(&self) -> Option<ClockJump> {
        self.generator.plan().clock_jump
    }

    /// What it makes its reports with.
    pub fn generator(&mut self) -> &mut Generator {
        &mut self.generator
    }

    /// The record it made under `sequence`.
    pub fn record(&self, sequence: u64) -> Cow<'_, Record> {
        match self.records.get(&sequence) {
            Some(record) => Cow::Borrowed(record),
            None => Cow::Owned(self.generator.report(sequence)),
        }
    }

    /// As after a crash: nobody remembers what was acknowledged, so the server is asked.
    pub async fn crash(&mut self) -> Result<()> {
        let url =
            format!("{}/v1/cursor?stream_id={}", self.endpoints[self.endpoint], self.stream_id);
        let Ok(response) = self.client.get(url).send().await else {
            self.counts.lost += 1;
            return Ok(());
        };
        self.followed.note(&response);
        if response.status() == StatusCode::OK {
            let answer: ReportsAnswer = response.json().await.context("a cursor")?;
            self.acknowledge(answer.acknowledged_sequence);
        }
        Ok(())
    }

    fn acknowledge(&mut self, sequence: u64) {
        if sequence < self.acknowledged_sequence {
            self.counts.rewinds += 1;
            self.counts.refilled += self.acknowledged_sequence - sequence;
        }
        self.acknowledged_sequence = sequence;
    }

    /// Sends at most `max_records` of what is not acknowledged, as one request, and obeys the answer.
    pub async fn send(&mut self, max_records: usize) -> Result<()> {
        let mut body = Vec::new();
        let unacknowledged = self.acknowledged_sequence + 1..=self.last_sequence;
        for sequence in unacknowledged.take(max_records.min(MAX_RECORDS_PER_REQUEST)) {
            body.extend(encode_frame(&self.record(sequence))?);
            if body.len() > MAX_BATCH_BYTES {
                break;
            }
        }
        let request = self
            .client
            .post(format!("{}/v1/reports", self.endpoints[self.endpoint]))
            .header(CONTENT_TYPE, "application/x-ndjson")
            .header(CONTENT_ENCODING, "zstd")
            .body(body);
        let answer = async {
            let response = request.send().await?;
            self.followed.note(&response);
            let after = retry_after(&response);
            Ok::<_, reqwest::Error>((response.status(), after, response.bytes().await?))
        };
        if let Ok((status, after, body)) = answer.await {
            return self.obey(status, after, &body);
        }
        self.counts.lost += 1;
        self.fail_over().await;
        Ok(())
    }

    /// Sends a body made beforehand, the next records of the stream, until it is stored.
    pub async fn post(&mut self, body: Vec<u8>) -> Result<()> {
        loop {
            let response = self
                .client
                .post(format!("{}/v1/reports", self.endpoints[self.endpoint]))
                .header(CONTENT_TYPE, "application/x-ndjson")
                .header(CONTENT_ENCODING, "zstd")
                .body(body.clone())
                .send()
                .await
                .context("send a batch")?;
            let after = retry_after(&response);
            let (status, text) = (response.status(), response.bytes().await?);
            self.obey(status, after, &text)?;
            if status.is_success() {
                return Ok(());
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn obey_problem(&mut self, problem: &Problem, retry_after: Option<Duration>) -> Result<()> {
        *self.counts.problems.entry(problem.code.as_str()).or_default() += 1;
        self.counts.retry_after += u64::from(retry_after.is_some());
        self.pause = retry_after;
        self.counts.rejected += problem.rejected.len() as u64;
        match (problem.code, problem.acknowledged_sequence) {
            (
                ProblemCode::SequenceGap
                | ProblemCode::InvalidReport
                | ProblemCode::TimestampInFuture
                | ProblemCode::TimestampTooOld,
                Some(sequence),
            ) => {
                self.acknowledge(sequence);
                Ok(())
            }
            _ if problem.status == 503 || problem.status == 429 => Ok(()),
            _ => bail!("an unexpected problem: {problem:?}"),
        }
    }

    fn obey(
        &mut self,
        status: StatusCode,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Result<()> {
        if status == StatusCode::OK {
            let answer: ReportsAnswer = serde_json::from_slice(body).context("an answer")?;
            self.counts.successes += 1;
            self.counts.accepted += u64::from(answer.accepted);
            self.counts.duplicates += u64::from(answer.duplicates);
            self.counts.rejected += answer.rejected.len() as u64;
            self.acknowledge(answer.acknowledged_sequence);
            self.pause = answer.next_send_after_ms.map(u64::from).map(Duration::from_millis);
            self.counts.paced += u64::from(self.pause.is_some());
            return Ok(());
        }
        let problem: Problem = serde_json::from_slice(body)
            .with_context(|| format!("{status}: {}", String::from_utf8_lossy(body)))?;
        self.obey_problem(&problem, retry_after)
    }

    async fn fail_over(&mut self) {
        self.endpoint = (self.endpoint + 1) % self.endpoints.len();
        tokio::time::sleep(RETRY_PAUSE).await;
    }

    /// Sends until everything made is acknowledged.
    pub async fn drain(&mut self, deadline: Duration) -> Result<()> {
        let started = Instant::now();
        while self.acknowledged_sequence < self.last_sequence() {
            if started.elapsed() > deadline {
                bail!(
                    "{} of {} acknowledged after {deadline:?}: {:?}",
                    self.acknowledged_sequence,
                    self.last_sequence(),
                    self.counts
                );
            }
            let before = self.counts.successes;
            self.send(MAX_RECORDS_PER_REQUEST).await?;
            if self.counts.successes == before {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        Ok(())
    }
}

fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// One record as it travels: one zstd frame of one line.
pub fn encode_frame(record: &Record) -> Result<Vec<u8>> {
    zstd::bulk::compress(&record.encode(), 3).context("compress a record")
}
