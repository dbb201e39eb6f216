//! The addresses of this host, in all of its network namespaces: what is not among them is outside.
//!
//! `RTM_GETADDR` of rtnetlink; layout: `include/uapi/linux/if_addr.h`.

use std::io;
use std::net::IpAddr;

use shared_model::ConnectionScope;

use super::netlink::{Netlink, attributes};

const RTM_GETADDR: u16 = 22;
const RTM_NEWADDR: u16 = 20;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

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
