//! What every connection had moved when it was last seen, and who held it: what turns counters into deltas.
//!
//! A connection that is seen for the first time counts from its birth: everything is read in every tick, so it
//! was born since. Only at the baseline, and in a namespace that was not read before, its past is unknown.

use std::collections::HashMap;

use shared_model::{Direction, TransportProtocol};

use super::assembly::Seen;
use super::holders::Owner;
use super::socket::Counters;
use crate::metrics::SOCKETS_SHED;

/// Connections remembered. Beyond, one is not seen at all: its bytes are the interfaces' only.
const MAX_CONNECTIONS: usize = 262_144;

/// A socket's name on this host: its network namespace, its cookie (unique per namespace before Linux 5.4), and
/// whose part of it ([`Seen::part`]).
type Key = (u32, u64, u32);

fn key(seen: &Seen) -> Key {
    (seen.namespace, seen.socket.cookie, seen.part)
}

/// All connections of the tick before.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    tick: u32,
    entries: HashMap<Key, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    counters: Counters,
    owner: Option<Owner>,
    direction: Option<Direction>,
    ports: (u16, u16),
    seen: u32,
}

/// What one connection did since the tick before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) moved: Counters,
    pub(super) owner: Option<Owner>,
    pub(super) direction: Option<Direction>,
    /// It was not there before.
    pub(super) is_new: bool,
    /// It was already a step of this tick.
    pub(super) is_again: bool,
}

impl Ledger {
    /// Begins a tick.
    pub(super) fn begin(&mut self) {
        self.tick = self.tick.wrapping_add(1);
    }

    /// Whether it moved bytes since it was seen last.
    pub(super) fn is_active(&self, seen: &Seen) -> bool {
        self.entries
            .get(&key(seen))
            .is_none_or(|entry| !seen.socket.counters.since(&entry.counters).is_idle())
    }

    /// Takes over what a connection counts now. `direction` is asked for a new one only.
    pub(super) fn step(
        &mut self,
        seen: &Seen,
        direction: impl FnOnce() -> Option<Direction>,
    ) -> Option<Step> {
        let (key, socket) = (key(seen), &seen.socket);
        let ports = (socket.local_port, socket.remote_port);
        let before = self.entries.get(&key).copied();
        // Before Linux 4.3 a cookie is an address, and another socket may have it now. A UDP socket may
        // change its peer.
        let before = before
            .filter(|entry| entry.ports == ports || socket.protocol == TransportProtocol::Udp);
        if before.is_none() && self.entries.len() >= MAX_CONNECTIONS {
            SOCKETS_SHED.add(1);
            return None;
        }
        let owner = seen.owner.or(before.and_then(|entry| entry.owner));
        let direction = before.map_or_else(direction, |entry| entry.direction);
        let step = Step {
            moved: socket.counters.since(&before.map_or(seen.past, |entry| entry.counters)),
            owner,
            direction,
            is_new: before.is_none(),
            is_again: before.is_some_and(|entry| entry.seen == self.tick),
        };
        let entry = Entry { counters: socket.counters, owner, direction, ports, seen: self.tick };
        self.entries.insert(key, entry);
        Some(step)
    }

    /// Forgets one.
    pub(super) fn forget(&mut self, seen: &Seen) {
        self.entries.remove(&key(seen));
    }

    /// Forgets what was not seen for more than so many ticks.
    pub(super) fn end(&mut self, remembered_ticks: u32) {
        let tick = self.tick;
        self.entries.retain(|_, entry| tick.wrapping_sub(entry.seen) <= remembered_ticks);
        // A burst must not keep its memory for ever.
        if self.entries.capacity() > 4 * self.entries.len().max(1024) {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }
}
