//! What else people use, each from its Debian package, and what one collection of it costs.
//!
//! CPU is user and system time of the program and everything it starts. Of programs that read everything at
//! their start and then again every second, only the further seconds count: two runs of different
//! length are subtracted. They run with their output thrown away. Nothing here is what we do: the seed's
//! pipelines have no history, nethogs only knows the network, atop and pidstat print to a terminal.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::child;

/// Longest run of one command, seconds.
const TIMEOUT: &str = "60";
/// How often each is measured.
const RUNS: usize = 3;
/// Scrapes of an exporter in one measurement: its CPU is counted in clock ticks of 10 ms.
const SCRAPES: u32 = 3;
/// Where the exporter listens.
const EXPORTER: &str = "127.0.0.1:19256";
/// How long it may take to listen.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// One of the others.
pub(super) struct Peer {
    /// As in the table.
    pub(super) name: &'static str,
    way: Way,
}

enum Way {
    /// A shell script that is one collection.
    Once(String),
    /// Two shell scripts, of which the second makes so many collections more.
    More(String, String, u32),
    /// A server that collects when it is asked.
    Exporter,
}

/// What was measured.
pub(super) struct Cost {
    /// CPU, ms, of every run.
    pub(super) cpu_ms: Vec<f64>,
    /// Wall time of the last run, ms; `None` where it waits on purpose.
    pub(super) wall_ms: Option<f64>,
    /// Resident memory, bytes.
    pub(super) memory: Option<u64>,
}

/// (package, a program of it).
const PACKAGES: [(&str, &str); 7] = [
    ("atop", "atop"),
    ("iftop", "iftop"),
    ("iotop", "iotop"),
    ("nethogs", "nethogs"),
    ("procps", "top"),
    ("prometheus-process-exporter", "prometheus-process-exporter"),
    ("sysstat", "pidstat"),
];

/// One collection of the system that this one succeeds: the same commands, with everything kept. A
/// command that cannot work here (`iotop` without taskstats) costs what it costs until it gives up.
const SEED: &str = "top -b -n 1 | awk 'NR > 7 { print $1, $2, $9, $10, $12 }'
ps -ef | awk '{ print $2, $0 }'
iotop -b -o -k -P -n 2 -d 1 | awk '{ print $1, $4, $6 }'
iftop -t -n -N -B -P -s 2 -L 200 -i INTERFACE 2>&1 | awk '{ print $1, $2, $3 }'
iostat -xk 1 2 | awk '{ print $1, $NF }'
lscpu | awk -F: '{ print $2 }'; uptime; free -k; df -k; true";

/// Installs what is missing, and says what can be measured.
pub(super) fn ready() -> Result<Vec<Peer>> {
    let missing: Vec<_> =
        PACKAGES.iter().filter(|(_, program)| !exists(program)).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    let interface = std::fs::read_dir("/sys/class/net")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| name != "lo")
        .unwrap_or_else(|| "lo".to_owned());
    let atop = |count: u32| {
        format!("f=$(mktemp); rm -f $f; atop -w $f 1 {count}; s=$?; rm -f $f; exit $s")
    };
    let pidstat = |count: u32| format!("pidstat -u -r -d -h 1 {count}");
    let nethogs = |count: u32| format!("nethogs -t -a -d 1 -c {count}");
    Ok(vec![
        Peer {
            name: "the seed's pipelines",
            way: Way::Once(SEED.replace("INTERFACE", &interface)),
        },
        Peer { name: "prometheus-process-exporter", way: Way::Exporter },
        Peer { name: "atop, a further sample", way: Way::More(atop(2), atop(3), 1) },
        Peer { name: "pidstat -urd, a further sample", way: Way::More(pidstat(1), pidstat(3), 2) },
        Peer { name: "nethogs, a further second", way: Way::More(nethogs(1), nethogs(3), 2) },
    ])
}

impl Peer {
    /// Runs it.
    pub(super) fn measure(&self) -> Result<Cost> {
        match &self.way {
            Way::Once(script) => {
                let runs = (0..RUNS).map(|_| cpu_of(script)).collect::<Result<Vec<_>>>()?;
                Ok(Cost { cpu_ms: runs, wall_ms: None, memory: None })
            }
            Way::More(few, many, more) => {
                let run = |_| Ok((cpu_of(many)? - cpu_of(few)?) / f64::from(*more));
                let runs = (0..RUNS).map(run).collect::<Result<Vec<_>>>()?;
                Ok(Cost { cpu_ms: runs, wall_ms: None, memory: None })
            }
            Way::Exporter => exporter(),
        }
    }
}

/// CPU, ms, of a script and all it starts.
fn cpu_of(script: &str) -> Result<f64> {
    let before = children_cpu_ms()?;
    let status = child::command(Path::new("timeout"))
        .args(["--kill-after=5", TIMEOUT, "sh", "-c", script])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    ensure!(status.code() != Some(124), "it did not end in {TIMEOUT} s");
    ensure!(status.success(), "it ended with {status}");
    Ok(children_cpu_ms()? - before)
}

/// CPU of all children that ended and were waited for, ms.
#[expect(clippy::cast_precision_loss, reason = "far from 2^53")]
fn children_cpu_ms() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(micros as f64 / 1000.0)
}

/// A server that ends with its owner.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // What cannot be killed or reaped has ended.
        self.0.kill().unwrap_or_default();
        drop(self.0.wait());
    }
}

fn exporter() -> Result<Cost> {
    let directory = child::Directory::create("bench-exporter")?;
    let config = directory.path().join("config.yml");
    std::fs::write(&config, "process_names:\n- name: \"{{.Comm}}\"\n  cmdline: [\".+\"]\n")?;
    let mut server = Server(
        child::command(Path::new("prometheus-process-exporter"))
            .arg(format!("-config.path={}", config.display()))
            .arg(format!("-web.listen-address={EXPORTER}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start prometheus-process-exporter")?,
    );
    let started = Instant::now();
    while TcpStream::connect(EXPORTER).is_err() {
        ensure!(server.0.try_wait()?.is_none(), "it ended by itself");
        ensure!(started.elapsed() < START_DEADLINE, "it does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    scrape()?;
    let pid = server.0.id();
    let mut cost = Cost { cpu_ms: Vec::new(), wall_ms: None, memory: None };
    for _ in 0..RUNS {
        let (before, began) = (process_cpu_ms(pid)?, Instant::now());
        for _ in 0..SCRAPES {
            scrape()?;
        }
        cost.wall_ms = Some(began.elapsed().as_secs_f64() * 1000.0 / f64::from(SCRAPES));
        cost.cpu_ms.push((process_cpu_ms(pid)? - before) / f64::from(SCRAPES));
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    cost.memory = kib.map(|kib| kib * 1024);
    Ok(cost)
}

/// One `GET /metrics`, read to its end.
fn scrape() -> Result<()> {
    let mut stream = TcpStream::connect(EXPORTER)?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.0 200"), "it does not answer with metrics");
    Ok(())
}

/// User and system CPU of a process, ms: fields 14 and 15 of its `stat`, in clock ticks.
#[expect(clippy::cast_precision_loss, reason = "far from 2^53")]
fn process_cpu_ms(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("comm in stat")?;
    let field = |number: usize| -> Result<u64> {
        Ok(fields.split_whitespace().nth(number - 3).context("a short stat")?.parse()?)
    };
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Ok((field(14)? + field(15)?) as f64 * 1000.0 / per_second)
}

fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places.into_iter().any(|directory| directory.join(program).is_file())
}

fn install(packages: &[&str]) -> Result<()> {
    eprintln!("installing {}", packages.join(" "));
    let apt = |arguments: &[&str]| -> Result<bool> {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        let output = command.output().context("apt-get: install them yourself, or --no-peers")?;
        Ok(output.status.success())
    };
    let wanted = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    if apt(&wanted)? || (apt(&["update"])? && apt(&wanted)?) {
        return Ok(());
    }
    bail!("apt-get cannot install {}: install them, or --no-peers", packages.join(" "))
}
