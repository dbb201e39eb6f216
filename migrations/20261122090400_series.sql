-- The series: wide rows, binary COPY, one index; no unique index, foreign key or trigger.
-- On TimescaleDB they are hypertables, elsewhere natively range-partitioned tables.

create function procfleet_engine() returns text language sql stable as $$
    select case when exists (select from pg_extension where extname = 'timescaledb')
        then 'timescaledb' else 'postgresql' end
$$;

create procedure procfleet_create_series(
    series text, columns text, chunk interval, host_key text default 'host_id'
) language plpgsql as $$
begin
    if procfleet_engine() = 'timescaledb' then
        execute format('create table %I (%s)', series, columns);
        perform create_hypertable(series::regclass, 'sampled_at',
            chunk_time_interval => chunk, create_default_indexes => false);
    else
        execute format('create table %I (%s) partition by range (sampled_at)', series, columns);
    end if;
    execute format('create index %I on %I (%I, sampled_at desc)', series || '_host_sampled_at', series, host_key);
end
$$;

-- Numbers of the longest table take four or two bytes, written by store/copy.rs: below 2^31 or 2^15 as they
-- are; what is larger is negative, with 26 or 11 significant bits (off by less than 2^-26 or 2^-11 of it).
create function procfleet_expand(stored integer) returns bigint language sql immutable parallel safe as $$
    select case when stored >= 0 then stored::bigint
        else (stored & 67108863)::bigint << ((stored >> 26 & 31) + 6) end
$$;
create function procfleet_expand(stored smallint) returns integer language sql immutable parallel safe as $$
    select case when stored >= 0 then stored::integer
        else (stored & 2047)::integer << ((stored >> 11 & 15) + 5) end
$$;

-- Every series, the width of its chunks, and how long its rows are kept.
create table series (
    series    text primary key,
    chunk     interval not null,
    retention interval not null,
    raw_floor timestamptz not null default '-infinity'  -- nothing older is accepted any more
);
insert into series (series, chunk, retention) values
    ('process_samples',           interval '6 hours', interval '30 days'),
    ('host_samples',              interval '1 day',   interval '30 days'),
    ('filesystem_samples',        interval '1 day',   interval '30 days'),
    ('block_device_samples',      interval '1 day',   interval '30 days'),
    ('network_interface_samples', interval '1 day',   interval '30 days');

-- 80 bytes where everything is known: nothing is lost to alignment. Read it through the view below.
call procfleet_create_series('process_samples', $columns$
    sampled_at                   timestamptz not null,
    instance_id                  bigint      not null,
    host_number                  integer     not null,
    interval_ms                  integer     not null,
    cpu_user_us                  integer,              -- this and all that follow: procfleet_expand()
    cpu_system_us                integer,
    memory_usage_bytes           integer,
    memory_swap_bytes            integer,
    disk_read_bytes              integer,
    disk_write_bytes             integer,
    network_receive_bytes        integer,
    network_transmit_bytes       integer,
    run_queue_delay_us           integer,
    paging_faults_minor          integer,
    context_switches_voluntary   integer,
    context_switches_involuntary integer,
    process_count                smallint    not null,
    thread_count                 smallint,
    file_descriptor_count        smallint,
    paging_faults_major          smallint
$columns$, interval '6 hours', 'host_number');

-- The samples of processes as everybody reads them. Conditions on host and time reach the index.
create view procfleet_process_samples as
    select h.host_id, s.sampled_at, s.instance_id, s.interval_ms, procfleet_expand(s.process_count) as process_count,
           procfleet_expand(s.cpu_user_us) as cpu_user_us,
           procfleet_expand(s.cpu_system_us) as cpu_system_us,
           procfleet_expand(s.memory_usage_bytes) as memory_usage_bytes,
           procfleet_expand(s.memory_swap_bytes) as memory_swap_bytes,
           procfleet_expand(s.disk_read_bytes) as disk_read_bytes,
           procfleet_expand(s.disk_write_bytes) as disk_write_bytes,
           procfleet_expand(s.network_receive_bytes) as network_receive_bytes,
           procfleet_expand(s.network_transmit_bytes) as network_transmit_bytes,
           procfleet_expand(s.run_queue_delay_us) as run_queue_delay_us,
           procfleet_expand(s.paging_faults_minor) as paging_faults_minor,
           procfleet_expand(s.paging_faults_major)::bigint as paging_faults_major,
           procfleet_expand(s.context_switches_voluntary) as context_switches_voluntary,
           procfleet_expand(s.context_switches_involuntary) as context_switches_involuntary,
           procfleet_expand(s.thread_count) as thread_count,
           procfleet_expand(s.file_descriptor_count) as file_descriptor_count
    from process_samples s join hosts h on h.host_number = s.host_number;

call procfleet_create_series('host_samples', $columns$
    sampled_at               timestamptz not null,
    cpu_user_us              bigint,
    cpu_system_us            bigint,
    cpu_iowait_us            bigint,
    cpu_steal_us             bigint,
    cpu_idle_us              bigint,
    load_1m                  double precision,
    load_5m                  double precision,
    load_15m                 double precision,
    memory_total_bytes       bigint,
    memory_used_bytes        bigint,
    memory_available_bytes   bigint,
    memory_free_bytes        bigint,
    swap_total_bytes         bigint,
    swap_used_bytes          bigint,
    pressure_cpu_some_us     bigint,
    pressure_memory_some_us  bigint,
    pressure_memory_full_us  bigint,
    pressure_io_some_us      bigint,
    pressure_io_full_us      bigint,
    uptime_s                 bigint,
    context_switches         bigint,
    forks                    bigint,
    agent_cpu_us             bigint,
    agent_memory_usage_bytes bigint,
    agent_spool_reports      bigint,
    agent_spool_bytes        bigint,
    host_id                  uuid        not null,
    interval_ms              integer     not null,
    cpu_count                integer,
    processes_running        integer,
    processes_total          integer,
    agent_losses             jsonb,      -- null: none
    agent_collectors         jsonb       -- runs that did not end ok or no_data; null: none
$columns$, interval '1 day');

call procfleet_create_series('filesystem_samples', $columns$
    sampled_at      timestamptz not null,
    total_bytes     bigint,
    used_bytes      bigint,
    available_bytes bigint,
    inodes_total    bigint,
    inodes_used     bigint,
    host_id         uuid        not null,
    mount_point     text        not null,
    device          text        not null,
    filesystem_type text        not null
$columns$, interval '1 day');

call procfleet_create_series('block_device_samples', $columns$
    sampled_at        timestamptz not null,
    read_bytes        bigint,
    write_bytes       bigint,
    read_operations   bigint,
    write_operations  bigint,
    queue_length      double precision,
    utilization_ratio double precision,
    host_id           uuid        not null,
    interval_ms       integer     not null,
    device            text        not null
$columns$, interval '1 day');

call procfleet_create_series('network_interface_samples', $columns$
    sampled_at            timestamptz not null,
    speed_bits_per_second bigint,
    receive_bytes         bigint,
    transmit_bytes        bigint,
    receive_packets       bigint,
    transmit_packets      bigint,
    receive_errors        bigint,
    transmit_errors       bigint,
    receive_drops         bigint,
    transmit_drops        bigint,
    host_id               uuid        not null,
    interval_ms           integer     not null,
    interface             text        not null
$columns$, interval '1 day');
