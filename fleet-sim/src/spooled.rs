//! What a real agent's spool holds: kept segments make it the oracle of what that agent said.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use agent::spool::{Limits, PeekLimits, Spool};
use anyhow::{Context as _, Result, ensure};
use shared_model::{Record, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::agent::AgentProcess;
use crate::eventually::eventually;

const DEADLINE: Duration = Duration::from_mins(1);
/// Stops of an agent until one leaves an empty spool.
const STOPS: usize = 5;
/// Largest record.
const MAX_LINE_BYTES: usize = 32 << 20;
/// Sampled this far in the future, a record is a reject (`shared_model::limits::MAX_FUTURE`), whatever it was late.
const REJECTED_AHEAD: Duration = Duration::from_mins(30);

/// Every record in a spool that no agent uses now (or in a copy of one), acknowledged ones included.
pub fn spooled_records(directory: &Path, host_id: Uuid) -> Result<Vec<Record>> {
    let spool = Spool::open(directory, Limits::default(), host_id)?;
    // A server that knows nothing makes the spool show everything it kept.
    spool.acknowledge(0, std::time::Instant::now());
    let all = PeekLimits { bytes: usize::MAX, inflated_bytes: usize::MAX, records: usize::MAX };
    spool
        .peek(all)
        .iter()
        .map(|record| {
            let line = zstd::bulk::decompress(&record.frame, MAX_LINE_BYTES)?;
            Record::decode(&line).context("a spooled record")
        })
        .collect()
}

/// How far the database says that a host's stream was taken.
pub async fn cursor(connection: &mut PgConnection, host_id: Uuid) -> Result<u64> {
    let query = "select max(last_sequence) from ingest_cursors where host_id = $1";
    let last: Option<i64> = sqlx::query_scalar(query).bind(host_id).fetch_one(connection).await?;
    Ok(last.unwrap_or(0).cast_unsigned())
}

/// Stops the agent when the server has everything its spool holds, and returns all of that.
pub async fn settle(
    connection: &mut PgConnection,
    agent: &mut AgentProcess,
) -> Result<Vec<Record>> {
    let host_id = agent.host_id()?;
    for _ in 0..STOPS {
        agent.terminate().await?;
        let records = spooled_records(&agent.state_dir().join("spool"), host_id)?;
        let last = records.last().context("an empty spool")?.head().sequence;
        if cursor(connection, host_id).await? == last {
            return Ok(records);
        }
        agent.run()?;
        eventually(DEADLINE, "the spool is delivered", async || {
            agent.check_alive()?;
            let cursor = cursor(connection, host_id).await?;
            ensure!(cursor >= last, "the cursor stands at {cursor} of {last}");
            Ok(())
        })
        .await
        .with_context(|| agent.log())?;
    }
    anyhow::bail!("the agent never ended with an empty spool:\n{}", agent.log())
}

/// Sequences sampled by a clock too far ahead of `now`.
pub fn ahead(records: &[Record], now: Timestamp) -> BTreeSet<u64> {
    let late = now + REJECTED_AHEAD;
    let is_ahead = |record: &&Record| match record {
        Record::Report(report) => report.sampled_at > late,
        Record::Gap(_) => false,
    };
    records.iter().filter(is_ahead).map(|record| record.head().sequence).collect()
}
