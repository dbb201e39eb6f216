//! Judgement over a fleet: what the agents made against what the database holds.
//!
//! Every host's rows are counted and summed, in every series; a few hosts are compared row by row and
//! column by column ([`crate::oracle`]). A lost row, a row stored twice or a changed time shows in the sums of
//! its host.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use shared_model::Record;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::oracle;
use crate::simulated::SimulatedAgent;

/// Hosts named in a failure.
const MAX_NAMED: usize = 5;
/// A clock this far ahead makes its reports rejects (`shared_model::limits::MAX_FUTURE`), with room for
/// what a request is late itself.
const REJECTED_AHEAD_MS: i64 = 30 * 60 * 1000;

/// What was found, all of it equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Hosts whose rows were counted and summed.
    pub hosts: u64,
    /// Of these, compared in full.
    pub hosts_in_full: u64,
    /// Reports in the database.
    pub reports: u64,
    /// Reports refused for a clock that was wrong on purpose.
    pub rejected: u64,
    /// Rows of all series.
    pub rows: u64,
}

/// Rows, and sums of times (µs), instances, CPU and memory.
type Sums = [i128; 5];

/// Compares the whole database with what these agents, all there are, made; `in_full` of them closely.
pub async fn check(
    connection: &mut PgConnection,
    agents: &[SimulatedAgent],
    in_full: usize,
) -> Result<Checked> {
    let mut checked = Checked { hosts: agents.len() as u64, ..Checked::default() };
    let mut expected: BTreeMap<&str, BTreeMap<Uuid, Sums>> = BTreeMap::new();
    for agent in agents {
        ensure!(
            agent.acknowledged_sequence == agent.last_sequence(),
            "{} has {} of {} acknowledged",
            agent.host_id,
            agent.acknowledged_sequence,
            agent.last_sequence()
        );
        let rejected = rejected(agent);
        checked.rejected += rejected.len() as u64;
        for sequence in (1..=agent.last_sequence()).filter(|n| !rejected.contains(n)) {
            let record = agent.record(sequence);
            let Record::Report(report) = record.as_ref() else { bail!("a gap was made") };
            checked.reports += 1;
            for (table, sums) in sums(report)? {
                let all = expected.entry(table).or_default().entry(agent.host_id).or_default();
                all.iter_mut().zip(sums).for_each(|(all, one)| *all += one);
                checked.rows += u64::try_from(sums[0])?;
            }
        }
    }
    for (table, expected) in &expected {
        compare(table, expected, &stored(connection, table).await?)?;
    }
    check_cursors(connection, agents).await?;
    let step = agents.len().div_ceil(in_full.max(1)).max(1);
    for agent in agents.iter().step_by(step).take(in_full) {
        let records: Vec<_> =
            (1..=agent.last_sequence()).map(|n| agent.record(n).into_owned()).collect();
        oracle::compare_with(connection, &records, &rejected(agent))
            .await
            .with_context(|| format!("{}: {:?}", agent.host_id, agent.counts))?;
        checked.hosts_in_full += 1;
    }
    Ok(checked)
}

/// Sequences sampled by a clock too far ahead.
pub fn rejected(agent: &SimulatedAgent) -> BTreeSet<u64> {
    let jump = agent.clock_jump().filter(|jump| jump.offset_ms > REJECTED_AHEAD_MS);
    jump.map_or_else(BTreeSet::new, |jump| {
        (jump.first_sequence..=jump.sequence.min(agent.last_sequence())).collect()
    })
}

fn sums(report: &shared_model::Report) -> Result<[(&'static str, Sums); 6]> {
    let us = report.sampled_at.unix_timestamp_nanos().div_euclid(1000);
    let rows = |count: usize| -> Result<Sums> {
        let count = i128::try_from(count)?;
        Ok([count, count * us, 0, 0, 0])
    };
    let mut processes = rows(report.processes.len())?;
    for sample in &report.processes {
        processes[2] += i128::from(sample.instance_id.0);
        processes[3] += i128::from(sample.cpu_user_us.unwrap_or(0));
        processes[4] += i128::from(sample.memory_usage_bytes.unwrap_or(0));
    }
    Ok([
        ("process_samples", processes),
        ("host_samples", rows(1)?),
        ("filesystem_samples", rows(report.filesystems.len())?),
        ("block_device_samples", rows(report.block_devices.len())?),
        ("network_interface_samples", rows(report.network_interfaces.len())?),
        ("connection_samples", rows(report.connections.len())?),
    ])
}

async fn stored(connection: &mut PgConnection, table: &str) -> Result<BTreeMap<Uuid, Sums>> {
    let more = if table == "process_samples" {
        "sum(instance_id)::text, sum(cpu_user_us)::text,
            coalesce(sum(memory_usage_bytes), 0)::text"
    } else {
        "'0', '0', '0'"
    };
    let query = format!(
        "select host_id, count(*)::text,
            sum((extract(epoch from sampled_at) * 1000000)::bigint)::text, {more}
        from {} group by host_id",
        oracle::reader(table)
    );
    let rows: Vec<(Uuid, String, String, String, String, String)> =
        sqlx::query_as(AssertSqlSafe(query)).fetch_all(connection).await.context("sum the rows")?;
    rows.into_iter()
        .map(|(host, count, times, instances, cpu, memory)| {
            let number = |text: &String| text.parse::<i128>().context("a sum");
            let sums = [&count, &times, &instances, &cpu, &memory];
            let sums: Vec<i128> = sums.into_iter().map(number).collect::<Result<_>>()?;
            Ok((host, sums.try_into().map_err(|_| anyhow::anyhow!("five sums"))?))
        })
        .collect()
}

fn compare(
    table: &str,
    expected: &BTreeMap<Uuid, Sums>,
    stored: &BTreeMap<Uuid, Sums>,
) -> Result<()> {
    if expected == stored {
        return Ok(());
    }
    let hosts: BTreeSet<_> = expected.keys().chain(stored.keys()).collect();
    let wrong: Vec<_> = hosts
        .into_iter()
        .filter(|host| expected.get(host) != stored.get(host))
        .map(|host| {
            format!("{host}: expected {:?}, stored {:?}", expected.get(host), stored.get(host))
        })
        .collect();
    bail!(
        "{table}: {} hosts differ (rows, times, instances, CPU, memory):\n  {}",
        wrong.len(),
        wrong[..wrong.len().min(MAX_NAMED)].join("\n  ")
    )
}

async fn check_cursors(connection: &mut PgConnection, agents: &[SimulatedAgent]) -> Result<()> {
    let stored: BTreeSet<(Uuid, Uuid, i64)> =
        sqlx::query_as("select host_id, stream_id, last_sequence from ingest_cursors")
            .fetch_all(connection)
            .await?
            .into_iter()
            .collect();
    for agent in agents.iter().filter(|agent| agent.last_sequence() > 0) {
        let last = i64::try_from(agent.last_sequence())?;
        ensure!(
            stored.contains(&(agent.host_id, agent.stream_id, last)),
            "the cursor of {} does not stand at {last}",
            agent.host_id
        );
    }
    Ok(())
}
