//! Which processes a tick keeps, and the residual row that stands for all others.
//!
//! A row is kept if it reaches a threshold, **or** is among the `top` users of a resource (with more
//! than nothing of it), **or** matches an always-keep pattern, **or** the profile keeps all. Resources
//! are CPU (user and system), memory (resident and swapped), disk (read and written) and network
//! (received and transmitted); what is unknown of one never keeps a row. A threshold of 0 keeps
//! every row that knows its number.
//!
//! The sum of all rows, the residual included, is the sum of all processes, field by field. The
//! residual's CPU and network include processes that ended in the interval ([`super::ended`]), and its disk
//! where exits tell it; its number of processes does not, so it is 0 where all others are kept. In the residual, unknown numbers count as absent: it is null only where all of its processes are.

use std::time::Duration;

use shared_model::limits::{MAX_COUNT, MAX_COUNTER};
use shared_model::{InstanceId, ProcessSample};

use super::exits::Disk;
use crate::metrics::PROCESS_ROWS_SHED;
use crate::profile::Profile;

/// Most rows kept in one tick; the rest of `keep_all` on a larger host goes to the residual.
/// Such a report stays below the protocol's inflated limit with everything else it holds.
pub(super) const MAX_KEPT: usize = 16_384;

/// The four resources, in this order.
const RESOURCES: usize = 4;

/// Whether each row is kept. `matches` says which rows match an always-keep pattern; `interval` is
/// `None` at the baseline, where nothing but memory is known.
pub(super) fn select(
    rows: &[ProcessSample],
    matches: impl Fn(usize) -> bool,
    profile: &Profile,
    interval: Option<Duration>,
) -> Vec<bool> {
    let thresholds = thresholds(profile, interval);
    let uses: Vec<_> = rows.iter().map(uses).collect();
    let mut kept: Vec<bool> = uses
        .iter()
        .enumerate()
        .map(|(index, uses)| {
            profile.keep_all
                || uses.iter().zip(&thresholds).any(|(used, least)| {
                    used.zip(*least).is_some_and(|(used, least)| used >= least)
                })
                || matches(index)
        })
        .collect();
    for resource in 0..RESOURCES {
        let used = uses.iter().map(|uses| uses[resource]).enumerate();
        let mut users: Vec<_> = used
            .filter_map(|(index, used)| used.filter(|&used| used > 0).zip(Some(index)))
            .collect();
        let top = profile.top.min(users.len());
        if top > 0 {
            users.select_nth_unstable_by(top - 1, |one, other| other.cmp(one));
            for &(_, index) in &users[..top] {
                kept[index] = true;
            }
        }
    }
    for beyond in kept.iter_mut().filter(|kept| **kept).skip(MAX_KEPT) {
        PROCESS_ROWS_SHED.add(1);
        *beyond = false;
    }
    kept
}

/// The sum of `rows`, and of user and system CPU of processes that ended; `None` without either.
pub(super) fn residual<'a>(
    rows: impl Iterator<Item = &'a ProcessSample>,
    ended: Option<(u64, u64)>,
) -> Option<ProcessSample> {
    let mut sum = ProcessSample { instance_id: InstanceId::RESIDUAL, ..ProcessSample::default() };
    for row in rows {
        add_row(&mut sum, row);
    }
    if let Some((user, system)) = ended.filter(|ended| *ended != (0, 0)) {
        add(&mut sum.cpu_user_us, Some(user));
        add(&mut sum.cpu_system_us, Some(system));
    }
    let is_nothing = sum.process_count == 0 && sum.cpu_user_us.is_none();
    (!is_nothing).then_some(sum)
}

fn add_row(sum: &mut ProcessSample, row: &ProcessSample) {
    sum.process_count = sum.process_count.saturating_add(row.process_count).min(MAX_COUNT);
    add(&mut sum.cpu_user_us, row.cpu_user_us);
    add(&mut sum.cpu_system_us, row.cpu_system_us);
    add(&mut sum.memory_usage_bytes, row.memory_usage_bytes);
    add(&mut sum.memory_swap_bytes, row.memory_swap_bytes);
    add(&mut sum.disk_read_bytes, row.disk_read_bytes);
    add(&mut sum.disk_write_bytes, row.disk_write_bytes);
    add(&mut sum.network_receive_bytes, row.network_receive_bytes);
    add(&mut sum.network_transmit_bytes, row.network_transmit_bytes);
    add(&mut sum.run_queue_delay_us, row.run_queue_delay_us);
    add_count(&mut sum.thread_count, row.thread_count);
    add_count(&mut sum.file_descriptor_count, row.file_descriptor_count);
    add(&mut sum.paging_faults_minor, row.paging_faults_minor);
    add(&mut sum.paging_faults_major, row.paging_faults_major);
    add(&mut sum.context_switches_voluntary, row.context_switches_voluntary);
    add(&mut sum.context_switches_involuntary, row.context_switches_involuntary);
}

/// Adds what processes that ended read and wrote to the residual.
pub(super) fn add_disk(residual: &mut Option<ProcessSample>, ended: Disk) {
    let Disk { read_bytes, write_bytes } = ended;
    if read_bytes.unwrap_or(0) == 0 && write_bytes.unwrap_or(0) == 0 {
        return;
    }
    let row = residual.get_or_insert_with(|| ProcessSample {
        instance_id: InstanceId::RESIDUAL,
        ..ProcessSample::default()
    });
    add(&mut row.disk_read_bytes, read_bytes);
    add(&mut row.disk_write_bytes, write_bytes);
}

pub(super) fn add(sum: &mut Option<u64>, value: Option<u64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0).saturating_add(value).min(MAX_COUNTER));
    }
}

fn add_count(sum: &mut Option<u32>, value: Option<u32>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0).saturating_add(value).min(MAX_COUNT));
    }
}

/// What a row uses of each resource, in the unit of its fields.
fn uses(row: &ProcessSample) -> [Option<u64>; RESOURCES] {
    let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (None, None) => None,
        _ => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
    };
    [
        sum(row.cpu_user_us, row.cpu_system_us),
        sum(row.memory_usage_bytes, row.memory_swap_bytes),
        sum(row.disk_read_bytes, row.disk_write_bytes),
        sum(row.network_receive_bytes, row.network_transmit_bytes),
    ]
}

/// The least of each resource that keeps a row, over this interval.
fn thresholds(profile: &Profile, interval: Option<Duration>) -> [Option<u64>; RESOURCES] {
    [
        amount(profile.cpu_cores * 1e6, interval),
        Some(profile.memory_bytes),
        over_interval(profile.disk_bytes_per_second, interval),
        over_interval(profile.network_bytes_per_second, interval),
    ]
}

/// What a rate in bytes per second comes to in this interval.
pub(super) fn over_interval(rate: u64, interval: Option<Duration>) -> Option<u64> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a threshold need not be exact beyond 2^53 bytes"
    )]
    amount(rate as f64, interval)
}

fn amount(per_second: f64, interval: Option<Duration>) -> Option<u64> {
    let least = (per_second * interval?.as_secs_f64()).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates: a negative threshold is 0, NaN is 0, a huge one keeps nothing"
    )]
    let least = least as u64;
    Some(least)
}

#[cfg(test)]
mod tests;
