-- What runs (once per fleet), and each run of it (once per host).

create table processes (
    process_id      uuid primary key,               -- md5(command_line)
    command_line    text not null,
    first_seen_at   timestamptz not null default now()
);

create table process_instances (
    host_id         uuid        not null,
    instance_id     bigint      not null,           -- 63-bit hash of (boot_id, pid, start_ticks)
    process_id      uuid        not null,           -- what it ran last
    boot_id         uuid        not null,
    creation_time   timestamptz not null,
    described_at    timestamptz not null,           -- sampled_at of the newest description
    start_ticks     bigint      not null,
    pid             integer     not null,
    parent_pid      integer,
    user_id         bigint,
    owner           text,
    executable_name text,                           -- comm: one command line may run under many names
    executable_path text,
    cgroup          text,
    systemd_unit    text,
    container_id    text,
    pod_uid         text,
    service_ports   integer[],                      -- ports it listens on; null: unknown
    primary key (host_id, instance_id)
);
create index process_instances_process_id on process_instances (process_id, host_id);
