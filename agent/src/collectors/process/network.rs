//! What every process moved over the network, joined to the rows before they are selected.

use std::collections::HashSet;
use std::time::Duration;

use shared_model::{InstanceId, ProcessSample};

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
    let rate = tick.profile.network_bytes_per_second;
    let options = Options {
        large_bytes: selection::over_interval(rate, interval),
        include_idle: tick.describe_all,
    };
    let mut network = sockets.read(&processes, &options);
    network.join(rows);
    network
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
