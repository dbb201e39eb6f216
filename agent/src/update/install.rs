//! Puts a release on disk: copies, verifies the copy, tries it, gives it its place. Moves no link.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use shared_model::release::{Artifact, Release};

use super::FileError;
use super::layout::{Layout, PROGRAM, id_of};
use super::ledger::cut;
use super::trust::Digest;

/// Longest that a release may try itself.
const SELF_TEST: Duration = Duration::from_mins(1);
/// Between two looks whether it ended.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes copied at once.
const PIECE: usize = 64 << 10;
/// Room that is left beside the release, bytes.
const RESERVE: u64 = 16 << 20;

/// Why a release is not on disk.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The disk, or its permissions.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no room for two releases.
    #[error("{} MiB are free below {}, {} MiB are needed", free >> 20, base.display(), needed.div_ceil(1 << 20))]
    NoRoom {
        /// Bytes free.
        free: u64,
        /// Bytes needed.
        needed: u64,
        /// Where.
        base: PathBuf,
    },
    /// Cut off, or another file.
    #[error("the file is not the binary of the release: {0}")]
    NotTheBinary(String),
    /// It does not run here.
    #[error("the release cannot run on this host: {0}")]
    DoesNotRun(String),
    /// Neither does the one before: it is not the release.
    #[error("the installed release does not pass its own test either, so nothing is replaced: {0}")]
    NeitherRuns(String),
}

impl InstallError {
    /// Whether the release itself is at fault, on this host.
    pub fn is_of_the_release(&self) -> bool {
        matches!(self, Self::DoesNotRun(_))
    }
}

/// How a release tries itself: the arguments of its program.
#[derive(Clone, Debug)]
pub struct SelfTest {
    /// `--config FILE`, if that was given.
    pub config: Option<PathBuf>,
}

/// Copies, verifies, tries and places; the release's id.
pub fn install(
    layout: &Layout,
    (release, artifact): (&Release, &Artifact),
    source: File,
    test: &SelfTest,
    installed: Option<&str>,
) -> Result<String, InstallError> {
    check_room(layout, artifact.size)?;
    let id = id_of(&artifact.sha256).to_owned();
    let incoming = layout.begin()?;
    let placed = (|| {
        let program = incoming.join(PROGRAM);
        copy(source, &program, artifact)?;
        Layout::describe(&incoming, release)?;
        try_out(&program, test).map_err(|reason| {
            // A configuration that nobody can read is not the release's fault.
            match installed.map(|id| try_out(&layout.program(id), test)) {
                Some(Err(own)) => InstallError::NeitherRuns(own),
                _ => InstallError::DoesNotRun(reason),
            }
        })?;
        Ok(layout.finish(&incoming, &id)?)
    })();
    if placed.is_err() {
        // The error to tell is the first one; the next run removes it too.
        fs::remove_dir_all(&incoming).ok();
    }
    placed.map(|()| id)
}

fn check_room(layout: &Layout, size: u64) -> Result<(), InstallError> {
    let needed = size.saturating_add(RESERVE);
    match layout.free_bytes() {
        Some(free) if free < needed => {
            let base = layout.base().to_owned();
            Err(InstallError::NoRoom { free, needed, base })
        }
        _ => Ok(()),
    }
}

/// Copies at most what the release says, and hashes what it wrote.
fn copy(source: File, to: &Path, artifact: &Artifact) -> Result<(), InstallError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o755);
    let mut file = options.open(to).map_err(FileError::of("create", to))?;
    let (mut digest, mut size, mut piece) = (Digest::default(), 0_u64, vec![0; PIECE]);
    let mut source = source.take(artifact.size.saturating_add(1));
    let mut copied = || -> io::Result<()> {
        loop {
            match source.read(&mut piece)? {
                0 => break,
                read => {
                    digest.update(&piece[..read]);
                    file.write_all(&piece[..read])?;
                    size += read as u64;
                }
            }
        }
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        file.sync_all()
    };
    copied().map_err(FileError::of("write", to))?;
    let sha256 = digest.finish();
    if size != artifact.size {
        let more = if size > artifact.size { "more than " } else { "" };
        let detail =
            format!("it has {more}{} bytes instead of {}", size.min(artifact.size), artifact.size);
        return Err(InstallError::NotTheBinary(detail));
    }
    if sha256 != artifact.sha256 {
        let detail = format!("its SHA-256 is {sha256} instead of {}", artifact.sha256);
        return Err(InstallError::NotTheBinary(detail));
    }
    Ok(())
}

/// Lets a program test itself; why it failed.
fn try_out(program: &Path, test: &SelfTest) -> Result<(), String> {
    let mut command = Command::new(program);
    if let Some(config) = &test.config {
        command.arg("--config").arg(config);
    }
    command.args(["update", "self-test"]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    let began = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if began.elapsed() < SELF_TEST => std::thread::sleep(PAUSE),
            Ok(None) => {
                // It cannot have ended between: nobody else waits for it.
                child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
                return Err(format!("its test did not end within {} s", SELF_TEST.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    if let Some(errors) = child.stderr.take() {
        // What was said before it cannot be read any more is enough.
        errors.take(4096).read_to_end(&mut said).ok();
    }
    Err(cut(&format!("{status}: {}", String::from_utf8_lossy(&said))))
}
