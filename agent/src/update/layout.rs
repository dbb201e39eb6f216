//! Where releases lie: `<base>/releases/<id>/procfleet-agent` with `release.json` beside it, and the links `current` and
//! `confirmed`. The id is the first 16 hexadecimal digits of the binary's SHA-256, so that a directory says what must be in it.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use shared_model::release::{MAX_RELEASE_BYTES, Manifest, Release};

use super::FileError;
use crate::durable;

/// The program's name in a release's directory.
pub const PROGRAM: &str = "procfleet-agent";
/// The signed release in its directory.
const DESCRIPTION: &str = "release.json";
/// Length of an id.
const ID_LENGTH: usize = 16;
/// What a directory is called while it is being filled.
const INCOMING: &str = ".incoming";

/// The first digits of a binary's SHA-256.
pub fn id_of(sha256: &str) -> &str {
    sha256.get(..ID_LENGTH).unwrap_or(sha256)
}

/// A link to a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// What the service runs.
    Current,
    /// What proved itself, and does the updating.
    Confirmed,
}

impl Link {
    fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Confirmed => "confirmed",
        }
    }
}

/// A host's releases.
#[derive(Clone, Debug)]
pub struct Layout {
    base: PathBuf,
}

impl Layout {
    /// Below `base`.
    pub fn new(base: &Path) -> Self {
        Self { base: base.to_owned() }
    }

    /// The directory.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Where the ledger is kept.
    pub fn ledger(&self) -> PathBuf {
        self.base.join("update-state.json")
    }

    /// Held by whoever changes something here.
    pub fn lock(&self) -> Result<File, FileError> {
        let path = self.base.join(".lock");
        let lock = File::create(&path).map_err(FileError::of("create", &path))?;
        lock.lock().map_err(FileError::of("lock", &path))?;
        Ok(lock)
    }

    fn releases(&self) -> PathBuf {
        self.base.join("releases")
    }

    fn directory(&self, id: &str) -> PathBuf {
        self.releases().join(id)
    }

    /// The program of a release.
    pub fn program(&self, id: &str) -> PathBuf {
        self.directory(id).join(PROGRAM)
    }

    /// Whether a release is here.
    pub fn has(&self, id: &str) -> bool {
        is_id(id) && self.program(id).is_file()
    }

    /// The id that a link points at; none: it does not exist, or points elsewhere.
    pub fn target(&self, link: Link) -> Option<String> {
        let target = fs::read_link(self.base.join(link.name())).ok()?;
        let id = target.strip_prefix("releases").ok()?.to_str()?;
        is_id(id).then(|| id.to_owned())
    }

    /// The id of the release whose program this process is; none: it is not one of these.
    pub fn own(&self) -> Option<String> {
        let program = fs::read_link("/proc/self/exe").ok()?;
        let releases = fs::canonicalize(self.releases()).ok()?;
        let inner = program.strip_prefix(releases).ok()?;
        let (id, name) = inner.to_str()?.split_once('/')?;
        (is_id(id) && name == PROGRAM).then(|| id.to_owned())
    }

    /// Makes a link point at a release: by rename, so that there always is one, and synced.
    pub fn point(&self, link: Link, id: &str) -> Result<(), FileError> {
        let path = self.base.join(link.name());
        let fresh = self.base.join(format!(".{}.new", link.name()));
        durable::remove(&fresh).map_err(FileError::of("remove", &fresh))?;
        symlink(Path::new("releases").join(id), &fresh).map_err(FileError::of("create", &fresh))?;
        durable::rename(&fresh, &path).map_err(FileError::of("move the link", &path))
    }

    /// What the release in a directory says of itself. Not verified: root put it there.
    pub fn manifest(&self, id: &str) -> Option<Manifest> {
        let file = File::open(self.directory(id).join(DESCRIPTION)).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_RELEASE_BYTES as u64).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice::<Release>(&bytes).ok()?.unverified().ok()
    }

    /// An empty directory to fill, and what an earlier run left of one removed.
    pub fn begin(&self) -> Result<PathBuf, FileError> {
        let incoming = self.releases().join(INCOMING);
        match fs::remove_dir_all(&incoming) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(FileError::of("remove", &incoming)(error));
            }
            _ => {}
        }
        make_directory(&incoming)?;
        Ok(incoming)
    }

    /// Writes the release's description into a directory that is being filled.
    pub fn describe(incoming: &Path, release: &Release) -> Result<(), FileError> {
        let path = incoming.join(DESCRIPTION);
        let failed = FileError::of("write", &path);
        let json = match serde_json::to_vec(release) {
            Ok(json) => json,
            Err(error) => return Err(failed(error.into())),
        };
        durable::write_public(&path, &json).map_err(failed)
    }

    /// Replaces what is said of a release that is here already.
    pub fn redescribe(&self, id: &str, release: &Release) -> Result<(), FileError> {
        Self::describe(&self.directory(id), release)
    }

    /// Gives a filled directory its name. One that is there already under it stays: its name says what is in it.
    pub fn finish(&self, incoming: &Path, id: &str) -> Result<(), FileError> {
        let directory = self.directory(id);
        let sync = |path: &Path| File::open(path).and_then(|open| open.sync_all());
        sync(incoming).map_err(FileError::of("sync", incoming))?;
        if directory.exists() {
            fs::remove_dir_all(&directory).map_err(FileError::of("replace", &directory))?;
        }
        durable::rename(incoming, &directory).map_err(FileError::of("create", &directory))
    }

    /// Removes every release but `kept`. What cannot be removed is left for the next time.
    pub fn prune(&self, kept: &[Option<String>]) {
        let Ok(entries) = fs::read_dir(self.releases()) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_kept = kept.iter().flatten().any(|id| *id == name);
            if !is_kept
                && (is_id(&name) || name == INCOMING)
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(%error, release = name, "an old release cannot be removed");
            }
        }
    }

    /// Bytes that may still be written by others than root.
    pub fn free_bytes(&self) -> Option<u64> {
        let free = rustix::fs::statvfs(&self.base).ok()?;
        free.f_bavail.checked_mul(free.f_frsize)
    }
}

fn make_directory(path: &Path) -> Result<(), FileError> {
    let made = fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)));
    made.map_err(FileError::of("create", path))
}

fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
