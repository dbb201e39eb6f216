//! Tier B: every socket by `sock_diag`, namespace by namespace, and the ends of connections by its
//! multicast.
//!
//! Between two ticks the kernel queues a message for every TCP connection that ended in the agent's namespace
//! (Linux 4.4+), with its last counters: its last bytes are not lost, and belong to whoever held it in the
//! tick before. One that began and ended between two ticks was never seen with a holder: an incoming one
//! belongs to whoever listens on its port, an outgoing one to nobody. In other namespaces the ends
//! are not heard, for that would keep them alive (see [`super::namespaces`]).

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustix::net::netlink::SOCK_DIAG;
use shared_model::{InstanceId, TransportProtocol};

use super::assembly::{Assembly, Seen, Surroundings};
use super::diag::{self, What};
use super::holders::Holders;
use super::ledger::Ledger;
use super::namespaces::{self, Doors, Namespace, Namespaces};
use super::netlink::{self, Netlink};
use super::socket::{Counters, Socket};
use super::{NetworkUse, Options, Process, SocketsError, addresses, is_service};
use crate::metrics::{NAMESPACES_UNREAD, SOCKET_ENDS_LOST};

/// Queue of connections that ended: about 1 KiB each, memory only while they wait.
const ENDS_BYTES: usize = 32 << 20;

/// See the module.
pub(super) struct Listing {
    proc: PathBuf,
    own_namespace: Option<u32>,
    own: Option<Doors>,
    ends: Option<Netlink>,
    namespaces: Namespaces,
    holders: Holders,
    buffer: Vec<u8>,
    /// Namespaces that were read whole in the tick before.
    read: HashSet<u32>,
    /// The host's in the tick before.
    addresses: HashSet<IpAddr>,
    is_baseline: bool,
}

/// What one tick found.
#[derive(Default)]
struct Found {
    connections: Vec<Seen>,
    listeners: Vec<(u32, Socket)>,
    addresses: HashSet<IpAddr>,
    read: HashSet<u32>,
}

impl Listing {
    pub(super) fn new(proc: &Path) -> Self {
        Self {
            proc: proc.to_owned(),
            own_namespace: None,
            own: None,
            ends: None,
            namespaces: Namespaces::default(),
            holders: Holders::default(),
            buffer: netlink::buffer(),
            read: HashSet::new(),
            addresses: HashSet::new(),
            is_baseline: true,
        }
    }

    pub(super) fn read(
        &mut self,
        ledger: &mut Ledger,
        processes: &[Process],
        options: &Options,
    ) -> Result<NetworkUse, SocketsError> {
        let namespaces = self.namespaces.list(&self.proc, processes, options.now);
        if self.namespaces.is_denied || namespaces.is_empty() {
            return Err(SocketsError::Denied);
        }
        self.open_own()?;
        let mut found = Found::default();
        for namespace in &namespaces {
            match self.list(namespace, &mut found) {
                Ok(()) => {
                    found.read.insert(namespace.id);
                }
                Err(error) => {
                    NAMESPACES_UNREAD.add(1);
                    tracing::debug!(namespace = namespace.id, %error, "a network namespace was not read");
                }
            }
        }
        let ended = self.drain_ends();
        let surroundings = self.find_owners(ledger, processes, options, &mut found);
        let mut assembly = Assembly::begin(ledger, &surroundings, options);
        for seen in &found.connections {
            assembly.add(seen, false);
        }
        for seen in &ended {
            assembly.add(seen, true);
        }
        self.read = std::mem::take(&mut found.read);
        let mut network = assembly.finish(std::mem::take(&mut self.is_baseline), 0);
        network.listening = self.listening(&found);
        network.uncounted = self.uncounted(&found);
        Ok(network)
    }

    /// Opens what stays open, at the first tick.
    fn open_own(&mut self) -> Result<(), SocketsError> {
        if self.own.is_some() {
            return Ok(());
        }
        let link = Path::new("/proc/self/ns/net");
        self.own_namespace = namespaces::read_link(link).ok().flatten();
        self.own = Some(Doors::open_here().map_err(SocketsError::Open)?);
        match Netlink::listen(SOCK_DIAG, diag::TCP_DESTROY_GROUPS, ENDS_BYTES) {
            Ok(ends) => self.ends = Some(ends),
            Err(error) => {
                tracing::info!(%error, "the ends of connections are not told: their last bytes stay unknown");
            }
        }
        Ok(())
    }

    /// Reads one namespace.
    fn list(&mut self, namespace: &Namespace, found: &mut Found) -> io::Result<()> {
        let is_continued =
            self.read.contains(&namespace.id) || (namespace.is_new && !self.is_baseline);
        let past = if is_continued { Counters::BIRTH } else { Counters::default() };
        let mut foreign;
        let doors = match &mut self.own {
            Some(own) if self.own_namespace == Some(namespace.id) => own,
            _ => {
                foreign = Doors::open_at(&namespace.link)?;
                &mut foreign
            }
        };
        let buffer = &mut self.buffer[..];
        let id = namespace.id;
        addresses::list(&mut doors.route, buffer, |address| {
            found.addresses.insert(address);
        })?;
        for family in diag::FAMILIES {
            list_sockets(&mut doors.diag, buffer, family, What::Listening, |socket| {
                found.listeners.push((id, socket));
            })?;
            let mut push = |socket| {
                found.connections.push(Seen::unowned(id, socket, past));
            };
            list_sockets(&mut doors.diag, buffer, family, What::Connections, &mut push)?;
            list_sockets(&mut doors.diag, buffer, family, What::Udp, &mut push)?;
        }
        Ok(())
    }

    /// The connections that ended since the tick before.
    fn drain_ends(&mut self) -> Vec<Seen> {
        let mut ended = Vec::new();
        let (Some(ends), Some(namespace)) = (self.ends.as_mut(), self.own_namespace) else {
            return ended;
        };
        let past = if self.is_baseline { Counters::default() } else { Counters::BIRTH };
        let drained = ends.drain(&mut self.buffer, |message| {
            let socket = (message.kind == diag::SOCK_DIAG_BY_FAMILY)
                .then(|| diag::parse(TransportProtocol::Tcp, message.payload))
                .flatten();
            if let Some(socket) = socket {
                ended.push(Seen::unowned(namespace, socket, past));
            }
        });
        match drained {
            Ok(overruns) => SOCKET_ENDS_LOST.add(overruns),
            Err(error) => tracing::debug!(%error, "reading the ends of connections"),
        }
        if self.is_baseline {
            ended.clear();
        }
        ended
    }

    /// Finds out who holds what.
    fn find_owners(
        &mut self,
        ledger: &Ledger,
        processes: &[Process],
        options: &Options,
        found: &mut Found,
    ) -> Surroundings {
        self.holders.begin(processes);
        let active = found
            .connections
            .iter()
            .filter(|seen| seen.socket.inode != 0 && ledger.is_active(seen));
        self.holders.check(&self.proc, active.map(|seen| seen.socket.inode));
        let mut ports: HashMap<u16, HashSet<u32>> = HashMap::new();
        for (_, socket) in &found.listeners {
            self.holders.note(socket, true);
            ports.entry(socket.local_port).or_default().insert(socket.inode);
        }
        for socket in found.connections.iter().map(|seen| &seen.socket) {
            let is_pressing = is_tcp(socket) || is_service(socket) || options.include_idle;
            self.holders.note(socket, is_pressing);
        }
        self.holders.resolve(&self.proc, &ports);
        for seen in &mut found.connections {
            seen.owner = self.holders.owner(seen.socket.inode);
        }
        let mut listening: HashMap<_, Option<_>> = HashMap::new();
        for (namespace, socket) in &found.listeners {
            let owner = self.holders.owner(socket.inode);
            let known = listening.entry((*namespace, socket.local_port)).or_default();
            *known = known.or(owner);
        }
        // What ended with its namespace was within the host too.
        let now = std::mem::take(&mut found.addresses);
        let before = std::mem::replace(&mut self.addresses, now.clone());
        Surroundings { listening, addresses: now.into_iter().chain(before).collect() }
    }

    /// Who holds UDP sockets.
    fn uncounted(&self, found: &Found) -> HashSet<InstanceId> {
        let sockets = found.connections.iter().map(|seen| &seen.socket);
        let datagrams = sockets.filter(|socket| !is_tcp(socket));
        datagrams.flat_map(|socket| self.holders.instances(socket.inode)).collect()
    }

    /// The ports that every process serves, in order.
    fn listening(&self, found: &Found) -> HashMap<u32, Vec<u16>> {
        let mut listening: HashMap<u32, Vec<u16>> = HashMap::new();
        let tcp = found.listeners.iter().map(|(_, socket)| socket);
        let udp = found.connections.iter().map(|seen| &seen.socket);
        for socket in tcp.chain(udp).filter(|socket| is_service(socket)) {
            for pid in self.holders.pids(socket.inode) {
                listening.entry(pid).or_default().push(socket.local_port);
            }
        }
        for ports in listening.values_mut() {
            ports.sort_unstable();
            ports.dedup();
        }
        listening
    }
}

fn is_tcp(socket: &Socket) -> bool {
    socket.protocol == TransportProtocol::Tcp
}

fn list_sockets(
    diag: &mut Netlink,
    buffer: &mut [u8],
    family: u8,
    what: What,
    mut each: impl FnMut(Socket),
) -> io::Result<()> {
    let protocol = match what {
        What::Listening | What::Connections => TransportProtocol::Tcp,
        What::Udp => TransportProtocol::Udp,
    };
    diag.dump(diag::SOCK_DIAG_BY_FAMILY, &diag::request(family, what), buffer, |message| {
        if let Some(socket) = diag::parse(protocol, message.payload) {
            each(socket);
        }
    })
}
