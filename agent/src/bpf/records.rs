//! What the programs of `processes.bpf.c` write: the same layouts, read field by field.
//!
//! All integers are native. A record that is shorter than its layout is none; a longer one is of a later
//! program and read as far as it is known.

use std::io;

use crate::metrics::BPF_RECORDS_MALFORMED;

/// Largest record that a program writes, bytes; a longer one is taken for damage.
pub const MAX_RECORD_BYTES: usize = 32 << 10;

/// `HAS_IO`: the kernel counts I/O.
const HAS_IO: u32 = 1;
/// `RSS_EXACT`: no CPU's share of the pages is missing.
const RSS_EXACT: u32 = 2;
/// `RSS_KNOWN`: the kernel counts pages in a way that the program knows.
const RSS_KNOWN: u32 = 4;
/// `FDS_KNOWN`: descriptors were counted.
const FDS_KNOWN: u32 = 8;

/// What threads used, since they began. Times are ns of CPU time; user and system are sampled by the
/// timer on most kernels, only the run time is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// `se.sum_exec_runtime`, `signal->sum_sched_runtime`.
    pub runtime_ns: u64,
    /// `utime`.
    pub user_ns: u64,
    /// `stime`.
    pub system_ns: u64,
    /// `sched_info.run_delay`.
    pub run_delay_ns: u64,
    /// `nvcsw`.
    pub switches_voluntary: u64,
    /// `nivcsw`.
    pub switches_involuntary: u64,
    /// `min_flt`.
    pub faults_minor: u64,
    /// `maj_flt`.
    pub faults_major: u64,
    /// `ioac.read_bytes`.
    pub read_bytes: u64,
    /// `ioac.write_bytes`.
    pub write_bytes: u64,
    /// `ioac.cancelled_write_bytes`.
    pub cancelled_write_bytes: u64,
}

impl Used {
    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let (mut sum, mut other) = (*self, *other);
        for (sum, other) in sum.each().into_iter().zip(other.each()) {
            *sum = sum.saturating_add(*other);
        }
        sum
    }

    fn each(&mut self) -> [&mut u64; 11] {
        [
            &mut self.runtime_ns,
            &mut self.user_ns,
            &mut self.system_ns,
            &mut self.run_delay_ns,
            &mut self.switches_voluntary,
            &mut self.switches_involuntary,
            &mut self.faults_minor,
            &mut self.faults_major,
            &mut self.read_bytes,
            &mut self.write_bytes,
            &mut self.cancelled_write_bytes,
        ]
    }
}

/// One thread, from the iterator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    /// Its process.
    pub tgid: u32,
    /// Its own number.
    pub pid: u32,
    /// Resident and swapped pages; `None` in threads beside a live first one, and for what has no memory.
    pub pages: Option<(u64, u64)>,
    /// `pages` lacks no CPU's share.
    pub is_exact: bool,
    /// I/O is counted in `used`.
    pub has_io: bool,
    /// Its own share; in the first thread's record with those of all threads that are gone.
    pub used: Used,
}

/// One process, from the iterator at its first thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its first thread.
    pub thread: Thread,
    /// Start, ns since boot, time asleep included.
    pub start_ns: u64,
    /// CPU of descendants that were waited for, ns.
    pub children_user_ns: u64,
    /// The same, system.
    pub children_system_ns: u64,
    /// `mm->start_code`, `mm->start_stack`; 0 without memory.
    pub image: (u64, u64),
    /// Its cgroup in the unified hierarchy: the inode of its directory.
    pub cgroup: u64,
    /// Process id of its parent.
    pub parent_pid: u32,
    /// Effective user.
    pub user_id: u32,
    /// `__state | exit_state`.
    pub state: u32,
    /// `PF_*`.
    pub flags: u32,
    /// Live threads.
    pub thread_count: u32,
    /// Open descriptors; `None` where it has many.
    pub descriptors: Option<u32>,
    /// Up to the first NUL.
    pub comm: Comm,
}

/// A record of the iterator `tasks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// The first thread of a process.
    Process(Process),
    /// Any other.
    Thread(Thread),
}

/// `comm`, NUL-padded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Comm(pub [u8; 16]);

impl Comm {
    /// Without its padding.
    pub fn bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        &self.0[..end]
    }
}

/// An event of the ring `events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A process began to run another program.
    Exec(Exec<'a>),
    /// A process is gone: ended and waited for.
    Exit(Exit),
}

/// See [`Event::Exec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exec<'a> {
    /// Whose.
    pub of: Subject,
    /// Its arguments, NUL-terminated, cut to 4 KiB.
    pub line: &'a [u8],
}

/// See [`Event::Exit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Who. `at_ns` is when its last thread ended.
    pub of: Subject,
    /// As wait(2) gives it.
    pub status: u32,
    /// `PF_*`.
    pub flags: u32,
    /// Most pages that were resident at a time; 0: never had memory.
    pub peak_pages: u64,
    /// I/O is counted in `used`.
    pub has_io: bool,
    /// All its threads, from its start to its end.
    pub used: Used,
}

/// Who an event is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Process id.
    pub pid: u32,
    /// Its parent's, at this moment.
    pub parent_pid: u32,
    /// Start, ns since boot, time asleep included.
    pub start_ns: u64,
    /// Moment, on the same clock.
    pub at_ns: u64,
    /// See [`Process::cgroup`].
    pub cgroup: u64,
    /// Effective user.
    pub user_id: u32,
    /// Up to the first NUL.
    pub comm: Comm,
}

/// Hands over the whole records of `bytes`, each with its length (a native `u32`, itself included) in
/// front; how many bytes they take. The rest is the beginning of a record.
pub fn split(bytes: &[u8], take: &mut impl FnMut(&[u8])) -> io::Result<usize> {
    let mut at = 0;
    while let Some(head) = bytes[at..].first_chunk() {
        let length = usize::try_from(u32::from_ne_bytes(*head)).unwrap_or(usize::MAX);
        if length < head.len() || length > MAX_RECORD_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a record without its length"));
        }
        let Some(record) = bytes.get(at..at + length) else { break };
        take(record);
        at += length;
    }
    Ok(at)
}

/// A record of the iterator `tasks`.
pub fn parse_task(record: &[u8]) -> Option<Task> {
    let mut fields = Fields(record);
    let parsed = task(&mut fields);
    count_malformed(parsed)
}

/// An event of the ring `events`.
pub fn parse_event(record: &[u8]) -> Option<Event<'_>> {
    let mut fields = Fields(record);
    let parsed = event(&mut fields);
    count_malformed(parsed)
}

fn count_malformed<T>(parsed: Option<T>) -> Option<T> {
    if parsed.is_none() {
        BPF_RECORDS_MALFORMED.add(1);
    }
    parsed
}

fn task(fields: &mut Fields<'_>) -> Option<Task> {
    let _size = fields.u32()?;
    let (tgid, pid, has) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let pages = (fields.u64()?, fields.u64()?);
    let thread = Thread {
        tgid,
        pid,
        pages: (has & RSS_KNOWN != 0).then_some(pages),
        is_exact: has & RSS_EXACT != 0,
        has_io: has & HAS_IO != 0,
        used: used(fields)?,
    };
    if tgid != pid {
        return Some(Task::Thread(thread));
    }
    let start_ns = fields.u64()?;
    let (children_user_ns, children_system_ns) = (fields.u64()?, fields.u64()?);
    let image = (fields.u64()?, fields.u64()?);
    let cgroup = fields.u64()?;
    let (parent_pid, user_id, state) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let (flags, thread_count, descriptors) = (fields.u32()?, fields.u32()?, fields.u32()?);
    Some(Task::Process(Process {
        thread,
        start_ns,
        children_user_ns,
        children_system_ns,
        image,
        cgroup,
        parent_pid,
        user_id,
        state,
        flags,
        thread_count,
        descriptors: (has & FDS_KNOWN != 0).then_some(descriptors),
        comm: Comm(fields.take()?),
    }))
}

fn event<'a>(fields: &mut Fields<'a>) -> Option<Event<'a>> {
    let _size = fields.u32()?;
    let kind = fields.u32()?;
    let (pid, parent_pid) = (fields.u32()?, fields.u32()?);
    let (start_ns, at_ns, cgroup) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let user_id = fields.u32()?;
    let subject =
        |comm| Subject { pid, parent_pid, start_ns, at_ns, cgroup, user_id, comm: Comm(comm) };
    match kind {
        1 => {
            let length = usize::try_from(fields.u32()?).ok()?;
            let of = subject(fields.take()?);
            Some(Event::Exec(Exec { of, line: fields.0.get(..length)? }))
        }
        2 => {
            let (status, flags, has) = (fields.u32()?, fields.u32()?, fields.u32()?);
            let of = subject(fields.take()?);
            let peak_pages = fields.u64()?;
            let has_io = has & HAS_IO != 0;
            Some(Event::Exit(Exit { of, status, flags, peak_pages, has_io, used: used(fields)? }))
        }
        _ => None,
    }
}

fn used(fields: &mut Fields<'_>) -> Option<Used> {
    let mut used = Used::default();
    for field in used.each() {
        *field = fields.u64()?;
    }
    Some(used)
}

/// The rest of a record.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let task = parse_task(&bytes);
            prop_assert!(task.is_none() || bytes.len() >= 120);
            if let Some(Event::Exec(exec)) = parse_event(&bytes) {
                prop_assert!(exec.line.len() < bytes.len());
            }
        }
    }

    #[test]
    fn comm_ends_at_its_first_nul() {
        assert_eq!(Comm(*b"sleep\0\0\0\0\0\0\0\0\0\0\0").bytes(), b"sleep");
        assert_eq!(Comm(*b"0123456789abcdef").bytes().len(), 16);
    }
}
