//! Sockets: what every process moves over the network, and with whom.
//!
//! - **Tier A** ([`traced`]): BPF. Everything, also connections that live for a moment, and UDP.
//! - **Tier B** ([`listing`]): `sock_diag` in every network namespace; which process holds a socket is looked
//!   for in `/proc/<pid>/fd` when a socket is new ([`holders`]). TCP only: the kernel counts no bytes of UDP
//!   sockets. Needs root, and Linux 4.1 for byte counters (3.10 lists connections without).
//!
//! **Where UDP is not counted** (tier B, and tier A before Linux 6.3) a process that holds a UDP socket has what
//! its TCP moved, and null where that is nothing: it is not known to be nothing.
//!
//! Both tiers deliver [`Socket`]s with counters since their birth; [`ledger`] turns them into deltas,
//! [`assembly`] adds them up per process, [`fold`] makes rows of them.
//!
//! **What is counted.** Payload, not packets: bytes received in order, bytes transmitted at least once.
//! A socket is counted once, for the lowest process id of those that hold it, and marked `shared` where
//! several do. What nobody holds (the kernel's own sockets, connections that outlive their process) is
//! explicit: a row without an instance. A connection's last bytes, moved after its process closed it, belong to
//! that process. Both ends of a connection within the host are rows; their `scope` keeps them out of the
//! host's totals.

pub mod addresses;
mod assembly;
pub mod diag;
mod fold;
mod holders;
mod ledger;
mod listing;
mod namespaces;
pub mod netlink;
pub mod socket;
pub mod traced;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use shared_model::limits::MAX_COUNTER;
use shared_model::{
    ConnectionSample, FieldSource, InstanceId, ProcessSample, Tier, TransportProtocol,
};
use uuid::Uuid;

use self::ledger::Ledger;
use self::listing::Listing;
use self::traced::Traced;
use crate::bpf::{Bpf, BpfError};
use crate::procfs::Root;

pub use self::holders::parse_socket;
pub use self::namespaces::parse_link;
pub use self::socket::{Counters, Socket};

/// Of the kernel's default range (`net.ipv4.ip_local_port_range`).
const FIRST_EPHEMERAL_PORT: u16 = 32_768;

/// A process that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its thread group id.
    pub pid: u32,
    /// Which run.
    pub instance_id: InstanceId,
}

/// What the caller wants to know.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The moment, on the monotonic clock.
    pub now: Duration,
    /// A connection that moved this much is a row of its own.
    pub large_bytes: Option<u64>,
    /// Rows also for connections that moved nothing, and for UDP sockets without counters.
    pub include_idle: bool,
}

/// Payload moved in an interval, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Received.
    pub receive_bytes: u64,
    /// Transmitted.
    pub transmit_bytes: u64,
}

/// What the network was used for since the last reading.
#[derive(Debug, Default)]
pub struct NetworkUse {
    /// Who moved anything, the ended included. `None`: unknown (the first reading, or a kernel without counters).
    pub by_instance: Option<HashMap<InstanceId, Traffic>>,
    /// Who holds sockets whose bytes nobody counts: nothing that was counted of them is not nothing.
    pub uncounted: HashSet<InstanceId>,
    /// From and to other hosts, held by a process or not.
    pub external: Option<Traffic>,
    /// See [`shared_model::Report::connections`].
    pub connections: Vec<ConnectionSample>,
    /// Ports that a process listens on (TCP) or is bound to without a peer (UDP, below the ephemeral ports),
    /// ascending, by process id.
    pub listening: HashMap<u32, Vec<u16>>,
}

/// Why nothing is known of sockets.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    /// Neither the sockets of others nor their holders may be read.
    #[error("the sockets of other users may not be seen")]
    Denied,
    /// The kernel has no `sock_diag`, or refuses it.
    #[error("cannot open sock_diag")]
    Open(#[source] io::Error),
    /// A program of ours could not be read.
    #[error(transparent)]
    Bpf(#[from] BpfError),
}

/// Reads sockets, tick by tick.
pub struct Sockets {
    ledger: Ledger,
    bpf: Arc<Bpf>,
    source: Source,
    failure_logged: bool,
}

enum Source {
    Traced(Box<Traced>),
    Listing(Box<Listing>),
}

impl Sockets {
    /// Of the host whose processes are below `root`. Reads nothing yet.
    pub fn new(root: &Root, bpf: &Arc<Bpf>, boot_id: Uuid) -> Self {
        let source = match Traced::new(bpf, boot_id, &root.proc) {
            Some(traced) => Source::Traced(Box::new(traced)),
            None => Source::Listing(Box::new(Listing::new(&root.proc))),
        };
        let bpf = Arc::clone(bpf);
        Self { ledger: Ledger::default(), bpf, source, failure_logged: false }
    }

    /// What an instance moved in its whole life, of which `bytes` were counted. `None`: connections that begin and
    /// end between two readings are not seen with their owner, or it may have moved datagrams.
    pub fn of_life(&self, bytes: u64) -> Option<u64> {
        match &self.source {
            Source::Traced(traced) => (traced.counts_datagrams || bytes > 0).then_some(bytes),
            Source::Listing(_) => None,
        }
    }

    /// Where the fields come from, for the report.
    pub fn sources(&self) -> [FieldSource; 2] {
        let (tier, datagrams) = match &self.source {
            Source::Traced(traced) => (Tier::A, traced.counts_datagrams.then_some(Tier::A)),
            Source::Listing(_) => (Tier::B, None),
        };
        let tier = (!self.failure_logged).then_some(tier);
        [
            FieldSource {
                fields: "connections".to_owned(),
                tier,
                reason: self.refusal(&["files", "state_changed"]),
            },
            FieldSource {
                fields: "udp_connections".to_owned(),
                tier: datagrams.filter(|_| tier.is_some()),
                reason: self.refusal(&["files", "state_changed", "sent", "received"]),
            },
        ]
    }

    fn refusal(&self, programs: &[&str]) -> Option<String> {
        programs.iter().find_map(|program| self.bpf.refusal(program)).map(str::to_owned)
    }

    /// What was used since the last call, which was one interval ago. `processes` are all that live. Without
    /// privileges or support everything is unknown, and one line in the log says so.
    pub fn read(&mut self, processes: &[Process], options: &Options) -> NetworkUse {
        let ledger = &mut self.ledger;
        let network = match &mut self.source {
            Source::Traced(traced) => traced.read(ledger, options),
            Source::Listing(listing) => listing.read(ledger, processes, options),
        };
        match network {
            Ok(network) => network,
            Err(error) => {
                if !self.failure_logged {
                    self.failure_logged = true;
                    tracing::info!(
                        error = &error as &dyn std::error::Error,
                        "network use of processes stays unknown"
                    );
                }
                NetworkUse::default()
            }
        }
    }
}

/// Whether a socket waits for whoever comes: it listens, or it is bound to a port that no program gets by chance.
fn is_service(socket: &Socket) -> bool {
    match socket.protocol {
        TransportProtocol::Tcp => socket.state == diag::TCP_LISTEN,
        TransportProtocol::Udp => {
            socket.remote_port == 0 && (1..FIRST_EPHEMERAL_PORT).contains(&socket.local_port)
        }
    }
}

impl Traffic {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let sum = |one: u64, other: u64| one.saturating_add(other).min(MAX_COUNTER);
        Self {
            receive_bytes: sum(self.receive_bytes, other.receive_bytes),
            transmit_bytes: sum(self.transmit_bytes, other.transmit_bytes),
        }
    }

    /// Adds what is known of a row.
    fn add(&mut self, row: &ConnectionSample) {
        *self = self.plus(Self {
            receive_bytes: row.receive_bytes.unwrap_or(0),
            transmit_bytes: row.transmit_bytes.unwrap_or(0),
        });
    }
}

impl NetworkUse {
    /// Fills in the network columns of rows of single instances, and takes them out of `by_instance`: what is
    /// left belongs to instances that ended. Whoever holds no socket moved 0 bytes; of whoever holds one that
    /// nobody counts it is unknown.
    pub fn join(&mut self, rows: &mut [ProcessSample]) {
        let Some(by_instance) = &mut self.by_instance else { return };
        for row in rows {
            let traffic = by_instance.remove(&row.instance_id).unwrap_or_default();
            let is_counted = !self.uncounted.contains(&row.instance_id);
            let known = |bytes: u64| (is_counted || bytes > 0).then_some(bytes);
            row.network_receive_bytes = known(traffic.receive_bytes);
            row.network_transmit_bytes = known(traffic.transmit_bytes);
        }
    }

    /// What is left after [`Self::join`], summed. `None`: unknown.
    pub fn of_ended(&self) -> Option<Traffic> {
        let by_instance = self.by_instance.as_ref()?;
        Some(by_instance.values().fold(Traffic::default(), |sum, one| sum.plus(*one)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_claimed_of_what_nobody_counts() {
        let of = |id: i64| InstanceId(id);
        let moved = Traffic { receive_bytes: 5, transmit_bytes: 0 };
        let mut network = NetworkUse {
            by_instance: Some([(of(1), moved), (of(2), moved), (of(9), moved)].into()),
            uncounted: [of(2), of(3)].into(),
            ..NetworkUse::default()
        };
        let mut rows = [1, 2, 3, 4]
            .map(|id| ProcessSample { instance_id: of(id), ..ProcessSample::default() });
        network.join(&mut rows);
        let found = rows.map(|row| (row.network_receive_bytes, row.network_transmit_bytes));
        let (counted, both) = ((Some(5), Some(0)), (Some(5), None));
        assert_eq!(found, [counted, both, (None, None), (Some(0), Some(0))]);
        assert_eq!(network.of_ended(), Some(moved));
    }
}
