//! Netlink: one socket, requests that list things, and the messages that answer.
//!
//! Layout: `include/uapi/linux/netlink.h`. All numbers are in the host's byte order. The parsers take any
//! bytes: what is cut short ends the iteration.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send,
    socket_with,
};

/// The kernel fills at most this much of a buffer at once.
const BUFFER_BYTES: usize = 32 << 10;
/// Longest the kernel may take to answer: it answers within the call that asks.
const PATIENCE: Duration = Duration::from_secs(5);
const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH`.
const DUMP_FLAGS: u16 = 0x301;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const ASK_FLAGS: u16 = 0x5;

/// One netlink socket. It stays in the network namespace it was opened in.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One message, header removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_seq`.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// A buffer for answers; one serves many sockets.
pub(crate) fn buffer() -> Vec<u8> {
    vec![0; BUFFER_BYTES]
}

impl Netlink {
    /// `protocol` `None` is `NETLINK_ROUTE`.
    pub(crate) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Opens a socket that receives the messages of multicast `groups`, and queues up to `bytes` of them.
    pub(crate) fn listen(protocol: Protocol, groups: u32, bytes: usize) -> io::Result<Self> {
        let listener = Self::open(Some(protocol))?;
        // Without CAP_NET_ADMIN it is the default size, and losses are counted as ever.
        if set_socket_recv_buffer_size_force(&listener.socket, bytes).is_err() {
            tracing::debug!(bytes, "the queue of notifications keeps its default size");
        }
        bind(&listener.socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(listener)
    }

    /// Lists everything that `request` asks for: calls `each` with every message of the answer.
    pub(super) fn dump(
        &mut self,
        kind: u16,
        request: &[u8],
        buffer: &mut [u8],
        each: impl FnMut(Message<'_>),
    ) -> io::Result<()> {
        self.send((kind, DUMP_FLAGS), request)?;
        self.receive(buffer, each)
    }

    /// Asks for one thing and waits until the kernel has done it: calls `each` with its answer.
    pub(crate) fn ask(
        &mut self,
        kind: u16,
        request: &[u8],
        buffer: &mut [u8],
        each: impl FnMut(Message<'_>),
    ) -> io::Result<()> {
        self.send((kind, ASK_FLAGS), request)?;
        self.receive(buffer, each)
    }

    /// Sends one message.
    pub(crate) fn send(&mut self, (kind, flags): (u16, u16), payload: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER_BYTES + payload.len()).unwrap_or(u32::MAX);
        let mut message = Vec::with_capacity(HEADER_BYTES + payload.len());
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&0_u32.to_ne_bytes());
        message.extend_from_slice(payload);
        send(&self.socket, &message, SendFlags::empty())?;
        Ok(())
    }

    /// The answer to the request sent last.
    fn receive(&mut self, buffer: &mut [u8], mut each: impl FnMut(Message<'_>)) -> io::Result<()> {
        loop {
            let (length, _) = match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            for message in messages(&buffer[..length.min(buffer.len())]) {
                // The rest of an answer that was given up.
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    // Number 0 is an acknowledgement.
                    NLMSG_ERROR if word(message.payload, 0) == Some(0) => return Ok(()),
                    NLMSG_ERROR => return Err(error_of(message.payload)),
                    _ => each(message),
                }
            }
        }
    }

    /// Calls `each` with every message that has arrived. Returns how often the kernel said that it dropped some.
    pub(crate) fn drain(
        &mut self,
        buffer: &mut [u8],
        mut each: impl FnMut(Message<'_>),
    ) -> io::Result<u64> {
        let mut overruns = 0;
        loop {
            match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    messages(&buffer[..length.min(buffer.len())]).for_each(&mut each);
                }
                Err(Errno::NOBUFS) => overruns += 1,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(overruns),
                Err(other) => return Err(other.into()),
            }
        }
    }
}

/// The `errno` of an error message.
fn error_of(payload: &[u8]) -> io::Error {
    let code = word(payload, 0).map_or(0, u32::cast_signed);
    io::Error::from_raw_os_error(code.wrapping_neg())
}

/// The messages in `bytes`.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::try_from(word(rest, 0)?).ok()?;
        let payload = rest.get(HEADER_BYTES..length)?;
        let message = Message { kind: half_word(rest, 4)?, sequence: word(rest, 8)?, payload };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`: type without its flags, and value.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(half_word(rest, 0)?);
        let value = rest.get(4..length)?;
        let kind = half_word(rest, 2)? & 0x3fff;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The 16 bits at `at`.
pub(crate) fn half_word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The 32 bits at `at`.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The 64 bits at `at`.
pub(crate) fn double_word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_cut_short_ends() {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&18_u32.to_ne_bytes());
        bytes.extend_from_slice(&20_u16.to_ne_bytes());
        bytes.extend_from_slice(&0_u16.to_ne_bytes());
        bytes.extend_from_slice(&7_u32.to_ne_bytes());
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes.extend_from_slice(&[1, 2, 0, 0]);
        let twice = [bytes.clone(), bytes].concat();
        let found: Vec<_> = messages(&twice).collect();
        assert_eq!(found, [Message { kind: 20, sequence: 7, payload: &[1, 2] }; 2]);
        assert_eq!(messages(&twice[..37]).count(), 1);
        assert_eq!(attributes(&[5, 0, 2, 0x80, 9, 0, 0, 0, 4, 0, 3, 0]).count(), 2);
        assert_eq!(attributes(&[3, 0, 0, 0]).count(), 0, "shorter than its own header");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes: Vec<u8>) {
            prop_assert!(messages(&bytes).count() <= bytes.len());
            prop_assert!(attributes(&bytes).count() <= bytes.len());
        }
    }

    #[test]
    fn a_request_that_the_kernel_refuses_says_why() {
        let mut netlink = Netlink::open(None).unwrap();
        // A kind that nobody serves: an error, or nothing at all.
        let refused = netlink.dump(999, &[0; 16], &mut buffer(), |_| ());
        assert!(refused.is_err(), "{refused:?}");
    }
}
