//! Taskstats: what every thread used, told by the kernel at its end (`include/uapi/linux/taskstats.h`).
//!
//! Generic netlink, registered for every CPU; needs `CAP_NET_ADMIN` in the initial namespaces. The structure
//! grows at its end and carries its version: 8 is Linux 3.10, 12 brought the process that a thread
//! is of, and the mark of its last one. Version 15 (Linux 6.14) alone has fields inserted in its middle, which 16 took
//! back: it is not read.
//!
//! A record is made before the thread gives its memory back, and without what it ran since the scheduler looked last
//! (at most a tick of the timer): of a process that lives for a millisecond about a third is in it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::netlink;

use crate::bpf::records::{Comm, Used};
use crate::sockets::netlink::{Message, Netlink, attributes, buffer, double_word, half_word, word};

/// What the kernel may queue between two looks: about 10,000 records.
const QUEUE_BYTES: usize = 16 << 20;
/// `GENL_ID_CTRL`.
const CONTROLLER: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const TASKSTATS_CMD_GET: u8 = 1;
const TASKSTATS_CMD_ATTR_PID: u16 = 1;
const TASKSTATS_CMD_ATTR_REGISTER_CPUMASK: u16 = 3;
const TASKSTATS_TYPE_STATS: u16 = 3;
const TASKSTATS_TYPE_AGGR_PID: u16 = 4;
const TASKSTATS_TYPE_AGGR_TGID: u16 = 5;
/// Bytes of a generic netlink header.
const HEADER_BYTES: usize = 4;
/// `AGROUP`: the last thread of its process.
const LAST_OF_GROUP: u8 = 0x20;
/// The version that tells the process of a thread.
const FIRST_WITH_GROUP: u16 = 12;
/// The version with another layout.
const OTHER_LAYOUT: u16 = 15;

/// The socket.
#[derive(Debug)]
pub(super) struct Taskstats {
    netlink: Netlink,
    family: u16,
    /// Records name the process of a thread.
    pub(super) knows_processes: bool,
    buffer: Vec<u8>,
}

/// One thread's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub tid: u32,
    /// Its process, and whether it was the last of it; `None` before version 12.
    pub group: Option<(u32, bool)>,
    /// It was the last one of a process that had several: CPU of them all as far as the kernel summed it, ns.
    pub group_runtime_ns: Option<u64>,
    /// Parent of its process.
    pub parent_pid: u32,
    /// Real user.
    pub user_id: u32,
    /// Up to the first NUL.
    pub comm: Comm,
    /// As wait(2) gives it; of first threads only.
    pub status: u32,
    /// From its start to this record, µs.
    pub elapsed_us: u64,
    /// What it used.
    pub used: Used,
    /// The run-queue delay is known.
    pub has_delay: bool,
    /// Most memory its process had resident at a time, bytes; 0 of kernel threads.
    pub peak_bytes: u64,
}

impl Taskstats {
    /// Registers for the CPUs `cpus`, a list such as `0-3`.
    pub(super) fn open(cpus: &str) -> io::Result<Self> {
        let mut netlink = Netlink::listen(netlink::GENERIC, 0, QUEUE_BYTES)?;
        let mut buffer = buffer();
        let name = attribute(CTRL_ATTR_FAMILY_NAME, b"TASKSTATS\0");
        let question = [&[CTRL_CMD_GETFAMILY, 1, 0, 0], &name[..]].concat();
        let mut family = None;
        netlink.ask(CONTROLLER, &question, &mut buffer, |message| {
            let mut found = attributes(message.payload.get(HEADER_BYTES..).unwrap_or_default());
            let id = found.find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
            family = id.and_then(|(_, value)| half_word(value, 0)).or(family);
        })?;
        let family = family.ok_or_else(|| io::Error::other("the kernel has no taskstats"))?;
        let mask = [cpus.as_bytes(), b"\0"].concat();
        let mask = attribute(TASKSTATS_CMD_ATTR_REGISTER_CPUMASK, &mask);
        let question = [&[TASKSTATS_CMD_GET, 1, 0, 0], &mask[..]].concat();
        netlink.ask(family, &question, &mut buffer, |_| {})?;
        let own = attribute(TASKSTATS_CMD_ATTR_PID, &std::process::id().to_ne_bytes());
        let question = [&[TASKSTATS_CMD_GET, 1, 0, 0], &own[..]].concat();
        let mut record = None;
        netlink.ask(family, &question, &mut buffer, |message| {
            record = parse(message.payload).or(record);
        })?;
        let record = record.ok_or_else(|| io::Error::other("another version of taskstats"))?;
        Ok(Self { netlink, family, knows_processes: record.group.is_some(), buffer })
    }

    /// Hands over every record there is. Returns how often the kernel said that it dropped some.
    pub(super) fn drain(&mut self, mut take: impl FnMut(Record)) -> io::Result<u64> {
        let family = self.family;
        self.netlink.drain(&mut self.buffer, |Message { kind, payload, .. }| {
            if kind == family
                && let Some(record) = parse(payload)
            {
                take(record);
            }
        })
    }
}

impl AsFd for Taskstats {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}

/// One message, from its generic netlink header on. `None`: no record, or of a layout that is not known.
pub fn parse(payload: &[u8]) -> Option<Record> {
    let (mut stats, mut group_runtime_ns) = (None, None);
    for (kind, value) in attributes(payload.get(HEADER_BYTES..)?) {
        let inner = attributes(value).find(|(kind, _)| *kind == TASKSTATS_TYPE_STATS);
        match (kind, inner) {
            (TASKSTATS_TYPE_AGGR_PID, Some((_, inner))) => stats = Some(inner),
            (TASKSTATS_TYPE_AGGR_TGID, Some((_, inner))) => {
                group_runtime_ns = double_word(inner, RUNTIME_AT);
            }
            _ => {}
        }
    }
    let mut record = thread(stats?)?;
    record.group_runtime_ns = group_runtime_ns;
    Some(record)
}

/// Offset of `cpu_run_virtual_total`.
const RUNTIME_AT: usize = 72;

fn thread(stats: &[u8]) -> Option<Record> {
    let version = half_word(stats, 0)?;
    if version == OTHER_LAYOUT {
        return None;
    }
    let flags = *stats.get(8)?;
    let group = if version >= FIRST_WITH_GROUP {
        Some((word(stats, 368)?, flags & LAST_OF_GROUP != 0))
    } else {
        None
    };
    let at = |offset| double_word(stats, offset);
    let (user_ns, system_ns) = (at(152)?.saturating_mul(1000), at(160)?.saturating_mul(1000));
    // Zero where the kernel accounts no delays.
    let exact = at(RUNTIME_AT)?;
    let sampled = user_ns.saturating_add(system_ns);
    let mut comm = Comm::default();
    comm.0.copy_from_slice(stats.get(80..96)?);
    Some(Record {
        tid: word(stats, 128)?,
        group,
        group_runtime_ns: None,
        parent_pid: word(stats, 132)?,
        user_id: word(stats, 120)?,
        comm,
        status: word(stats, 4)?,
        elapsed_us: at(144)?,
        used: Used {
            runtime_ns: if exact > 0 { exact } else { sampled },
            user_ns,
            system_ns,
            run_delay_ns: at(24)?,
            switches_voluntary: at(272)?,
            switches_involuntary: at(280)?,
            faults_minor: at(168)?,
            faults_major: at(176)?,
            read_bytes: at(248)?,
            write_bytes: at(256)?,
            cancelled_write_bytes: at(264)?,
        },
        has_delay: at(16)? > 0,
        peak_bytes: at(200)?.saturating_mul(1024),
    })
}

/// One attribute, padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A structure of `version` with `length` bytes whose every 64 bits tell their offset.
    fn stats(version: u16, length: usize) -> Vec<u8> {
        let mut stats: Vec<u8> = (0..length as u64).step_by(8).flat_map(u64::to_ne_bytes).collect();
        stats[..2].copy_from_slice(&version.to_ne_bytes());
        stats[8] = LAST_OF_GROUP;
        stats[80..96].copy_from_slice(b"sleep\0\0\0\0\0\0\0\0\0\0\0");
        stats[128..136].copy_from_slice(&[7, 0, 0, 0, 3, 0, 0, 0]);
        stats
    }

    fn message(aggregates: &[(u16, &[u8])]) -> Vec<u8> {
        let mut payload = vec![2, 1, 0, 0];
        for (kind, stats) in aggregates {
            let inner = [attribute(1, &[7, 0, 0, 0]), attribute(TASKSTATS_TYPE_STATS, stats)];
            payload.extend(attribute(*kind, &inner.concat()));
        }
        payload
    }

    #[test]
    fn versions_differ_in_what_they_tell() {
        let old = parse(&message(&[(TASKSTATS_TYPE_AGGR_PID, &stats(8, 328))])).unwrap();
        assert_eq!((old.tid, old.parent_pid, old.group), (7, 3, None));
        assert_eq!((old.comm.bytes(), old.elapsed_us), (&b"sleep"[..], 144));
        assert_eq!((old.used.runtime_ns, old.used.user_ns), (72, 152_000));
        assert_eq!((old.used.read_bytes, old.peak_bytes), (248, 200 * 1024));
        let both = stats(14, 432);
        let both = [(TASKSTATS_TYPE_AGGR_PID, &both[..]), (TASKSTATS_TYPE_AGGR_TGID, &both[..])];
        let new = parse(&message(&both)).unwrap();
        assert_eq!((new.group, new.group_runtime_ns), (Some((368, true)), Some(72)));
        let shifted = message(&[(TASKSTATS_TYPE_AGGR_PID, &stats(15, 600))]);
        assert_eq!(parse(&shifted), None);
        assert_eq!(parse(&message(&[(TASKSTATS_TYPE_AGGR_PID, &stats(12, 328))])), None);
    }

    #[test]
    fn without_delay_accounting_time_is_what_the_timer_saw() {
        let mut stats = stats(8, 328);
        stats[16..80].fill(0);
        let record = parse(&message(&[(TASKSTATS_TYPE_AGGR_PID, &stats)])).unwrap();
        assert_eq!((record.used.runtime_ns, record.has_delay), (312_000, false));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
            let _ = parse(&message(&[(TASKSTATS_TYPE_AGGR_PID, &bytes)]));
        }
    }
}
