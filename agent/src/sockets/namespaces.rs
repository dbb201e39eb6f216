//! Network namespaces: which there are, and sockets in them.
//!
//! A namespace is known by the inode of `/proc/<pid>/ns/net` of the processes in it. The link of a process
//! is read in the ticks of its first [`SETTLED_AFTER`] (programs change their namespace right after their start), and
//! with all others every [`ALL_AFTER`] ticks.
//!
//! A netlink socket stays in the namespace it was opened in, and keeps that namespace alive: so sockets are
//! kept for the agent's own namespace only. For any other a thread of its own enters it
//! (`setns`), opens two sockets and ends; they are closed when the namespace has been read. That thread
//! is the only one that ever leaves the agent's namespace.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, readlinkat_raw};
use rustix::net::netlink::SOCK_DIAG;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use shared_model::InstanceId;

use super::Process;
use super::netlink::Netlink;
use crate::metrics::NAMESPACES_SHED;
use crate::procfs::parse_u64;

/// A process this old, twice looked at, is taken to stay where it is.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// Ticks between two looks at all processes.
const ALL_AFTER: u32 = 10;
/// Namespaces read in one tick.
pub(super) const MAX_NAMESPACES: usize = 512;

/// Which namespaces there are.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    tick: u32,
    of_process: HashMap<u32, Known>,
    /// Whether most links may not be read.
    pub(super) is_denied: bool,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    instance_id: InstanceId,
    namespace: Option<u32>,
    /// When it was seen first.
    since: Duration,
    /// How often its link was read.
    reads: u32,
}

/// One namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Namespace {
    /// Its inode.
    pub(super) id: u32,
    /// Where to enter it: the link of one of its processes.
    pub(super) link: PathBuf,
    /// None of its processes was seen in it before.
    pub(super) is_new: bool,
}

/// The two sockets that a namespace is read through.
#[derive(Debug)]
pub(super) struct Doors {
    /// `NETLINK_SOCK_DIAG`.
    pub(super) diag: Netlink,
    /// `NETLINK_ROUTE`.
    pub(super) route: Netlink,
}

impl Namespaces {
    /// The namespaces of all processes, the one of the lowest process id first.
    pub(super) fn list(
        &mut self,
        proc: &Path,
        processes: &[Process],
        now: Duration,
    ) -> Vec<Namespace> {
        self.tick = self.tick.wrapping_add(1);
        let read_all = self.tick.is_multiple_of(ALL_AFTER);
        let mut before = std::mem::take(&mut self.of_process);
        let mut found: HashMap<u32, Namespace> = HashMap::new();
        let mut order = Vec::new();
        let (mut read, mut denied) = (0_usize, 0_usize);
        for process in processes {
            let known = before
                .remove(&process.pid)
                .filter(|known| known.instance_id == process.instance_id);
            let link = proc.join(process.pid.to_string()).join("ns/net");
            let instance_id = process.instance_id;
            let mut current =
                known.unwrap_or(Known { instance_id, namespace: None, since: now, reads: 0 });
            let is_settled =
                current.reads >= 2 && now.saturating_sub(current.since) >= SETTLED_AFTER;
            if !is_settled || read_all {
                match read_link(&link) {
                    Ok(namespace) => current.namespace = namespace,
                    Err(error) => {
                        let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
                        denied += usize::from(is_denied);
                    }
                }
                current.reads = current.reads.saturating_add(1);
                read += 1;
            }
            self.of_process.insert(process.pid, current);
            let Some(id) = current.namespace else { continue };
            let namespace = found.entry(id).or_insert_with(|| {
                order.push(id);
                Namespace { id, link, is_new: true }
            });
            namespace.is_new &= known.is_none_or(|known| known.namespace != Some(id));
        }
        if read > 0 {
            self.is_denied = denied * 2 > read;
        }
        if order.len() > MAX_NAMESPACES {
            NAMESPACES_SHED.add((order.len() - MAX_NAMESPACES) as u64);
            order.truncate(MAX_NAMESPACES);
        }
        order.into_iter().filter_map(|id| found.remove(&id)).collect()
    }
}

impl Doors {
    /// In the namespace of the calling thread.
    pub(super) fn open_here() -> io::Result<Self> {
        Ok(Self { diag: Netlink::open(Some(SOCK_DIAG))?, route: Netlink::open(None)? })
    }

    /// In the namespace behind `link`.
    pub(super) fn open_at(link: &Path) -> io::Result<Self> {
        let file = File::open(link)?;
        let enter_and_open = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Self::open_here()
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("enter-netns".into());
            let opened = thread.spawn_scoped(scope, enter_and_open)?.join();
            opened.unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        })
    }
}

/// The namespace that a link names. `None`: it names something else.
pub(super) fn read_link(link: &Path) -> io::Result<Option<u32>> {
    let mut target = [0_u8; 64];
    let length = readlinkat_raw(CWD, link, &mut target[..])?;
    Ok(target.get(..length).and_then(parse_link))
}

/// The inode of `net:[4026531840]`.
pub fn parse_link(target: &[u8]) -> Option<u32> {
    let number = target.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    u32::try_from(parse_u64(number)?).ok()
}
