//! What the unprivileged agent leaves for root: `<state_dir>/update/` with `request.json` (a signed release), `artifact`
//! (its binary) and `working.json` (the id of the release that works).
//!
//! The directory is the agent's, so nothing in it is believed: root opens it and its files without following links and
//! reads regular files of bounded size; no text of theirs comes into a message.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use serde::{Deserialize, Serialize};
use shared_model::release::{MAX_RELEASE_BYTES, Release};

use crate::durable;

/// Largest `working.json`, bytes.
const MAX_WORKING_BYTES: u64 = 1024;
/// The files.
const REQUEST: &str = "request.json";
const ARTIFACT: &str = "artifact";
const WORKING: &str = "working.json";

/// `request.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// As the mirror has it.
    pub release: Release,
    /// The agent's interval, s: two reports must be possible within the probation.
    #[serde(default)]
    pub interval_s: u64,
}

/// `working.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Working {
    /// Which release.
    id: String,
}

/// The agent's side: paths.
#[derive(Clone, Debug)]
pub struct DropBox {
    directory: PathBuf,
}

impl DropBox {
    /// Of an agent.
    pub fn new(state_dir: &Path) -> Self {
        Self { directory: state_dir.join("update") }
    }

    /// Makes the directory.
    pub fn create(&self) -> io::Result<()> {
        durable::create_dir(&self.directory)
    }

    /// Where a download goes.
    pub fn artifact(&self) -> PathBuf {
        self.directory.join(ARTIFACT)
    }

    /// Asks root to install what is in [`artifact`](Self::artifact).
    pub fn ask(&self, request: &Request) -> io::Result<()> {
        durable::write(&self.directory.join(REQUEST), &serde_json::to_vec(request)?)
    }

    /// Whether root has not answered yet.
    pub fn is_asked(&self) -> bool {
        self.directory.join(REQUEST).exists()
    }

    /// Tells root that the release works.
    pub fn say_working(&self, id: &str) -> io::Result<()> {
        let path = self.directory.join(WORKING);
        durable::write(&path, &serde_json::to_vec(&Working { id: id.to_owned() })?)
    }

    /// Removes a download that nobody waits for.
    pub fn discard(&self) {
        if let Err(error) = fs::remove_file(self.artifact())
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, "a download cannot be removed");
        }
    }

    /// Root's side; none: there is no such directory.
    pub fn open(&self) -> io::Result<Option<Opened>> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        match rustix::fs::open(&self.directory, flags, Mode::empty()) {
            Ok(directory) => Ok(Some(Opened { directory })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Root's side.
#[derive(Debug)]
pub struct Opened {
    directory: OwnedFd,
}

/// Something lies there that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("the agent's {0} is not what it should be: {1}")]
pub struct Unusable(&'static str, &'static str);

impl Opened {
    /// What is asked for; none: nothing.
    pub fn request(&self) -> Result<Option<Request>, Unusable> {
        // Two documents as base64 in JSON, and little beside.
        let Some(bytes) = self.read(REQUEST, 2 * MAX_RELEASE_BYTES as u64)? else {
            return Ok(None);
        };
        let request = serde_json::from_slice(&bytes);
        // serde's words may quote what was read.
        request.map(Some).map_err(|_| Unusable(REQUEST, "no release can be read from it"))
    }

    /// The id of the release that works.
    pub fn working(&self) -> Option<String> {
        let bytes = self.read(WORKING, MAX_WORKING_BYTES).ok()??;
        Some(serde_json::from_slice::<Working>(&bytes).ok()?.id)
    }

    /// The file to be installed.
    pub fn artifact(&self) -> Result<File, Unusable> {
        self.file(ARTIFACT)?.ok_or(Unusable(ARTIFACT, "it is not there"))
    }

    /// Takes the request away, with its file.
    pub fn clear_request(&self) {
        self.remove(REQUEST);
        self.remove(ARTIFACT);
    }

    /// Takes the word away that the release works.
    pub fn clear_working(&self) {
        self.remove(WORKING);
    }

    fn read(&self, name: &'static str, most: u64) -> Result<Option<Vec<u8>>, Unusable> {
        let Some(file) = self.file(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).map_err(|_| Unusable(name, "unreadable"))?;
        if bytes.len() as u64 > most {
            return Err(Unusable(name, "too large"));
        }
        Ok(Some(bytes))
    }

    fn file(&self, name: &'static str) -> Result<Option<File>, Unusable> {
        // A pipe that nobody writes to must not hold root up.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::RDONLY;
        let file = match openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(_) => return Err(Unusable(name, "it cannot be opened, or is a link")),
        };
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(Some(file)),
            _ => Err(Unusable(name, "it is not a regular file")),
        }
    }

    fn remove(&self, name: &'static str) {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            // A directory of that name, which only the agent can have made.
            Err(error) => tracing::error!(%error, name, "the agent's request cannot be removed"),
        }
    }
}
