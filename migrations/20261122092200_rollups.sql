-- Roll-ups: what the samples of 5 minutes, and of an hour, add up to; and what keeps them exact.
--
-- A row stands for the bucket (sampled_at - width, sampled_at], as a sample stands for the interval
-- that ended at its sampled_at; a sample belongs to the bucket that holds its sampled_at. So a
-- window (from, to] is asked of roll-ups as of samples. A bucket without samples has no row: a gap
-- stays a gap. Deltas are summed; of a gauge there are the sum and how many samples knew it, so that
-- a mean over any number of buckets is exact, and its peak. A sum of nothing known is null.
--
-- Processes are rolled up by instance, on both levels: the question is which run did it, and the
-- command line comes from process_instances and processes at reading, as it does for samples.
-- Instance 0 is the residual. A host has one row per bucket, its disks and interfaces summed.
--
-- Like every series: no unique index, no foreign key, host_id in every key. One row per (host_id,
-- instance_id, sampled_at) holds because one transaction replaces a bucket (store/rollups.rs).

alter table series add column is_rollup boolean not null default false;

-- Devices that are not stacked upon others, and interfaces where traffic leaves the host's memory:
-- what a sum over a host counts once.
create function procfleet_counts_device(device text) returns boolean language sql immutable parallel safe as $$
    select device !~ '^(dm-|md|loop|ram|zram)'
$$;
create function procfleet_counts_interface(interface text) returns boolean language sql immutable parallel safe as $$
    select interface <> 'lo'
$$;

insert into series (series, chunk, retention, is_rollup) values
    ('process_rollup_5m', interval '1 day',  interval '90 days',  true),
    ('process_rollup_1h', interval '7 days', interval '400 days', true),
    ('host_rollup_5m',    interval '7 days', interval '90 days',  true),
    ('host_rollup_1h',    interval '28 days', interval '400 days', true);

do $$
declare
    process_columns constant text := $columns$
        sampled_at                   timestamptz not null,  -- end of the bucket
        instance_id                  bigint      not null,
        first_sampled_at             timestamptz not null,
        last_sampled_at              timestamptz not null,
        covered_ms                   bigint      not null,  -- sum of the samples' intervals
        cpu_covered_ms               bigint,                -- of those whose CPU is known
        cpu_user_us                  bigint,
        cpu_system_us                bigint,
        cpu_cores_max                double precision,      -- of one sample
        memory_usage_bytes_sum       bigint,
        memory_usage_bytes_max       bigint,
        memory_swap_bytes_sum        bigint,
        memory_swap_bytes_max        bigint,
        disk_read_bytes              bigint,
        disk_write_bytes             bigint,
        network_receive_bytes        bigint,
        network_transmit_bytes       bigint,
        run_queue_delay_us           bigint,
        paging_faults_minor          bigint,
        paging_faults_major          bigint,
        context_switches_voluntary   bigint,
        context_switches_involuntary bigint,
        thread_count_sum             bigint,
        file_descriptor_count_sum    bigint,
        host_id                      uuid        not null,
        sample_count                 integer     not null,
        memory_usage_samples         integer     not null,
        memory_swap_samples          integer     not null,
        thread_count_samples         integer     not null,
        file_descriptor_samples      integer     not null,
        process_count_max            integer     not null,
        thread_count_max             integer,
        file_descriptor_count_max    integer
    $columns$;
    host_columns constant text := $columns$
        sampled_at                   timestamptz not null,  -- end of the bucket
        first_sampled_at             timestamptz not null,
        last_sampled_at              timestamptz not null,
        covered_ms                   bigint      not null,
        cpu_covered_ms               bigint,
        cpu_user_us                  bigint,
        cpu_system_us                bigint,
        cpu_iowait_us                bigint,
        cpu_steal_us                 bigint,
        cpu_idle_us                  bigint,
        cpu_cores_max                double precision,      -- of one sample
        load_1m_sum                  double precision,
        load_1m_max                  double precision,
        load_5m_sum                  double precision,
        load_15m_sum                 double precision,
        memory_total_bytes_sum       bigint,
        memory_total_bytes_max       bigint,
        memory_used_bytes_sum        bigint,
        memory_used_bytes_max        bigint,
        memory_available_bytes_sum   bigint,
        memory_available_bytes_min   bigint,
        memory_free_bytes_sum        bigint,
        swap_total_bytes_sum         bigint,
        swap_used_bytes_sum          bigint,
        swap_used_bytes_max          bigint,
        pressure_cpu_some_us         bigint,
        pressure_memory_some_us      bigint,
        pressure_memory_full_us      bigint,
        pressure_io_some_us          bigint,
        pressure_io_full_us          bigint,
        uptime_s_max                 bigint,
        context_switches             bigint,
        forks                        bigint,
        disk_read_bytes              bigint,
        disk_write_bytes             bigint,
        network_receive_bytes        bigint,
        network_transmit_bytes       bigint,
        interface_receive_bytes      bigint,
        interface_transmit_bytes     bigint,
        socket_receive_bytes         bigint,
        socket_transmit_bytes        bigint,
        agent_cpu_us                 bigint,
        agent_memory_usage_bytes_sum bigint,
        agent_memory_usage_bytes_max bigint,
        agent_spool_reports_sum      bigint,
        agent_spool_bytes_sum        bigint,
        processes_running_sum        bigint,
        processes_total_sum          bigint,
        host_id                      uuid        not null,
        sample_count                 integer     not null,
        load_1m_samples              integer     not null,
        load_5m_samples              integer     not null,
        load_15m_samples             integer     not null,
        memory_total_samples         integer     not null,
        memory_used_samples          integer     not null,
        memory_available_samples     integer     not null,
        memory_free_samples          integer     not null,
        swap_total_samples           integer     not null,
        swap_used_samples            integer     not null,
        agent_memory_usage_samples   integer     not null,
        agent_spool_reports_samples  integer     not null,
        agent_spool_bytes_samples    integer     not null,
        processes_running_samples    integer     not null,
        processes_total_samples      integer     not null,
        cpu_count_max                integer,
        processes_running_max        integer,
        processes_total_max          integer
    $columns$;
    rollup record;
begin
    for rollup in select s.series, s.chunk from series s where s.is_rollup loop
        call procfleet_create_series(rollup.series,
            case when rollup.series like 'process%' then process_columns else host_columns end, rollup.chunk);
    end loop;
end
$$;

-- How far the roll-ups are. Moved under the lock that every ingest transaction holds shared: all
-- that was accepted before is committed then, and all that comes later knows the new horizon.
create table rollup_watermark (
    singleton boolean primary key default true check (singleton),
    horizon   timestamptz not null,       -- a report sampled at or before it is late: it marks its bucket
    expanded  timestamptz not null,       -- every bucket up to here was marked for every host
    check (expanded <= horizon)
);
insert into rollup_watermark (horizon, expanded)
    select t, t from (select date_bin(interval '5 minutes',
        least(now(), (select min(sampled_at) from host_samples)) - interval '5 minutes',
        timestamptz '2000-01-01 00:00:00+00') as t) as beginning;

-- Buckets to be computed (again). A log, not a set: whoever marks only appends, and so waits for
-- nobody. A bucket's marks are removed in the transaction that computes it.
create table rollup_dirty (
    host_id    uuid        not null,
    sampled_at timestamptz not null,      -- end of the bucket
    width_s    integer     not null check (width_s in (300, 3600)),
    is_late    boolean     not null       -- computed before, and something came since
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 5000);
create index rollup_dirty_next on rollup_dirty (width_s, is_late, sampled_at, host_id);
create index rollup_dirty_host_id on rollup_dirty (host_id, sampled_at);

-- Up to when (inclusive) every bucket of that width has been computed at least once. What comes
-- after must be asked of the samples. Late data reaches its bucket at the worker's next round.
create function procfleet_rollup_until(width interval) returns timestamptz language sql stable as $$
    select case when width < interval '1 hour' then fine
        else least(date_bin(interval '1 hour', fine, timestamptz '2000-01-01 00:00:00+00'), (
            select min(d.sampled_at) - interval '1 hour' from rollup_dirty d where d.width_s = 3600 and not d.is_late))
        end
    from (select least(w.expanded, (
            select min(d.sampled_at) - interval '5 minutes' from rollup_dirty d where d.width_s = 300 and not d.is_late)) as fine
        from rollup_watermark w) as until
$$;

-- What the maintenance worker did last, step by step; failures stay until the step succeeds.
create table maintenance_steps (
    step        text        primary key,
    started_at  timestamptz not null,
    finished_at timestamptz,              -- of the last success
    items       bigint      not null default 0, -- what that counts: partitions, buckets, rows
    failures    bigint      not null default 0, -- since then
    failed_at   timestamptz,
    error       text                      -- the operation that failed; never data
);

-- The series as the worker measured them last.
create table maintenance_tables (
    series      text        primary key,
    partitions  integer     not null,
    compressed  integer     not null,
    bytes       bigint      not null,     -- indexes included
    begins_at   timestamptz,              -- of the oldest partition
    ends_at     timestamptz,              -- of the newest
    measured_at timestamptz not null
);

-- When no instance refers to a process any more it is marked first and removed a week later, unless
-- somebody describes it meanwhile (store/collection.rs).
alter table processes add column unreferenced_since timestamptz;
create index process_instances_described_at on process_instances (described_at);
create index processes_unreferenced_since on processes (unreferenced_since) where unreferenced_since is not null;
