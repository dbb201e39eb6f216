//! `TCP_NODELAY` on the connections to the database.
//!
//! The driver writes `CopyData` and then the five bytes of `CopyDone` by two system calls and never
//! sets the option, so the kernel holds the second segment back until the first is acknowledged,
//! which the other side delays by up to 40 ms: per COPY. The driver neither has an option for it nor
//! tells its socket, so the socket is looked for: of this process, TCP, peer at the database's port.
//! A socket found by mistake merely gets the option too, which is what every part of this process wants.
//!
//! Limits: none needed for Unix sockets. A connection that is not found works as before, slowly.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::net::{getpeername, sockopt};

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Sockets with the wanted peer.
    pub sockets: usize,
    /// Those of them that did not have the option before.
    pub changed: usize,
}

/// Sets the option on every TCP socket of this process whose peer has `port`.
pub fn set_for_peers_at(port: u16) -> std::io::Result<Found> {
    let mut found = Found::default();
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(changed) = number.and_then(|number| set(number, port).ok().flatten()) {
            found.sockets += 1;
            found.changed += usize::from(changed);
        }
    }
    Ok(found)
}

/// Sets the option if descriptor `number` is such a socket; tells whether that changed anything.
#[expect(unsafe_code, reason = "the driver does not tell its socket")]
fn set(number: RawFd, port: u16) -> rustix::io::Result<Option<bool>> {
    // SAFETY: the number was just listed, so it is not -1, and it goes nowhere but into the system
    // calls below. Another thread may close it meanwhile, and even open something else under it; the
    // calls then fail, or set this harmless option on another socket with the same peer's port. No
    // memory depends on the descriptor, and nothing here reads, writes or closes it.
    let socket = unsafe { BorrowedFd::borrow_raw(number) };
    // Fails for what is no socket, or is not connected.
    let Some(peer) = getpeername(socket)? else { return Ok(None) };
    // Fails for addresses that are not of the Internet.
    if SocketAddr::try_from(peer)?.port() != port {
        return Ok(None);
    }
    let changed = !sockopt::tcp_nodelay(socket)?;
    sockopt::set_tcp_nodelay(socket, true)?;
    Ok(Some(changed))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn sockets_with_the_peer_are_found_and_others_left_alone() {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (ours, other) = (listen(), listen());
        let connect =
            |listener: &TcpListener| TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (a, b, c) = (connect(&ours), connect(&ours), connect(&other));
        assert!(!a.nodelay().unwrap() && !b.nodelay().unwrap());
        let port = ours.local_addr().unwrap().port();
        assert_eq!(set_for_peers_at(port).unwrap(), Found { sockets: 2, changed: 2 });
        assert_eq!(set_for_peers_at(port).unwrap(), Found { sockets: 2, changed: 0 });
        assert!(a.nodelay().unwrap() && b.nodelay().unwrap());
        assert!(!c.nodelay().unwrap());
        drop((a, b));
        assert_eq!(set_for_peers_at(port).unwrap().sockets, 0);
    }
}
