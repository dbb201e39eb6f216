-- What readers ask: REST, the web page and Grafana use these functions and never the series
-- themselves, so that roll-ups can be put beneath them without a reader noticing.
--
-- A window is (window_from, window_to]: a sample stands for the interval that ended at its
-- sampled_at. Functions are plain SQL and stable, so that the planner inlines them and sees the
-- window: chunks outside it are excluded, the rest is read by (host_id, sampled_at desc).
-- Sums are of what is known; a sum of nothing known is null.

-- A sum as bigint. A hostile host may send deltas whose sum exceeds it: that is no reason to fail.
create function procfleet_total(total numeric) returns bigint language sql immutable parallel safe as $$
    -- Not least(): that takes no notice of null, and unknown must stay null.
    select (case when total > 9223372036854775807 then 9223372036854775807 else total end)::bigint
$$;

-- The end of the bucket of width `step` that sampled_at falls into, aligned to the epoch's hours so
-- that the same window asked twice has the same buckets. Without a step: sampled_at itself.
create function procfleet_bucket(step interval, sampled_at timestamptz) returns timestamptz
language sql stable parallel safe as $$
    select case when step is null then sampled_at
        else date_bin(step, sampled_at - interval '1 microsecond', timestamptz '2000-01-01 00:00:00+00') + step end
$$;

-- Per instance totals over a window, ranked by `sort` (cpu, memory, disk, network), described.
-- Three kinds of rows, which together hold everything recorded of the host:
--   place 1..max_rows   one instance each
--   place null, instance_id null  what the instances beyond max_rows sum to
--   place null, instance_id 0     the residual: what no tick kept by itself
create function procfleet_top_processes(
    host uuid, window_from timestamptz, window_to timestamptz, sort text, max_rows bigint
) returns table (
    place bigint, instance_id bigint, instance_count bigint, process_count integer, sample_count bigint,
    first_sampled_at timestamptz, last_sampled_at timestamptz, covered_ms bigint,
    cpu_us bigint, cpu_user_us bigint, cpu_system_us bigint, cpu_cores double precision,
    memory_usage_bytes_max bigint, memory_usage_bytes_mean bigint, memory_swap_bytes_max bigint,
    disk_read_bytes bigint, disk_write_bytes bigint,
    network_receive_bytes bigint, network_transmit_bytes bigint,
    run_queue_delay_us bigint, thread_count_max integer, file_descriptor_count_max integer,
    process_id uuid, command_line text, executable_name text, executable_path text,
    pid integer, parent_pid integer, user_id bigint, owner text,
    systemd_unit text, container_id text, cgroup text, creation_time timestamptz
) language sql stable as $$
    with instances as (
        select s.instance_id,
               max(s.process_count) as process_count,
               count(*) as sample_count,
               min(s.sampled_at) as first_sampled_at,
               max(s.sampled_at) as last_sampled_at,
               sum(s.interval_ms::bigint) as covered_ms,
               sum(s.interval_ms::bigint) filter (where s.cpu_user_us is not null and s.cpu_system_us is not null) as cpu_covered_ms,
               sum(s.cpu_user_us) as cpu_user_us,
               sum(s.cpu_system_us) as cpu_system_us,
               max(s.memory_usage_bytes) as memory_usage_bytes_max,
               avg(s.memory_usage_bytes) as memory_usage_bytes_mean,
               max(s.memory_swap_bytes) as memory_swap_bytes_max,
               sum(s.disk_read_bytes) as disk_read_bytes,
               sum(s.disk_write_bytes) as disk_write_bytes,
               sum(s.network_receive_bytes) as network_receive_bytes,
               sum(s.network_transmit_bytes) as network_transmit_bytes,
               sum(s.run_queue_delay_us) as run_queue_delay_us,
               max(s.thread_count) as thread_count_max,
               max(s.file_descriptor_count) as file_descriptor_count_max
        from process_samples s
        where s.host_id = host and s.sampled_at > window_from and s.sampled_at <= window_to
        group by s.instance_id
    ), ranked as (
        select i.*, row_number() over (order by case sort
            when 'memory'  then i.memory_usage_bytes_max
            when 'disk'    then coalesce(i.disk_read_bytes + i.disk_write_bytes, i.disk_read_bytes, i.disk_write_bytes)
            when 'network' then coalesce(i.network_receive_bytes + i.network_transmit_bytes, i.network_receive_bytes, i.network_transmit_bytes)
            else coalesce(i.cpu_user_us + i.cpu_system_us, i.cpu_user_us, i.cpu_system_us)
            end desc nulls last, i.last_sampled_at desc, i.instance_id) as place
        from instances i where i.instance_id <> 0
    ), shown as (
        select r.place, r.instance_id, 1::bigint as instance_count, r.process_count, r.sample_count,
               r.first_sampled_at, r.last_sampled_at, r.covered_ms, r.cpu_covered_ms,
               r.cpu_user_us, r.cpu_system_us,
               r.memory_usage_bytes_max, r.memory_usage_bytes_mean, r.memory_swap_bytes_max,
               r.disk_read_bytes, r.disk_write_bytes, r.network_receive_bytes, r.network_transmit_bytes,
               r.run_queue_delay_us, r.thread_count_max, r.file_descriptor_count_max
        from ranked r where r.place <= max_rows
        union all
        -- Memory of instances that were not there at the same time does not add up: null.
        select null, null, count(*), null, sum(r.sample_count)::bigint,
               min(r.first_sampled_at), max(r.last_sampled_at), null, null,
               sum(r.cpu_user_us), sum(r.cpu_system_us), null, null, null,
               sum(r.disk_read_bytes), sum(r.disk_write_bytes),
               sum(r.network_receive_bytes), sum(r.network_transmit_bytes),
               sum(r.run_queue_delay_us), null, null
        from ranked r where r.place > max_rows having count(*) > 0
        union all
        select null, i.instance_id, 0, i.process_count, i.sample_count,
               i.first_sampled_at, i.last_sampled_at, i.covered_ms, i.cpu_covered_ms,
               i.cpu_user_us, i.cpu_system_us,
               i.memory_usage_bytes_max, i.memory_usage_bytes_mean, i.memory_swap_bytes_max,
               i.disk_read_bytes, i.disk_write_bytes, i.network_receive_bytes, i.network_transmit_bytes,
               i.run_queue_delay_us, i.thread_count_max, i.file_descriptor_count_max
        from instances i where i.instance_id = 0
    )
    select t.place, t.instance_id, t.instance_count, t.process_count, t.sample_count,
           t.first_sampled_at, t.last_sampled_at, procfleet_total(t.covered_ms),
           procfleet_total(t.cpu_user_us + t.cpu_system_us),
           procfleet_total(t.cpu_user_us), procfleet_total(t.cpu_system_us),
           ((t.cpu_user_us + t.cpu_system_us) / (nullif(t.cpu_covered_ms, 0) * 1000))::double precision,
           t.memory_usage_bytes_max, procfleet_total(t.memory_usage_bytes_mean), t.memory_swap_bytes_max,
           procfleet_total(t.disk_read_bytes), procfleet_total(t.disk_write_bytes),
           procfleet_total(t.network_receive_bytes), procfleet_total(t.network_transmit_bytes),
           procfleet_total(t.run_queue_delay_us), t.thread_count_max, t.file_descriptor_count_max,
           d.process_id, p.command_line, p.executable_name, d.executable_path,
           d.pid, d.parent_pid, d.user_id, d.owner,
           d.systemd_unit, d.container_id, d.cgroup, d.creation_time
    from shown t
    left join process_instances d on d.host_id = host and d.instance_id = t.instance_id
    left join processes p on p.process_id = d.process_id
    order by t.place nulls last, t.instance_id nulls first
$$;

-- What the host as a whole did in a window. Devices are summed where they are not stacked upon
-- others (dm, md, loop, ram) and interfaces where traffic leaves the host's memory (not lo).
create function procfleet_host_totals(
    host uuid, window_from timestamptz, window_to timestamptz
) returns table (
    sample_count bigint, covered_ms bigint, cpu_count integer,
    cpu_user_us bigint, cpu_system_us bigint, cpu_iowait_us bigint, cpu_steal_us bigint, cpu_idle_us bigint,
    memory_total_bytes bigint, memory_used_bytes_max bigint, memory_used_bytes_mean bigint,
    swap_used_bytes_max bigint,
    disk_read_bytes bigint, disk_write_bytes bigint,
    network_receive_bytes bigint, network_transmit_bytes bigint
) language sql stable as $$
    select h.*, b.*, n.*
    from (
        select count(*), procfleet_total(sum(s.interval_ms::bigint)), max(s.cpu_count),
               procfleet_total(sum(s.cpu_user_us)), procfleet_total(sum(s.cpu_system_us)),
               procfleet_total(sum(s.cpu_iowait_us)), procfleet_total(sum(s.cpu_steal_us)),
               procfleet_total(sum(s.cpu_idle_us)),
               max(s.memory_total_bytes), max(s.memory_used_bytes), procfleet_total(avg(s.memory_used_bytes)),
               max(s.swap_used_bytes)
        from host_samples s
        where s.host_id = host and s.sampled_at > window_from and s.sampled_at <= window_to
    ) h, (
        select procfleet_total(sum(s.read_bytes)), procfleet_total(sum(s.write_bytes))
        from block_device_samples s
        where s.host_id = host and s.sampled_at > window_from and s.sampled_at <= window_to
          and s.device !~ '^(dm-|md|loop|ram|zram)'
    ) b, (
        select procfleet_total(sum(s.receive_bytes)), procfleet_total(sum(s.transmit_bytes))
        from network_interface_samples s
        where s.host_id = host and s.sampled_at > window_from and s.sampled_at <= window_to
          and s.interface <> 'lo'
    ) n
$$;

-- The host's series, per sample or in buckets: deltas are summed, gauges averaged.
create function procfleet_host_series(
    host uuid, window_from timestamptz, window_to timestamptz, step interval
) returns table (
    sampled_at timestamptz, sample_count bigint, interval_ms bigint, cpu_count integer,
    cpu_user_us bigint, cpu_system_us bigint, cpu_iowait_us bigint, cpu_steal_us bigint, cpu_idle_us bigint,
    load_1m double precision, load_5m double precision, load_15m double precision,
    memory_total_bytes bigint, memory_used_bytes bigint, memory_available_bytes bigint, memory_free_bytes bigint,
    swap_total_bytes bigint, swap_used_bytes bigint,
    pressure_cpu_some_us bigint, pressure_memory_some_us bigint, pressure_memory_full_us bigint,
    pressure_io_some_us bigint, pressure_io_full_us bigint,
    uptime_s bigint, processes_running double precision, processes_total double precision,
    context_switches bigint, forks bigint,
    agent_cpu_us bigint, agent_memory_usage_bytes bigint, agent_spool_reports bigint, agent_spool_bytes bigint
) language sql stable as $$
    select procfleet_bucket(step, s.sampled_at), count(*), procfleet_total(sum(s.interval_ms::bigint)), max(s.cpu_count),
           procfleet_total(sum(s.cpu_user_us)), procfleet_total(sum(s.cpu_system_us)),
           procfleet_total(sum(s.cpu_iowait_us)), procfleet_total(sum(s.cpu_steal_us)), procfleet_total(sum(s.cpu_idle_us)),
           avg(s.load_1m), avg(s.load_5m), avg(s.load_15m),
           procfleet_total(avg(s.memory_total_bytes)), procfleet_total(avg(s.memory_used_bytes)),
           procfleet_total(avg(s.memory_available_bytes)), procfleet_total(avg(s.memory_free_bytes)),
           procfleet_total(avg(s.swap_total_bytes)), procfleet_total(avg(s.swap_used_bytes)),
           procfleet_total(sum(s.pressure_cpu_some_us)),
           procfleet_total(sum(s.pressure_memory_some_us)), procfleet_total(sum(s.pressure_memory_full_us)),
           procfleet_total(sum(s.pressure_io_some_us)), procfleet_total(sum(s.pressure_io_full_us)),
           max(s.uptime_s), avg(s.processes_running)::double precision, avg(s.processes_total)::double precision,
           procfleet_total(sum(s.context_switches)), procfleet_total(sum(s.forks)),
           procfleet_total(sum(s.agent_cpu_us)), procfleet_total(avg(s.agent_memory_usage_bytes)),
           procfleet_total(avg(s.agent_spool_reports)), procfleet_total(avg(s.agent_spool_bytes))
    from host_samples s
    where s.host_id = host and s.sampled_at > window_from and s.sampled_at <= window_to
    group by procfleet_bucket(step, s.sampled_at)
    order by 1
$$;

-- The series of a process on a host: of each of its instances, or of only_instance, for at most
-- max_instances of them, those seen last in the window. instances_in_window counts all of them.
create function procfleet_process_series(
    host uuid, process uuid, only_instance bigint, window_from timestamptz, window_to timestamptz,
    step interval, max_instances bigint
) returns table (
    instance_id bigint, instances_in_window bigint,
    sampled_at timestamptz, sample_count bigint, interval_ms bigint,
    cpu_user_us bigint, cpu_system_us bigint, memory_usage_bytes bigint, memory_swap_bytes bigint,
    disk_read_bytes bigint, disk_write_bytes bigint,
    network_receive_bytes bigint, network_transmit_bytes bigint, run_queue_delay_us bigint,
    paging_faults_minor bigint, paging_faults_major bigint,
    context_switches_voluntary bigint, context_switches_involuntary bigint,
    thread_count double precision, file_descriptor_count double precision
) language sql stable as $$
    with samples as (
        select s.* from process_samples s
        where s.host_id = host and s.sampled_at > window_from and s.sampled_at <= window_to
          and s.instance_id in (
              select d.instance_id from process_instances d
              where d.host_id = host and d.process_id = process
                and (only_instance is null or d.instance_id = only_instance))
    ), picked as (
        select s.instance_id, count(*) over () as instances_in_window
        from samples s group by s.instance_id order by max(s.sampled_at) desc, s.instance_id limit max_instances
    )
    select s.instance_id, max(k.instances_in_window),
           procfleet_bucket(step, s.sampled_at), count(*), procfleet_total(sum(s.interval_ms::bigint)),
           procfleet_total(sum(s.cpu_user_us)), procfleet_total(sum(s.cpu_system_us)),
           procfleet_total(avg(s.memory_usage_bytes)), procfleet_total(avg(s.memory_swap_bytes)),
           procfleet_total(sum(s.disk_read_bytes)), procfleet_total(sum(s.disk_write_bytes)),
           procfleet_total(sum(s.network_receive_bytes)), procfleet_total(sum(s.network_transmit_bytes)),
           procfleet_total(sum(s.run_queue_delay_us)),
           procfleet_total(sum(s.paging_faults_minor)), procfleet_total(sum(s.paging_faults_major)),
           procfleet_total(sum(s.context_switches_voluntary)), procfleet_total(sum(s.context_switches_involuntary)),
           avg(s.thread_count)::double precision, avg(s.file_descriptor_count)::double precision
    from samples s join picked k using (instance_id)
    group by s.instance_id, procfleet_bucket(step, s.sampled_at)
    order by 3, 1
$$;

-- One row per host with its heartbeat and its newest sample. `silent` is null for a host that never
-- reported. The sample is looked for where the heartbeat says, never over the whole series.
create view procfleet_hosts as
    select h.host_id, h.host_name, h.lifecycle, h.os_description, h.kernel_release, h.host_arch,
           h.agent_version, h.machine_id_hash, h.enrollment_token_id, h.enrolled_at, h.facts_updated_at,
           b.last_seen_at, b.last_sampled_at, b.deadline_at, b.interval_ms, b.boot_id,
           b.deadline_at < now() as silent,
           s.cpu_count,
           (s.cpu_user_us::double precision + s.cpu_system_us)
               / nullif(s.cpu_user_us::double precision + s.cpu_system_us + coalesce(s.cpu_iowait_us, 0)
                        + coalesce(s.cpu_steal_us, 0) + s.cpu_idle_us, 0)
               as cpu_utilization_ratio,
           s.load_1m, s.memory_total_bytes, s.memory_used_bytes
    from hosts h
    left join heartbeats b on b.host_id = h.host_id and b.last_seen_at is not null
    left join lateral (
        select * from host_samples s
        where s.host_id = h.host_id
          and s.sampled_at <= b.last_sampled_at and s.sampled_at > b.last_sampled_at - interval '1 hour'
        order by s.sampled_at desc limit 1
    ) s on true;

-- Substring search of command lines is a scan of the dictionary without trigrams, an index look-up
-- with them. Managed databases may not offer the extension: then the scan has to do.
do $$
begin
    create extension if not exists pg_trgm;
    execute 'create index processes_command_line on processes using gin (command_line gin_trgm_ops)';
exception when insufficient_privilege or undefined_file or feature_not_supported or undefined_object then
    raise notice 'pg_trgm is not available: searches of command lines will scan';
end
$$;

-- For Grafana and other readers: everything but tokens, keys, certificates and authorities.
-- Roles belong to the whole cluster, so another database may have made it already.
do $$
begin
    if not exists (select from pg_roles where rolname = 'procfleet_reader') then
        create role procfleet_reader nologin;
    end if;
exception when insufficient_privilege or duplicate_object or unique_violation then
    raise notice 'role procfleet_reader not created: %', sqlerrm;
end
$$;
do $$
begin
    if exists (select from pg_roles where rolname = 'procfleet_reader') then
        grant usage on schema public to procfleet_reader;
        grant select on hosts, heartbeats, processes, process_instances, series, procfleet_hosts,
            process_samples, host_samples, filesystem_samples, block_device_samples, network_interface_samples
            to procfleet_reader;
    end if;
exception when insufficient_privilege then
    raise notice 'nothing granted to procfleet_reader: %', sqlerrm;
end
$$;
