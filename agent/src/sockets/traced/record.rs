//! What the programs of `bpf/sockets.bpf.c` write: one layout for the iterator, the ring and the map.
//!
//! Integers are native, addresses in network order. A record that is shorter than its layout is none; a longer one
//! is of a later program and read as far as it is known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shared_model::{Direction, TransportProtocol};

use crate::sockets::netlink::{double_word, half_word, word};
use crate::sockets::socket::{Counters, Socket};

/// Length of a record.
pub const RECORD_BYTES: usize = 96;
/// Length of a key of the map: cookie, process id, padding.
pub const KEY_BYTES: usize = 16;

/// A socket and a process that holds it, or held it when it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The process; 0: nobody is known.
    pub pid: u32,
    /// When it began, ns since the boot.
    pub start_ns: u64,
    /// Inode of the socket's network namespace.
    pub namespace: u32,
    /// The socket; its inode and user are unknown and 0.
    pub socket: Socket,
    /// Which side opened it, where that was seen.
    pub direction: Option<Direction>,
    /// An iterator has shown it before its end.
    pub is_listed: bool,
}

/// Reads a record. `None`: not one, or of no socket that is of interest.
pub fn parse(bytes: &[u8]) -> Option<Record> {
    let bytes = bytes.get(..RECORD_BYTES)?;
    let protocol = match bytes[89] {
        6 => TransportProtocol::Tcp,
        17 => TransportProtocol::Udp,
        _ => return None,
    };
    let (received, sent) = (double_word(bytes, 24)?, double_word(bytes, 32)?);
    let retransmits = double_word(bytes, 40).filter(|_| protocol == TransportProtocol::Tcp);
    Some(Record {
        pid: word(bytes, 4)?,
        start_ns: double_word(bytes, 8)?,
        namespace: word(bytes, 48)?,
        socket: Socket {
            cookie: double_word(bytes, 16)?,
            inode: 0,
            uid: 0,
            protocol,
            state: bytes[90],
            local_address: address(bytes[88], &bytes[52..68])?,
            local_port: half_word(bytes, 84)?,
            remote_address: address(bytes[88], &bytes[68..84])?,
            remote_port: half_word(bytes, 86)?,
            counters: Counters { received: Some(received), sent: Some(sent), retransmits },
        },
        direction: match bytes[91] {
            1 => Some(Direction::Outbound),
            2 => Some(Direction::Inbound),
            _ => None,
        },
        is_listed: bytes[92] != 0,
    })
}

/// IPv4 in the first four bytes; a mapped one as what it is.
fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    let all = <[u8; 16]>::try_from(bytes).ok()?;
    match family {
        2 => Some(Ipv4Addr::new(all[0], all[1], all[2], all[3]).into()),
        10 => Some(Ipv6Addr::from(all).to_canonical()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_field_is_where_the_program_puts_it() {
        let mut bytes = vec![0; RECORD_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &96_u32.to_ne_bytes());
        put(4, &4711_u32.to_ne_bytes());
        for (at, value) in [(8, 5_u64), (16, 6), (24, 7), (32, 8), (40, 9)] {
            put(at, &value.to_ne_bytes());
        }
        put(48, &10_u32.to_ne_bytes());
        put(62, &[0xff, 0xff, 10, 0, 0, 1]);
        put(83, &[2]);
        put(84, &443_u16.to_ne_bytes());
        put(86, &5000_u16.to_ne_bytes());
        put(88, &[10, 6, 1, 2, 1]);
        let record = parse(&bytes).unwrap();
        assert_eq!((record.pid, record.start_ns, record.namespace), (4711, 5, 10));
        assert_eq!((record.direction, record.is_listed), (Some(Direction::Inbound), true));
        let socket = &record.socket;
        assert_eq!((socket.cookie, socket.state), (6, 1));
        assert_eq!(socket.local_address, IpAddr::from([10, 0, 0, 1]));
        assert_eq!(socket.remote_address, IpAddr::from([0, 0, 0, 0, 0, 0, 0, 2_u16]));
        assert_eq!((socket.local_port, socket.remote_port), (443, 5000));
        let counters = Counters { received: Some(7), sent: Some(8), retransmits: Some(9) };
        assert_eq!(socket.counters, counters);
        bytes[89] = 17;
        assert_eq!(parse(&bytes).unwrap().socket.counters.retransmits, None);
        bytes[89] = 1;
        assert_eq!(parse(&bytes), None);
        assert_eq!(parse(&bytes[..95]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&bytes);
        }
    }
}
