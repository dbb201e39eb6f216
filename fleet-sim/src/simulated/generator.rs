//! Plausible reports of known content, from a seed.

use shared_model::{
    AgentSample, BlockDeviceSample, CollectorOutcome, CollectorRun, ConnectionSample,
    ConnectionScope, Direction, FilesystemSample, HostFacts, HostSample, InstanceDefinition,
    InstanceId, NetworkInterfaceSample, PROTOCOL_VERSION, ProcessDefinition, ProcessId,
    ProcessSample, Record, Report, Tier, Timestamp, TransportProtocol,
};
use std::net::{Ipv4Addr, Ipv6Addr};
use uuid::Uuid;

use super::plan::{ClockJump, Plan, command_line, daily_load};
use crate::random::Random;

/// Makes the reports of one simulated host.
#[derive(Clone, Debug)]
pub struct Generator {
    host_id: Uuid,
    stream_id: Uuid,
    facts: HostFacts,
    plan: Plan,
}

impl Generator {
    /// Small reports, one second apart, from an hour before `now` on.
    pub fn new(
        host_id: Uuid,
        stream_id: Uuid,
        facts: HostFacts,
        seed: u64,
        now: Timestamp,
    ) -> Self {
        Self::planned(host_id, stream_id, facts, Plan::past(seed, now))
    }

    /// Reports by `plan`.
    pub fn planned(host_id: Uuid, stream_id: Uuid, facts: HostFacts, plan: Plan) -> Self {
        Self { host_id, stream_id, facts, plan }
    }

    /// What its reports follow.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Sets the host's clock wrong for a while, in reports that are not made yet.
    pub fn set_clock_jump(&mut self, jump: ClockJump) {
        self.plan.clock_jump = Some(jump);
    }

    fn boot_id(&self, sequence: u64) -> Uuid {
        let every = self.plan.shape.restart_every;
        let boot = (sequence - 1).checked_div(every).unwrap_or(0);
        Uuid::from_u64_pair(self.plan.seed, !self.plan.seed ^ boot)
    }

    fn restarted(&self, sequence: u64) -> bool {
        sequence == 1 || self.boot_id(sequence) != self.boot_id(sequence - 1)
    }

    /// The report with this sequence, always the same.
    pub fn report(&self, sequence: u64) -> Record {
        let Plan { seed, shape, .. } = self.plan;
        let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(sequence));
        let boot_id = self.boot_id(sequence);
        let mut report = Report {
            version: PROTOCOL_VERSION,
            host_id: self.host_id,
            stream_id: self.stream_id,
            sequence,
            boot_id,
            sampled_at: self.plan.sampled_at(sequence, &mut random),
            clock_offset_ms: None,
            interval_ms: shape.interval_ms,
            facts: self.restarted(sequence).then(|| self.facts.clone()),
            host: host(&mut random),
            filesystems: vec![filesystem(&mut random)],
            block_devices: vec![block_device(&mut random)],
            network_interfaces: vec![network_interface(&mut random)],
            processes: vec![residual(shape.processes_total - shape.processes, &mut random)],
            connections: connections(boot_id, &mut random),
            exits: Vec::new(),
            exit_folds: Vec::new(),
            process_definitions: Vec::new(),
            instance_definitions: Vec::new(),
            agent: agent(&mut random),
        };
        for slot in 0..shape.processes {
            self.add_process(&mut report, slot, &mut random);
        }
        Record::Report(Box::new(report))
    }

    /// Every slot holds a process, replaced every [`super::plan::Shape::churn`] reports, and then described.
    fn add_process(&self, report: &mut Report, slot: u32, random: &mut Random) {
        let turn = report.sequence + u64::from(slot);
        let generation = turn / self.plan.shape.churn;
        let is_new = self.restarted(report.sequence) || turn.is_multiple_of(self.plan.shape.churn);
        let pid = 1000 + slot;
        let start_ticks = 100 + generation;
        let instance_id = InstanceId::of(report.boot_id, pid, start_ticks);
        let interval_us = u64::from(report.interval_ms) * 1000;
        let busy = interval_us * daily_load(report.sampled_at) / 100;
        report.processes.push(ProcessSample {
            instance_id,
            process_count: 1,
            cpu_user_us: Some(random.below(busy)),
            cpu_system_us: Some(random.below(busy / 10)),
            memory_usage_bytes: Some(random.below(1 << 25) << 12),
            memory_swap_bytes: None,
            disk_read_bytes: Some(random.below(1 << 30)),
            disk_write_bytes: Some(0),
            thread_count: Some(1 + slot),
            paging_faults_minor: Some(random.below(10_000)),
            context_switches_voluntary: Some(random.below(5000)),
            ..ProcessSample::default()
        });
        if is_new {
            let command_line = self.command_line(slot, generation);
            let process_id = ProcessId::of(&command_line);
            report.instance_definitions.push(InstanceDefinition {
                instance_id,
                process_id,
                pid,
                parent_pid: Some(1),
                start_ticks,
                creation_time: self.plan.started_at,
                user_id: Some(1000),
                owner: Some("worker".into()),
                executable_name: Some("worker".into()),
                executable_path: Some("/usr/bin/worker".into()),
                cgroup: Some("/system.slice/worker.service".into()),
                systemd_unit: Some("worker.service".into()),
                container_id: None,
                pod_uid: None,
                service_ports: (slot == 0).then(|| vec![3306, 33_060]),
            });
            let definition = ProcessDefinition { process_id, command_line };
            if !report.process_definitions.contains(&definition) {
                report.process_definitions.push(definition);
            }
        }
    }

    fn command_line(&self, slot: u32, generation: u64) -> String {
        let distinct = self.plan.shape.command_lines;
        if distinct == 0 {
            return format!("worker --slot={slot} --\u{fc}ber='{}'", generation % 7);
        }
        // Half of what runs is what runs everywhere: the first few hundred command lines.
        let everywhere = slot.is_multiple_of(2);
        let place = self.plan.seed.wrapping_mul(4099) ^ (u64::from(slot) << 40) ^ generation;
        let number =
            Random::new(place).below(if everywhere { distinct.min(300) } else { distinct });
        command_line(number)
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

fn residual(process_count: u32, random: &mut Random) -> ProcessSample {
    ProcessSample {
        instance_id: InstanceId::RESIDUAL,
        process_count,
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
