//! The real agent, run over some ticks: what its reports say of itself.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use agent::identity::{Identity, load_or_create_key};
use agent::spool::{Limits, PeekLimits, Spool};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use shared_model::{EnrollResponse, Record, Report, Timestamp};
use uuid::Uuid;

use super::reference::{self, Pass};
use super::{Arguments, Tier};
use crate::child;

/// Ticks that are not counted: they describe every kept process, and fill caches.
const WARM_UP: usize = 4;
/// Between ticks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Most compressed and inflated bytes of all reports of one run.
const SPOOL: PeekLimits =
    PeekLimits { bytes: 256 << 20, inflated_bytes: 1 << 30, records: 100_000 };
/// Longest record, bytes of JSON.
const MAX_LINE_BYTES: usize = 64 << 20;
/// How long the agent may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// A report, and its length as it travels.
pub(super) type Sized = (Report, usize);

/// Beside this program.
pub(super) fn agent_binary() -> Result<PathBuf> {
    let agent = std::env::current_exe()?.with_file_name("procfleet-agent");
    ensure!(agent.exists(), "{} is missing: cargo build --release --bins", agent.display());
    Ok(agent)
}

/// Runs the agent and, between its ticks, the reference; what both say after the warm-up.
pub(super) fn measure(
    agent: &Path,
    arguments: &Arguments,
    tier: Tier,
) -> Result<(Vec<Sized>, Vec<Pass>)> {
    let directory = child::Directory::create("bench-agent")?;
    let host_id = enroll(directory.path())?;
    let mut running = Agent::start(agent, directory.path(), arguments.keep_all, tier)?;
    let ticks = usize::from(arguments.ticks);
    let mut reference = reference::Kept::default();
    let mut passes = Vec::new();
    let started = Instant::now();
    for tick in 0..ticks + WARM_UP {
        passes.push(reference.pass()?);
        running.check()?;
        let next = INTERVAL * u32::try_from(tick + 1)?;
        std::thread::sleep(next.saturating_sub(started.elapsed()));
    }
    running.stop()?;
    let mut reports = reports(directory.path(), host_id)?;
    // The last one is made at the signal, in a hurry.
    reports.pop();
    ensure!(reports.len() > WARM_UP, "the agent made {} reports only", reports.len());
    let losses = reports.last().map(|(report, _)| &report.agent.losses);
    if let Some(losses) = losses.filter(|losses| !losses.is_empty()) {
        eprintln!("the agent's losses: {losses:?}");
    }
    Ok((reports.split_off(WARM_UP), passes.split_off(WARM_UP)))
}

/// An identity of a host whose server does not answer.
fn enroll(state_dir: &Path) -> Result<Uuid> {
    let directory = state_dir.join("identity");
    let key = load_or_create_key(&directory)?;
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?;
    let pem = certificate.self_signed(&key)?.pem();
    let response = EnrollResponse {
        host_id: Uuid::from_u128(1),
        certificate_chain_pem: pem.clone(),
        ca_bundle_pem: pem,
        not_after: Timestamp::UNIX_EPOCH.replace_year(2100)?,
        renew_after: Timestamp::UNIX_EPOCH.replace_year(2099)?,
        server_time: Timestamp::UNIX_EPOCH,
        // Discard: nobody listens there.
        endpoints: vec!["https://localhost:9".to_owned()],
    };
    Ok(Identity::store(&directory, &response)?.host_id)
}

/// Every report that was spooled, validated.
fn reports(state_dir: &Path, host_id: Uuid) -> Result<Vec<Sized>> {
    let spool = Spool::open(&state_dir.join("spool"), Limits::default(), host_id)?;
    let mut reports = Vec::new();
    for spooled in spool.peek(SPOOL) {
        let line =
            zstd::bulk::decompress(&spooled.frame, MAX_LINE_BYTES).context("inflate a record")?;
        let record = Record::decode(line.trim_ascii_end()).context("decode a record")?;
        record.validate().context("validate a record")?;
        let Record::Report(report) = record else { bail!("the spool lost a report") };
        reports.push((*report, spooled.frame.len()));
    }
    Ok(reports)
}

/// A running agent, ended with its owner.
struct Agent(std::process::Child);

impl Agent {
    fn start(program: &Path, state_dir: &Path, keep_all: bool, tier: Tier) -> Result<Self> {
        let log = std::fs::File::create(state_dir.join("agent.log"))?;
        let child = child::command(program)
            .arg("run")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PROCFLEET_AGENT_STATE_DIR", state_dir)
            .env("PROCFLEET_AGENT_INTERVAL_MS", INTERVAL.as_millis().to_string())
            .env("PROCFLEET_AGENT_BUDGET__CPU_CORES", "100")
            .env("PROCFLEET_AGENT_PROFILE__KEEP_ALL", keep_all.to_string())
            .env("PROCFLEET_AGENT_COLLECT__TIER", tier.setting())
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self(child))
    }

    fn check(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            Some(status) => bail!("the agent ended by itself, with {status}"),
            None => Ok(()),
        }
    }

    /// SIGTERM, and waits for the end.
    fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::TERM).context("stop the agent")?;
        let started = Instant::now();
        while started.elapsed() < STOP_DEADLINE {
            if let Some(status) = self.0.try_wait()? {
                ensure!(status.success(), "the agent ended with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the agent does not end")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // What cannot be killed or reaped has ended.
        self.0.kill().unwrap_or_default();
        drop(self.0.wait());
    }
}
