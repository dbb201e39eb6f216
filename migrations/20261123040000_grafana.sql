-- What dashboards ask beside the queries' functions and in their terms: lines to be drawn.
--
-- A line's value is null where the host has no sample, so that a gap is drawn as a gap, and zero where
-- there is one in which the line has no part: a process too small to keep, a connection that is not there.

-- The step to ask with for a window drawn about wanted_ms apart: null, every sample by itself, up to a
-- thousand of them; else the narrowest of usual steps that fits and that is kept. Of one host or of many.
create function procfleet_step(
    host uuid, window_from timestamptz, window_to timestamptz, wanted_ms bigint
) returns interval language plpgsql stable parallel safe as $function$
declare
    finest constant interval := procfleet_finest_step('process', window_from, window_to);
    sampled_ms constant bigint := coalesce((select b.interval_ms from heartbeats b where b.host_id = host), 30000);
    length_ms constant bigint := procfleet_window_ms(window_from, window_to);
    least_ms constant bigint := greatest(wanted_ms, length_ms / 1000, 2 * sampled_ms,
        case when length_ms > 6 * 3600000 then 300000 end);
begin
    if host is not null and finest = interval '0' and length_ms <= 1000 * sampled_ms then
        return null;
    end if;
    return (select min(s.step) from unnest(array['10 s', '30 s', '1 min', '2 min', '5 min', '10 min', '15 min', '30 min',
            '1 hour', '2 hours', '3 hours', '6 hours', '12 hours', '1 day', '2 days']::interval[]) s (step)
        where s.step >= finest and (s.step >= least_ms * interval '1 millisecond' or s.step = interval '2 days'));
end
$function$;

-- Names of lines, told apart where two would be the same.
create function procfleet_line_name(name text, id uuid, same bigint) returns text language sql immutable parallel safe as $$
    select left(regexp_replace(name, '\s+', ' ', 'g'), 120) || case when same > 1 then coalesce(' #' || left(id::text, 6), '') else '' end
$$;

-- Statements of lines are put together here. `lines` selects at, name, value of $1 (host) in $4 (step)
-- buckets; `per` is what a value is divided by: t.sample_count or t.interval_ms of the host.
create function procfleet_line_statement(lines text, per text, absent text) returns text
language sql immutable parallel safe as $function$
    select format($sql$
        with times as materialized (
            select s.sampled_at, s.interval_ms, s.sample_count from procfleet_host_series($1, $2, $3, $4) s
        ), lines as materialized (%s), names as (
            select distinct l.name from lines l
        )
        select t.sampled_at, n.name,
               (case when t.sample_count = 0 then null when l.at is null then %s else l.value / %s end)::double precision
        from times t cross join names n left join lines l on l.at = t.sampled_at and l.name = n.name
        order by 1, 2
    $sql$, lines, absent, per)
$function$;

-- What can be drawn of a host's parts: of which series, by which name, which value, per what, and
-- what stands where the part has no row.
create function procfleet_measure(
    measure text, out series text, out name text, out value text, out per text, out absent text
) language plpgsql immutable parallel safe as $function$
declare
    connection constant text := 's.protocol || coalesce('' '' || s.direction, '''') || coalesce('' '' || s.scope, '''')';
begin
    select m.s, m.n, m.v, m.p, m.a into series, name, value, per, absent from (values
        ('filesystem_total',     'filesystem_samples', 's.mount_point', 'avg(s.total_bytes)', '1', 'null'),
        ('filesystem_used',      'filesystem_samples', 's.mount_point', 'avg(s.used_bytes)', '1', 'null'),
        ('filesystem_available', 'filesystem_samples', 's.mount_point', 'avg(s.available_bytes)', '1', 'null'),
        ('filesystem_inodes',    'filesystem_samples', 's.mount_point', 'avg(s.inodes_used::double precision / nullif(s.inodes_total, 0))', '1', 'null'),
        ('device_read',          'block_device_samples', 's.device', 'sum(s.read_bytes) * 1000.0 / nullif(sum(s.interval_ms), 0)', '1', 'null'),
        ('device_write',         'block_device_samples', 's.device', 'sum(s.write_bytes) * 1000.0 / nullif(sum(s.interval_ms), 0)', '1', 'null'),
        ('device_queue',         'block_device_samples', 's.device', 'avg(s.queue_length)', '1', 'null'),
        ('device_utilization',   'block_device_samples', 's.device', 'avg(s.utilization_ratio)', '1', 'null'),
        ('interface_speed',      'network_interface_samples', 's.interface', 'max(s.speed_bits_per_second)', '1', 'null'),
        ('interface_receive',    'network_interface_samples', 's.interface', 'sum(s.receive_bytes) * 1000.0 / nullif(sum(s.interval_ms), 0)', '1', 'null'),
        ('interface_transmit',   'network_interface_samples', 's.interface', 'sum(s.transmit_bytes) * 1000.0 / nullif(sum(s.interval_ms), 0)', '1', 'null'),
        ('interface_total',      'network_interface_samples', 's.interface', '(sum(s.receive_bytes) + sum(s.transmit_bytes)) * 1000.0 / nullif(sum(s.interval_ms), 0)', '1', 'null'),
        ('interface_troubles',   'network_interface_samples', 's.interface', 'sum(s.receive_errors + s.transmit_errors + s.receive_drops + s.transmit_drops) * 1000.0 / nullif(sum(s.interval_ms), 0)', '1', 'null'),
        ('connections',          'connection_samples', connection, 'sum(s.connection_count)::double precision', 't.sample_count', '0'),
        ('connection_receive',   'connection_samples', connection, 'sum(s.receive_bytes) * 1000.0', 'nullif(t.interval_ms, 0)', '0'),
        ('connection_transmit',  'connection_samples', connection, 'sum(s.transmit_bytes) * 1000.0', 'nullif(t.interval_ms, 0)', '0'),
        ('connection_retransmits', 'connection_samples', connection, 'sum(s.retransmits) * 1000.0', 'nullif(t.interval_ms, 0)', '0'),
        ('exits',                'process_exits', '''all''', 'sum(s.process_count) * 1000.0', 'nullif(t.interval_ms, 0)', '0'),
        ('exits_failed',         'process_exits', '''failed''',
            'sum(case when s.exit_code <> 0 or s.exit_signal is not null then s.process_count else s.failed_count end) * 1000.0', 'nullif(t.interval_ms, 0)', '0')
    ) as m (measure, s, n, v, p, a) where m.measure = procfleet_measure.measure;
    if series is null then
        raise exception 'unknown measure %', measure using errcode = '22023';
    end if;
end
$function$;

-- A measure of each part of a host: its file systems, devices, interfaces, kinds of connections. Read
-- from samples, as far as they are kept.
create function procfleet_part_lines(
    host uuid, window_from timestamptz, window_to timestamptz, step interval, measure text
) returns table (sampled_at timestamptz, name text, value double precision)
language plpgsql stable parallel restricted set jit = off as $function$
declare
    asked record;
begin
    select * into asked from procfleet_measure(measure);
    return query execute procfleet_line_statement(format(
        'select procfleet_bucket($4, s.sampled_at) as at, %s as name, %s as value from %I s
         where s.host_id = %L::uuid and s.sampled_at > %L and s.sampled_at <= %L group by 1, 2',
        asked.name, asked.value, asked.series, host, window_from, window_to), asked.per, asked.absent)
    using host, window_from, window_to, step;
end
$function$;

-- What the processes of a host used of a resource, to be stacked (procfleet_stack): CPU in cores, memory
-- in bytes, the others in bytes per second. The rest and the residual have a line each, so that they
-- add up to everything recorded.
create function procfleet_process_lines(
    host uuid, window_from timestamptz, window_to timestamptz, step interval, resource text, max_processes bigint default 10
) returns table (sampled_at timestamptz, name text, value double precision)
language plpgsql stable parallel restricted set work_mem = '64MB' set jit = off as $function$
declare
    lines constant text := $sql$
        with stack as materialized (
            select k.*, case when k.is_residual then '(small ones together)' when k.place is null then '(other processes)'
                else coalesce(k.command_line, '(not described)') end as line
            from procfleet_stack($1, $2, $3, $4, $5, $6) k
        ), named as (
            select k.line, k.process_id, procfleet_line_name(k.line, k.process_id,
                count(*) over (partition by procfleet_line_name(k.line, null, 1))) as name
            from (select distinct k.line, k.process_id from stack k) k
        )
        select k.sampled_at as at, n.name, k.value
        from stack k join named n on n.line = k.line and n.process_id is not distinct from k.process_id
    $sql$;
    per constant text := case resource when 'memory' then '1' when 'cpu' then '(nullif(t.interval_ms, 0) * 1000.0)'
        else '(nullif(t.interval_ms, 0) / 1000.0)' end;
begin
    return query execute procfleet_line_statement(lines, per, '0')
    using host, window_from, window_to, step, resource, max_processes;
end
$function$;

-- A measure of each of many hosts, of the max_hosts where its mean is highest: cpu and memory as a
-- ratio, load of one minute per core, disk and network in bytes per second.
create function procfleet_host_lines(
    hosts uuid[], window_from timestamptz, window_to timestamptz, step interval, measure text, max_hosts bigint default 20
) returns table (sampled_at timestamptz, name text, value double precision)
language plpgsql stable parallel restricted set work_mem = '64MB' set jit = off as $function$
declare
    asked uuid[] := coalesce(hosts, procfleet_hosts_with('{}'));
    measured text := case measure
        when 'cpu' then '(sum(p.cpu_user_us) + sum(p.cpu_system_us))::double precision / nullif(sum(p.cpu_user_us) + sum(p.cpu_system_us)
            + coalesce(sum(p.cpu_iowait_us), 0) + coalesce(sum(p.cpu_steal_us), 0) + sum(p.cpu_idle_us), 0)'
        when 'memory' then '(sum(p.memory_used_bytes_sum)::double precision / nullif(sum(p.memory_used_bytes_samples), 0))
            / nullif(sum(p.memory_total_bytes_sum) / nullif(sum(p.memory_total_bytes_samples), 0), 0)'
        when 'load' then 'sum(p.load_1m_sum) / nullif(sum(p.load_1m_samples), 0) / nullif(max(p.cpu_count), 0)'
        when 'disk' then '(sum(p.disk_read_bytes) + sum(p.disk_write_bytes)) * 1000.0 / nullif(sum(p.covered_ms), 0)'
        when 'network' then '(sum(p.network_receive_bytes) + sum(p.network_transmit_bytes)) * 1000.0 / nullif(sum(p.covered_ms), 0)'
        end;
begin
    if measured is null then
        raise exception 'unknown measure %', measure using errcode = '22023', hint = 'cpu, memory, load, disk, network';
    end if;
    return query execute replace(replace($sql$
        with points as materialized (
            select p.host_id, procfleet_bucket($4, p.sampled_at) as at, ({measured})::double precision as value
            from {source} p group by 1, 2
        ), sized as (
            select p.host_id, min(p.at) as begins, max(p.at) as ends from points p
            group by p.host_id order by avg(p.value) desc nulls last, p.host_id limit $5
        ), named as (
            select z.*, procfleet_line_name(h.host_name, h.host_id, count(*) over (partition by h.host_name)) as name
            from sized z join hosts h on h.host_id = z.host_id
        )
        select b, n.name, p.value
        from named n join procfleet_buckets($2, $3, $4) b on b between n.begins and n.ends
        left join points p on p.host_id = n.host_id and p.at = b
        order by 1, 2
    $sql$, '{measured}', measured), '{source}',
        procfleet_host_source(asked, window_from, window_to, procfleet_series_grain(step)))
    using asked, window_from, window_to, step, max_hosts;
end
$function$;

-- Runs of a process, on a host or anywhere, the newest first.
create function procfleet_process_runs(process uuid, host uuid default null, max_rows bigint default 200) returns table (
    host_id uuid, host_name text, instance_id bigint, pid integer, parent_pid integer, owner text, executable_name text,
    systemd_unit text, container_id text, service_ports integer[], creation_time timestamptz, described_at timestamptz
) language sql stable parallel safe as $$
    select i.host_id, h.host_name, i.instance_id, i.pid, i.parent_pid, i.owner, i.executable_name,
           i.systemd_unit, i.container_id, i.service_ports, i.creation_time, i.described_at
    from process_instances i left join hosts h on h.host_id = i.host_id
    where i.process_id = process and (host is null or i.host_id = host)
    order by i.creation_time desc, i.host_id, i.instance_id limit max_rows
$$;

-- What the fleet delivered, in buckets: hosts heard of, reports per second, what waited in spools, and the CPU, in
-- cores, and memory of an agent in the mean.
create function procfleet_ingest_series(window_from timestamptz, window_to timestamptz, step interval) returns table (
    sampled_at timestamptz, host_count bigint, reports_per_second double precision,
    spool_reports double precision, spool_bytes double precision,
    agent_cpu_cores double precision, agent_memory_usage_bytes double precision
) language plpgsql stable parallel restricted set work_mem = '64MB' set jit = off as $function$
declare
    asked uuid[] := procfleet_hosts_with('{}');
begin
    return query execute replace($sql$
        with points as materialized (
            select procfleet_bucket($4, p.sampled_at) as at, p.host_id, sum(p.sample_count) as sample_count, sum(p.covered_ms) as covered_ms,
                   sum(p.agent_spool_reports_sum)::double precision / nullif(sum(p.agent_spool_reports_samples), 0) as spool_reports,
                   sum(p.agent_spool_bytes_sum)::double precision / nullif(sum(p.agent_spool_bytes_samples), 0) as spool_bytes,
                   sum(p.agent_cpu_us)::double precision as agent_cpu_us,
                   sum(p.agent_memory_usage_bytes_sum)::double precision / nullif(sum(p.agent_memory_usage_bytes_samples), 0) as agent_memory
            from {source} p group by 1, 2 having sum(p.sample_count) > 0
        ), totals as (
            select p.at, count(*) as host_count, sum(p.sample_count) as sample_count, sum(p.spool_reports) as spool_reports,
                   sum(p.spool_bytes) as spool_bytes, sum(p.agent_cpu_us) / nullif(sum(p.covered_ms) * 1000, 0) as cores, avg(p.agent_memory) as memory
            from points p group by 1
        )
        select b, coalesce(t.host_count, 0), coalesce(t.sample_count, 0)::double precision / extract(epoch from $4)::double precision,
               t.spool_reports, t.spool_bytes, t.cores::double precision, t.memory
        from procfleet_buckets($2, $3, $4) b left join totals t on t.at = b order by 1
    $sql$, '{source}', procfleet_host_source(asked, window_from, window_to, procfleet_series_grain(step)))
    using asked, window_from, window_to, step;
end
$function$;

-- How far maintenance is: roll-ups, what waits for them, and when a step last succeeded.
create function procfleet_progress() returns table (
    fine_until timestamptz, hour_until timestamptz, dirty_buckets bigint, late_buckets bigint, last_step_at timestamptz, failures bigint
) language sql stable parallel safe as $$
    select procfleet_rollup_until(interval '5 minutes'), procfleet_rollup_until(interval '1 hour'),
           (select count(*) from rollup_dirty), (select count(*) from rollup_dirty d where d.is_late),
           (select max(m.finished_at) from maintenance_steps m), (select coalesce(sum(m.failures), 0)::bigint from maintenance_steps m)
$$;

create view procfleet_maintenance as
    select m.step, m.started_at, m.finished_at, m.items, m.failures, m.failed_at, m.error from maintenance_steps m;

create view procfleet_storage as
    select s.series, s.is_rollup, s.retention, t.partitions, t.compressed, t.bytes, t.begins_at, t.ends_at, t.measured_at
    from series s left join maintenance_tables t on t.series = s.series;

-- Records passed over for good, without what was in them.
create view procfleet_rejects as
    select r.host_id, h.host_name, r.stream_id, r.first_sequence, r.sequence, r.code, r.received_at
    from ingest_rejects r left join hosts h on h.host_id = r.host_id;
