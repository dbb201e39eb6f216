//! One command line on one host, run by run, and where else it runs.

use super::host::HOST_VARIABLE;
use super::{Column, Dashboard, Draw, Panel, Row, Variable};

pub(super) const PROCESS: Dashboard = Dashboard {
    uid: "process",
    title: "Process detail",
    description: "One command line on a host, each run of it a line, and every run in the fleet.",
    from: "now-6h",
    variables: &[
        HOST_VARIABLE,
        Variable {
            name: "process",
            label: "Process",
            sql: "select left(command_line, 160) as __text, process_id::text as __value
                from procfleet_top(array[{host}], {window}, 'cpu', 'process', 200) where process_id is not null",
            of_window: true,
        },
    ],
    rows: &[
        Row { title: "Runs on this host", panels: SERIES },
        Row { title: "In the fleet", panels: RUNS },
    ],
};

macro_rules! of_runs {
    ($title:literal, $unit:literal, $value:literal) => {
        Panel {
            title: $title,
            draw: Draw::Lines,
            unit: $unit,
            sql: concat!(
                r#"select s.sampled_at as "time", coalesce('pid ' || r.pid || ' since ' || to_char(r.creation_time, 'MM-DD HH24:MI:SS'), s.instance_id::text) as metric, "#,
                $value,
                " as value from procfleet_process_series({host}, ${process:sqlstring}::uuid, null, {window}, {step}, 20) s
                left join procfleet_process_runs(${process:sqlstring}::uuid, {host}, 10000) r on r.instance_id = s.instance_id order by 1"
            ),
        }
    };
}

const SERIES: &[Panel] = &[
    of_runs!(
        "CPU, of one core",
        "percentunit",
        "(s.cpu_user_us + s.cpu_system_us) / nullif(s.interval_ms * 1000.0, 0)::double precision"
    ),
    of_runs!("CPU, highest of one sample", "percentunit", "s.cpu_cores_max"),
    of_runs!("Memory", "bytes", "s.memory_usage_bytes"),
    of_runs!("Swap", "bytes", "s.memory_swap_bytes"),
    of_runs!(
        "Disk read",
        "Bps",
        "s.disk_read_bytes * 1000.0 / nullif(s.interval_ms, 0)::double precision"
    ),
    of_runs!(
        "Disk write",
        "Bps",
        "s.disk_write_bytes * 1000.0 / nullif(s.interval_ms, 0)::double precision"
    ),
    of_runs!(
        "Network in",
        "Bps",
        "s.network_receive_bytes * 1000.0 / nullif(s.interval_ms, 0)::double precision"
    ),
    of_runs!(
        "Network out",
        "Bps",
        "s.network_transmit_bytes * 1000.0 / nullif(s.interval_ms, 0)::double precision"
    ),
    of_runs!("Threads", "short", "s.thread_count"),
    of_runs!("File descriptors", "short", "s.file_descriptor_count"),
    of_runs!(
        "Waiting for a CPU",
        "percentunit",
        "s.run_queue_delay_us / nullif(s.interval_ms * 1000.0, 0)::double precision"
    ),
    of_runs!(
        "Major page faults per second",
        "short",
        "s.paging_faults_major * 1000.0 / nullif(s.interval_ms, 0)::double precision"
    ),
];

const RUNS: &[Panel] = &[
    Panel {
        title: "The newest 200 runs, on all hosts",
        draw: Draw::Table(&[Column::Host("host_name"), Column::Hidden("host_id")]),
        unit: "",
        sql: "select host_name, pid, parent_pid, owner, executable_name, systemd_unit, container_id, service_ports::text,
                creation_time, described_at, host_id::text
            from procfleet_process_runs(${process:sqlstring}::uuid)",
    },
    Panel {
        title: "How runs of it ended, the newest 100 (of the window's last day)",
        draw: Draw::Table(&[
            Column::Host("host_name"),
            Column::Hidden("host_id"),
            Column::Unit("lifetime", "s"),
            Column::Unit("cpu", "s"),
        ]),
        unit: "",
        sql: "select coalesce(exit_time, sampled_at) as ended_at, host_name, pid, exit_code, exit_signal, process_count, failed_count,
                lifetime_us / 1e6::double precision as lifetime, (cpu_user_us + cpu_system_us) / 1e6::double precision as cpu, host_id::text
            from procfleet_exits(null, ${process:sqlstring}::uuid, null, false, {day}, null, 100)",
    },
];
