//! The agent's bounded on-disk queue of reports that no server acknowledged yet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shared_model::Record;
use uuid::Uuid;

/// Bounds of a spool. All are hard.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most bytes on disk.
    pub max_bytes: u64,
    /// Most percent of the file system's free space (what the spool holds already counts as free).
    pub max_free_percent: u8,
    /// A segment is closed when it reaches this.
    pub segment_bytes: u64,
    /// Most bytes held in memory while the disk cannot be written.
    pub memory_bytes: usize,
    /// How long acknowledged records are kept for a server that lost them.
    pub keep_for: Duration,
    /// Most bytes of acknowledged records kept.
    pub keep_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 20,
            max_free_percent: 5,
            segment_bytes: 8 << 20,
            memory_bytes: 4 << 20,
            keep_for: Duration::from_mins(15),
            keep_bytes: 64 << 20,
        }
    }
}

/// Where the next record goes: what its `stream_id` and `sequence` must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Incarnation of the spool.
    pub stream_id: Uuid,
    /// From 1.
    pub sequence: u64,
}

/// What became of an appended record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Synced to disk.
    Durable,
    /// The disk cannot be written: it is in memory, and goes to disk when that works again.
    Volatile,
    /// There was no room left at all. Counted; a gap record will say so.
    Lost,
}

/// One record as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpooledRecord {
    /// First sequence it covers: below `sequence` only for a gap.
    pub first_sequence: u64,
    /// Last sequence it covers.
    pub sequence: u64,
    /// One zstd frame of one line of JSON.
    pub frame: Vec<u8>,
}

/// The spool in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolStats {
    /// Sequences not acknowledged yet.
    pub reports: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes in memory, waiting for the disk.
    pub memory_bytes: u64,
    /// Last sequence given out.
    pub last_sequence: u64,
    /// The server's cursor, as far as this process heard of it.
    pub acknowledged_sequence: u64,
    /// Reports lost since the spool was opened, by reason.
    pub lost: BTreeMap<&'static str, u64>,
}

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another agent has it.
    #[error("{0} is in use by another agent: stop it, or choose another state_dir")]
    InUse(PathBuf),
    /// The directory cannot be used.
    #[error("cannot {step} {path}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: std::io::Error,
    },
}

/// The queue. Shared by the sampler, which appends, and the uplink, which peeks and acknowledges.
#[derive(Debug)]
pub struct Spool {}

impl Spool {
    /// Opens or creates the spool in `dir`, and takes its lock.
    pub fn open(_dir: &Path, _limits: Limits, _host_id: Uuid) -> Result<Self, SpoolError> {
        unimplemented!()
    }

    /// Appends the record that `build` makes for the position it is given; durable on return unless
    /// the answer says otherwise. Never fails: what cannot be kept is counted.
    pub fn append(&self, _build: impl FnOnce(Position) -> Record) -> Appended {
        unimplemented!()
    }

    /// Calls `wake` after every append. Set once.
    pub fn on_append(&self, _wake: impl Fn() + Send + Sync + 'static) {
        unimplemented!()
    }

    /// The oldest records not acknowledged, in order. Removes nothing.
    pub fn peek(&self, _max_bytes: usize, _max_records: usize) -> Vec<SpooledRecord> {
        unimplemented!()
    }

    /// The server's cursor stands at `sequence`, which may be lower than before.
    pub fn acknowledge(&self, _sequence: u64, _now: Instant) {
        unimplemented!()
    }

    /// The spool in numbers.
    pub fn stats(&self) -> SpoolStats {
        unimplemented!()
    }

    /// Grows whenever the server may have missed dictionary entries that were appended.
    pub fn dictionary_epoch(&self) -> u64 {
        unimplemented!()
    }
}
