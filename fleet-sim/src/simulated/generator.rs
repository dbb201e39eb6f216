//! Plausible reports of known content, from a seed.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use shared_model::{
    AgentSample, BlockDeviceSample, CollectorOutcome, CollectorRun, ConnectionSample,
    ConnectionScope, Direction, FilesystemSample, HostFacts, HostSample, InstanceDefinition,
    InstanceId, NetworkInterfaceSample, PROTOCOL_VERSION, ProcessDefinition, ProcessId,
    ProcessSample, Record, Report, Tier, Timestamp, TransportProtocol,
};
use uuid::Uuid;

use crate::random::Random;

/// Processes per report, the residual not counted.
const PROCESSES: u32 = 12;
/// A process is replaced by a new one this often, in reports.
const CHURN: u64 = 5;
const INTERVAL_MS: u32 = 1000;
/// Reports lie in the past, so that none is ahead of the server's clock.
const AGE: Duration = Duration::from_hours(1);

/// Makes the reports of one simulated host.
#[derive(Debug)]
pub struct Generator {
    host_id: Uuid,
    stream_id: Uuid,
    boot_id: Uuid,
    facts: HostFacts,
    started_at: Timestamp,
    seed: u64,
}

impl Generator {
    /// Reports are one second apart, from an hour before `now` on.
    pub fn new(
        host_id: Uuid,
        stream_id: Uuid,
        facts: HostFacts,
        seed: u64,
        now: Timestamp,
    ) -> Self {
        let whole = now.replace_nanosecond(0).unwrap_or(now);
        let boot_id = Uuid::from_u64_pair(seed, !seed);
        Self { host_id, stream_id, boot_id, facts, started_at: whole - AGE, seed }
    }

    /// The report with this sequence, always the same.
    pub fn report(&self, sequence: u64) -> Record {
        let mut random = Random::new(self.seed.wrapping_mul(1_000_003).wrapping_add(sequence));
        // Microseconds in the time show what a database that rounds them would do.
        let sampled_at = self.started_at
            + Duration::from_secs(sequence)
            + Duration::from_micros(random.below(900_000));
        let mut report = Report {
            version: PROTOCOL_VERSION,
            host_id: self.host_id,
            stream_id: self.stream_id,
            sequence,
            boot_id: self.boot_id,
            sampled_at,
            interval_ms: INTERVAL_MS,
            facts: (sequence == 1).then(|| self.facts.clone()),
            host: host(&mut random),
            filesystems: vec![filesystem(&mut random)],
            block_devices: vec![block_device(&mut random)],
            network_interfaces: vec![network_interface(&mut random)],
            processes: vec![residual(&mut random)],
            connections: connections(self.boot_id, &mut random),
            exits: Vec::new(),
            exit_folds: Vec::new(),
            process_definitions: Vec::new(),
            instance_definitions: Vec::new(),
            agent: agent(&mut random),
        };
        for slot in 0..PROCESSES {
            self.add_process(&mut report, slot, &mut random);
        }
        Record::Report(Box::new(report))
    }

    /// Every slot holds a process; one slot per [`CHURN`] reports gets a new one, which is then described.
    fn add_process(&self, report: &mut Report, slot: u32, random: &mut Random) {
        let generation = (report.sequence + u64::from(slot)) / CHURN;
        let is_new =
            report.sequence == 1 || (report.sequence + u64::from(slot)).is_multiple_of(CHURN);
        let pid = 1000 + slot;
        let start_ticks = 100 + generation;
        let instance_id = InstanceId::of(self.boot_id, pid, start_ticks);
        report.processes.push(ProcessSample {
            instance_id,
            process_count: 1,
            cpu_user_us: Some(random.below(1_000_000)),
            cpu_system_us: Some(random.below(100_000)),
            memory_usage_bytes: Some(random.below(1 << 40)),
            memory_swap_bytes: None,
            disk_read_bytes: Some(random.below(1 << 30)),
            disk_write_bytes: Some(0),
            thread_count: Some(1 + slot),
            paging_faults_minor: Some(random.below(10_000)),
            ..ProcessSample::default()
        });
        if is_new {
            let command_line = format!("worker --slot={slot} --\u{fc}ber='{}'", generation % 7);
            let process_id = ProcessId::of(&command_line);
            report.instance_definitions.push(InstanceDefinition {
                instance_id,
                process_id,
                pid,
                parent_pid: Some(1),
                start_ticks,
                creation_time: self.started_at,
                user_id: Some(1000),
                owner: Some("worker".into()),
                executable_path: Some("/usr/bin/worker".into()),
                cgroup: Some("/system.slice/worker.service".into()),
                systemd_unit: Some("worker.service".into()),
                container_id: None,
                pod_uid: None,
                service_ports: (slot == 0).then(|| vec![3306, 33_060]),
            });
            let definition =
                ProcessDefinition { process_id, command_line, executable_name: "worker".into() };
            if !report.process_definitions.contains(&definition) {
                report.process_definitions.push(definition);
            }
        }
    }
}

fn host(random: &mut Random) -> HostSample {
    HostSample {
        cpu_count: Some(4),
        cpu_user_us: Some(random.below(4_000_000)),
        cpu_system_us: Some(random.below(400_000)),
        cpu_idle_us: Some(random.below(4_000_000)),
        load_1m: Some(0.25),
        memory_total_bytes: Some(8 << 30),
        memory_used_bytes: Some(random.below(8 << 30)),
        forks: Some(random.below(100)),
        ..HostSample::default()
    }
}

fn filesystem(random: &mut Random) -> FilesystemSample {
    FilesystemSample {
        mount_point: "/".into(),
        device: "/dev/vda1".into(),
        filesystem_type: "xfs".into(),
        total_bytes: Some(1 << 40),
        used_bytes: Some(random.below(1 << 40)),
        ..FilesystemSample::default()
    }
}

fn block_device(random: &mut Random) -> BlockDeviceSample {
    BlockDeviceSample {
        device: "vda".into(),
        write_bytes: Some(random.below(1 << 30)),
        utilization_ratio: Some(0.125),
        queue_length: Some(1.5),
        ..BlockDeviceSample::default()
    }
}

fn network_interface(random: &mut Random) -> NetworkInterfaceSample {
    NetworkInterfaceSample {
        interface: "eth0".into(),
        receive_bytes: Some(random.below(1 << 30)),
        transmit_bytes: Some(random.below(1 << 30)),
        ..NetworkInterfaceSample::default()
    }
}

/// One of every shape: a client's, a server's with its clients folded, one that nobody holds.
fn connections(boot_id: Uuid, random: &mut Random) -> Vec<ConnectionSample> {
    let owner = InstanceId::of(boot_id, 1000, 100);
    let outbound = ConnectionSample {
        protocol: TransportProtocol::Tcp,
        local_address: Ipv4Addr::new(10, 0, 0, 1).into(),
        local_port: 40_000,
        remote_address: Ipv4Addr::new(10, 0, 0, 2).into(),
        remote_port: 5432,
        direction: Some(Direction::Outbound),
        instance_id: Some(owner),
        scope: Some(ConnectionScope::External),
        shared: false,
        connection_count: 1,
        receive_bytes: Some(random.below(1 << 30)),
        transmit_bytes: Some(random.below(1 << 30)),
        retransmits: Some(random.below(10)),
    };
    let inbound = ConnectionSample {
        local_address: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(),
        local_port: 443,
        remote_address: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).into(),
        remote_port: 0,
        direction: Some(Direction::Inbound),
        shared: true,
        connection_count: 70,
        receive_bytes: Some(random.below(1 << 30)),
        ..outbound.clone()
    };
    let unattributed = ConnectionSample {
        protocol: TransportProtocol::Udp,
        direction: None,
        instance_id: None,
        scope: None,
        receive_bytes: None,
        transmit_bytes: None,
        retransmits: None,
        ..outbound.clone()
    };
    vec![outbound, inbound, unattributed]
}

fn residual(random: &mut Random) -> ProcessSample {
    ProcessSample {
        instance_id: InstanceId::RESIDUAL,
        process_count: 200,
        cpu_user_us: Some(random.below(100_000)),
        ..ProcessSample::default()
    }
}

fn agent(random: &mut Random) -> AgentSample {
    AgentSample {
        cpu_us: Some(random.below(10_000)),
        memory_usage_bytes: Some(12 << 20),
        collectors: vec![CollectorRun {
            collector: "process".into(),
            outcome: CollectorOutcome::Ok,
            tier: Tier::B,
            duration_us: random.below(10_000),
            error: None,
        }],
        ..AgentSample::default()
    }
}
