//! One host: its parts row by row, its processes stacked.

use super::{Column, Dashboard, Draw, Panel, Row, Variable};

/// Hosts by name.
pub(super) const HOST_VARIABLE: Variable = Variable {
    name: "host",
    label: "Host",
    sql: "select host_name as __text, host_id::text as __value from procfleet_hosts order by 1",
    of_window: false,
};

pub(super) const HOST: Dashboard = Dashboard {
    uid: "host",
    title: "Host",
    description: "What one host did, and which of its processes did it.",
    from: "now-6h",
    variables: &[HOST_VARIABLE],
    rows: &[
        Row { title: "CPU", panels: CPU },
        Row { title: "MEMORY", panels: MEMORY },
        Row { title: "DISK", panels: DISK },
        Row { title: "NET", panels: NET },
        Row { title: "PROCESS", panels: PROCESS },
        Row { title: "WHO IT WAS", panels: TABLES },
    ],
};

const fn lines(title: &'static str, unit: &'static str, sql: &'static str) -> Panel {
    Panel { title, draw: Draw::Lines, unit, sql }
}

const CPU: &[Panel] = &[
    lines(
        "CPU cores",
        "short",
        r#"
        select sampled_at as "time", cpu_count as "cores"
        from procfleet_host_series({host}, {window}, {step})"#,
    ),
    lines(
        "CPU load",
        "short",
        r#"
        select sampled_at as "time", load_1m as "1 min", load_5m as "5 min", load_15m as "15 min"
        from procfleet_host_series({host}, {window}, {step})"#,
    ),
    lines(
        "CPU idle",
        "percentunit",
        r#"
        select sampled_at as "time", cpu_idle_us::double precision / nullif(cpu_user_us + cpu_system_us
            + coalesce(cpu_iowait_us, 0) + coalesce(cpu_steal_us, 0) + cpu_idle_us, 0) as "idle"
        from procfleet_host_series({host}, {window}, {step})"#,
    ),
    lines(
        "CPU wait",
        "percentunit",
        r#"
        select sampled_at as "time",
            cpu_iowait_us::double precision / nullif(cpu_user_us + cpu_system_us
                + cpu_iowait_us + coalesce(cpu_steal_us, 0) + cpu_idle_us, 0) as "iowait",
            cpu_steal_us::double precision / nullif(cpu_user_us + cpu_system_us
                + coalesce(cpu_iowait_us, 0) + cpu_steal_us + cpu_idle_us, 0) as "steal"
        from procfleet_host_series({host}, {window}, {step})"#,
    ),
    lines(
        "CPU used, in cores",
        "short",
        r#"
        select sampled_at as "time", cpu_user_us / nullif(interval_ms * 1000.0, 0)::double precision as "user",
            cpu_system_us / nullif(interval_ms * 1000.0, 0)::double precision as "system"
        from procfleet_host_series({host}, {window}, {step})"#,
    ),
    lines(
        "Pressure: share of the time that tasks waited",
        "percentunit",
        r#"
        select sampled_at as "time", pressure_cpu_some_us / nullif(interval_ms * 1000.0, 0)::double precision as "cpu, some",
            pressure_memory_some_us / nullif(interval_ms * 1000.0, 0)::double precision as "memory, some",
            pressure_memory_full_us / nullif(interval_ms * 1000.0, 0)::double precision as "memory, all",
            pressure_io_some_us / nullif(interval_ms * 1000.0, 0)::double precision as "io, some",
            pressure_io_full_us / nullif(interval_ms * 1000.0, 0)::double precision as "io, all"
        from procfleet_host_series({host}, {window}, {step})"#,
    ),
];

const MEMORY: &[Panel] = &[
    lines(
        "Memory total",
        "bytes",
        r#"
        select sampled_at as "time", memory_total_bytes as "memory", swap_total_bytes as "swap"
        from procfleet_host_series({host}, {window}, {step})"#,
    ),
    lines(
        "Memory used",
        "bytes",
        r#"
        select sampled_at as "time", memory_used_bytes as "memory", swap_used_bytes as "swap"
        from procfleet_host_series({host}, {window}, {step})"#,
    ),
    lines(
        "Memory free",
        "bytes",
        r#"
        select sampled_at as "time", memory_free_bytes as "free", memory_available_bytes as "available"
        from procfleet_host_series({host}, {window}, {step})"#,
    ),
];

const DISK: &[Panel] = &[
    lines(
        "Disk total",
        "bytes",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_part_lines({host}, {window}, {step}, 'filesystem_total')"#,
    ),
    lines(
        "Disk used",
        "bytes",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_part_lines({host}, {window}, {step}, 'filesystem_used')"#,
    ),
    lines(
        "Disk free",
        "bytes",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_part_lines({host}, {window}, {step}, 'filesystem_available')"#,
    ),
    lines(
        "Inodes used",
        "percentunit",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_part_lines({host}, {window}, {step}, 'filesystem_inodes')"#,
    ),
    lines(
        "Disk write",
        "Bps",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_part_lines({host}, {window}, {step}, 'device_write')"#,
    ),
    lines(
        "Disk read",
        "Bps",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_part_lines({host}, {window}, {step}, 'device_read')"#,
    ),
    lines(
        "Disk queue length (avgqu-sz)",
        "short",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_part_lines({host}, {window}, {step}, 'device_queue')"#,
    ),
    lines(
        "Disk utilisation (util)",
        "percentunit",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_part_lines({host}, {window}, {step}, 'device_utilization')"#,
    ),
];

const NET: &[Panel] = &[
    lines(
        "Net speed",
        "bps",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_part_lines({host}, {window}, {step}, 'interface_speed')"#,
    ),
    lines(
        "Net total",
        "Bps",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_part_lines({host}, {window}, {step}, 'interface_total')"#,
    ),
    lines(
        "Net send",
        "Bps",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_part_lines({host}, {window}, {step}, 'interface_transmit')"#,
    ),
    lines(
        "Net receive",
        "Bps",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_part_lines({host}, {window}, {step}, 'interface_receive')"#,
    ),
    lines(
        "Net errors and drops per second",
        "short",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_part_lines({host}, {window}, {step}, 'interface_troubles')"#,
    ),
];

const fn stack(title: &'static str, unit: &'static str, sql: &'static str) -> Panel {
    Panel { title, draw: Draw::Stack, unit, sql }
}

/// Zero where the host was sampled and the process was too small to keep.
const PROCESS: &[Panel] = &[
    stack(
        "Process CPU, of one core",
        "percentunit",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_process_lines({host}, {window}, {step}, 'cpu', 10)"#,
    ),
    stack(
        "Process memory",
        "bytes",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_process_lines({host}, {window}, {step}, 'memory', 10)"#,
    ),
    stack(
        "Process disk read",
        "Bps",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_process_lines({host}, {window}, {step}, 'disk_read', 10)"#,
    ),
    stack(
        "Process disk write",
        "Bps",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_process_lines({host}, {window}, {step}, 'disk_write', 10)"#,
    ),
    stack(
        "Process network in",
        "Bps",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_process_lines({host}, {window}, {step}, 'network_receive', 10)"#,
    ),
    stack(
        "Process network out",
        "Bps",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_process_lines({host}, {window}, {step}, 'network_transmit', 10)"#,
    ),
];

const TABLES: &[Panel] = &[
    Panel {
        title: "Top 50 runs by CPU",
        draw: Draw::Table(&[
            Column::Process("command_line"),
            Column::Hidden("host_id"),
            Column::Hidden("process_id"),
            Column::Unit("cpu_cores", "percentunit"),
            Column::Unit("cpu_cores_max", "percentunit"),
            Column::Unit("memory_usage_bytes_max", "bytes"),
            Column::Unit("disk_read_bytes", "bytes"),
            Column::Unit("disk_write_bytes", "bytes"),
            Column::Unit("network_receive_bytes", "bytes"),
            Column::Unit("network_transmit_bytes", "bytes"),
        ]),
        unit: "",
        sql: "
            select coalesce(command_line, case when instance_id = 0 then '(small ones together)' else '(other processes)' end) as command_line,
                pid, owner, systemd_unit, container_id, cpu_cores, cpu_cores_max, memory_usage_bytes_max,
                disk_read_bytes, disk_write_bytes, network_receive_bytes, network_transmit_bytes,
                first_sampled_at, last_sampled_at, host_id::text, process_id::text
            from procfleet_top(array[{host}], {window}, 'cpu', 'instance', 50)",
    },
    lines(
        "Ended processes per second",
        "short",
        r#"
        select sampled_at as "time", name as metric, value
        from procfleet_part_lines({host}, {day}, {step}, 'exits')
        union all select sampled_at, name, value
        from procfleet_part_lines({host}, {day}, {step}, 'exits_failed') order by 1"#,
    ),
    lines(
        "The agent itself: CPU, of one core",
        "percentunit",
        r#"
        select sampled_at as "time", agent_cpu_us / nullif(interval_ms * 1000.0, 0)::double precision as "agent"
        from procfleet_host_series({host}, {window}, {step})"#,
    ),
    Panel {
        title: "Ended processes, the newest 200 (of the window's last day)",
        draw: Draw::Table(&[
            Column::Process("command_line"),
            Column::Hidden("host_id"),
            Column::Hidden("process_id"),
            Column::Unit("lifetime", "s"),
            Column::Unit("cpu", "s"),
            Column::Unit("memory_usage_bytes_max", "bytes"),
        ]),
        unit: "",
        sql: "
            select coalesce(exit_time, sampled_at) as ended_at, command_line, pid, parent_pid, owner, exit_code, exit_signal,
                process_count, failed_count, lifetime_us / 1e6::double precision as lifetime,
                (cpu_user_us + cpu_system_us) / 1e6::double precision as cpu, memory_usage_bytes_max,
                host_id::text, process_id::text
            from procfleet_exits(array[{host}], null, null, false, {day}, null, 200)",
    },
];
