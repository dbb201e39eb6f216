//! The volume of an agent's spool runs full: it goes on from memory for as long as a server takes its reports, also
//! through a short outage of that server, and on disk again when there is room.

use anyhow::{Result, ensure};
use sqlx::PgConnection;
use uuid::Uuid;

use super::real::{Real, options};
use super::{Done, Scale, Verdict};
use crate::agent::AgentOptions;
use crate::fleet::check::Checked;
use crate::spooled::cursor;
use crate::volume::SmallVolume;

const VOLUME_BYTES: u64 = 8 << 20;
/// Reports before each step.
const REPORTS: u64 = 6;

pub(super) fn run(scale: Scale) -> Done<'static, Verdict> {
    Box::pin(async move {
        // Dropped last: the agent's files lie on it.
        let volume = SmallVolume::mount(VOLUME_BYTES)?;
        let state_dir = Some(volume.path().join("state"));
        let full = AgentOptions { state_dir, ..options("full".into()) };
        let mut real = Real::start("spool-full", vec![full]).await?;
        for _ in 0..scale.repeats {
            volume.fill()?;
            real.progress("the spool's volume is full", REPORTS).await?;
            real.server.signal(rustix::process::Signal::STOP)?;
            tokio::time::sleep(scale.broken).await;
            real.server.signal(rustix::process::Signal::CONT)?;
            real.progress("and the server was away", REPORTS).await?;
            volume.free()?;
            real.progress("there is room again", REPORTS).await?;
        }
        let agent = &mut real.agents[0];
        let host_id = agent.host_id()?;
        agent.terminate().await?;
        let checked = judge(&mut real.connection, host_id).await?;
        real.verdict(checked, 0).await
    })
}

/// A full volume keeps nothing that was acknowledged, so the spool is no oracle here: every sequence is one report of its own
/// time, and none is a gap.
async fn judge(connection: &mut PgConnection, host_id: Uuid) -> Result<Checked> {
    let last = cursor(connection, host_id).await?;
    let query = "select count(*), count(distinct sampled_at) from host_samples where host_id = $1";
    let (reports, times): (i64, i64) =
        sqlx::query_as(query).bind(host_id).fetch_one(&mut *connection).await?;
    let query = "select count(*) from ingest_rejects where host_id = $1";
    let gaps: i64 = sqlx::query_scalar(query).bind(host_id).fetch_one(&mut *connection).await?;
    ensure!(
        reports == times && reports.cast_unsigned() == last && gaps == 0,
        "{last} sequences, {reports} reports of {times} times, {gaps} gaps"
    );
    Ok(Checked { hosts: 1, reports: last, ..Checked::default() })
}
