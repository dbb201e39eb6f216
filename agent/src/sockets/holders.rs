//! Which process holds which socket: `/proc/<pid>/fd`, read as rarely as possible.
//!
//! A socket's inode is looked for once. New inodes cause a search, which begins with the likeliest processes:
//! new ones (whose descriptors are read once anyway: what they inherited makes a socket shared), then
//! those that hold a socket of the same port, then those of the same user, then all others; it ends when
//! all are found or [`READLINKS_PER_TICK`] are spent; of these [`DATAGRAM_READLINKS_PER_TICK`] for UDP sockets of which only
//! the holder matters (one that asks a name server is gone before it is found). What was not found belongs to no process (in flight
//! between two, of the kernel) and is looked for again [`RETRY_AFTER`] ticks later.
//!
//! **A shared socket is counted once, for the lowest process id of those that hold it.** What is known of
//! holders can be outdated only in one way, a descriptor closed or passed on by a process that lives on: of
//! the sockets that moved bytes [`CHECKS_PER_TICK`] are looked at again in each tick.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::path::Arg;
use shared_model::InstanceId;

use super::Process;
use super::socket::Socket;
use crate::metrics::SOCKET_SEARCHES_CUT;
use crate::procfs::parse_u64;

/// Descriptors looked at in one tick.
const READLINKS_PER_TICK: usize = 300_000;
/// Of these, at most so many when only such UDP sockets are looked for, and for the first time.
const DATAGRAM_READLINKS_PER_TICK: usize = 4096;
/// Ticks after which an inode that no process holds is looked for again.
const RETRY_AFTER: u32 = 10;
/// Known holders checked in one tick.
const CHECKS_PER_TICK: usize = 256;
/// Holders remembered of one socket.
const MAX_HOLDERS: usize = 256;

/// Who holds the sockets.
#[derive(Debug, Default)]
pub(super) struct Holders {
    tick: u32,
    sockets: HashMap<u32, Held>,
    processes: HashMap<u32, InstanceId>,
    /// Those that appeared since the tick before.
    new: Vec<u32>,
    /// Inodes that must be looked for.
    missing: Vec<Missing>,
}

#[derive(Debug)]
struct Held {
    /// The lowest process id first; none: nobody was found.
    holders: Vec<Holder>,
    seen: u32,
    /// When it was looked for last.
    searched: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    pid: u32,
    descriptor: u32,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    inode: u32,
    uid: u32,
    port: u16,
    is_pressing: bool,
}

/// Whom a socket's bytes are counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) instance_id: InstanceId,
    /// Others hold it too.
    pub(super) shared: bool,
}

impl Holders {
    /// Begins a tick in which these processes live.
    pub(super) fn begin(&mut self, processes: &[Process]) {
        self.tick = self.tick.wrapping_add(1);
        self.new.clear();
        self.missing.clear();
        let alive: HashMap<u32, InstanceId> =
            processes.iter().map(|process| (process.pid, process.instance_id)).collect();
        let before = std::mem::replace(&mut self.processes, alive);
        let alive = &self.processes;
        let is_same = |pid: &u32| alive.get(pid).is_some_and(|id| before.get(pid) == Some(id));
        self.new.extend(alive.keys().filter(|pid| !is_same(pid)));
        self.new.sort_unstable();
        for held in self.sockets.values_mut() {
            held.keep(|holder| is_same(&holder.pid));
        }
    }

    /// Takes note of a socket that exists. `is_pressing`: its holder is worth a long search.
    pub(super) fn note(&mut self, socket: &Socket, is_pressing: bool) {
        let Socket { inode, uid, local_port: port, .. } = *socket;
        // Nobody's.
        if inode == 0 {
            return;
        }
        let tick = self.tick;
        let held = self.sockets.entry(inode).or_insert_with(|| Held {
            holders: Vec::new(),
            seen: 0,
            searched: 0,
        });
        let is_due = held.searched == 0 || tick.wrapping_sub(held.searched) >= RETRY_AFTER;
        if held.holders.is_empty() && is_due {
            let is_pressing = is_pressing || held.searched != 0;
            held.searched = tick;
            self.missing.push(Missing { inode, uid, port, is_pressing });
        }
        held.seen = tick;
    }

    /// Looks for the holders of all that were noted for the first time, and forgets what is gone.
    pub(super) fn resolve(&mut self, proc: &Path, ports: &HashMap<u16, HashSet<u32>>) {
        let tick = self.tick;
        self.sockets.retain(|_, held| held.seen == tick);
        let mut budget = READLINKS_PER_TICK;
        for pid in std::mem::take(&mut self.new) {
            self.scan(proc, pid, &mut budget);
        }
        self.missing.retain(|missing| {
            self.sockets.get(&missing.inode).is_some_and(|held| held.holders.is_empty())
        });
        if self.missing.is_empty() {
            return;
        }
        let mut left: HashMap<u32, bool> =
            self.missing.iter().map(|missing| (missing.inode, missing.is_pressing)).collect();
        for pid in self.candidates(proc, ports) {
            if left.is_empty() {
                return;
            }
            if !left.values().any(|is_pressing| *is_pressing) {
                budget = budget.min(DATAGRAM_READLINKS_PER_TICK);
            }
            if budget == 0 {
                SOCKET_SEARCHES_CUT.add(1);
                return;
            }
            self.scan(proc, pid, &mut budget);
            left.retain(|inode, _| {
                self.sockets.get(inode).is_some_and(|held| held.holders.is_empty())
            });
        }
    }

    /// All processes, the likeliest first.
    fn candidates(&self, proc: &Path, ports: &HashMap<u16, HashSet<u32>>) -> Vec<u32> {
        let wanted: HashSet<u16> = self.missing.iter().map(|missing| missing.port).collect();
        let users: HashSet<u32> = self.missing.iter().map(|missing| missing.uid).collect();
        let mut of_port: HashSet<u32> = HashSet::new();
        for port in wanted {
            let inodes = ports.get(&port).into_iter().flatten();
            let held = inodes.filter_map(|inode| self.sockets.get(inode));
            of_port.extend(held.flat_map(|held| held.holders.iter().map(|holder| holder.pid)));
        }
        let rank = |pid: &u32| {
            let is_of_user = || {
                let path = proc.join(pid.to_string());
                rustix::fs::stat(path).is_ok_and(|stat| users.contains(&stat.st_uid))
            };
            if of_port.contains(pid) { 0 } else { 2 - u8::from(is_of_user()) }
        };
        let mut all: Vec<u32> = self.processes.keys().copied().collect();
        all.sort_by_cached_key(|pid| (rank(pid), *pid));
        all
    }

    /// Reads the descriptors of one process.
    fn scan(&mut self, proc: &Path, pid: u32, budget: &mut usize) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = proc.join(pid.to_string()).join("fd");
        let Ok(directory) = openat(CWD, path, flags, Mode::empty()) else { return };
        let mut buffer = Vec::with_capacity(8 << 10);
        let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
        while let Some(Ok(entry)) = entries.next() {
            let Some(descriptor) = parse_u64(entry.file_name().to_bytes()) else { continue };
            if *budget == 0 {
                return;
            }
            *budget -= 1;
            let Some(inode) = socket_behind(&directory, entry.file_name()) else { continue };
            if let Some(held) = self.sockets.get_mut(&inode) {
                let descriptor = u32::try_from(descriptor).unwrap_or(u32::MAX);
                held.add(Holder { pid, descriptor });
            }
        }
    }

    /// Looks again at the holders of sockets that moved bytes, as far as the budget goes. Comes before
    /// [`Self::note`].
    pub(super) fn check(&mut self, proc: &Path, active: impl Iterator<Item = u32>) {
        let active: Vec<u32> = active.collect();
        // All in turn.
        let round = usize::try_from(self.tick).unwrap_or(0).wrapping_mul(CHECKS_PER_TICK);
        let from = round.checked_rem(active.len()).unwrap_or(0);
        let turn = active.iter().cycle().skip(from).take(CHECKS_PER_TICK.min(active.len()));
        for &inode in turn {
            let Some(held) = self.sockets.get_mut(&inode) else { continue };
            held.keep(|holder| {
                let path = proc.join(format!("{}/fd/{}", holder.pid, holder.descriptor));
                socket_behind(CWD, path) == Some(inode)
            });
        }
    }

    /// Whom the bytes of this inode are counted for.
    pub(super) fn owner(&self, inode: u32) -> Option<Owner> {
        let held = self.sockets.get(&inode)?;
        let first = held.holders.first()?;
        let instance_id = *self.processes.get(&first.pid)?;
        Some(Owner { instance_id, shared: held.holders.len() > 1 })
    }

    /// Every instance that holds this inode.
    pub(super) fn instances(&self, inode: u32) -> impl Iterator<Item = InstanceId> {
        self.pids(inode).filter_map(|pid| self.processes.get(&pid).copied())
    }

    /// Every process that holds this inode.
    pub(super) fn pids(&self, inode: u32) -> impl Iterator<Item = u32> {
        let holders = self.sockets.get(&inode).map(|held| held.holders.as_slice());
        holders.unwrap_or_default().iter().map(|holder| holder.pid)
    }
}

impl Held {
    fn add(&mut self, holder: Holder) {
        match self.holders.binary_search_by_key(&holder.pid, |holder| holder.pid) {
            Ok(at) => self.holders[at] = holder,
            Err(at) if self.holders.len() < MAX_HOLDERS => self.holders.insert(at, holder),
            Err(_) => {}
        }
    }

    /// Drops the other holders. One that lost its last may have been passed on: it is looked for at once.
    fn keep(&mut self, is_holder: impl FnMut(&Holder) -> bool) {
        let before = self.holders.len();
        self.holders.retain(is_holder);
        if self.holders.is_empty() && before > 0 {
            self.searched = 0;
        }
    }
}

fn socket_behind(directory: impl AsFd, path: impl Arg) -> Option<u32> {
    let mut target = [0_u8; 64];
    let length = readlinkat_raw(directory, path, &mut target[..]).ok()?;
    parse_socket(target.get(..length)?)
}

/// The inode of `socket:[4711]`.
pub fn parse_socket(target: &[u8]) -> Option<u32> {
    let number = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    u32::try_from(parse_u64(number)?).ok()
}
