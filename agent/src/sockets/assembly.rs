//! From what was seen of sockets to connections and to what each process moved.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use shared_model::{ConnectionSample, ConnectionScope, Direction, InstanceId, TransportProtocol};

use super::fold::Fold;
use super::holders::Owner;
use super::ledger::{Ledger, Step};
use super::socket::{Counters, Socket};
use super::{NetworkUse, Options, Traffic, addresses};

/// One socket that was seen in a tick, or whose end was told.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Inode of its network namespace.
    pub(super) namespace: u32,
    /// 0, or the process whose part of the socket this is.
    pub(super) part: u32,
    pub(super) socket: Socket,
    /// Who holds it; `None`: nobody, or whoever held it before.
    pub(super) owner: Option<Owner>,
    /// Which side opened it, where the source knows.
    pub(super) direction: Option<Direction>,
    /// What it is measured against if it is seen for the first time.
    pub(super) past: Counters,
}

impl Seen {
    /// Nothing is known but the socket.
    pub(super) fn unowned(namespace: u32, socket: Socket, past: Counters) -> Self {
        Self { namespace, part: 0, socket, owner: None, direction: None, past }
    }
}

/// What stands beside the sockets of a tick.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    /// (namespace, port) of listening sockets, and who holds them.
    pub(super) listening: HashMap<(u32, u16), Option<Owner>>,
    /// Addresses of this host in all namespaces.
    pub(super) addresses: HashSet<IpAddr>,
}

/// The sums of one tick.
pub(super) struct Assembly<'a> {
    ledger: &'a mut Ledger,
    surroundings: &'a Surroundings,
    options: &'a Options,
    fold: Fold,
    by_instance: HashMap<InstanceId, Traffic>,
    external: Traffic,
    /// A connection had no counters at all: this kernel has none.
    is_blind: bool,
}

impl<'a> Assembly<'a> {
    pub(super) fn begin(
        ledger: &'a mut Ledger,
        surroundings: &'a Surroundings,
        options: &'a Options,
    ) -> Self {
        ledger.begin();
        let (fold, by_instance) = (Fold::default(), HashMap::new());
        let external = Traffic::default();
        Self { ledger, surroundings, options, fold, by_instance, external, is_blind: false }
    }

    /// Adds one connection. `has_ended`: this was its last. Returns whether it moved nothing.
    pub(super) fn add(&mut self, seen: &Seen, has_ended: bool) -> bool {
        let socket = &seen.socket;
        let is_tcp = socket.protocol == TransportProtocol::Tcp;
        // Not connected to anyone: what TCP tells at the end of listening sockets.
        if is_tcp && socket.remote_port == 0 {
            return true;
        }
        let listener = self.surroundings.listening.get(&(seen.namespace, socket.local_port));
        let direction = || match seen.direction {
            Some(direction) => Some(direction),
            None if !is_tcp => None,
            None if listener.is_some() => Some(Direction::Inbound),
            None => Some(Direction::Outbound),
        };
        let Some(mut step) = self.ledger.step(seen, direction) else { return true };
        if step.owner.is_none() && has_ended {
            step.owner = listener.copied().flatten();
        }
        self.is_blind |=
            is_tcp && socket.counters.received.is_none() && socket.counters.sent.is_none();
        let row = self.row(socket, &step);
        self.count(&row);
        let is_news = is_tcp && (step.is_new || has_ended) && !step.is_again;
        if is_news || !step.moved.is_idle() || self.options.include_idle {
            let moved =
                step.moved.received.unwrap_or(0).saturating_add(step.moved.sent.unwrap_or(0));
            let is_large = self.options.large_bytes.is_some_and(|least| moved >= least);
            self.fold.add(row, is_large);
        }
        if has_ended {
            self.forget(seen);
        }
        step.moved.is_idle()
    }

    /// It will not be seen again.
    pub(super) fn forget(&mut self, seen: &Seen) {
        self.ledger.forget(seen);
    }

    fn row(&self, socket: &Socket, step: &Step) -> ConnectionSample {
        let is_ours = |address| self.surroundings.addresses.contains(&address);
        ConnectionSample {
            protocol: socket.protocol,
            local_address: socket.local_address,
            local_port: socket.local_port,
            remote_address: socket.remote_address,
            remote_port: socket.remote_port,
            direction: step.direction,
            instance_id: step.owner.map(|owner| owner.instance_id),
            scope: addresses::scope(socket.local_address, socket.remote_address, is_ours),
            shared: step.owner.is_some_and(|owner| owner.shared),
            connection_count: u32::from(!step.is_again),
            receive_bytes: step.moved.received,
            transmit_bytes: step.moved.sent,
            retransmits: step.moved.retransmits,
        }
    }

    /// Adds a row to its process and to the host.
    fn count(&mut self, row: &ConnectionSample) {
        if let Some(instance_id) = row.instance_id {
            self.by_instance.entry(instance_id).or_default().add(row);
        }
        if row.scope == Some(ConnectionScope::External) {
            self.external.add(row);
        }
    }

    /// The result, who listens left out. `is_baseline`: nothing before it is known. Connections that were not
    /// seen are remembered for so many ticks.
    pub(super) fn finish(self, is_baseline: bool, remembered_ticks: u32) -> NetworkUse {
        self.ledger.end(remembered_ticks);
        let is_known = !is_baseline && !self.is_blind;
        NetworkUse {
            by_instance: is_known.then_some(self.by_instance),
            external: is_known.then_some(self.external),
            connections: self.fold.finish(),
            listening: HashMap::new(),
            uncounted: HashSet::new(),
        }
    }
}
