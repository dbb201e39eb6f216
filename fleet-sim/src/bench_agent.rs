//! What one tick of the real agent costs, by the number of processes on the host.
//!
//! The children are `tail -f /dev/null`: each has a command line of its own of more than 300 characters
//! and wakes once a second. `procfleet-agent run` samples the whole host every second into a spool of its
//! own; nobody answers its uplink. The reports then say what CPU all of the agent used from tick to
//! tick (collectors, encoding, fsync, uplink), how long the process collector took and how much memory the
//! agent holds. The first ticks, which describe everything, do not count.
//!
//! Meanwhile the same processes are read by the simplest loops there can be (its module `reference`), in the same
//! seconds on the same machine: a ratio survives a loaded machine, a number of milliseconds does not.
//!
//! Limits: ticks are a second apart, so caches are warmer than at the default of thirty. Descriptors that
//! stay open hold kernel memory that no RSS shows.

mod children;
mod reference;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use agent::identity::{Identity, load_or_create_key};
use agent::spool::{Limits, PeekLimits, Spool};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use shared_model::{EnrollResponse, Record, Report, Timestamp};
use uuid::Uuid;

use self::children::Children;
use self::reference::Pass;
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

/// `fleet-sim bench-agent`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Children of each line of the table.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000, 3000])]
    children: Vec<usize>,
    /// Ticks that count.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1000))]
    ticks: u16,
    /// Every process gets a row, instead of the default profile.
    #[arg(long)]
    keep_all: bool,
}

/// Measures and prints a Markdown table.
pub fn run(arguments: &Arguments) -> Result<()> {
    let agent = agent_binary()?;
    println!(
        "| children | processes | rows | CPU ms per tick (median, least–most) | µs per process | open/read/close µs | kept descriptors µs | ratio to open/read/close | process collector ms | RSS MiB | report bytes | load |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
    );
    for &count in &arguments.children {
        let children = Children::start(count)?;
        let (reports, passes) = measure(&agent, arguments)?;
        drop(children);
        println!("{}", line(count, &reports, &passes)?);
    }
    Ok(())
}

/// Beside this program.
fn agent_binary() -> Result<PathBuf> {
    let agent = std::env::current_exe()?.with_file_name("procfleet-agent");
    ensure!(agent.exists(), "{} is missing: cargo build --release --bins", agent.display());
    Ok(agent)
}

/// A report, and its length as it travels.
type Sized = (Report, usize);

/// Runs the agent and, between its ticks, the reference; what both say after the warm-up.
fn measure(agent: &Path, arguments: &Arguments) -> Result<(Vec<Sized>, Vec<Pass>)> {
    let directory = child::Directory::create("bench-agent")?;
    let host_id = enroll(directory.path())?;
    let mut running = Agent::start(agent, directory.path(), arguments.keep_all)?;
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
    fn start(program: &Path, state_dir: &Path, keep_all: bool) -> Result<Self> {
        let log = std::fs::File::create(state_dir.join("agent.log"))?;
        let child = child::command(program)
            .arg("run")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PROCFLEET_AGENT_STATE_DIR", state_dir)
            .env("PROCFLEET_AGENT_INTERVAL_MS", INTERVAL.as_millis().to_string())
            .env("PROCFLEET_AGENT_BUDGET__CPU_CORES", "100")
            .env("PROCFLEET_AGENT_PROFILE__KEEP_ALL", keep_all.to_string())
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

/// Smallest, middle and largest.
fn spread(values: impl Iterator<Item = f64>) -> Result<(f64, f64, f64)> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    match (values.first(), values.get(values.len() / 2), values.last()) {
        (Some(&least), Some(&median), Some(&most)) => Ok((least, median, most)),
        _ => bail!("nothing was measured"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn line(count: usize, reports: &[Sized], passes: &[Pass]) -> Result<String> {
    let known = |value: Option<u64>| value.map_or(f64::NAN, |value| value as f64);
    let each = |of: &dyn Fn(&Sized) -> f64| spread(reports.iter().map(of));
    let processes = |(report, _): &Sized| {
        report.processes.iter().map(|row| f64::from(row.process_count)).sum::<f64>()
    };
    let collector_us = |(report, _): &Sized| {
        let run = report.agent.collectors.iter().find(|run| run.collector == "process");
        run.map_or(f64::NAN, |run| run.duration_us as f64)
    };
    let (least, cpu, most) = each(&|(report, _)| known(report.agent.cpu_us) / 1000.0)?;
    let (_, present, _) = each(&processes)?;
    let (_, rows, _) = each(&|(report, _)| report.processes.len() as f64)?;
    let (_, wall, _) = each(&|report| collector_us(report) / 1000.0)?;
    let (_, rss, _) = each(&|(report, _)| known(report.agent.memory_usage_bytes))?;
    let (_, bytes, _) = each(&|(_, bytes)| *bytes as f64)?;
    let per_process = |of: fn(&Pass) -> Duration| {
        let micros = |pass: &Pass| of(pass).as_secs_f64() * 1e6 / pass.processes as f64;
        spread(passes.iter().map(micros)).map(|(_, median, _)| median)
    };
    let (opened, kept) = (per_process(|pass| pass.opened)?, per_process(|pass| pass.kept)?);
    let own = cpu * 1000.0 / present;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    Ok(format!(
        "| {count} | {present} | {rows} | {cpu:.1} ({least:.1}–{most:.1}) | {own:.1} | {opened:.1} | {kept:.1} | {:.2} | {wall:.1} | {:.1} | {bytes} | {load} |",
        own / opened,
        rss / f64::from(1 << 20),
    ))
}
