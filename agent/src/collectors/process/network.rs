//! What every process moved over the network, joined to the rows before they are selected.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use shared_model::{InstanceId, ProcessExit, ProcessSample};

use super::selection;
use crate::collectors::{Batch, Tick};
use crate::sockets::{NetworkUse, Options, Process, Sockets, Traffic};

/// Reads the sockets of all processes and fills in the network columns of `rows`, whose process ids are `pids`.
pub(super) fn read(
    sockets: &mut Sockets,
    (rows, pids): (&mut [ProcessSample], &[u32]),
    tick: &Tick,
    interval: Option<Duration>,
) -> NetworkUse {
    let processes: Vec<Process> = rows
        .iter()
        .zip(pids)
        .map(|(row, &pid)| Process { pid, instance_id: row.instance_id })
        .collect();
    let rate = tick.settings.profile.network_bytes_per_second;
    let options = Options {
        now: tick.monotonic,
        large_bytes: selection::over_interval(rate, interval),
        include_idle: tick.describe_all,
    };
    let mut network = sockets.read(&processes, &options);
    network.join(rows);
    network
}

/// Ticks within which the exit of an instance that is gone is told.
const EXIT_TICKS: u32 = 5;

/// What every instance moved since its birth, for the totals of its exit.
#[derive(Debug, Default)]
pub(super) struct Lifetimes {
    /// Who lived at the first look: how much they had moved by then is unknown.
    elders: Option<HashSet<InstanceId>>,
    sums: HashMap<InstanceId, Traffic>,
    /// Since which tick those are missing whose exit was not told yet.
    missing: HashMap<InstanceId, u32>,
    tick: u32,
}

impl Lifetimes {
    /// Adds one interval. `rows` are joined to `network`, which still has what those who ended moved.
    pub(super) fn add(&mut self, network: &NetworkUse, rows: &[ProcessSample]) {
        self.tick = self.tick.wrapping_add(1);
        let elders =
            self.elders.get_or_insert_with(|| rows.iter().map(|row| row.instance_id).collect());
        let Some(ended) = network.by_instance.as_ref() else { return };
        let mut before = std::mem::take(&mut self.sums);
        let mut add = |instance_id: InstanceId, traffic: Traffic| {
            let sum = before.remove(&instance_id).unwrap_or_default().plus(traffic);
            if sum != Traffic::default() && !elders.contains(&instance_id) {
                self.sums.insert(instance_id, sum);
            }
        };
        for row in rows {
            let (receive, transmit) = (row.network_receive_bytes, row.network_transmit_bytes);
            let traffic = Traffic {
                receive_bytes: receive.unwrap_or(0),
                transmit_bytes: transmit.unwrap_or(0),
            };
            add(row.instance_id, traffic);
        }
        for (instance_id, traffic) in ended {
            add(*instance_id, *traffic);
        }
        // The exit of one that is not there any more may be told later.
        self.sums.extend(before);
    }

    /// Fills in the totals of exits, where all that the instance ever moved was seen, and forgets who is gone.
    /// `in_all` says what bytes that were counted are worth, see [`Sockets::of_life`].
    pub(super) fn complete(
        &mut self,
        exits: &mut [ProcessExit],
        rows: &[ProcessSample],
        in_all: impl Fn(u64) -> Option<u64>,
    ) {
        let elders = self.elders.as_ref();
        for exit in exits.iter_mut() {
            if elders.is_some_and(|elders| !elders.contains(&exit.instance_id)) {
                let sum = self.sums.get(&exit.instance_id).copied().unwrap_or_default();
                exit.totals.network_receive_bytes = in_all(sum.receive_bytes);
                exit.totals.network_transmit_bytes = in_all(sum.transmit_bytes);
            }
        }
        let gone: HashSet<InstanceId> = exits.iter().map(|exit| exit.instance_id).collect();
        let alive: HashSet<InstanceId> = rows.iter().map(|row| row.instance_id).collect();
        let tick = self.tick;
        let mut keep = |instance_id: &InstanceId| {
            if alive.contains(instance_id) {
                self.missing.remove(instance_id);
                return true;
            }
            let since = *self.missing.entry(*instance_id).or_insert(tick);
            !gone.contains(instance_id) && tick.wrapping_sub(since) <= EXIT_TICKS
        };
        self.sums.retain(|instance_id, _| keep(instance_id));
        if let Some(elders) = &mut self.elders {
            elders.retain(|instance_id| keep(instance_id));
        }
        self.missing.retain(|_, since| tick.wrapping_sub(*since) <= EXIT_TICKS);
    }
}

/// Adds what instances that ended had moved to the residual.
pub(super) fn add_ended(residual: &mut Option<ProcessSample>, ended: Option<Traffic>) {
    let Some(ended) = ended.filter(|ended| *ended != Traffic::default()) else { return };
    let row = residual.get_or_insert_with(|| ProcessSample {
        instance_id: InstanceId::RESIDUAL,
        ..ProcessSample::default()
    });
    selection::add(&mut row.network_receive_bytes, Some(ended.receive_bytes));
    selection::add(&mut row.network_transmit_bytes, Some(ended.transmit_bytes));
}

/// The instances that rows of connections name: readers will ask what they are.
pub(super) fn owners(network: &NetworkUse) -> HashSet<InstanceId> {
    network.connections.iter().filter_map(|row| row.instance_id).collect()
}

/// Moves the rest into the report.
pub(super) fn deliver(network: NetworkUse, batch: &mut Batch) {
    batch.connections = network.connections;
    batch.host.socket_receive_bytes = network.external.map(|traffic| traffic.receive_bytes);
    batch.host.socket_transmit_bytes = network.external.map(|traffic| traffic.transmit_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64, received: u64) -> ProcessSample {
        ProcessSample {
            instance_id: InstanceId(id),
            network_receive_bytes: Some(received),
            network_transmit_bytes: Some(1),
            ..ProcessSample::default()
        }
    }

    fn network(ended: &[(i64, u64)]) -> NetworkUse {
        let traffic = |receive_bytes| Traffic { receive_bytes, transmit_bytes: 0 };
        let ended = ended.iter().map(|(id, bytes)| (InstanceId(*id), traffic(*bytes)));
        NetworkUse { by_instance: Some(ended.collect()), ..NetworkUse::default() }
    }

    fn exit(id: i64) -> ProcessExit {
        ProcessExit {
            instance_id: InstanceId(id),
            process_id: shared_model::ProcessId::of(""),
            exit_time: shared_model::Timestamp::UNIX_EPOCH,
            lifetime_us: None,
            exit_code: None,
            exit_signal: None,
            totals: ProcessSample::default(),
        }
    }

    #[test]
    fn an_exit_has_all_that_its_life_moved_or_nothing() {
        let mut lifetimes = Lifetimes::default();
        lifetimes.add(&NetworkUse::default(), &[row(1, 0)]);
        lifetimes.complete(&mut [], &[row(1, 0)], Some);
        let rows = [row(1, 10), row(2, 20)];
        lifetimes.add(&network(&[(3, 7)]), &rows);
        let mut exits = [exit(3), exit(4)];
        lifetimes.complete(&mut exits, &rows, Some);
        let found = exits.map(|exit| exit.totals.network_receive_bytes);
        assert_eq!(found, [Some(7), Some(0)], "born and dead within the interval");

        lifetimes.add(&network(&[(2, 5)]), &[row(1, 1)]);
        let mut exits = [exit(1), exit(2)];
        lifetimes.complete(&mut exits, &[], Some);
        let found = exits.map(|exit| exit.totals.network_receive_bytes);
        assert_eq!(found, [None, Some(25)], "the past of the first is unknown");
        assert!(lifetimes.sums.is_empty());
        let mut exits = [exit(5)];
        lifetimes.complete(&mut exits, &[], |_| None);
        assert_eq!(exits[0].totals.network_receive_bytes, None, "connections of moments unseen");
    }
}
