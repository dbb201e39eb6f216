//! One segment file: written once from front to end, synced, read at offsets, unlinked whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::format::{self, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES};

const SUFFIX: &str = "segment";

/// A segment that is part of the queue. Its name is the first sequence in it.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) first: u64,
    pub(super) last: u64,
    /// Bytes of the file.
    pub(super) bytes: u64,
    pub(super) thinned: bool,
    /// Holds nothing but one gap record: losses that follow are added to it.
    pub(super) gap_only: bool,
    /// When it became acknowledged whole.
    pub(super) acknowledged_at: Option<Instant>,
}

/// The segment being written.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    pub(super) path: PathBuf,
    /// Length up to which everything is synced.
    pub(super) bytes: u64,
}

pub(super) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.{SUFFIX}"))
}

/// First sequences of the segments in `dir`, ascending. What a crash left half made is removed.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(SUFFIX) => firsts.extend(stem.and_then(|stem| stem.parse::<u64>().ok())),
            Some("tmp") => remove(&path),
            _ => {}
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Unlinks a file. Failing costs space, never data, and the next start tries again.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a file of the spool");
    }
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Header and frame of one record, as they stand in a segment.
pub(super) fn push_record(buffer: &mut Vec<u8>, header: &RecordHeader, frame: &[u8]) {
    buffer.extend_from_slice(&header.encode());
    buffer.extend_from_slice(frame);
}

impl Writer {
    /// Creates the segment whose first sequence is `first`, in a directory that is created too.
    pub(super) fn create(dir: &Path, first: u64) -> io::Result<Self> {
        if !dir.exists() {
            crate::durable::create_dir(dir)?;
            if let Some(parent) = dir.parent() {
                sync_dir(parent)?;
            }
        }
        let path = path(dir, first);
        let mut file = create_file(&path)?;
        let written = file
            .write_all(&format::encode_segment_header(false))
            .and_then(|()| file.sync_data())
            .and_then(|()| sync_dir(dir));
        if let Err(error) = written {
            remove(&path);
            return Err(error);
        }
        Ok(Self { file, path, bytes: SEGMENT_HEADER_BYTES as u64 })
    }

    /// Writes and syncs. After an error the file ends where it ended before, as far as the disk obeys,
    /// and must not be written again: what a failed sync left in the page cache is not known.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written =
            self.file.write_all_at(bytes, self.bytes).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            if self.bytes <= SEGMENT_HEADER_BYTES as u64 {
                remove(&self.path);
            } else if let Err(error) = self.file.set_len(self.bytes) {
                tracing::warn!(path = %self.path.display(), %error, "cannot cut a failed write");
            }
            return Err(error);
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Replaces the segment `first` by one with these records, atomically. Returns its length.
pub(super) fn replace(dir: &Path, first: u64, records: &[u8]) -> io::Result<u64> {
    let target = path(dir, first);
    let temporary = target.with_extension("tmp");
    let written = (|| {
        let mut file = create_file(&temporary)?;
        file.write_all(&format::encode_segment_header(true))?;
        file.write_all(records)?;
        file.sync_data()?;
        fs::rename(&temporary, &target)?;
        sync_dir(dir)
    })();
    if let Err(error) = written {
        remove(&temporary);
        return Err(error);
    }
    Ok((SEGMENT_HEADER_BYTES + records.len()) as u64)
}

/// Reads a frame. The caller checks it.
pub(super) fn read_frame(path: &Path, offset: u64, bytes: u32) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    File::open(path)?.read_exact_at(&mut frame, offset)?;
    Ok(frame)
}

/// Whether a failed read means that what was written is gone. Whatever else (the host is out of file
/// descriptors or memory, permissions changed) may pass, and is no reason to give a report up.
pub(super) fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let gone = [Errno::IO, Errno::BADMSG, Errno::UCLEAN];
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
        || Errno::from_io_error(error).is_some_and(|errno| gone.contains(&errno))
}

/// Bytes a record takes in a segment.
pub(super) fn record_bytes(frame: &[u8]) -> u64 {
    (RECORD_HEADER_BYTES + frame.len()) as u64
}

fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}
