//! Collectors: the sources of a report, one per file, one line each in [`REGISTRY`].
//!
//! A collector only reads. The runner (`agent/runner.rs`) times it, counts it, classifies how it
//! ended and keeps it from holding up the others. Three rules make reports add up:
//!
//! - **The first run is the baseline**: gauges only, every delta null.
//! - **A delta covers exactly the interval of its report.** A run that was late or failed leaves a
//!   hole, so the runner throws the collector away and builds a new one: its next run is a baseline
//!   again, and nulls are honest where a number over another interval would not be.
//! - **Unknown is `None`.** A thing that vanished between two reads is not an error; a file that does not
//!   parse is.
//!
//! Collectors read `/proc`, `/sys` and system calls. They never spawn a command, never write.

pub mod block_device;
pub mod cpu;
pub mod delta;
pub mod filesystem;
pub mod load;
pub mod memory;
pub mod network_interface;
pub mod pressure;
pub mod process;
pub mod settings;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use shared_model::{
    BlockDeviceSample, ConnectionSample, ExitFold, FieldSource, FilesystemSample, HostSample,
    InstanceDefinition, NetworkInterfaceSample, ProcessDefinition, ProcessExit, ProcessSample,
    Tier, Timestamp,
};
use uuid::Uuid;

use self::settings::Settings;
use crate::bpf::{Bpf, BpfError};
use crate::procfs::{ParseError, ProcfsError, Reader, Root};

/// A source of one part of the report.
pub trait Collector: Send {
    /// Reads its part into `batch`, which is empty: the runner merges the parts.
    fn collect(&mut self, tick: &Tick, batch: &mut Batch) -> Result<(), CollectError>;
}

/// What a collector is told about the moment it samples.
#[derive(Clone, Debug)]
pub struct Tick {
    /// The end of the interval.
    pub sampled_at: Timestamp,
    /// What of `sampled_at` is not the wall clock's, by which the kernel tells when it booted.
    pub clock_offset: time::Duration,
    /// The same moment on `CLOCK_MONOTONIC`, which stands still while the host is suspended, as its
    /// counters do: only differences mean something.
    pub monotonic: Duration,
    /// Describe every live instance again: the server may have missed definitions.
    pub describe_all: bool,
    /// What to work by in this tick.
    pub settings: Arc<Settings>,
}

/// The parts of a report that collectors fill. Each collector owns the fields its file names.
#[derive(Debug, Default)]
pub struct Batch {
    /// Where the data came from, where it is not what the registry says (no privileges: [`Tier::C`]).
    pub tier: Option<Tier>,
    /// See [`shared_model::AgentSample::sources`].
    pub sources: Vec<FieldSource>,
    /// See [`shared_model::Report::host`].
    pub host: HostSample,
    /// See [`shared_model::Report::filesystems`].
    pub filesystems: Vec<FilesystemSample>,
    /// See [`shared_model::Report::block_devices`].
    pub block_devices: Vec<BlockDeviceSample>,
    /// See [`shared_model::Report::network_interfaces`].
    pub network_interfaces: Vec<NetworkInterfaceSample>,
    /// See [`shared_model::Report::processes`].
    pub processes: Vec<ProcessSample>,
    /// See [`shared_model::Report::connections`].
    pub connections: Vec<ConnectionSample>,
    /// See [`shared_model::Report::exits`].
    pub exits: Vec<ProcessExit>,
    /// See [`shared_model::Report::exit_folds`].
    pub exit_folds: Vec<ExitFold>,
    /// See [`shared_model::Report::process_definitions`].
    pub process_definitions: Vec<ProcessDefinition>,
    /// See [`shared_model::Report::instance_definitions`].
    pub instance_definitions: Vec<InstanceDefinition>,
}

/// Why a collector delivered nothing.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// There is nothing of its kind on this host: not a failure.
    #[error("nothing of this kind on this host")]
    NoData,
    /// A file could not be read or understood.
    #[error(transparent)]
    Procfs(#[from] ProcfsError),
    /// A BPF program cannot be read.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// A system call without a path failed.
    #[error("{call} failed")]
    Call {
        /// Which, such as `sched_getaffinity`.
        call: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What every collector may need to be built. Cheap to clone; a collector is built again after it failed.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where `/proc`, `/sys` and `/etc` are.
    pub root: Root,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Uuid,
    /// The BPF programs that run.
    pub bpf: Arc<Bpf>,
    /// `[titles]`: which titles of processes are shortened, and how.
    pub titles: process::titles::Options,
}

/// One line of the registry.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Its name in `agent.collectors[]` and the name of its file.
    pub name: &'static str,
    /// Where its data comes from, if the collector does not say otherwise.
    pub tier: Tier,
    /// Longest a run may take before its part of the report is given up.
    pub deadline: Duration,
    /// Builds it. Reads nothing: whatever can fail or hang belongs in `collect`.
    pub build: Build,
}

/// A collector's constructor.
pub type Build = fn(&Setup) -> Box<dyn Collector>;

/// Every collector, in the order in which their parts are merged.
pub static REGISTRY: &[Registration] = &[
    procfs("cpu", SHORT, cpu::build),
    procfs("memory", SHORT, memory::build),
    procfs("load", SHORT, load::build),
    procfs("pressure", SHORT, pressure::build),
    procfs("block_device", SHORT, block_device::build),
    procfs("network_interface", SHORT, network_interface::build),
    procfs("filesystem", LONG, filesystem::build),
    procfs("process", LONG, process::build),
];

/// A line of the registry for a collector that reads procfs and sysfs.
const fn procfs(name: &'static str, deadline: Duration, build: Build) -> Registration {
    Registration { name, tier: Tier::B, deadline, build }
}

/// Deadline of a collector that reads a handful of files of the kernel.
const SHORT: Duration = Duration::from_secs(2);
/// Deadline of a collector whose reading grows with the host.
const LONG: Duration = Duration::from_secs(10);

/// Reads a file whose absence, or whose `EOPNOTSUPP` from a kernel that has the file but not the
/// feature switched on, means that there is no data.
fn read_if_supported<'a>(reader: &'a mut Reader, path: &Path) -> Result<&'a [u8], CollectError> {
    reader.read(path).map_err(|error| match error {
        ProcfsError::Read { ref source, .. }
            if error.is_absent()
                || source.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) =>
        {
            CollectError::NoData
        }
        other => other.into(),
    })
}

/// The text of a file of the kernel that holds nothing but ASCII.
fn text(bytes: &[u8]) -> Result<&str, ParseError> {
    str::from_utf8(bytes).map_err(|_| ParseError("text"))
}

impl Batch {
    /// Adds the part that another collector delivered. Each field of the host belongs to one collector.
    pub fn merge(&mut self, part: Self) {
        merge_host(&mut self.host, &part.host);
        self.sources.extend(part.sources);
        self.filesystems.extend(part.filesystems);
        self.block_devices.extend(part.block_devices);
        self.network_interfaces.extend(part.network_interfaces);
        self.processes.extend(part.processes);
        self.connections.extend(part.connections);
        self.exits.extend(part.exits);
        self.exit_folds.extend(part.exit_folds);
        self.process_definitions.extend(part.process_definitions);
        self.instance_definitions.extend(part.instance_definitions);
    }
}

/// Takes over every field that is known in `part`.
fn merge_host(host: &mut HostSample, part: &HostSample) {
    macro_rules! take_over {
        ($($field:ident),+ $(,)?) => {
            // Names every field, so that one added to the contract does not compile until it is here.
            let HostSample { $($field),+ } = part;
            $(if $field.is_some() { host.$field = *$field; })+
        };
    }
    take_over!(
        cpu_count,
        cpu_user_us,
        cpu_system_us,
        cpu_iowait_us,
        cpu_steal_us,
        cpu_idle_us,
        load_1m,
        load_5m,
        load_15m,
        memory_total_bytes,
        memory_used_bytes,
        memory_available_bytes,
        memory_free_bytes,
        swap_total_bytes,
        swap_used_bytes,
        pressure_cpu_some_us,
        pressure_memory_some_us,
        pressure_memory_full_us,
        pressure_io_some_us,
        pressure_io_full_us,
        uptime_s,
        processes_running,
        processes_total,
        context_switches,
        forks,
        interface_receive_bytes,
        interface_transmit_bytes,
        socket_receive_bytes,
        socket_transmit_bytes,
    );
}
