//! Reports for the tests: one with every field set, and generated ones.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use shared_model::limits::{MAX_COUNT, MAX_COUNTER};
use shared_model::{
    AgentSample, BlockDeviceSample, CollectorOutcome, CollectorRun, ConnectionSample,
    ConnectionScope, Direction, ExitFold, FieldSource, FilesystemSample, Gap, GapReason, HostFacts,
    HostSample, InstanceDefinition, InstanceId, NetworkInterfaceSample, ProcessDefinition,
    ProcessExit, ProcessId, ProcessSample, Record, Report, Tier, TransportProtocol, UpdateState,
    UpdateStatus,
};
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::{Uuid, uuid};

/// A report with every field of the contract set to a value of its own.
#[expect(clippy::too_many_lines, reason = "one literal with every field of the contract")]
pub(crate) fn full_report() -> Report {
    let boot_id = uuid!("c0ffee00-1111-4222-8333-444455556666");
    let command_line = "/usr/sbin/mysqld --defaults-file=/etc/my\"3306\".cnf --名=值";
    let process_id = ProcessId::of(command_line);
    let instance_id = InstanceId::of(boot_id, 4711, 123_456_789);
    Report {
        version: 1,
        host_id: uuid!("0199b1a0-0000-7000-8000-000000000001"),
        stream_id: uuid!("7d444840-9dc0-4e2f-a9d1-cf1f5f4f6f11"),
        sequence: 42,
        boot_id,
        sampled_at: datetime!(2026-11-22 03:12:00.123456 UTC),
        clock_offset_ms: None,
        interval_ms: 30_000,
        facts: Some(HostFacts {
            host_name: "db-01".into(),
            machine_id_hash: Some("ab".repeat(32)),
            product_uuid_hash: Some("cd".repeat(32)),
            os_description: Some("Debian GNU/Linux 12 (bookworm)".into()),
            kernel_release: "6.18.0".into(),
            host_arch: "x86_64".into(),
            agent_version: "0.1.0".into(),
        }),
        host: full_host(),
        filesystems: vec![FilesystemSample {
            mount_point: "/data 1".into(),
            device: "/dev/vdb1".into(),
            filesystem_type: "xfs".into(),
            total_bytes: Some(500),
            used_bytes: Some(200),
            available_bytes: Some(290),
            inodes_total: Some(1000),
            inodes_used: Some(10),
        }],
        block_devices: vec![BlockDeviceSample {
            device: "vdb".into(),
            read_bytes: Some(4096),
            write_bytes: Some(8192),
            read_operations: Some(1),
            write_operations: Some(2),
            queue_length: Some(5.25),
            utilization_ratio: Some(0.5),
        }],
        network_interfaces: vec![NetworkInterfaceSample {
            interface: "eth0".into(),
            speed_bits_per_second: Some(10_000_000_000),
            receive_bytes: Some(1),
            transmit_bytes: Some(2),
            receive_packets: Some(3),
            transmit_packets: Some(4),
            receive_errors: Some(5),
            transmit_errors: Some(6),
            receive_drops: Some(7),
            transmit_drops: Some(8),
        }],
        processes: vec![
            full_process(instance_id),
            ProcessSample {
                instance_id: InstanceId::RESIDUAL,
                process_count: 311,
                cpu_user_us: Some(0),
                ..ProcessSample::default()
            },
        ],
        connections: vec![ConnectionSample {
            protocol: TransportProtocol::Tcp,
            local_address: "10.0.0.1".parse().unwrap(),
            local_port: 3306,
            remote_address: "fd00::2".parse().unwrap(),
            remote_port: 0,
            direction: Some(Direction::Inbound),
            instance_id: Some(instance_id),
            scope: Some(ConnectionScope::External),
            shared: true,
            connection_count: 50_000,
            receive_bytes: Some(1),
            transmit_bytes: Some(2),
            retransmits: Some(3),
        }],
        exits: vec![ProcessExit {
            instance_id,
            process_id,
            lifetime_us: Some(1_000_000),
            exit_time: datetime!(2026-11-22 03:11:59 UTC),
            exit_code: None,
            exit_signal: Some(9),
            totals: full_process(instance_id),
        }],
        exit_folds: vec![ExitFold {
            process_id: Some(process_id),
            parent_pid: Some(1),
            user_id: Some(999),
            cgroup: Some("/system.slice/mysqld@3306.service".into()),
            failed_count: Some(2),
            lifetime_us: Some(5_000_000),
            totals: ProcessSample { process_count: 9000, ..full_process(InstanceId::RESIDUAL) },
        }],
        process_definitions: vec![ProcessDefinition {
            process_id,
            command_line: command_line.into(),
        }],
        instance_definitions: vec![InstanceDefinition {
            instance_id,
            process_id,
            pid: 4711,
            parent_pid: Some(1),
            start_ticks: 123_456_789,
            creation_time: datetime!(2026-11-08 12:00:00 UTC),
            user_id: Some(999),
            owner: Some("mysql".into()),
            executable_name: Some("mysqld".into()),
            executable_path: Some("/usr/sbin/mysqld".into()),
            cgroup: Some("/system.slice/mysqld@3306.service".into()),
            systemd_unit: Some("mysqld@3306.service".into()),
            container_id: Some("f0".repeat(32)),
            pod_uid: Some("2c48913c-b29f-11e7-9350-020968147796".into()),
            service_ports: Some(vec![3306, 33_060]),
        }],
        agent: AgentSample {
            cpu_us: Some(12_000),
            memory_usage_bytes: Some(9_000_000),
            spool_reports: 2,
            spool_bytes: 8192,
            losses: [("spool_full".to_owned(), 3)].into(),
            collectors: vec![CollectorRun {
                collector: "filesystem".into(),
                outcome: CollectorOutcome::Late,
                tier: Tier::B,
                duration_us: 2_000_000,
                error: Some("statvfs /mnt/nfs: no answer within 2 s".into()),
            }],
            sources: vec![FieldSource {
                fields: "exits".into(),
                tier: None,
                reason: Some("taskstats: operation not permitted".into()),
            }],
            update: Some(UpdateStatus {
                installed_seq: Some(6),
                state: UpdateState::RolledBack,
                target_seq: Some(7),
                reason: Some("started 3 times in 12 s and never reported".into()),
            }),
        },
    }
}

fn full_host() -> HostSample {
    HostSample {
        cpu_count: Some(2),
        cpu_user_us: Some(1),
        cpu_system_us: Some(2),
        cpu_iowait_us: Some(3),
        cpu_steal_us: Some(4),
        cpu_idle_us: Some(5),
        load_1m: Some(0.5),
        load_5m: Some(1.25),
        load_15m: Some(2.0),
        memory_total_bytes: Some(6),
        memory_used_bytes: Some(7),
        memory_available_bytes: Some(8),
        memory_free_bytes: Some(9),
        swap_total_bytes: Some(10),
        swap_used_bytes: Some(11),
        pressure_cpu_some_us: Some(12),
        pressure_memory_some_us: Some(13),
        pressure_memory_full_us: Some(14),
        pressure_io_some_us: Some(15),
        pressure_io_full_us: Some(16),
        uptime_s: Some(17),
        processes_running: Some(18),
        processes_total: Some(19),
        context_switches: Some(20),
        forks: Some(21),
        interface_receive_bytes: Some(22),
        interface_transmit_bytes: Some(23),
        socket_receive_bytes: Some(24),
        socket_transmit_bytes: Some(25),
    }
}

fn full_process(instance_id: InstanceId) -> ProcessSample {
    ProcessSample {
        instance_id,
        process_count: 1,
        cpu_user_us: Some(1_500_000),
        cpu_system_us: Some(500_000),
        memory_usage_bytes: Some(1),
        memory_swap_bytes: Some(2),
        disk_read_bytes: Some(3),
        disk_write_bytes: Some(4),
        network_receive_bytes: Some(5),
        network_transmit_bytes: Some(6),
        run_queue_delay_us: Some(7),
        thread_count: Some(8),
        file_descriptor_count: Some(9),
        paging_faults_minor: Some(10),
        paging_faults_major: Some(11),
        context_switches_voluntary: Some(12),
        context_switches_involuntary: Some(13),
    }
}

prop_compose! {
    fn process()(
        instance_id in 1..=i64::MAX,
        process_count in 1..=MAX_COUNT,
        wide in vec(option::of(0..=MAX_COUNTER), 13),
        narrow in vec(option::of(0..=MAX_COUNT), 2),
    ) -> ProcessSample {
        ProcessSample {
            instance_id: InstanceId(instance_id),
            process_count,
            cpu_user_us: wide[0],
            cpu_system_us: wide[1],
            memory_usage_bytes: wide[2],
            memory_swap_bytes: wide[3],
            disk_read_bytes: wide[4],
            disk_write_bytes: wide[5],
            network_receive_bytes: wide[6],
            network_transmit_bytes: wide[7],
            run_queue_delay_us: wide[8],
            thread_count: narrow[0],
            file_descriptor_count: narrow[1],
            paging_faults_minor: wide[9],
            paging_faults_major: wide[10],
            context_switches_voluntary: wide[11],
            context_switches_involuntary: wide[12],
        }
    }
}

fn one_of<T: Clone + std::fmt::Debug + 'static>(values: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(values)
}

prop_compose! {
    fn connection()(
        protocol in one_of(&[TransportProtocol::Tcp, TransportProtocol::Udp]),
        local_address in any::<std::net::IpAddr>(),
        remote_address in any::<std::net::IpAddr>(),
        ports in any::<(u16, u16)>(),
        direction in option::of(one_of(&[Direction::Inbound, Direction::Outbound])),
        instance_id in option::of((1..=i64::MAX).prop_map(InstanceId)),
        scope in option::of(one_of(&[
            ConnectionScope::Loopback,
            ConnectionScope::Local,
            ConnectionScope::External,
        ])),
        shared in any::<bool>(),
        connection_count in 0..=MAX_COUNT,
        wide in vec(option::of(0..=MAX_COUNTER), 3),
    ) -> ConnectionSample {
        ConnectionSample {
            protocol,
            local_address,
            local_port: ports.0,
            remote_address,
            remote_port: ports.1,
            direction,
            instance_id,
            scope,
            shared,
            connection_count,
            receive_bytes: wide[0],
            transmit_bytes: wide[1],
            retransmits: wide[2],
        }
    }
}

prop_compose! {
    /// To the microsecond, as PostgreSQL keeps it.
    fn timestamp()(micros in 0..4_000_000_000_000_000_i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap()
    }
}

prop_compose! {
    fn definitions(boot_id: Uuid)(
        command_line in any::<String>().prop_map(|text| text.replace('\0', "")),
        pid in 1..=MAX_COUNT,
        start_ticks in 0..=MAX_COUNTER,
        parent_pid in option::of(0..=MAX_COUNT),
        owner in option::of("[^\0]{0,20}"),
        creation_time in timestamp(),
        ports in option::of(vec(any::<u16>(), 0..3)),
    ) -> (ProcessDefinition, InstanceDefinition) {
        let process_id = ProcessId::of(&command_line);
        (
            ProcessDefinition { process_id, command_line },
            InstanceDefinition {
                instance_id: InstanceId::of(boot_id, pid, start_ticks),
                process_id,
                pid,
                parent_pid,
                start_ticks,
                creation_time,
                user_id: None,
                owner,
                executable_name: Some("x".into()),
                executable_path: None,
                cgroup: None,
                systemd_unit: None,
                container_id: None,
                pod_uid: None,
                service_ports: ports,
            },
        )
    }
}

prop_compose! {
    fn report()(boot in any::<u128>())(
        boot_id in Just(Uuid::from_u128(boot)),
        definition in option::of(definitions(Uuid::from_u128(boot))),
        host_id in any::<u128>(),
        stream_id in any::<u128>(),
        sequence in 1..=MAX_COUNTER,
        sampled_at in timestamp(),
        interval_ms in 100..=86_400_000_u32,
        load in option::of(0.0..1e6),
        utilization in option::of(0.0..=1.0),
        processes in vec(process(), 0..8),
        connections in vec(connection(), 0..8),
    ) -> Report {
        let (process_definitions, instance_definitions) = definition.into_iter().unzip();
        Report {
            host_id: Uuid::from_u128(host_id),
            stream_id: Uuid::from_u128(stream_id),
            sequence,
            boot_id,
            sampled_at,
            clock_offset_ms: None,
            interval_ms,
            host: HostSample { load_1m: load, ..HostSample::default() },
            block_devices: vec![BlockDeviceSample {
                device: "vda".into(),
                utilization_ratio: utilization,
                ..BlockDeviceSample::default()
            }],
            processes,
            connections,
            process_definitions,
            instance_definitions,
            ..full_report_without_dictionary()
        }
    }
}

fn full_report_without_dictionary() -> Report {
    Report { connections: Vec::new(), exits: Vec::new(), exit_folds: Vec::new(), ..full_report() }
}

/// Any record an agent may send.
pub(crate) fn record() -> impl Strategy<Value = Record> {
    let gap = (any::<u128>(), 1..=MAX_COUNTER, 1..=MAX_COUNTER).prop_map(|(id, a, b)| {
        Record::Gap(Gap {
            host_id: Uuid::from_u128(id),
            stream_id: Uuid::from_u128(!id),
            first_sequence: a.min(b),
            sequence: a.max(b),
            reason: GapReason::SpoolCorrupt,
        })
    });
    prop_oneof![4 => report().prop_map(|report| Record::Report(Box::new(report))), 1 => gap]
}
