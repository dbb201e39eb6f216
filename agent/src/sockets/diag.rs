//! `NETLINK_SOCK_DIAG`: every TCP and UDP socket of one network namespace.
//!
//! Layout: `include/uapi/linux/{inet_diag,tcp}.h`. `tcp_info` only ever grows at its end, so that its length
//! says which fields there are: Linux 3.10 ends before any byte counter, 4.1 brought `bytes_acked` and
//! `bytes_received`, 4.19 `bytes_sent` and `bytes_retrans`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netlink::{attributes, double_word, word};
use super::socket::{Counters, Socket};
use shared_model::TransportProtocol;

/// `SOCK_DIAG_BY_FAMILY`.
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY` as a mask of groups (Linux 4.4+).
pub(super) const TCP_DESTROY_GROUPS: u32 = 1 << 0 | 1 << 2;
/// `AF_INET` and `AF_INET6`.
pub(super) const FAMILIES: [u8; 2] = [2, 10];

const INET_DIAG_INFO: u16 = 2;
const TCP_ESTABLISHED: u8 = 1;
const TCP_TIME_WAIT: u8 = 6;
/// See [`Socket::state`].
pub(super) const TCP_CLOSE: u8 = 7;
/// See [`Socket::state`].
pub(super) const TCP_LISTEN: u8 = 10;
/// The states in which the other end's FIN has arrived: `bytes_received` counts it as a byte.
const AFTER_FIN: [u8; 3] = [8, 9, 11];

/// What to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// TCP sockets that listen, without counters.
    Listening,
    /// TCP connections with counters, those without a process any more included; neither half-open ones nor
    /// those in `TIME_WAIT`, which have no counters and no process.
    Connections,
    /// UDP sockets. The kernel has no byte counters of them.
    Udp,
}

/// The body of a request (`inet_diag_req_v2`).
pub(super) fn request(family: u8, what: What) -> [u8; 56] {
    let connections =
        1 << TCP_ESTABLISHED | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 11;
    let (protocol, extensions, states): (u8, u8, u32) = match what {
        What::Listening => (6, 0, 1 << TCP_LISTEN),
        What::Connections => (6, 1 << (INET_DIAG_INFO - 1), connections),
        What::Udp => (17, 0, u32::MAX),
    };
    let mut request = [0; 56];
    request[0] = family;
    request[1] = protocol;
    request[2] = extensions;
    request[4..8].copy_from_slice(&states.to_ne_bytes());
    request
}

/// One message (`inet_diag_msg` and attributes) of an answer about `protocol`. `None`: not such a message,
/// or a remnant without counters (`TIME_WAIT`).
pub fn parse(protocol: TransportProtocol, payload: &[u8]) -> Option<Socket> {
    let (&family, &state) = (payload.first()?, payload.get(1)?);
    let local_address = address(family, payload.get(8..24)?)?;
    let remote_address = address(family, payload.get(24..40)?)?;
    let cookie = u64::from(word(payload, 44)?) | u64::from(word(payload, 48)?) << 32;
    let (uid, inode) = (word(payload, 64)?, word(payload, 68)?);
    let info = attributes(payload.get(72..)?)
        .find(|(kind, _)| *kind == INET_DIAG_INFO)
        .map(|(_, value)| value);
    let is_remnant = info.is_none() && inode == 0;
    if protocol == TransportProtocol::Tcp && (state == TCP_TIME_WAIT || is_remnant) {
        return None;
    }
    Some(Socket {
        cookie,
        inode,
        uid,
        protocol,
        state,
        local_address,
        local_port: port(payload, 4)?,
        remote_address,
        remote_port: port(payload, 6)?,
        counters: info.map_or_else(Counters::default, |info| counters(info, state)),
    })
}

/// The byte counters of a `tcp_info`, as far as this kernel has them.
pub fn counters(info: &[u8], state: u8) -> Counters {
    let received = double_word(info, 128);
    let fin = u64::from(AFTER_FIN.contains(&state));
    let sent = match (double_word(info, 200), double_word(info, 208)) {
        (Some(sent), Some(again)) => Some(sent.saturating_sub(again)),
        // Counts the handshake of an outgoing connection as one byte: that is all it is wrong by.
        _ => double_word(info, 120),
    };
    Counters {
        received: received.map(|bytes| bytes.saturating_sub(fin)),
        sent,
        retransmits: word(info, 100).map(u64::from),
    }
}

/// An address in network order, IPv4 in the first four bytes; a mapped one as what it is.
fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        2 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?).into()),
        10 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()),
        _ => None,
    }
}

fn port(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A `tcp_info` of `length` bytes in which every counter has a value of its own.
    fn info(length: usize) -> Vec<u8> {
        let mut info = vec![0; 248];
        info[100..104].copy_from_slice(&3_u32.to_ne_bytes());
        for (at, value) in [(120, 1001_u64), (128, 501), (200, 1100), (208, 100)] {
            info[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        info.truncate(length);
        info
    }

    fn message(family: u8, state: u8, addresses: [[u8; 16]; 2], info: Option<&[u8]>) -> Vec<u8> {
        let mut bytes = vec![family, state, 0, 0, 0x1f, 0x90, 0x01, 0xbb];
        bytes.extend_from_slice(&addresses.concat());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&0x8877_6655_u32.to_ne_bytes());
        bytes.extend_from_slice(&0x44_u32.to_ne_bytes());
        bytes.extend_from_slice(&[0; 12]);
        bytes.extend_from_slice(&33_u32.to_ne_bytes());
        bytes.extend_from_slice(&4711_u32.to_ne_bytes());
        assert_eq!(bytes.len(), 72);
        if let Some(info) = info {
            let length = u16::try_from(info.len() + 4).unwrap();
            bytes.extend_from_slice(&length.to_ne_bytes());
            bytes.extend_from_slice(&INET_DIAG_INFO.to_ne_bytes());
            bytes.extend_from_slice(info);
        }
        bytes
    }

    #[test]
    fn a_kernel_without_a_counter_has_null_not_zero() {
        let check = |length, received, sent, retransmits| {
            let expected = Counters { received, sent, retransmits };
            assert_eq!(counters(&info(length), TCP_ESTABLISHED), expected, "{length} bytes");
        };
        // Linux 3.10 (CentOS 7), 4.1, 4.19, now; and one cut within a field.
        check(104, None, None, Some(3));
        check(136, Some(501), Some(1001), Some(3));
        check(216, Some(501), Some(1000), Some(3));
        check(248, Some(501), Some(1000), Some(3));
        check(134, None, Some(1001), Some(3));
        check(0, None, None, None);
        assert_eq!(counters(&info(248), 8).received, Some(500), "a FIN is no payload");
    }

    #[test]
    fn mapped_addresses_are_what_they_are() {
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
        let mut six = [0; 16];
        six[15] = 1;
        let bytes = message(10, TCP_ESTABLISHED, [mapped, six], Some(&info(104)));
        let socket = parse(TransportProtocol::Tcp, &bytes).unwrap();
        assert_eq!(socket.local_address, IpAddr::from([10, 0, 0, 1]));
        assert_eq!(socket.remote_address, IpAddr::V6(Ipv6Addr::LOCALHOST));
        assert_eq!((socket.local_port, socket.remote_port), (8080, 443));
        assert_eq!((socket.cookie, socket.inode, socket.uid), (0x44_8877_6655, 4711, 33));
        let bytes = message(
            2,
            TCP_ESTABLISHED,
            [[127, 0, 0, 1, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0]; 2],
            None,
        );
        let socket = parse(TransportProtocol::Udp, &bytes).unwrap();
        assert_eq!(socket.local_address, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(socket.counters, Counters::default());
        assert_eq!(parse(TransportProtocol::Tcp, &bytes[..71]), None);
        assert_eq!(parse(TransportProtocol::Tcp, &message(1, 1, [six; 2], None)), None);
        assert_eq!(parse(TransportProtocol::Tcp, &message(2, TCP_TIME_WAIT, [six; 2], None)), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes: Vec<u8>, state: u8) {
            let _ = parse(TransportProtocol::Tcp, &bytes);
            let _ = counters(&bytes, state);
        }
    }
}
