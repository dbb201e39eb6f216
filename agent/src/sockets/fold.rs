//! From connections to rows that a report can carry.
//!
//! A connection above the threshold is a row of its own. All others are folded by ([`Group`]): a server with
//! 50,000 clients behind a few addresses stays a few rows. A connection that moved nothing, and
//! neither began nor ended, is left out. Of more than [`MAX_ROWS`] rows the largest stay; the
//! rest is summed per (instance, protocol, scope, direction), addresses unspecified and ports 0. Nothing that moved
//! bytes is ever left out of a sum.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shared_model::limits::{MAX_CONNECTIONS, MAX_COUNT, MAX_COUNTER};
use shared_model::{ConnectionSample, ConnectionScope, Direction, InstanceId, TransportProtocol};

use crate::metrics::CONNECTION_ROWS_FOLDED;

/// Rows of connections in one report, sums of the rest not counted.
pub(super) const MAX_ROWS: usize = 2048;
/// Rows held while folding; what is beyond goes to the sums at once.
const MAX_GROUPS: usize = 65_536;

/// What is folded into one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Group {
    rest: Rest,
    remote_address: IpAddr,
    /// The service's: the local one of inbound rows, the remote one of outbound rows; both of others.
    ports: (u16, u16),
}

/// What the rest is summed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rest {
    instance_id: Option<InstanceId>,
    protocol: TransportProtocol,
    scope: Option<ConnectionScope>,
    direction: Option<Direction>,
}

/// The rows of one tick.
#[derive(Debug, Default)]
pub(super) struct Fold {
    single: Vec<ConnectionSample>,
    groups: HashMap<Group, ConnectionSample>,
    rest: HashMap<Rest, ConnectionSample>,
}

impl Fold {
    /// Adds one connection. `is_large`: it is a row of its own.
    pub(super) fn add(&mut self, connection: ConnectionSample, is_large: bool) {
        if is_large && self.single.len() < MAX_GROUPS {
            self.single.push(connection);
            return;
        }
        let group = Group::of(&connection);
        if let Some(row) = self.groups.get_mut(&group) {
            merge(row, &connection);
        } else if self.groups.len() < MAX_GROUPS {
            self.groups.insert(group, connection);
        } else {
            add_to_rest(&mut self.rest, &connection);
        }
    }

    /// The rows.
    pub(super) fn finish(mut self) -> Vec<ConnectionSample> {
        let mut rows = self.single;
        rows.extend(self.groups.into_values());
        rows.sort_by_cached_key(|row| {
            (std::cmp::Reverse(bytes(row)), row.remote_address, row.local_port, row.remote_port)
        });
        for row in rows.drain(MAX_ROWS.min(rows.len())..) {
            CONNECTION_ROWS_FOLDED.add(1);
            add_to_rest(&mut self.rest, &row);
        }
        rows.extend(self.rest.into_values());
        rows.truncate(MAX_CONNECTIONS);
        rows
    }
}

fn bytes(row: &ConnectionSample) -> u64 {
    row.receive_bytes.unwrap_or(0).saturating_add(row.transmit_bytes.unwrap_or(0))
}

impl Group {
    fn of(row: &ConnectionSample) -> Self {
        let ports = match row.direction {
            Some(Direction::Inbound) => (row.local_port, 0),
            Some(Direction::Outbound) => (0, row.remote_port),
            None => (row.local_port, row.remote_port),
        };
        Self { rest: Rest::of(row), remote_address: row.remote_address, ports }
    }
}

impl Rest {
    fn of(row: &ConnectionSample) -> Self {
        Self {
            instance_id: row.instance_id,
            protocol: row.protocol,
            scope: row.scope,
            direction: row.direction,
        }
    }
}

/// Adds `one` to a row of the same group.
fn merge(row: &mut ConnectionSample, one: &ConnectionSample) {
    if row.local_address != one.local_address {
        row.local_address = match one.remote_address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
    }
    if row.local_port != one.local_port {
        row.local_port = 0;
    }
    if row.remote_port != one.remote_port {
        row.remote_port = 0;
    }
    add(row, one);
}

fn add_to_rest(rest: &mut HashMap<Rest, ConnectionSample>, one: &ConnectionSample) {
    match rest.entry(Rest::of(one)) {
        std::collections::hash_map::Entry::Occupied(mut row) => add(row.get_mut(), one),
        std::collections::hash_map::Entry::Vacant(row) => {
            row.insert(ConnectionSample {
                local_address: Ipv4Addr::UNSPECIFIED.into(),
                local_port: 0,
                remote_address: Ipv4Addr::UNSPECIFIED.into(),
                remote_port: 0,
                ..one.clone()
            });
        }
    }
}

/// Adds the numbers; what is unknown of one counts as absent.
fn add(row: &mut ConnectionSample, one: &ConnectionSample) {
    let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (None, None) => None,
        _ => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0)).min(MAX_COUNTER)),
    };
    row.shared |= one.shared;
    row.connection_count = row.connection_count.saturating_add(one.connection_count).min(MAX_COUNT);
    row.receive_bytes = sum(row.receive_bytes, one.receive_bytes);
    row.transmit_bytes = sum(row.transmit_bytes, one.transmit_bytes);
    row.retransmits = sum(row.retransmits, one.retransmits);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(instance: i64, remote: [u8; 4], ports: (u16, u16)) -> ConnectionSample {
        ConnectionSample {
            protocol: TransportProtocol::Tcp,
            local_address: [10, 0, 0, 1].into(),
            local_port: ports.0,
            remote_address: remote.into(),
            remote_port: ports.1,
            direction: Some(Direction::Inbound),
            instance_id: Some(InstanceId(instance)),
            scope: Some(ConnectionScope::External),
            shared: false,
            connection_count: 1,
            receive_bytes: Some(10),
            transmit_bytes: Some(100),
            retransmits: None,
        }
    }

    #[test]
    fn a_server_with_50_000_clients_stays_small() {
        let mut fold = Fold::default();
        for client in 0..50_000_u32 {
            let port = u16::try_from(10_000 + client / 4).unwrap();
            let [.., last] = (client % 4).to_be_bytes();
            fold.add(connection(1, [10, 1, 0, last], (443, port)), false);
        }
        fold.add(connection(1, [10, 1, 0, 1], (443, 9)), true);
        let rows = fold.finish();
        assert_eq!(rows.len(), 5);
        let folded = rows.iter().find(|row| row.connection_count == 12_500).unwrap();
        assert_eq!((folded.local_port, folded.remote_port), (443, 0));
        assert_eq!((folded.receive_bytes, folded.transmit_bytes), (Some(125_000), Some(1_250_000)));
        assert!(rows.iter().any(|row| (row.local_port, row.remote_port) == (443, 9)));
    }

    #[test]
    fn one_of_its_kind_keeps_its_ports() {
        let mut fold = Fold::default();
        fold.add(connection(1, [10, 1, 0, 1], (443, 5)), false);
        assert_eq!(fold.finish(), [connection(1, [10, 1, 0, 1], (443, 5))]);
    }

    #[test]
    fn no_byte_is_lost_beyond_the_limit() {
        let mut fold = Fold::default();
        let count = u32::try_from(MAX_GROUPS).unwrap() + 5000;
        for client in 0..count {
            let [_, b, c, d] = client.to_be_bytes();
            let instance = if client % 2 == 0 { 1 } else { 2 };
            fold.add(connection(instance, [11, b, c, d], (443, 7)), false);
        }
        let rows = fold.finish();
        assert_eq!(rows.len(), MAX_ROWS + 2);
        let sum: u64 = rows.iter().filter_map(|row| row.transmit_bytes).sum();
        assert_eq!(sum, u64::from(count) * 100);
        let counted: u32 = rows.iter().map(|row| row.connection_count).sum();
        assert_eq!(counted, count);
        let rest: Vec<_> = rows.iter().filter(|row| row.remote_address.is_unspecified()).collect();
        assert_eq!(rest.len(), 2);
        assert!(rest.iter().all(|row| (row.local_port, row.remote_port) == (0, 0)));
    }
}
