//! The agent's bounded on-disk queue of reports that no server acknowledged yet.
//!
//! # What it must do
//!
//! Hold every report until the server's transaction with it committed; survive kill -9, power loss, a
//! full or failing disk and flipped bits; stay within its bounds; and where something is lost, know how
//! much. The server stores each (stream, sequence) once, so the spool's second duty is that **a sequence
//! which may have been sent never names other content**.
//!
//! # On disk
//!
//! ```text
//! spool/                      locked with flock(2) while an agent runs
//!   stream_id                 the mark: which stream is in use
//!   <stream id>/
//!     <first sequence>.segment    16 byte header, then records; 8 MiB, then the next file
//! record = magic | kind | first | last | time | frame length | inflated length | crc32c(frame)
//!          | crc32c(header) | zstd frame of one line of JSON (a gap has none: it is made when read)
//! ```
//!
//! There is no index and no cursor file: two files that must agree are two files that can disagree. The
//! sequences are in the segments, the cursor is the server's.
//!
//! # Life of a record
//!
//! *Append* gives the record the next sequence, writes and fdatasyncs it, and only then can it be
//! peeked. *Peek* copies frames out and moves nothing. *Acknowledge* moves the cursor in memory. A
//! segment is unlinked when all of it has been acknowledged for 15 minutes (or 64 MiB): until then a
//! database that failed over and lost its last transactions is refilled, because its cursor stands
//! below ours and we go back to it. Further back than what is kept, the hole becomes a gap
//! `server_lost_data`.
//!
//! # Recovery
//!
//! The start reads every segment. A damaged record costs itself: the scan finds the next header by its
//! magic number and checksum, and the sequences around the damage say how many records it was; they
//! become a gap `spool_corrupt`. Nothing is cut or rewritten. A run never appends to a file of an
//! earlier run, so a torn tail stays what it is, burns one sequence, and is derived again at each start.
//!
//! A disk that lost what it had synced, or a machine restored from a snapshot, shows at the first
//! contact: the server's cursor stands above everything we know. A spool that cannot be written keeps
//! reports in memory and sends them from there; a crash then forgets sequences that the server has. So
//! the mark is unlinked first (which works on a full disk), and a start without it distrusts its stream.
//! In all these cases, when the reports in it are another host's (enrolled again), and when the server finds two writers in one stream (a cloned machine), the
//! stream ends: what is not acknowledged moves to a new stream with new sequences. Reports whose
//! answer was lost at that very moment are then stored twice, under two streams: better than never.
//! What the old stream keeps for a failed-over database is given up with it.
//!
//! # When there is no room
//!
//! At the cap (256 MiB, and 5 % of the free disk) acknowledged records go first; then segments of the
//! older half keep every sixth report; then the oldest segment goes. Losses become gap records, which
//! consume the sequences and merge. Records that were sent and not answered keep their bytes. When the
//! disk fails (ENOSPC, EIO, read-only), 4 MiB of reports stay in memory, then the oldest of those go;
//! every append tries the disk again.
//!
//! # Deliberately absent
//!
//! Compaction, priorities, several readers, encryption, configurable durability, a way to skip the sync.

mod format;
mod queue;
mod segment;
mod shed;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use shared_model::Record;
use uuid::Uuid;

use queue::Queue;

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

/// How much one peek may return. A record larger than that is returned alone.
#[derive(Clone, Copy, Debug)]
pub struct PeekLimits {
    /// Most bytes of frames.
    pub bytes: usize,
    /// Most bytes after decompression.
    pub inflated_bytes: usize,
    /// Most records.
    pub records: usize,
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

/// What the server's cursor says of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It goes on.
    Continues,
    /// It must end before anything else is sent: [`Spool::begin_stream`].
    NewStreamNeeded,
}

/// The spool in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolStats {
    /// Records not acknowledged yet.
    pub reports: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes in memory, waiting for the disk.
    pub memory_bytes: u64,
    /// Last sequence given out.
    pub last_sequence: u64,
    /// The server's cursor, as far as this process heard of it.
    pub acknowledged_sequence: u64,
    /// Reports lost or found lost since the spool was opened, by reason.
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

/// Why no new stream could begin. Nothing was lost or changed: try again later.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} stream")]
pub struct NewStreamError {
    /// What was tried.
    pub step: &'static str,
    /// Why it failed.
    #[source]
    pub error: std::io::Error,
}

type Wake = Arc<dyn Fn() + Send + Sync>;

/// The queue. Shared by the sampler, which appends, and the uplink, which does the rest. Every call
/// waits for the disk.
pub struct Spool {
    queue: Mutex<Queue>,
    wake: Mutex<Option<Wake>>,
    /// Holds the lock.
    _dir: File,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// The stream in use in a spool that another process may have open; none: nothing was ever spooled there.
pub fn stream_in(dir: &Path) -> Option<Uuid> {
    stream::read_mark(dir)
}

impl Spool {
    /// Opens or creates the spool in `dir`, locks it, and reads back what an earlier run left.
    pub fn open(dir: &Path, limits: Limits, host_id: Uuid) -> Result<Self, SpoolError> {
        let fail = |step, error| SpoolError::Io { step, path: dir.to_owned(), error };
        crate::durable::create_dir(dir).map_err(|error| fail("create", error))?;
        let lock = File::open(dir).map_err(|error| fail("open", error))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(SpoolError::InUse(dir.to_owned())),
            Err(error) => return Err(fail("lock", error.into())),
        }
        let queue =
            Queue::recover(dir.to_owned(), limits, host_id).map_err(|error| fail("read", error))?;
        Ok(Self { queue: Mutex::new(queue), wake: Mutex::new(None), _dir: lock })
    }

    /// Appends the record that `build` makes for the position it is given; durable on return unless
    /// the answer says otherwise. Never fails: what cannot be kept is counted.
    pub fn append(&self, build: impl FnOnce(Position) -> Record) -> Appended {
        let appended = self.queue().append(build);
        let wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(wake) = wake {
            wake();
        }
        appended
    }

    /// Calls `wake` after every append. The last caller wins.
    pub fn on_append(&self, wake: impl Fn() + Send + Sync + 'static) {
        *self.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(wake));
    }

    /// The stream in use.
    pub fn stream_id(&self) -> Uuid {
        self.queue().stream_id
    }

    /// The oldest records that are not acknowledged, in order. Removes nothing. Ask the server for its
    /// cursor and [`acknowledge`](Self::acknowledge) it first: a start does not know it.
    pub fn peek(&self, limits: PeekLimits) -> Vec<SpooledRecord> {
        self.queue().peek(limits)
    }

    /// The server's cursor stands at `sequence`, which may be lower than before.
    pub fn acknowledge(&self, sequence: u64, now: Instant) -> Standing {
        self.queue().acknowledge(sequence, now)
    }

    /// The server will never take the record that ends at `sequence`: a gap stands for it from now on.
    pub fn reject(&self, sequence: u64) {
        self.queue().reject(sequence);
    }

    /// Ends the stream; what is not acknowledged moves to a new one.
    pub fn begin_stream(&self) -> Result<(), NewStreamError> {
        self.queue().begin_stream()
    }

    /// The spool in numbers.
    pub fn stats(&self) -> SpoolStats {
        self.queue().stats()
    }

    /// Grows whenever the server may have missed dictionary entries that were appended.
    pub fn dictionary_epoch(&self) -> u64 {
        self.queue().epoch
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic can come from `build` only, before anything is changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Spool {
    /// The last chance for what waits in memory.
    fn drop(&mut self) {
        self.queue().flush();
    }
}
