//! Real agents and one server, for what is done to agents themselves.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use super::Verdict;
use crate::agent::{AgentOptions, AgentProcess};
use crate::eventually::eventually;
use crate::fleet::check::Checked;
use crate::fleet::command::now;
use crate::oracle;
use crate::postgres::PostgresCluster;
use crate::server::{Deployment, Doors, ServerProcess};
use crate::spooled::{ahead, cursor, settle};

/// Between two reports: kept records must hold the whole run.
pub const INTERVAL: Duration = Duration::from_millis(500);
const DEADLINE: Duration = Duration::from_mins(1);

/// Dropped in this order.
#[derive(Debug)]
pub struct Real {
    /// Enrolled and running.
    pub agents: Vec<AgentProcess>,
    /// The only one.
    pub server: ServerProcess,
    /// Its database.
    pub connection: PgConnection,
    recovered: Vec<(String, f64)>,
    _kept: (Deployment, PostgresCluster),
}

impl Real {
    /// Starts one agent for each of `options`; all report when this returns.
    pub async fn start(name: &str, options: Vec<AgentOptions>) -> Result<Self> {
        let cluster = PostgresCluster::start_new().await?;
        let doors = Doors::free()?;
        let deployment =
            Deployment::create(name, &cluster.url, vec![doors.agent_endpoint()]).await?;
        let server = deployment.start("server", doors).await?;
        let mut agents = Vec::new();
        for options in options {
            let token = deployment.create_token(&options.name, &[]).await?;
            agents.push(AgentProcess::start(options, &token).await?);
        }
        let connection = PgConnection::connect(&cluster.url).await?;
        let recovered = Vec::new();
        let kept = (deployment, cluster);
        let mut real = Self { agents, server, connection, recovered, _kept: kept };
        real.progress("the start", 2).await?;
        Ok(real)
    }

    /// Waits until the server took `count` more records of every agent, and notes how long that took after `fault`.
    pub async fn progress(&mut self, fault: &str, count: u64) -> Result<()> {
        let started = std::time::Instant::now();
        for agent in &mut self.agents {
            let host_id = agent.host_id()?;
            let before = cursor(&mut self.connection, host_id).await?;
            let what = format!("progress of {host_id} after {fault}");
            let waited = eventually(DEADLINE, &what, async || {
                agent.check_alive()?;
                let stands = cursor(&mut self.connection, host_id).await?;
                ensure!(stands >= before + count, "the cursor stands at {stands}, was {before}");
                Ok(())
            });
            waited.await.with_context(|| agent.log_tail())?;
        }
        let seconds = started.elapsed().as_secs_f64();
        eprintln!("{fault}: {seconds:.1} s");
        self.recovered.push((fault.to_owned(), seconds));
        Ok(())
    }

    /// Stops all agents and compares what their spools hold with the database, row by row.
    pub async fn finish(mut self) -> Result<Verdict> {
        let mut checked = Checked::default();
        let mut gaps = 0;
        for agent in &mut self.agents {
            let records = settle(&mut self.connection, agent).await?;
            let rejected = ahead(&records, now());
            let compared = oracle::compare_with(&mut self.connection, &records, &rejected).await?;
            checked.hosts += 1;
            checked.hosts_in_full += 1;
            checked.reports += compared.reports as u64;
            checked.rejected += rejected.len() as u64;
            checked.rows += compared.rows as u64;
            gaps += compared.gaps;
        }
        self.verdict(checked, gaps).await
    }

    /// Ends the server.
    pub async fn verdict(mut self, checked: Checked, gaps: usize) -> Result<Verdict> {
        self.server.terminate().await?;
        Ok(Verdict {
            recovered_after_s: self.recovered,
            totals: json!({ "gaps": gaps }),
            checked,
            refilled: 0,
        })
    }
}

/// An agent that reports often.
pub fn options(name: String) -> AgentOptions {
    AgentOptions { name, interval: INTERVAL, ..AgentOptions::default() }
}
