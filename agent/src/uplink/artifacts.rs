//! `GET /v1/artifacts/…`: a release and its binary, from whichever server has them.
//!
//! A download that breaks off goes on where it stopped, also at another server: the binary is named by its hash. Nothing is
//! believed for coming from a server; the caller verifies.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use reqwest::header::RANGE;
use reqwest::{Response, StatusCode, Url};
use shared_model::Problem;
use shared_model::release::{Artifact, MAX_RELEASE_BYTES, Release};

use super::{Uplink, lock};
use crate::tls;

/// Longest download: as long as a server lets one live.
const LONGEST: Duration = Duration::from_hours(1);
/// Largest problem document read.
const MAX_PROBLEM_BYTES: usize = 16 << 10;

/// Why there is no release, or not all of its binary.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// No server gave it: what the last one said.
    #[error("no server gave {what}: {words}")]
    Nobody {
        /// What was asked for.
        what: String,
        /// What the last one said.
        words: String,
        /// When it may be asked again, if it said so.
        retry_after: Option<Duration>,
    },
    /// Where it should go.
    #[error("the download cannot be written")]
    File(#[from] std::io::Error),
}

/// What one server said.
enum Said {
    No(String, Option<Duration>),
    File(std::io::Error),
}

impl From<reqwest::Error> for Said {
    fn from(error: reqwest::Error) -> Self {
        Self::No(tls::chain(&error), None)
    }
}

impl Uplink {
    /// The release of that number, as it is mirrored.
    pub async fn fetch_release(&self, seq: u64) -> Result<Release, ArtifactError> {
        let mut last = (String::from("there is none"), None);
        for endpoint in self.by_last_answer() {
            match self.ask_release(&endpoint, seq).await {
                Ok(release) => return Ok(release),
                Err(Said::No(words, retry_after)) => {
                    last = (format!("{endpoint}: {words}"), retry_after);
                }
                Err(Said::File(error)) => return Err(error.into()),
            }
        }
        let (words, retry_after) = last;
        Err(ArtifactError::Nobody { what: format!("release {seq}"), words, retry_after })
    }

    /// Brings the file `to` to the size of the artifact, going on with what is there.
    pub async fn fetch_artifact(
        &self,
        artifact: &Artifact,
        to: &Path,
    ) -> Result<(), ArtifactError> {
        let mut options = OpenOptions::new();
        let mut file = options.create(true).append(true).mode(0o600).open(to)?;
        if file.metadata()?.len() > artifact.size {
            file.set_len(0)?;
        }
        let mut last = (String::from("there is none"), None);
        for endpoint in self.by_last_answer() {
            match self.download(&endpoint, artifact, &mut file).await {
                Ok(()) => return Ok(()),
                Err(Said::No(words, retry_after)) => {
                    last = (format!("{endpoint}: {words}"), retry_after);
                }
                Err(Said::File(error)) => return Err(error.into()),
            }
        }
        let (words, retry_after) = last;
        Err(ArtifactError::Nobody {
            what: format!("the file {}", artifact.sha256),
            words,
            retry_after,
        })
    }

    /// The one that answered last goes first.
    fn by_last_answer(&self) -> Vec<Url> {
        let last = lock(&self.status).endpoint.clone();
        let mut endpoints = self.endpoints.clone();
        endpoints.sort_by_key(|endpoint| last.as_deref() != Some(endpoint.as_str()));
        endpoints
    }

    async fn ask_release(&self, endpoint: &Url, seq: u64) -> Result<Release, Said> {
        let mut url = url(endpoint, "/v1/artifacts/manifest")?;
        url.query_pairs_mut().append_pair("seq", &seq.to_string());
        let client = lock(&self.client).clone();
        let mut response = accepted(client.get(url).send().await?).await?;
        let body = tls::read_capped(&mut response, MAX_RELEASE_BYTES).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Said::No(format!("what it answers is no release: {error}"), None))
    }

    async fn download(
        &self,
        endpoint: &Url,
        artifact: &Artifact,
        file: &mut File,
    ) -> Result<(), Said> {
        let mut size = file.seek(SeekFrom::End(0)).map_err(Said::File)?;
        if size == artifact.size {
            return Ok(());
        }
        let client = lock(&self.client).clone();
        let request = client.get(url(endpoint, &format!("/v1/artifacts/{}", artifact.sha256))?);
        let request = request.timeout(LONGEST).header(RANGE, format!("bytes={size}-"));
        let mut response = accepted(request.send().await?).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            file.set_len(0).map_err(Said::File)?;
            size = 0;
        }
        while let Some(chunk) = response.chunk().await? {
            size += chunk.len() as u64;
            if size > artifact.size {
                file.set_len(0).map_err(Said::File)?;
                return Err(Said::No("it sends more than the release says".to_owned(), None));
            }
            file.write_all(&chunk).map_err(Said::File)?;
        }
        if size == artifact.size {
            return Ok(());
        }
        Err(Said::No(format!("it broke off after {size} of {} bytes", artifact.size), None))
    }
}

fn url(endpoint: &Url, path: &str) -> Result<Url, Said> {
    endpoint.join(path).map_err(|error| Said::No(error.to_string(), None))
}

/// An answer that is no refusal.
async fn accepted(mut response: Response) -> Result<Response, Said> {
    if response.status().is_success() {
        return Ok(response);
    }
    let (status, retry_after) = (response.status().as_u16(), tls::retry_after(&response));
    let body = tls::read_capped(&mut response, MAX_PROBLEM_BYTES).await?;
    let words = match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => format!("{}: {}", problem.code.as_str(), problem.detail),
        Err(_) => format!("HTTP {status}"),
    };
    Err(Said::No(words, retry_after))
}
