//! The process connector: who forks, executes and ends (`include/uapi/linux/cn_proc.h`). No totals.
//!
//! A multicast group of netlink that needs `CAP_NET_ADMIN`; a kernel may be built without.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::netlink;

use crate::sockets::netlink::{Netlink, buffer, double_word, word};

/// What the kernel may queue between two looks: some 10,000 events.
const QUEUE_BYTES: usize = 8 << 20;
/// `CN_IDX_PROC` and `CN_VAL_PROC`.
const PROCESSES: u32 = 1;
/// `PROC_CN_MCAST_LISTEN`.
const LISTEN: u32 = 1;
/// `NLMSG_DONE`.
const MESSAGE: u16 = 3;
/// Bytes of a `cn_msg`.
const HEADER_BYTES: usize = 20;
const ACKNOWLEDGED: u32 = 0;
const EXECUTED: u32 = 2;
const ENDED: u32 = 0x8000_0000;

/// The socket.
#[derive(Debug)]
pub(super) struct Connector {
    netlink: Netlink,
    buffer: Vec<u8>,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The kernel's answer to a listener: its `errno`, 0 if all is well.
    Acknowledged(u32),
    /// The process `pid` began to run another program.
    Executed {
        /// Which.
        pid: u32,
    },
    /// A thread ended.
    Ended {
        /// Its number.
        tid: u32,
        /// Its process.
        pid: u32,
        /// When, ns on the monotonic clock.
        at_ns: u64,
        /// As wait(2) gives it, if it was the one that decides.
        status: u32,
    },
}

impl Connector {
    /// Begins to listen.
    pub(super) fn open() -> io::Result<Self> {
        Self::with_queue(QUEUE_BYTES)
    }

    fn with_queue(bytes: usize) -> io::Result<Self> {
        let mut netlink = Netlink::listen(netlink::CONNECTOR, PROCESSES, bytes)?;
        let words = [PROCESSES, PROCESSES, 0, 0, 4, LISTEN];
        let request: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        netlink.send((MESSAGE, 0), &request)?;
        let mut connector = Self { netlink, buffer: buffer() };
        // A kernel without process events has the group, but never answers.
        let mut answer = None;
        connector.drain(|event| {
            if let Event::Acknowledged(error) = event {
                answer = Some(error);
            }
        })?;
        match answer {
            Some(0) => Ok(connector),
            Some(error) => Err(io::Error::from_raw_os_error(error.cast_signed())),
            None => Err(io::Error::other("the kernel has no process connector")),
        }
    }

    /// Hands over every event there is. Returns how often the kernel said that it dropped some.
    pub(super) fn drain(&mut self, mut take: impl FnMut(Event)) -> io::Result<u64> {
        self.netlink.drain(&mut self.buffer, |message| {
            if let Some(event) = parse(message.payload) {
                take(event);
            }
        })
    }
}

impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}

/// One message, from its `cn_msg` on. `None`: an event of another kind.
pub fn parse(payload: &[u8]) -> Option<Event> {
    if (word(payload, 0)?, word(payload, 4)?) != (PROCESSES, PROCESSES) {
        return None;
    }
    let event = payload.get(HEADER_BYTES..)?;
    match word(event, 0)? {
        ACKNOWLEDGED => Some(Event::Acknowledged(word(event, 16)?)),
        EXECUTED => Some(Event::Executed { pid: word(event, 20)? }),
        ENDED => Some(Event::Ended {
            tid: word(event, 16)?,
            pid: word(event, 20)?,
            at_ns: double_word(event, 8)?,
            status: word(event, 24)?,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u32, data: [u32; 4]) -> Vec<u8> {
        let head = [PROCESSES, PROCESSES, 0, 0, 40, kind, 3, 77, 0];
        head.into_iter().chain(data).flat_map(u32::to_ne_bytes).collect()
    }

    #[test]
    fn events_are_told_apart() {
        assert_eq!(parse(&message(EXECUTED, [11, 10, 0, 0])), Some(Event::Executed { pid: 10 }));
        let ended = Event::Ended { tid: 11, pid: 10, at_ns: 77, status: 0x100 };
        assert_eq!(parse(&message(ENDED, [11, 10, 0x100, 17])), Some(ended));
        assert_eq!(parse(&message(0, [1, 0, 0, 0])), Some(Event::Acknowledged(1)));
        assert_eq!(parse(&message(1, [1, 1, 2, 2])), None, "a fork");
        let mut other = message(EXECUTED, [11, 10, 0, 0]);
        other[0] = 9;
        assert_eq!(parse(&other), None);
    }

    #[test]
    fn events_that_nobody_read_in_time_are_said_to_be_lost() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let mut connector = Connector::with_queue(4096).unwrap();
        for _ in 0..100 {
            std::process::Command::new("true").status().unwrap();
        }
        let mut events = 0;
        let overruns = connector.drain(|_| events += 1).unwrap();
        assert!(overruns > 0 && events < 300, "{overruns} {events}");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }
    }
}
