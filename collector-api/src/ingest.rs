//! What agents send: `POST /v1/reports`, `GET /v1/cursor`, and their [`goodbye`].
//!
//! A request's way: headers checked and a place taken ([`admission`]), body read within its cap
//! ([`body`]), inflated, decoded, validated and encoded for COPY off the async threads ([`decode`]),
//! then handed to the [`ReportWriter`], which answers after the commit. Whose records they are is
//! told by the client certificate and by nothing else.
//!
//! What does not fit is refused before its body is read; what was served while much is in progress is
//! told when to come back ([`pace`]), so that backlogs after an outage leave room for live reports.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use serde::Deserialize;
use shared_model::{PLACE_HEADER, ProblemCode, ReportsAnswer};
use tokio::sync::Semaphore;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::auth::AgentIdentity;
use crate::auth::contacts::Contacts;
use crate::error::{ApiError, ApiResult};
use crate::metrics::INGEST_PACED;
use crate::store::Store;
use crate::store::records::RecordBatch;
use crate::store::reports::Outcome;

mod admission;
mod body;
mod decode;
pub mod desired_releases;
pub mod fleet_size;
mod goodbye;
mod group;
mod pace;
pub mod witnesses;
pub mod writer;

use admission::{Admission, Admitted};
use desired_releases::DesiredReleases;
use fleet_size::FleetSize;
use witnesses::Witnesses;
pub use writer::ReportWriter;

/// Limits of one replica's ingest.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestSettings {
    /// Decoded bytes of all requests in progress. Beyond: 503 `overloaded`.
    pub memory_bytes: usize,
    /// Writer tasks, each with its own database connection.
    pub writers: usize,
}

impl Default for IngestSettings {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, writers: 2 }
    }
}

/// Everything the two routes need, cheap to clone.
#[derive(Clone, Debug)]
pub struct IngestState {
    writer: ReportWriter,
    store: Store,
    admission: Admission,
    contacts: Arc<Contacts>,
    witnesses: Arc<Witnesses>,
    fleet_size: FleetSize,
    desired_releases: DesiredReleases,
    /// Decoding at the same time: as many as there are CPUs.
    decoders: Arc<Semaphore>,
}

impl IngestState {
    /// State around a started writer.
    pub fn new(
        store: Store,
        writer: ReportWriter,
        settings: &IngestSettings,
        (contacts, witnesses): (Arc<Contacts>, Arc<Witnesses>),
        (fleet_size, desired_releases): (FleetSize, DesiredReleases),
    ) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let admission = Admission::new(settings.memory_bytes);
        let decoders = Arc::new(Semaphore::new(cpus));
        Self {
            writer,
            store,
            admission,
            contacts,
            witnesses,
            fleet_size,
            desired_releases,
            decoders,
        }
    }
}

/// `POST /v1/reports` and `GET /v1/cursor`, for the agent door.
pub fn routes(state: IngestState) -> OpenApiRouter {
    router().with_state(state)
}

/// Their documentation.
pub fn openapi() -> utoipa::openapi::OpenApi {
    router().into_openapi()
}

fn router() -> OpenApiRouter<IngestState> {
    OpenApiRouter::default()
        .routes(routes!(post_reports))
        .routes(routes!(get_cursor))
        .merge(goodbye::routes())
}

crate::problems! {
    ReportsProblems = BadParameter, TakeoverPending, CloneDetected, Malformed, Truncated, InvalidUtf8, TooDeep, NotConsecutive, NoClientCertificate,
        HostUnknown, CertificateRevoked, HostPending, HostQuarantined, IdentityMismatch, SequenceGap, StreamConflict, HostDecommissioned,
        BodyTooLarge, InflatedTooLarge, TooManyRecords, UnsupportedMediaType, InvalidReport,
        TimestampInFuture, TimestampTooOld, UnsupportedVersion, TooManyRequests, Internal, Overloaded,
        DatabaseUnavailable, ShuttingDown;
    CursorProblems = BadParameter, NoClientCertificate, HostUnknown, CertificateRevoked,
        HostPending, HostQuarantined,
        HostDecommissioned, Internal, DatabaseUnavailable;
}

/// Stores consecutive records of one stream, each exactly once, and answers after the commit.
///
/// The body is the concatenation of the records' zstd frames, one line of JSON each. Repeating a
/// request is always safe. Records that can never be stored are recorded as rejects and passed
/// over: 422 when nothing else of the request was new, else they are listed in the answer.
#[utoipa::path(post, path = "/v1/reports", tag = "agents", security(("agent_certificate" = [])),
    request_body(content = ref("#/components/schemas/Records"), content_type = "application/x-ndjson", description = "Records, one JSON document per line; `content-encoding: zstd`"),
    params(("procfleet-place" = Option<Uuid>, Header, description = "Where the agent runs: tells a machine from a copy of its disk"),
        ("procfleet-endpoints-down" = Option<String>, Header, description = "Endpoints of ours that did not answer the agent, separated by commas, at most 8")),
    responses((status = 200, description = "Where the stream stands, committed", body = ref("#/components/schemas/ReportsAnswer")), ReportsProblems))]
async fn post_reports(
    State(state): State<IngestState>,
    identity: AgentIdentity,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<(HeaderMap, Json<ReportsAnswer>)> {
    let announced = body::check_headers(&headers)?;
    let place = place(&headers)?;
    state.writer.check_available()?;
    state.writer.check_room()?;
    let admitted = state.admission.enter(identity.host_id, announced.reserve)?;
    let bytes = body::read(body).await?;
    let (mut batch, admitted) =
        state.decode(bytes, announced.encoding, identity.host_id, admitted).await?;
    batch.place = place;
    let stream_id = batch.stream_id;
    let outcome = state.writer.write_admitted(batch, Some(admitted)).await?;
    let mut answer = answer(stream_id, outcome)?;
    state.contacts.settle(identity.host_id);
    state.witnesses.note(identity.host_id, &headers);
    answer.next_send_after_ms = state.pause();
    let mut told = state.fleet_size.headers();
    state.desired_releases.tell(identity.host_id, &mut told);
    Ok((told, Json(answer)))
}

impl IngestState {
    /// What a host that was served is told, by how full this replica is.
    fn pause(&self) -> Option<u32> {
        let load = self.admission.load().max(self.writer.load());
        let pause = pace::next_send_after(load, pace::random_unit());
        if pause.is_some() {
            metrics::counter!(INGEST_PACED).increment(1);
        }
        pause
    }

    async fn decode(
        &self,
        body: bytes::Bytes,
        encoding: body::Encoding,
        host_id: Uuid,
        mut admitted: Admitted,
    ) -> ApiResult<(RecordBatch, Admitted)> {
        let internal =
            || ApiError::new(ProblemCode::Internal, "The server failed; nothing was stored.");
        let turn = Arc::clone(&self.decoders)
            .acquire_owned()
            .await
            .map_err(|error| internal().caused_by(error))?;
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let text = body::inflate(body, encoding, &mut admitted)?;
            Ok((decode::decode(&text, host_id)?, admitted))
        })
        .await
        .map_err(|error| internal().caused_by(error))?
    }
}

/// What the agent is told of a committed outcome.
fn answer(stream_id: Uuid, outcome: Outcome) -> ApiResult<ReportsAnswer> {
    let conflict = |code, acknowledged, detail: String| {
        let mut error = ApiError::new(code, detail);
        error.problem.acknowledged_sequence = Some(acknowledged);
        error
    };
    match outcome {
        Outcome::Moved(moved) if moved.accepted == 0 && !moved.rejected.is_empty() => {
            let first = &moved.rejected[0];
            let detail = format!(
                "Record {} will never be stored and was passed over: {}.",
                first.sequence, first.detail
            );
            let mut error = conflict(first.code, moved.acknowledged_sequence, detail);
            error.problem.errors.clone_from(&first.errors);
            error.problem.rejected = moved.rejected;
            Err(error)
        }
        Outcome::Moved(moved) => Ok(ReportsAnswer {
            stream_id,
            acknowledged_sequence: moved.acknowledged_sequence,
            accepted: moved.accepted,
            duplicates: moved.duplicates,
            rejected: moved.rejected,
            next_send_after_ms: None,
            server_time: moved.server_time,
        }),
        Outcome::Gap(last) => Err(conflict(
            ProblemCode::SequenceGap,
            last,
            format!(
                "The stream stands at {last}: go on with {}, or declare a gap from there.",
                last.saturating_add(1)
            ),
        )),
        Outcome::Wait(left) => Err(ApiError::new(
            ProblemCode::TakeoverPending,
            "Another machine spoke with this host's identity a moment ago: it is asked for when that one is gone. Keep the reports.",
        )
        .retry_after(left)),
        Outcome::Clone => Err(ApiError::new(
            ProblemCode::CloneDetected,
            "Another machine holds this host's identity and reports now: was the disk copied? Nothing was stored. Keep the reports; enrol this machine with a state directory of its own.",
        )),
        Outcome::Fork(last) => Err(conflict(
            ProblemCode::StreamConflict,
            last,
            format!(
                "Another record is stored under sequence {last} of this stream: begin a new stream."
            ),
        )),
    }
}

/// Where the agent says that it runs.
fn place(headers: &HeaderMap) -> ApiResult<Option<Uuid>> {
    let Some(value) = headers.get(PLACE_HEADER) else { return Ok(None) };
    let place = value.to_str().ok().and_then(|text| Uuid::try_parse(text).ok());
    let refused = || ApiError::new(ProblemCode::BadParameter, "procfleet-place must be a UUID.");
    place.map(Some).ok_or_else(refused)
}

/// Which stream.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct CursorQuery {
    /// The stream asked about.
    stream_id: Uuid,
}

/// Where a stream stands. `acknowledged_sequence` 0: the server does not know the stream.
#[utoipa::path(get, path = "/v1/cursor", tag = "agents", security(("agent_certificate" = [])), params(CursorQuery),
    responses((status = 200, description = "Where the stream stands, committed", body = ref("#/components/schemas/ReportsAnswer")), CursorProblems))]
async fn get_cursor(
    State(state): State<IngestState>,
    identity: AgentIdentity,
    query: Result<Query<CursorQuery>, axum::extract::rejection::QueryRejection>,
) -> ApiResult<Json<ReportsAnswer>> {
    let Query(CursorQuery { stream_id }) = query.map_err(|error| {
        ApiError::new(ProblemCode::BadParameter, "stream_id must be a UUID.").caused_by(error)
    })?;
    let (acknowledged_sequence, server_time) =
        state.store.find_cursor(identity.host_id, stream_id).await?;
    Ok(Json(ReportsAnswer {
        stream_id,
        acknowledged_sequence,
        accepted: 0,
        duplicates: 0,
        rejected: Vec::new(),
        next_send_after_ms: None,
        server_time,
    }))
}
