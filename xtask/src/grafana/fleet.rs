//! All hosts, or those with a label.

use super::{Column, Dashboard, Draw, Panel, Row, Variable};

pub(super) const FLEET: Dashboard = Dashboard {
    uid: "fleet",
    title: "Fleet overview",
    description: "Which hosts are heard of, how busy they are, and what keeps them so.",
    from: "now-6h",
    variables: &[Variable {
        name: "label",
        label: "Label",
        sql: "select 'all' as __text, 'all' as __value union all select * from (
            select distinct l.key || '=' || l.value, l.key || '=' || l.value
            from procfleet_hosts h, jsonb_each_text(h.labels) l order by 1) labels",
        of_window: false,
    }],
    rows: &[
        Row { title: "Hosts", panels: HOSTS },
        Row { title: "The 20 busiest", panels: BUSIEST },
        Row { title: "Processes", panels: PROCESSES },
    ],
};

const fn stat(title: &'static str, sql: &'static str) -> Panel {
    Panel { title, draw: Draw::Stat, unit: "short", sql }
}

const HOSTS: &[Panel] = &[
    stat("Hosts", "select count(*) as hosts from procfleet_hosts
        where lifecycle = 'active' and ({hosts} is null or host_id = any ({hosts}))"),
    stat("Silent", "select count(*) filter (where silent) as silent from procfleet_hosts
        where lifecycle = 'active' and ({hosts} is null or host_id = any ({hosts}))"),
    stat("Never heard of", "select count(*) filter (where silent is null) as never from procfleet_hosts
        where lifecycle = 'active' and ({hosts} is null or host_id = any ({hosts}))"),
    stat("Agent versions", "select count(distinct agent_version) as versions from procfleet_hosts
        where lifecycle = 'active' and ({hosts} is null or host_id = any ({hosts}))"),
    Panel {
        title: "Hosts, as they are now",
        draw: Draw::Table(&[
            Column::Host("host_name"),
            Column::Hidden("host_id"),
            Column::Unit("cpu", "percentunit"),
            Column::Unit("memory", "percentunit"),
            Column::Unit("memory_total_bytes", "bytes"),
        ]),
        unit: "",
        sql: "select host_name, case when silent then 'silent' when silent is null then 'never heard of' else 'heard of' end as state,
                last_seen_at, cpu_count, cpu_utilization_ratio as cpu, load_1m, memory_used_bytes::double precision / nullif(memory_total_bytes, 0) as memory,
                memory_total_bytes, os_description, kernel_release, agent_version, labels::text, host_id::text
            from procfleet_hosts where lifecycle = 'active' and ({hosts} is null or host_id = any ({hosts}))
            order by silent desc nulls last, cpu_utilization_ratio desc nulls last, host_name limit 2000",
    },
];

const fn lines(title: &'static str, unit: &'static str, sql: &'static str) -> Panel {
    Panel { title, draw: Draw::Lines, unit, sql }
}

const BUSIEST: &[Panel] = &[
    lines(
        "CPU",
        "percentunit",
        r#"
        select sampled_at as "time", name as metric, value from procfleet_host_lines({hosts}, {window}, {fleet_step}, 'cpu')"#,
    ),
    lines(
        "Memory",
        "percentunit",
        r#"
        select sampled_at as "time", name as metric, value from procfleet_host_lines({hosts}, {window}, {fleet_step}, 'memory')"#,
    ),
    lines(
        "Load of 1 min per core",
        "short",
        r#"
        select sampled_at as "time", name as metric, value from procfleet_host_lines({hosts}, {window}, {fleet_step}, 'load')"#,
    ),
    lines(
        "Disk read and write",
        "Bps",
        r#"
        select sampled_at as "time", name as metric, value from procfleet_host_lines({hosts}, {window}, {fleet_step}, 'disk')"#,
    ),
    lines(
        "Network in and out",
        "Bps",
        r#"
        select sampled_at as "time", name as metric, value from procfleet_host_lines({hosts}, {window}, {fleet_step}, 'network')"#,
    ),
];

/// Of a day at most: a month of all processes of a fleet takes longer than anybody waits.
const PROCESSES: &[Panel] = &[
    Panel {
        title: "Top 50 processes by CPU (of the window's last day)",
        draw: Draw::Table(&[
            Column::Unit("cpu_cores", "percentunit"),
            Column::Unit("memory_usage_bytes_max", "bytes"),
            Column::Unit("disk_read_bytes", "bytes"),
            Column::Unit("disk_write_bytes", "bytes"),
            Column::Unit("network_receive_bytes", "bytes"),
            Column::Unit("network_transmit_bytes", "bytes"),
        ]),
        unit: "",
        sql: "select coalesce(command_line, case when instance_id = 0 then '(small ones together)' else '(other processes)' end) as command_line,
                host_count, instance_count, cpu_cores, memory_usage_bytes_max, disk_read_bytes, disk_write_bytes,
                network_receive_bytes, network_transmit_bytes, last_sampled_at
            from procfleet_top({hosts}, {day}, 'cpu', 'process', 50)",
    },
    Panel {
        title: "Top 50 runs by memory (of the window's last day)",
        draw: Draw::Table(&[
            Column::Host("host_name"),
            Column::Process("command_line"),
            Column::Hidden("host_id"),
            Column::Hidden("process_id"),
            Column::Unit("cpu_cores", "percentunit"),
            Column::Unit("memory_usage_bytes_max", "bytes"),
        ]),
        unit: "",
        sql: "select host_name, coalesce(command_line, case when instance_id = 0 then '(small ones together)' else '(other processes)' end) as command_line,
                pid, owner, systemd_unit, memory_usage_bytes_max, cpu_cores, last_sampled_at, host_id::text, process_id::text
            from procfleet_top({hosts}, {day}, 'memory', 'instance', 50)",
    },
];
