//! The addresses of this host, in all of its network namespaces: what is not among them is outside.
//!
//! `RTM_GETADDR` of rtnetlink; layout: `include/uapi/linux/if_addr.h`.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;

use shared_model::ConnectionScope;

use super::namespaces::{Doors, Namespace, read_link};
use super::netlink::{Netlink, attributes, buffer};
use crate::metrics::NAMESPACES_UNREAD;

const RTM_GETADDR: u16 = 22;
const RTM_NEWADDR: u16 = 20;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// Ticks between two looks at namespaces other than the agent's.
const FOREIGN_AFTER: u32 = 10;

/// The addresses of all namespaces. For those who do not enter every namespace in every tick anyway: others
/// than the agent's are looked at when there are new ones, and every [`FOREIGN_AFTER`] ticks.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    own: Option<(u32, Netlink)>,
    buffer: Vec<u8>,
    foreign: HashMap<u32, HashSet<IpAddr>>,
    tick: u32,
}

impl Addresses {
    pub(super) fn read(&mut self, namespaces: &[Namespace]) -> HashSet<IpAddr> {
        if self.own.is_none() {
            let own = read_link(Path::new("/proc/self/ns/net")).ok().flatten();
            self.own = own.zip(Netlink::open(None).ok());
            self.buffer = buffer();
        }
        let mut all = HashSet::new();
        if let Some((_, route)) = &mut self.own {
            read_into(&mut all, route, &mut self.buffer);
        }
        let own = self.own.as_ref().map(|(id, _)| *id);
        self.tick = self.tick.wrapping_add(1);
        let mut before = std::mem::take(&mut self.foreign);
        // What ended with its namespace was within the host too.
        all.extend(before.values().flatten());
        for namespace in namespaces.iter().filter(|namespace| Some(namespace.id) != own) {
            let known = before.remove(&namespace.id);
            let known = known.filter(|_| !self.tick.is_multiple_of(FOREIGN_AFTER));
            let addresses = known.unwrap_or_else(|| {
                let mut addresses = HashSet::new();
                match Doors::open_at(&namespace.link) {
                    Ok(mut doors) => {
                        read_into(&mut addresses, &mut doors.route, &mut self.buffer);
                    }
                    Err(_) => NAMESPACES_UNREAD.add(1),
                }
                addresses
            });
            all.extend(&addresses);
            self.foreign.insert(namespace.id, addresses);
        }
        all
    }
}

fn read_into(addresses: &mut HashSet<IpAddr>, route: &mut Netlink, buffer: &mut [u8]) {
    let read = list(route, buffer, |address| {
        addresses.insert(address);
    });
    if let Err(error) = read {
        tracing::debug!(%error, "the addresses of a network namespace were not read");
    }
}

/// Calls `each` with every address of the socket's namespace.
pub(super) fn list(
    route: &mut Netlink,
    buffer: &mut [u8],
    mut each: impl FnMut(IpAddr),
) -> io::Result<()> {
    route.dump(RTM_GETADDR, &[0; 8], buffer, |message| {
        if message.kind == RTM_NEWADDR
            && let Some(address) = parse(message.payload)
        {
            each(address);
        }
    })
}

/// The address of one message (`ifaddrmsg` and attributes). On a point-to-point link `IFA_ADDRESS` is the
/// other end and `IFA_LOCAL` this one.
pub fn parse(payload: &[u8]) -> Option<IpAddr> {
    let find = |wanted| attributes(payload.get(8..)?).find(|(kind, _)| *kind == wanted);
    let (_, value) = find(IFA_LOCAL).or_else(|| find(IFA_ADDRESS))?;
    match *value {
        [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
        _ => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
    }
}

/// How far what a socket sends travels. `is_ours` says whether an address belongs to this host.
pub(super) fn scope(
    local: IpAddr,
    remote: IpAddr,
    is_ours: impl Fn(IpAddr) -> bool,
) -> Option<ConnectionScope> {
    if remote.is_unspecified() {
        // A socket without a peer speaks to anyone; bound to a loopback address, only within.
        return local.is_loopback().then_some(ConnectionScope::Loopback);
    }
    Some(if remote.is_loopback() || remote == local {
        ConnectionScope::Loopback
    } else if is_ours(remote) {
        ConnectionScope::Local
    } else {
        ConnectionScope::External
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(pairs: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![2, 24, 0, 0, 1, 0, 0, 0];
        for (kind, value) in pairs {
            bytes.extend_from_slice(&u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(value);
        }
        bytes
    }

    #[test]
    fn this_end_of_a_link_is_ours() {
        let own = IpAddr::from([10, 0, 0, 1]);
        let other_end: &[u8] = &[10, 0, 0, 2];
        let check = |pairs: &[(u16, &[u8])], expected| assert_eq!(parse(&message(pairs)), expected);
        check(&[(1, other_end), (2, &[10, 0, 0, 1])], Some(own));
        check(&[(1, &[10, 0, 0, 1])], Some(own));
        check(&[(1, &[0; 16])], Some(IpAddr::from([0_u16; 8])));
        check(&[(1, &[0; 5])], None);
        check(&[(3, b"eth0")], None);
        assert_eq!(parse(&[1, 2]), None);
    }

    #[test]
    fn scopes() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let ours = ["10.0.0.1", "10.0.0.2", "fd00::1"].map(address);
        let check = |local, remote, expected| {
            let found = scope(address(local), address(remote), |one| ours.contains(&one));
            assert_eq!(found, expected, "{local} to {remote}");
        };
        check("127.0.0.1", "127.0.0.2", Some(ConnectionScope::Loopback));
        check("10.0.0.1", "10.0.0.1", Some(ConnectionScope::Loopback));
        check("10.0.0.1", "10.0.0.2", Some(ConnectionScope::Local));
        check("fd00::1", "fd00::2", Some(ConnectionScope::External));
        check("0.0.0.0", "0.0.0.0", None);
        check("127.0.0.1", "0.0.0.0", Some(ConnectionScope::Loopback));
    }
}
