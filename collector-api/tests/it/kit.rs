//! A replica's ingest in this process, over a real database.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use collector_api::auth::AgentIdentity;
use collector_api::ingest::desired_releases::DesiredReleases;
use collector_api::ingest::fleet_size::FleetSize;
use collector_api::ingest::witnesses::Witnesses;
use collector_api::ingest::{self, IngestSettings, IngestState, ReportWriter};
use collector_api::store::Store;
use fleet_sim::database::TestDatabase;
use fleet_sim::eventually::eventually;
use fleet_sim::simulated::encode_frame;
use fleet_sim::simulated::generator::Generator;
use http_body_util::BodyExt as _;
use serde_json::Value;
use shared_model::{HostFacts, Record, Timestamp};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use uuid::Uuid;

/// One replica: writer tasks and routes.
pub(crate) struct Replica {
    pub(crate) store: Store,
    pub(crate) writer: ReportWriter,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: JoinSet<()>,
    pub(crate) desired_releases: DesiredReleases,
    router: Router,
}

impl Replica {
    pub(crate) async fn start(database: &TestDatabase) -> Self {
        Self::start_with(&database.url, IngestSettings::default()).await
    }

    pub(crate) async fn start_with(url: &str, settings: IngestSettings) -> Self {
        let store = Store::connect(url, 4).await.unwrap();
        let stop = CancellationToken::new();
        let (writer, futures) = ReportWriter::new(&store, &settings, &stop);
        let tasks = futures.into_iter().collect();
        let desired_releases = DesiredReleases::default();
        let state = IngestState::new(
            store.clone(),
            writer.clone(),
            &settings,
            (Arc::default(), Witnesses::new(&[])),
            (FleetSize::default(), desired_releases.clone()),
        );
        let router = Router::from(ingest::routes(state));
        let replica = Self { store, writer, stop, tasks, desired_releases, router };
        replica.wait_until_connected().await;
        replica
    }

    pub(crate) async fn wait_until_connected(&self) {
        eventually(Duration::from_secs(20), "a writer connects", async || {
            self.writer.is_connected().then_some(()).ok_or("not connected")
        })
        .await
        .unwrap();
    }

    /// Sends `request` as `host_id`.
    pub(crate) async fn send(&self, host_id: Uuid, request: Request<Body>) -> (StatusCode, Value) {
        let (status, _, body) = self.ask(host_id, request).await;
        (status, body)
    }

    /// The same, with the answer's headers.
    pub(crate) async fn ask(
        &self,
        host_id: Uuid,
        mut request: Request<Body>,
    ) -> (StatusCode, HeaderMap, Value) {
        let identity = AgentIdentity { host_id, certificate_serial: "01".into() };
        request.extensions_mut().insert(identity);
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, serde_json::from_slice(&body).unwrap())
    }

    /// `POST /v1/reports` with zstd frames.
    pub(crate) async fn post(&self, host_id: Uuid, body: Vec<u8>) -> (StatusCode, Value) {
        self.send(host_id, reports_request(Body::from(body), "zstd")).await
    }

    pub(crate) async fn post_records(
        &self,
        host_id: Uuid,
        records: &[Record],
    ) -> (StatusCode, Value) {
        self.post(host_id, frames(records)).await
    }

    pub(crate) async fn cursor(&self, host_id: Uuid, stream_id: Uuid) -> u64 {
        let uri = format!("/v1/cursor?stream_id={stream_id}");
        let request = Request::get(uri).body(Body::empty()).unwrap();
        let (status, answer) = self.send(host_id, request).await;
        assert_eq!(status, 200, "{answer}");
        answer["acknowledged_sequence"].as_u64().unwrap()
    }

    /// Drains the queue and waits for the writers to end.
    pub(crate) async fn finish(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

pub(crate) fn reports_request(body: Body, encoding: &str) -> Request<Body> {
    Request::post("/v1/reports")
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        .header(header::CONTENT_ENCODING, encoding)
        .body(body)
        .unwrap()
}

pub(crate) fn frames(records: &[Record]) -> Vec<u8> {
    records.iter().flat_map(|record| encode_frame(record).unwrap()).collect()
}

/// An enrolled host and the reports it will make.
#[expect(clippy::struct_field_names, reason = "the same word as in every report and table")]
pub(crate) struct Host {
    pub(crate) host_id: Uuid,
    pub(crate) stream_id: Uuid,
    generator: Generator,
}

impl Host {
    pub(crate) async fn enroll(database: &TestDatabase, seed: u64) -> Self {
        let (host_id, stream_id) = (Uuid::from_u64_pair(seed + 1, 7), Uuid::new_v4());
        let mut connection = database.connect().await.unwrap();
        sqlx::query(
            "with token as (
                insert into enrollment_tokens (token_id, name, secret_sha256, expires_at)
                values (gen_random_uuid(), 'test', decode(repeat('00', 32), 'hex'), now() + interval '1 day')
                returning token_id)
            insert into hosts (host_id, host_name, kernel_release, host_arch, agent_version, enrollment_token_id)
            select $1, 'test', '6.1', 'x86_64', '0', token_id from token",
        )
        .bind(host_id)
        .execute(&mut connection)
        .await
        .unwrap();
        let now: Timestamp =
            sqlx::query_scalar("select now()").fetch_one(&mut connection).await.unwrap();
        let facts = HostFacts {
            host_name: format!("host-{seed}"),
            kernel_release: "6.12".into(),
            host_arch: "x86_64".into(),
            agent_version: "0.1.0".into(),
            ..HostFacts::default()
        };
        let generator = Generator::new(host_id, stream_id, facts, seed, now);
        Self { host_id, stream_id, generator }
    }

    pub(crate) fn report(&self, sequence: u64) -> Record {
        self.generator.report(sequence)
    }

    pub(crate) fn reports(&self, sequences: std::ops::RangeInclusive<u64>) -> Vec<Record> {
        sequences.map(|sequence| self.report(sequence)).collect()
    }
}

/// Applies `change` to a report.
pub(crate) fn changed(
    mut record: Record,
    change: impl FnOnce(&mut shared_model::Report),
) -> Record {
    let Record::Report(report) = &mut record else { panic!("not a report") };
    change(report);
    record
}

pub(crate) async fn count(database: &TestDatabase, query: &'static str) -> i64 {
    let mut connection = database.connect().await.unwrap();
    sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
}
