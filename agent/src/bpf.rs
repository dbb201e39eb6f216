//! Loads the BPF programs of `src/bpf/*.bpf.c` and reads what they write.
//!
//! `build.rs` compiles them once against declarations of our own; the loader relocates every field
//! access to the running kernel by its BTF (CO-RE), so one binary serves every kernel from 5.8 on. **Each
//! program is optional by itself**: one that the kernel refuses, or that there is no hook for, leaves
//! the others alone, is logged once, and is named by [`Bpf::refusal`], which reports pass on.
//!
//! A new program file costs itself and a line in [`OBJECTS`]. Records of iterators and rings begin with
//! their own length, a native `u32`; [`Bpf::read_iterator`] and [`Bpf::drain`] cut by it.
//!
//! The loader keeps what is `unsafe` to itself, and records are read as bytes; one call of the allocator remains.

pub mod records;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, HashMap, MapData, RingBuf};
use aya::programs::{BtfTracePoint, Iter};
use aya::{Btf, Ebpf, EbpfLoader};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::records::{MAX_RECORD_BYTES, split};
use crate::causes::chain;
use crate::metrics::{BPF_ITERATOR_RETRIES, BPF_RECORDS_MALFORMED};

/// A compiled file and its programs.
#[derive(Debug)]
pub struct Object {
    /// Its name, `src/bpf/<name>.bpf.c`.
    pub name: &'static str,
    image: &'static [u8],
    /// By the names of their functions.
    programs: &'static [(&'static str, Hook)],
    /// Its ring buffers.
    rings: &'static [&'static str],
}

/// What a program is attached to.
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    /// `bpf_iter_<name>`: runs when it is read.
    Iterator(&'static str),
    /// The tracepoint of this name, with the kernel's types.
    Tracepoint(&'static str),
}

/// The object that `build.rs` made of `src/bpf/<name>.bpf.c`, aligned as its parser wants it.
macro_rules! object {
    ($name:literal, [$($program:expr),+ $(,)?], [$($ring:literal),* $(,)?]) => {
        Object {
            name: $name,
            image: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bpf.o")),
            programs: &[$($program),+],
            rings: &[$($ring),*],
        }
    };
}

/// Every object.
pub static OBJECTS: &[Object] = &[
    object!(
        "processes",
        [
            ("tasks", Hook::Iterator("task")),
            ("executed", Hook::Tracepoint("sched_process_exec")),
            ("exited", Hook::Tracepoint("sched_process_exit")),
            ("freed", Hook::Tracepoint("sched_process_free")),
        ],
        ["events"]
    ),
    object!(
        "sockets",
        [
            ("files", Hook::Iterator("task_file")),
            ("state_changed", Hook::Tracepoint("inet_sock_set_state")),
            ("sent", Hook::Tracepoint("sock_send_length")),
            ("received", Hook::Tracepoint("sock_recv_length")),
        ],
        ["ends"]
    ),
];

/// Attempts at an iterator that has nothing to say for a million objects and wants to be asked again.
const MAX_RETRIES: u32 = 1000;
/// Holds twice what one read of an iterator returns at most (the kernel's buffer is eight pages).
const READ_BYTES: usize = 2 * MAX_RECORD_BYTES;
/// `BPF_EXIST`.
const MUST_EXIST: u64 = 2;
/// Longest reason kept.
const MAX_REASON_BYTES: usize = 300;
/// `PROC_PID_INIT_INO`: the initial pid namespace's inode, the same in every kernel.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// A read of an iterator that failed.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// There is no such program in the kernel.
    #[error("the BPF program {0} is not loaded")]
    NotLoaded(&'static str),
    /// The kernel refused an iterator.
    #[error("cannot start the BPF iterator {program}")]
    Start {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Reading failed.
    #[error("cannot read the BPF iterator {program}")]
    Read {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The programs that run. Dropped, they are gone from the kernel.
#[derive(Default)]
pub struct Bpf {
    objects: Vec<(&'static str, Mutex<Ebpf>)>,
    /// (object, name, ring). Not behind the lock of its object: a reader may take long.
    rings: Vec<(&'static str, &'static str, Mutex<RingBuf<MapData>>)>,
    /// (program, why not).
    refused: Vec<(&'static str, String)>,
}

impl fmt::Debug for Bpf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bpf").field("refused", &self.refused).finish_non_exhaustive()
    }
}

impl Bpf {
    /// No programs at all, for a reason.
    pub fn none(objects: &[Object], reason: &str) -> Self {
        let refused = objects
            .iter()
            .flat_map(|object| object.programs)
            .map(|(program, _)| (*program, cut(reason)))
            .collect();
        Self { objects: Vec::new(), rings: Vec::new(), refused }
    }

    /// Loads what the kernel takes of `objects`, and logs what it does not.
    pub fn load(objects: &'static [Object]) -> Self {
        let bpf = match usable() {
            Ok(btf) => {
                let mut bpf = Self::default();
                for object in objects {
                    bpf.add(object, &btf);
                }
                bpf
            }
            Err(reason) => Self::none(objects, &reason),
        };
        give_memory_back();
        if bpf.objects.is_empty() {
            let reason = bpf.refused.first().map_or("", |(_, reason)| reason.as_str());
            tracing::info!(reason, "no BPF here: everything is read from /proc and netlink");
        } else {
            for (program, reason) in &bpf.refused {
                tracing::warn!(
                    program,
                    reason,
                    "BPF program refused: its fields come from elsewhere or are unknown"
                );
            }
        }
        bpf
    }

    /// Why `program` does not run; `None`: it does.
    pub fn refusal(&self, program: &str) -> Option<&str> {
        self.refused.iter().find(|(name, _)| *name == program).map(|(_, reason)| reason.as_str())
    }

    /// Runs an iterator once and hands over its records.
    pub fn read_iterator(
        &self,
        object: &str,
        program: &'static str,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), BpfError> {
        let mut file = self.start_iterator(object, program)?;
        let failed = |source| BpfError::Read { program, source };
        let (mut buffer, mut filled, mut retries) = (vec![0; READ_BYTES], 0, 0);
        loop {
            match file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => {
                    filled += read;
                    let used = split(&buffer[..filled], &mut take).map_err(failed)?;
                    buffer.copy_within(used..filled, 0);
                    filled -= used;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && retries < MAX_RETRIES =>
                {
                    retries += 1;
                    BPF_ITERATOR_RETRIES.add(1);
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// Hands over every record in the ring `name` of `object`.
    pub fn drain(&self, object: &str, name: &str, mut take: impl FnMut(&[u8])) {
        let Some(ring) = self.ring(object, name) else { return };
        let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(record) = ring.next() {
            if split(&record, &mut take).is_err() {
                BPF_RECORDS_MALFORMED.add(1);
            }
        }
    }

    /// What becomes readable when that ring has something to say, for [`wait`].
    pub fn ring_descriptor(&self, object: &str, name: &str) -> Option<OwnedFd> {
        let ring = self.ring(object, name)?.lock().unwrap_or_else(PoisonError::into_inner);
        ring.as_fd().try_clone_to_owned().ok()
    }

    /// Hands over every entry of the hash map `name`. What comes or goes meanwhile may be among them or not.
    pub fn read_hash<const K: usize, const V: usize>(
        &self,
        object: &str,
        name: &str,
        mut take: impl FnMut([u8; K], [u8; V]),
    ) {
        let Some(ebpf) = self.locked(object) else { return };
        let map = ebpf.map(name).map(HashMap::<&MapData, [u8; K], [u8; V]>::try_from);
        if let Some(Ok(map)) = map {
            map.iter().filter_map(Result::ok).for_each(|(key, value)| take(key, value));
        }
    }

    /// Replaces the value of an entry of the hash map `name`. False: it was gone.
    pub fn replace_in_hash<const K: usize, const V: usize>(
        &self,
        object: &str,
        name: &str,
        (key, value): (&[u8; K], &[u8; V]),
    ) -> bool {
        let Some(mut ebpf) = self.locked(object) else { return false };
        let map = ebpf.map_mut(name).map(HashMap::<&mut MapData, [u8; K], [u8; V]>::try_from);
        let Some(Ok(mut map)) = map else { return false };
        map.insert(key, value, MUST_EXIST).is_ok()
    }

    /// Removes an entry of the hash map `name`, whose values have `V` bytes.
    pub fn remove_from_hash<const K: usize, const V: usize>(
        &self,
        object: &str,
        name: &str,
        key: &[u8; K],
    ) {
        let Some(mut ebpf) = self.locked(object) else { return };
        let map = ebpf.map_mut(name).map(HashMap::<&mut MapData, [u8; K], [u8; V]>::try_from);
        if let Some(Ok(mut map)) = map
            && map.remove(key).is_err()
        {
            tracing::debug!("an entry of a BPF map was already gone");
        }
    }

    /// The `N` counters that the programs of `object` keep in the array `name` of one element.
    pub fn counters<const N: usize>(&self, object: &str, name: &str) -> Option<[u64; N]> {
        let ebpf = self.locked(object)?;
        let array: Array<&MapData, [u64; N]> = Array::try_from(ebpf.map(name)?).ok()?;
        array.get(&0, 0).ok()
    }

    fn ring(&self, object: &str, name: &str) -> Option<&Mutex<RingBuf<MapData>>> {
        let (_, _, ring) = self.rings.iter().find(|ring| (ring.0, ring.1) == (object, name))?;
        Some(ring)
    }

    fn start_iterator(&self, object: &str, program: &'static str) -> Result<File, BpfError> {
        let start =
            |source: Box<dyn std::error::Error + Send + Sync>| BpfError::Start { program, source };
        if self.refusal(program).is_some() {
            return Err(BpfError::NotLoaded(program));
        }
        let mut ebpf = self.locked(object).ok_or(BpfError::NotLoaded(program))?;
        let iterator = ebpf.program_mut(program).ok_or(BpfError::NotLoaded(program))?;
        let iterator: &mut Iter = iterator.try_into().map_err(|error| start(Box::new(error)))?;
        let link = iterator.attach().map_err(|error| start(error.into()))?;
        let link = iterator.take_link(link).map_err(|error| start(error.into()))?;
        link.into_file().map_err(|error| start(error.into()))
    }

    fn locked(&self, object: &str) -> Option<MutexGuard<'_, Ebpf>> {
        let (_, ebpf) = self.objects.iter().find(|(name, _)| *name == object)?;
        Some(ebpf.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&mut self, object: &'static Object, btf: &Btf) {
        let cpus = possible_cpus();
        let loaded = EbpfLoader::new()
            .btf(Some(btf))
            .override_global("cpu_count", &cpus, false)
            .load(object.image);
        let mut ebpf = match loaded {
            Ok(ebpf) => ebpf,
            Err(error) => {
                let reason = reason(&error);
                self.refused
                    .extend(object.programs.iter().map(|(name, _)| (*name, reason.clone())));
                return;
            }
        };
        for (name, hook) in object.programs {
            if let Err(reason) = start(&mut ebpf, name, *hook, btf) {
                self.refused.push((name, reason));
            }
        }
        for name in object.rings {
            if let Some(Ok(ring)) = ebpf.take_map(name).map(RingBuf::try_from) {
                self.rings.push((object.name, *name, Mutex::new(ring)));
            }
        }
        self.objects.push((object.name, Mutex::new(ebpf)));
    }
}

/// Waits until one of `fds` can be read.
pub fn wait(fds: &[BorrowedFd<'_>]) {
    let mut fds: Vec<_> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    // Interrupted or not: who is woken looks.
    let _ready = poll(&mut fds, None);
}

/// Whether `fd` can be read now.
pub fn is_ready(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// The kernel's types, or why BPF is of no use here.
fn usable() -> Result<Btf, String> {
    // Iterators show the tasks of the reader's namespace, with the numbers of the initial one, and
    // tracepoints those of all.
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    if !namespace.is_ok_and(|namespace| namespace == Path::new(INITIAL_PID_NAMESPACE)) {
        return Err("the agent is not in the host's pid namespace".to_owned());
    }
    Btf::from_sys_fs().map_err(|error| cut(&format!("no types of the kernel: {}", chain(&error))))
}

fn start(ebpf: &mut Ebpf, name: &str, hook: Hook, btf: &Btf) -> Result<(), String> {
    let program = ebpf.program_mut(name).ok_or_else(|| "not in its object".to_owned())?;
    match hook {
        Hook::Iterator(target) => {
            let iterator: &mut Iter = program.try_into().map_err(|error| reason(&error))?;
            iterator.load(target, btf).map_err(|error| reason(&error))
        }
        Hook::Tracepoint(target) => {
            let tracepoint: &mut BtfTracePoint =
                program.try_into().map_err(|error| reason(&error))?;
            tracepoint.load(target, btf).map_err(|error| reason(&error))?;
            tracepoint.attach().map(drop).map_err(|error| reason(&error))
        }
    }
}

/// CPUs that per-CPU memory has parts for; 0: unknown.
fn possible_cpus() -> u32 {
    let cpus = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = cpus.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<u32>().ok());
    last.map_or(0, |last| last.saturating_add(1))
}

/// Why; of the verifier's log its end, where the reason is.
fn reason(error: &dyn std::error::Error) -> String {
    cut(&chain(error))
}

fn cut(text: &str) -> String {
    let text = text.replace(['\0', '\n'], " ");
    if text.len() <= MAX_REASON_BYTES {
        return text;
    }
    let head = text.floor_char_boundary(MAX_REASON_BYTES / 3);
    let tail = text.ceil_char_boundary(text.len() - MAX_REASON_BYTES / 2);
    format!("{} … {}", &text[..head], &text[tail..])
}

/// The kernel's types take 25 MiB while they are read. They are freed by now, but the allocator keeps
/// them for ever; the agent will never need as much again.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "no safe wrapper of malloc_trim(3)")]
        // SAFETY: the declaration is that of malloc_trim(3), which may be called at any time from any
        // thread, with any number, and touches nothing but the allocator's own free memory.
        unsafe {
            unsafe extern "C" {
                fn malloc_trim(pad: usize) -> i32;
            }
            malloc_trim(0);
        }
    }
}

#[cfg(test)]
mod tests;
