//! What a host needs before it has an identity: the agent's binary, and what says which one that is.
//!
//! The server is a mirror and nothing else. `[artifacts] directory` holds releases: `manifest.json`, the signed
//! [`Release`] that was published last, each one under its number, and their binaries under their SHA-256. Nothing here
//! is secret and nothing is trusted for coming from here: the install script holds a hash, agents that update themselves
//! check signatures. So these routes need no client certificate.
//!
//! A binary is asked for by its hash alone, 64 hexadecimal digits: another path cannot be written. At most
//! [`MAX_DOWNLOADS`] are under way; a download whose reader stands still for [`STALL`], or that takes longer than
//! [`LONGEST`], is ended, and goes on where it stopped by a `Range`.

mod download;
mod range;
mod script;

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use shared_model::ProblemCode;
use shared_model::release::{MAX_RELEASE_BYTES, PublicKey, Release, is_sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;
use utoipa::IntoParams;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::join_token::InstallUrl;
use crate::authority::live::LiveAuthorities;
use crate::config::Config;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Path, Query};
use crate::metrics::ARTIFACT_DOWNLOADS;
use download::Download;
use range::Wanted;
use script::Script;

/// Downloads of one replica at a time.
pub const MAX_DOWNLOADS: usize = 50;
/// For who came when all were under way.
const RETRY_AFTER: Duration = Duration::from_secs(15);
/// Longest that a download waits for its reader.
const STALL: Duration = Duration::from_mins(1);
/// Longest life of a download.
const LONGEST: Duration = Duration::from_hours(1);
/// The file of the release that was published last.
pub const MANIFEST: &str = "manifest.json";

/// The file of a release under its number.
pub fn kept_manifest(seq: u64) -> String {
    format!("manifest-{seq}.json")
}

/// What the routes need, cheap to clone.
#[derive(Clone)]
pub struct ArtifactsState {
    directory: Option<Arc<FilePath>>,
    downloads: Arc<Semaphore>,
    endpoints: Arc<[String]>,
    install_url: Option<Arc<InstallUrl>>,
    trusted_keys: Arc<[PublicKey]>,
    authorities: LiveAuthorities,
}

impl ArtifactsState {
    /// State of one replica.
    pub fn new(config: &Config, authorities: LiveAuthorities) -> Self {
        Self {
            directory: config.artifacts.directory.as_deref().map(Arc::from),
            downloads: Arc::new(Semaphore::new(MAX_DOWNLOADS)),
            endpoints: config.endpoints().into(),
            install_url: config.install_url().map(Arc::new),
            trusted_keys: config.artifacts.trusted_keys.as_slice().into(),
            authorities,
        }
    }

    fn directory(&self) -> ApiResult<&FilePath> {
        self.directory.as_deref().ok_or_else(|| {
            let detail = "This server mirrors no release: name a directory as artifacts.directory and run `procfleet-server release publish`.";
            ApiError::new(ProblemCode::NotFound, detail)
        })
    }
}

crate::problems! {
    ManifestProblems = BadParameter, NotFound, Internal;
    ArtifactProblems = BadParameter, NotFound, RangeNotSatisfiable, TooManyRequests, Internal;
}

fn router() -> OpenApiRouter<ArtifactsState> {
    OpenApiRouter::default()
        .routes(routes!(get_manifest))
        .routes(routes!(get_artifact))
        .routes(routes!(get_install_script))
}

/// The routes, for the agent door.
pub fn routes(state: ArtifactsState) -> OpenApiRouter {
    router().with_state(state)
}

/// Their documentation.
pub fn openapi() -> OpenApi {
    router().into_openapi()
}

/// Of the question for a release.
#[derive(Deserialize, IntoParams)]
struct WhichRelease {
    /// The number of a release that is or was published here. Absent: the one published last.
    seq: Option<u64>,
}

/// A release that this server mirrors: signed keys, signed manifest. Needs no client certificate.
#[utoipa::path(get, path = "/v1/artifacts/manifest", tag = "agents", params(WhichRelease),
    responses((status = 200, description = "The release, as it was published", body = Object), ManifestProblems))]
async fn get_manifest(
    State(state): State<ArtifactsState>,
    Query(which): Query<WhichRelease>,
) -> ApiResult<Response> {
    let path = match which.seq {
        Some(seq) => state.directory()?.join(kept_manifest(seq)),
        None => state.directory()?.join(MANIFEST),
    };
    let (bytes, _) = read_release(&path).await?;
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")];
    Ok((headers, bytes).into_response())
}

/// The script that installs the agent of this release on a host, repairs and removes it. Needs no client certificate.
#[utoipa::path(get, path = "/v1/install.sh", tag = "agents",
    responses((status = 200, description = "A POSIX shell script", body = String, content_type = "text/x-shellscript"), ManifestProblems))]
async fn get_install_script(State(state): State<ArtifactsState>) -> ApiResult<Response> {
    let path = state.directory()?.join(MANIFEST);
    let (_, release) = read_release(&path).await?;
    let manifest =
        release.unverified().map_err(|error| unreadable(&path, std::io::Error::other(error)))?;
    let authorities = Arc::clone(&state.authorities.borrow());
    let public_url = state.install_url.as_deref().filter(|url| url.is_public);
    let script = Script {
        release: &release,
        manifest: &manifest,
        trusted_keys: &state.trusted_keys,
        endpoints: &state.endpoints,
        public_url: public_url.map(|url| url.url.as_str()),
        pins: &authorities.trust.server_pins,
        authorities_pem: &authorities.trust.server_bundle_pem,
    };
    let text = script.render().map_err(|error| {
        let detail = "The install script cannot be made; the server's log has the details.";
        ApiError::new(ProblemCode::Internal, detail).caused_by(error)
    })?;
    let headers = [(CONTENT_TYPE, "text/x-shellscript"), (CACHE_CONTROL, "no-cache")];
    Ok((headers, text).into_response())
}

/// A published release and its bytes.
async fn read_release(path: &FilePath) -> ApiResult<(Vec<u8>, Release)> {
    let file = open(path).await?.ok_or_else(|| {
        let detail =
            "No such release is published on this server: run `procfleet-server release publish`.";
        ApiError::new(ProblemCode::NotFound, detail)
    })?;
    let mut bytes = Vec::new();
    let most = MAX_RELEASE_BYTES as u64 + 1;
    file.take(most).read_to_end(&mut bytes).await.map_err(|error| unreadable(path, error))?;
    if bytes.len() > MAX_RELEASE_BYTES {
        let reason = format!("it has more than {MAX_RELEASE_BYTES} bytes");
        return Err(unreadable(path, std::io::Error::other(reason)));
    }
    let release = serde_json::from_slice(&bytes)
        .map_err(|error| unreadable(path, std::io::Error::other(error)))?;
    Ok((bytes, release))
}

/// A binary of the release, by its SHA-256. It never changes; one range of bytes may be asked for. Needs no client certificate.
#[utoipa::path(get, path = "/v1/artifacts/{sha256}", tag = "agents",
    params(("sha256" = String, Path, description = "64 lowercase hexadecimal digits", pattern = "^[0-9a-f]{64}$")),
    responses((status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The bytes asked for", body = Vec<u8>, content_type = "application/octet-stream"),
        ArtifactProblems))]
async fn get_artifact(
    State(state): State<ArtifactsState>,
    Path(sha256): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    if !is_sha256(&sha256) {
        let detail = "An artifact is named by its SHA-256: 64 lowercase hexadecimal digits.";
        return Err(ApiError::new(ProblemCode::BadParameter, detail));
    }
    let permit = Arc::clone(&state.downloads).try_acquire_owned().map_err(|_| {
        metrics::counter!(ARTIFACT_DOWNLOADS, "outcome" => "refused").increment(1);
        let detail = format!("{MAX_DOWNLOADS} downloads are under way here. Retry.");
        ApiError::new(ProblemCode::TooManyRequests, detail).retry_after(RETRY_AFTER)
    })?;
    let path = state.directory()?.join(&sha256);
    let file = open(&path).await?.ok_or_else(|| {
        let detail =
            format!("This server has no artifact {sha256}; /v1/artifacts/manifest lists them.");
        ApiError::new(ProblemCode::NotFound, detail)
    })?;
    let size = file.metadata().await.map_err(|error| unreadable(&path, error))?.len();
    let etag = format!("\"{sha256}\"");
    let wanted = Wanted::of(&headers, &etag, size);
    let Some((first, length)) = wanted.bytes(size) else {
        let detail = format!("The artifact has {size} bytes: ask for some of these.");
        let mut refusal = ApiError::new(ProblemCode::RangeNotSatisfiable, detail).into_response();
        set(refusal.headers_mut(), header::CONTENT_RANGE, format!("bytes */{size}"));
        return Ok(refusal);
    };
    let body = Download { file, first, length, permit }.start();
    let mut response = body.into_response();
    let headers = response.headers_mut();
    let fixed = "public, max-age=31536000, immutable";
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(fixed));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    set(headers, ETAG, etag);
    if wanted != Wanted::All {
        let last = first + length - 1;
        set(headers, header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}"));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// The regular file of that name, if there is one.
async fn open(path: &FilePath) -> ApiResult<Option<File>> {
    match File::open(path).await {
        Ok(file) => {
            let is_file = file.metadata().await.map_err(|error| unreadable(path, error))?.is_file();
            Ok(is_file.then_some(file))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, error)),
    }
}

fn unreadable(path: &FilePath, source: std::io::Error) -> ApiError {
    let detail = "What this server mirrors cannot be read; its log has the details.";
    ApiError::new(ProblemCode::Internal, detail)
        .caused_by(Unreadable { path: path.to_owned(), source })
}

/// For the log.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: publish the release again", .path.display())]
struct Unreadable {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}
