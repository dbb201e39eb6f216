//! Tier A: sockets and who holds them from the BPF iterator over all open files, the ends of TCP connections
//! from a tracepoint, bytes of UDP from two more (Linux 6.3+).
//!
//! A connection that no tick saw is counted whole at its end, for the process that the program noted: the one
//! that connected, that moved its bytes last, or that listened. One that a tick saw belongs to
//! whoever held it then. What was seen and ended unheard (the ring was full) loses its last bytes,
//! and is counted.

mod ends;
pub mod record;

use std::cell::Cell;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shared_model::{InstanceId, TransportProtocol};
use uuid::Uuid;

use self::ends::Ends;
use self::record::{KEY_BYTES, RECORD_BYTES, Record};
use super::addresses::Addresses;
use super::assembly::{Assembly, Seen, Surroundings};
use super::diag::{TCP_CLOSE, TCP_LISTEN};
use super::holders::Owner;
use super::ledger::Ledger;
use super::namespaces::{MAX_NAMESPACES, Namespace};
use super::socket::Counters;
use super::{NetworkUse, Options, SocketsError, is_service};
use crate::bpf::Bpf;
use crate::metrics::{DATAGRAM_SOCKETS_SHED, SOCKET_ENDS_LOST};

/// The object, its programs and maps.
const OBJECT: &str = "sockets";
const FILES: &str = "files";
const RING: &str = "ends";
/// Ticks that a connection is remembered after no process holds it: until its end is told.
const REMEMBERED_TICKS: u32 = 40;

/// See the module.
pub(super) struct Traced {
    bpf: Arc<Bpf>,
    boot_id: Uuid,
    ticks_per_second: u64,
    proc: PathBuf,
    ends: Ends,
    addresses: Addresses,
    pub(super) counts_datagrams: bool,
    /// Ends lost, sockets and bytes of datagrams lost, since the programs run.
    lost: [u64; 3],
    is_baseline: bool,
    /// Kept for its memory: a host with many sockets has them in the next tick too.
    found: Found,
    /// The process of the record before: most have several sockets, and its hash is not cheap.
    latest: Cell<(u32, u64, InstanceId)>,
}

/// The sockets of one tick, each once.
#[derive(Default)]
struct Found {
    sockets: Vec<Seen>,
    /// (listener, process id).
    listeners: Vec<(Seen, u32)>,
    datagram_sockets: HashSet<u64>,
    /// Who holds UDP sockets, where their bytes are not counted.
    uncounted: HashSet<InstanceId>,
    /// (port, process id) of UDP sockets without a peer.
    bound: Vec<(u16, u32)>,
    /// Of each namespace, one process that holds a socket of it.
    holders: HashMap<u32, u32>,
    latest_namespace: u32,
    places: HashMap<u64, (usize, u32)>,
}

impl Traced {
    /// `None`: this kernel does not take the programs that it needs.
    pub(super) fn new(bpf: &Arc<Bpf>, boot_id: Uuid, proc: &Path) -> Option<Self> {
        let is_running = |program: &str| bpf.refusal(program).is_none();
        if !is_running(FILES) || !is_running("state_changed") {
            return None;
        }
        let ends = match Ends::start(Arc::clone(bpf)) {
            Ok(ends) => ends,
            Err(error) => {
                tracing::warn!(%error, "cannot follow the ends of connections");
                return None;
            }
        };
        Some(Self {
            bpf: Arc::clone(bpf),
            boot_id,
            ticks_per_second: rustix::param::clock_ticks_per_second(),
            proc: proc.to_owned(),
            ends,
            addresses: Addresses::default(),
            counts_datagrams: is_running("sent") && is_running("received"),
            lost: [0; 3],
            is_baseline: true,
            found: Found::default(),
            latest: Cell::new((0, 0, InstanceId::RESIDUAL)),
        })
    }

    pub(super) fn read(
        &mut self,
        ledger: &mut Ledger,
        options: &Options,
    ) -> Result<NetworkUse, SocketsError> {
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        self.list(&mut found)?;
        let mut ended = self.ends.take();
        if self.is_baseline {
            ended.clear();
        }
        let datagrams = self.datagrams();
        let addresses = self.addresses.read(&found.namespaces(&self.proc));
        let surroundings = found.surroundings(addresses);
        let mut assembly = Assembly::begin(ledger, &surroundings, options);
        for seen in &found.sockets {
            assembly.add(seen, false);
        }
        for record in ended {
            let past = if record.is_listed { Counters::default() } else { Counters::BIRTH };
            assembly.add(&self.seen(record, past), true);
        }
        for (key, seen) in datagrams {
            let is_idle = assembly.add(&seen, false);
            if is_idle && !found.datagram_sockets.contains(&seen.socket.cookie) {
                self.bpf.remove_from_hash::<KEY_BYTES, RECORD_BYTES>(OBJECT, "datagrams", &key);
                assembly.forget(&seen);
            }
        }
        self.count_losses();
        let mut network = assembly.finish(std::mem::take(&mut self.is_baseline), REMEMBERED_TICKS);
        network.listening = found.listening();
        network.uncounted = std::mem::take(&mut found.uncounted);
        self.found = found;
        Ok(network)
    }

    /// All TCP connections and listeners that processes hold.
    fn list(&self, found: &mut Found) -> Result<(), SocketsError> {
        let past = if self.is_baseline { Counters::default() } else { Counters::BIRTH };
        self.bpf.read_iterator(OBJECT, FILES, |bytes| {
            let Some(record) = record::parse(bytes) else { return };
            let pid = record.pid;
            found.note(record.namespace, pid);
            match (record.socket.protocol, record.socket.state) {
                (TransportProtocol::Udp, _) => {
                    if is_service(&record.socket) {
                        found.bound.push((record.socket.local_port, pid));
                    }
                    found.datagram_sockets.insert(record.socket.cookie);
                    if !self.counts_datagrams {
                        found.uncounted.insert(self.instance_of(pid, record.start_ns));
                    }
                }
                // Not connected, or its end was told.
                (TransportProtocol::Tcp, TCP_CLOSE) => {}
                (TransportProtocol::Tcp, TCP_LISTEN) => {
                    found.listeners.push((self.seen(record, past), pid));
                }
                (TransportProtocol::Tcp, _) => found.add(self.seen(record, past), pid),
            }
        })?;
        Ok(())
    }

    /// What UDP sockets moved, by who did it.
    fn datagrams(&self) -> Vec<([u8; KEY_BYTES], Seen)> {
        if !self.counts_datagrams {
            return Vec::new();
        }
        let past = if self.is_baseline { Counters::default() } else { Counters::BIRTH };
        let mut datagrams = Vec::new();
        self.bpf.read_hash::<KEY_BYTES, RECORD_BYTES>(OBJECT, "datagrams", |key, value| {
            if let Some(record) = record::parse(&value) {
                let part = record.pid;
                let seen = Seen { part, ..self.seen(record, past) };
                datagrams.push((key, seen));
            }
        });
        datagrams
    }

    fn seen(&self, record: Record, past: Counters) -> Seen {
        let owner = (record.pid != 0).then(|| Owner {
            instance_id: self.instance_of(record.pid, record.start_ns),
            shared: false,
        });
        Seen {
            namespace: record.namespace,
            part: 0,
            socket: record.socket,
            owner,
            direction: record.direction,
            past,
        }
    }

    fn instance_of(&self, pid: u32, start_ns: u64) -> InstanceId {
        let (latest_pid, latest_start_ns, instance_id) = self.latest.get();
        if (pid, start_ns) == (latest_pid, latest_start_ns) {
            return instance_id;
        }
        let start_ticks = start_ns / (1_000_000_000 / self.ticks_per_second.max(1)).max(1);
        let instance_id = InstanceId::of(self.boot_id, pid, start_ticks);
        self.latest.set((pid, start_ns, instance_id));
        instance_id
    }

    fn count_losses(&mut self) {
        let Some(lost) = self.bpf.counters::<3>(OBJECT, "socket_losses") else { return };
        let grown = |at: usize| lost[at].saturating_sub(self.lost[at]);
        SOCKET_ENDS_LOST.add(grown(0));
        DATAGRAM_SOCKETS_SHED.add(grown(1));
        self.lost = lost;
    }
}

impl Found {
    fn clear(&mut self) {
        // A burst must not keep its memory for ever.
        if self.sockets.capacity() > 4 * self.sockets.len().max(1024) {
            *self = Self::default();
        }
        self.sockets.clear();
        self.listeners.clear();
        self.datagram_sockets.clear();
        self.uncounted.clear();
        self.bound.clear();
        self.places.clear();
        self.holders.clear();
        self.latest_namespace = 0;
    }

    /// A socket that several hold is counted for the lowest process id.
    fn add(&mut self, seen: Seen, pid: u32) {
        match self.places.entry(seen.socket.cookie) {
            Entry::Vacant(place) => {
                place.insert((self.sockets.len(), pid));
                self.sockets.push(seen);
            }
            Entry::Occupied(mut place) => {
                let (at, lowest) = *place.get();
                if pid == lowest {
                    return;
                }
                let known = &mut self.sockets[at];
                if pid < lowest {
                    known.owner = seen.owner;
                    place.insert((at, pid));
                }
                if let Some(owner) = &mut known.owner {
                    owner.shared = true;
                }
            }
        }
    }

    fn surroundings(&mut self, addresses: HashSet<IpAddr>) -> Surroundings {
        self.listeners.sort_by_key(|(_, pid)| std::cmp::Reverse(*pid));
        let of = |(seen, _): &(Seen, u32)| ((seen.namespace, seen.socket.local_port), seen.owner);
        Surroundings { listening: self.listeners.iter().map(of).collect(), addresses }
    }

    /// Takes note of a process that holds a socket of a namespace; the records come process by process.
    fn note(&mut self, namespace: u32, pid: u32) {
        if self.latest_namespace != namespace {
            self.latest_namespace = namespace;
            self.holders.entry(namespace).or_insert(pid);
        }
    }

    /// The namespaces that have sockets, by a process that holds one.
    fn namespaces(&self, proc: &Path) -> Vec<Namespace> {
        let link = |pid: u32| proc.join(pid.to_string()).join("ns/net");
        let namespaces = self.holders.iter().take(MAX_NAMESPACES);
        namespaces.map(|(id, pid)| Namespace { id: *id, link: link(*pid), is_new: false }).collect()
    }

    fn listening(&self) -> HashMap<u32, Vec<u16>> {
        let mut listening: HashMap<u32, Vec<u16>> = HashMap::new();
        let tcp = self.listeners.iter().map(|(seen, pid)| (seen.socket.local_port, *pid));
        for (port, pid) in tcp.chain(self.bound.iter().copied()) {
            listening.entry(pid).or_default().push(port);
        }
        for ports in listening.values_mut() {
            ports.sort_unstable();
            ports.dedup();
        }
        listening
    }
}
