-- What readers ask: REST, the web page and Grafana use these functions and never the series
-- themselves, so that roll-ups can lie beneath them without a reader noticing.
--
-- A window is (window_from, window_to]: a sample stands for the interval that ended at its
-- sampled_at. Sums are of what is known; a sum of nothing known is null. `hosts` is null for the
-- whole fleet.
--
-- Each function builds its statement from pieces of the window (procfleet_pieces) with the bounds
-- as constants, so that the planner leaves out every chunk outside them; hypertables and native
-- partitions alike. Everything put into a statement's text is a constant, or quoted by format().
-- Those that sum over a fleet get the memory to do so without sorting on disk, and no JIT, whose
-- compilation takes longer than it saves; a function with settings is parallel restricted. Rows of a
-- report lie together, so going to each host by the index costs less than the planner would think: a
-- fleet's few minutes are not worth reading the whole piece.

-- Whether labels fulfil requirements: [{"name", "operator": "in|not_in|exists|absent", "values"}], all of them.
create function procfleet_selects(labels jsonb, requirements jsonb) returns boolean
language sql immutable parallel safe as $$
    select not exists (
        select from jsonb_array_elements(requirements) as r (of)
        where not case r.of ->> 'operator'
            when 'in' then coalesce(r.of -> 'values' ? (labels ->> (r.of ->> 'name')), false)
            when 'not_in' then not coalesce(r.of -> 'values' ? (labels ->> (r.of ->> 'name')), false)
            when 'exists' then labels ? (r.of ->> 'name')
            when 'absent' then not labels ? (r.of ->> 'name')
        end
    )
$$;

-- Hosts that carry every label of the selector, such as {"env": "prod"}; null without a selector.
create function procfleet_hosts_with(selector jsonb) returns uuid[] language sql stable parallel safe as $$
    select case when selector is not null then
        (select coalesce(array_agg(h.host_id order by h.host_id), '{}') from hosts h where h.labels @> selector)
    end
$$;

-- Which hosts a statement is about, as a condition on `alias`; several are its first parameter.
create function procfleet_host_condition(alias text, hosts uuid[]) returns text language sql immutable parallel safe as $$
    select case
        when hosts is null then 'true'
        when cardinality(hosts) = 1 then format('%I.host_id = %L::uuid', alias, hosts[1])
        else format('%I.host_id = any ($1)', alias)
    end
$$;

-- Time up or down to a multiple of `width`, as roll-ups are cut.
create function procfleet_up(width interval, at timestamptz) returns timestamptz language sql immutable parallel safe as $$
    select date_bin(width, at - interval '1 microsecond', timestamptz '2000-01-01 00:00:00+00') + width
$$;
create function procfleet_down(width interval, at timestamptz) returns timestamptz language sql immutable parallel safe as $$
    select date_bin(width, at, timestamptz '2000-01-01 00:00:00+00')
$$;

-- The length of a window, ms.
create function procfleet_window_ms(window_from timestamptz, window_to timestamptz) returns bigint
language sql immutable parallel safe as $$
    select (extract(epoch from window_to - window_from) * 1000)::bigint
$$;

-- The coarsest roll-up worth its while for sums over a window. Whatever it is, the window's ends are
-- read as finely as they are cut, so the sums are those of the samples.
create function procfleet_grain(window_from timestamptz, window_to timestamptz) returns interval
language sql immutable parallel safe as $$
    select case when window_to - window_from > interval '2 hours' then interval '1 hour'
        when window_to - window_from > interval '20 minutes' then interval '5 minutes' else interval '0' end
$$;

-- From where each piece of a window is read: whole hours and whole 5 minutes from roll-ups, as far as
-- `grain` allows them, the rest from samples. Where roll-ups have not come yet, samples; where samples
-- are not kept any more, roll-ups, and the window is widened to their bounds. `subject`: process, host.
create function procfleet_pieces(
    subject text, window_from timestamptz, window_to timestamptz, grain interval
) returns table (resolution text, piece_from timestamptz, piece_to timestamptz)
language plpgsql stable parallel safe as $function$
declare
    hour       constant interval := interval '1 hour';
    fine       constant interval := interval '5 minutes';
    fine_until constant timestamptz := procfleet_rollup_until(fine);
    hour_until constant timestamptz := procfleet_rollup_until(hour);
    -- Before these, only roll-ups of an hour are kept, or of 5 minutes and an hour.
    hour_era timestamptz;
    fine_era timestamptz;
    era record;
    segment record;
    era_from timestamptz;
    era_to   timestamptz;
    hours_from timestamptz;
    hours_to   timestamptz;
    fine_from  timestamptz;
    fine_to    timestamptz;
begin
    select procfleet_up(hour, s.raw_floor) into hour_era from series s where s.series = subject || '_rollup_5m';
    select procfleet_up(fine, s.raw_floor) into fine_era from series s where s.series = subject || '_samples';
    for era in
        select * from (values
            (hour, timestamptz '-infinity', hour_era),
            (fine, hour_era, greatest(fine_era, hour_era)),
            (interval '0', greatest(fine_era, hour_era), timestamptz 'infinity')) as v (least_width, era_from, era_to)
    loop
        era_from := greatest(window_from, era.era_from);
        era_to := least(window_to, era.era_to);
        continue when era_from >= era_to;
        if era.least_width > interval '0' then
            era_from := procfleet_down(era.least_width, era_from);
            era_to := procfleet_up(era.least_width, era_to);
        end if;
        hours_from := era_to;
        hours_to := era_to;
        if greatest(grain, era.least_width) >= hour then
            hours_from := procfleet_up(hour, era_from);
            hours_to := case when era.least_width = hour then era_to else least(procfleet_down(hour, era_to), hour_until) end;
        end if;
        if hours_from < hours_to then
            resolution := '1h'; piece_from := hours_from; piece_to := hours_to;
            return next;
        else
            hours_from := era_to;
            hours_to := era_to;
        end if;
        for segment in select * from (values (era_from, hours_from), (hours_to, era_to)) as v (starts, ends) where starts < ends loop
            fine_from := segment.ends;
            fine_to := segment.ends;
            if greatest(grain, era.least_width) >= fine then
                fine_from := procfleet_up(fine, segment.starts);
                fine_to := least(procfleet_down(fine, segment.ends), fine_until);
            end if;
            if fine_from < fine_to then
                resolution := '5m'; piece_from := fine_from; piece_to := fine_to;
                return next;
            else
                fine_from := segment.ends;
                fine_to := segment.ends;
            end if;
            resolution := 'raw';
            if segment.starts < fine_from then
                piece_from := segment.starts; piece_to := fine_from;
                return next;
            end if;
            if fine_to < segment.ends then
                piece_from := fine_to; piece_to := segment.ends;
                return next;
            end if;
        end loop;
    end loop;
end
$function$;

-- The text of a union of all pieces of a window. `raw` and `rolled` select from samples and from the
-- roll-up {table}, as `s`, with {where} for the condition and {join} for what stands before the table.
-- More than one host are referred to as $1: the statement must be given `hosts` as its first parameter.
--
-- Late data waits in rollup_dirty for the maintenance worker's next round. Until then its buckets are
-- left out of the roll-ups, and what they are made of is read instead.
create function procfleet_union(
    subject text, hosts uuid[], window_from timestamptz, window_to timestamptz, grain interval,
    raw text, rolled text, filter text
) returns text language plpgsql stable parallel safe as $function$
declare
    condition constant text := procfleet_host_condition('s', hosts);
    parts text[] := '{}';
    piece record;
    is_late boolean;
    late constant text := 'select d.host_id, {key} as sampled_at from rollup_dirty d where '
        || procfleet_host_condition('d', hosts) || ' and d.sampled_at > {from} and d.sampled_at <= {to}';
    late_fine text;
    late_hours text;
    bounds text;
begin
    for piece in select * from procfleet_pieces(subject, window_from, window_to, grain) loop
        bounds := format('%s and s.sampled_at > %L::timestamptz and s.sampled_at <= %L::timestamptz and (%s)',
            condition, piece.piece_from, piece.piece_to, filter);
        if piece.resolution = 'raw' then
            parts := parts || replace(replace(raw, '{join}', ''), '{where}', bounds);
            continue;
        end if;
        select exists (select from rollup_dirty d where d.is_late
            and (hosts is null or d.host_id = any (hosts)) and d.sampled_at > piece.piece_from and d.sampled_at <= piece.piece_to)
            into is_late;
        if not is_late then
            parts := parts || replace(replace(replace(rolled, '{table}', subject || '_rollup_' || piece.resolution), '{join}', ''), '{where}', bounds);
            continue;
        end if;
        late_fine := replace(replace(late, '{from}', quote_literal(piece.piece_from) || '::timestamptz'), '{to}', quote_literal(piece.piece_to) || '::timestamptz');
        late_hours := replace(late_fine, '{key}', 'procfleet_up(interval ''1 hour'', d.sampled_at)');
        late_fine := replace(late_fine, '{key}', 'd.sampled_at') || ' and d.width_s = 300';
        if piece.resolution = '1h' then
            parts := parts || replace(replace(replace(rolled, '{table}', subject || '_rollup_1h'), '{join}', ''),
                '{where}', bounds || format(' and (s.host_id, s.sampled_at) not in (%s)', late_hours));
            parts := parts || replace(replace(replace(rolled, '{table}', subject || '_rollup_5m'), '{join}', format(
                    '(select distinct l.host_id, l.sampled_at from (%s) l) l,', late_hours)),
                '{where}', format('s.host_id = l.host_id and s.sampled_at > l.sampled_at - interval ''1 hour'' and s.sampled_at <= l.sampled_at and ')
                    || bounds || format(' and (s.host_id, s.sampled_at) not in (%s)', late_fine));
        else
            parts := parts || replace(replace(replace(rolled, '{table}', subject || '_rollup_5m'), '{join}', ''),
                '{where}', bounds || format(' and (s.host_id, s.sampled_at) not in (%s)', late_fine));
        end if;
        parts := parts || replace(replace(raw, '{join}', format(
                '(select distinct l.host_id, l.sampled_at from (%s) l) l,', late_fine)),
            '{where}', 's.host_id = l.host_id and s.sampled_at > l.sampled_at - interval ''5 minutes'' and s.sampled_at <= l.sampled_at and ' || bounds);
    end loop;
    -- A window without a moment in it has no pieces, and no rows.
    if cardinality(parts) = 0 then
        parts := parts || replace(replace(raw, '{join}', ''), '{where}', 'false');
    end if;
    return '(' || array_to_string(parts, ' union all ') || ')';
end
$function$;

-- What was recorded of instances in a window, as the text of a subquery: samples and roll-ups in one
-- shape. Of a gauge there are the sum, how many samples knew it, and the peak.
create function procfleet_process_source(
    hosts uuid[], window_from timestamptz, window_to timestamptz, grain interval, filter text default 'true'
) returns text language sql stable parallel safe as $function$
    select procfleet_union('process', hosts, window_from, window_to, grain, $raw$
        select s.host_id, s.instance_id, s.sampled_at, s.sampled_at as first_sampled_at, s.sampled_at as last_sampled_at,
               1 as sample_count, s.interval_ms::bigint as covered_ms,
               case when s.cpu_user_us is not null and s.cpu_system_us is not null then s.interval_ms::bigint end as cpu_covered_ms,
               s.process_count, s.cpu_user_us, s.cpu_system_us,
               (s.cpu_user_us::double precision + s.cpu_system_us) / (nullif(s.interval_ms, 0) * 1000::double precision) as cpu_cores_max,
               s.memory_usage_bytes as memory_usage_bytes_max, s.memory_usage_bytes as memory_usage_bytes_sum,
               (s.memory_usage_bytes is not null)::integer as memory_usage_samples,
               s.memory_swap_bytes as memory_swap_bytes_max, s.memory_swap_bytes as memory_swap_bytes_sum,
               (s.memory_swap_bytes is not null)::integer as memory_swap_samples,
               s.disk_read_bytes, s.disk_write_bytes, s.network_receive_bytes, s.network_transmit_bytes,
               s.run_queue_delay_us, s.paging_faults_minor, s.paging_faults_major,
               s.context_switches_voluntary, s.context_switches_involuntary,
               s.thread_count as thread_count_max, s.thread_count::bigint as thread_count_sum,
               (s.thread_count is not null)::integer as thread_count_samples,
               s.file_descriptor_count as file_descriptor_count_max, s.file_descriptor_count::bigint as file_descriptor_count_sum,
               (s.file_descriptor_count is not null)::integer as file_descriptor_samples
        from {join} procfleet_process_samples s where {where}
    $raw$, $rolled$
        select s.host_id, s.instance_id, s.sampled_at, s.first_sampled_at, s.last_sampled_at,
               s.sample_count, s.covered_ms, s.cpu_covered_ms,
               s.process_count_max as process_count, s.cpu_user_us, s.cpu_system_us, s.cpu_cores_max,
               s.memory_usage_bytes_max, s.memory_usage_bytes_sum, s.memory_usage_samples,
               s.memory_swap_bytes_max, s.memory_swap_bytes_sum, s.memory_swap_samples,
               s.disk_read_bytes, s.disk_write_bytes, s.network_receive_bytes, s.network_transmit_bytes,
               s.run_queue_delay_us, s.paging_faults_minor, s.paging_faults_major,
               s.context_switches_voluntary, s.context_switches_involuntary,
               s.thread_count_max, s.thread_count_sum, s.thread_count_samples,
               s.file_descriptor_count_max, s.file_descriptor_count_sum, s.file_descriptor_samples
        from {join} {table} s where {where}
    $rolled$, filter)
$function$;

-- The same of hosts. Devices and interfaces are rows of their own until they are rolled up.
create function procfleet_host_source(
    hosts uuid[], window_from timestamptz, window_to timestamptz, grain interval
) returns text language sql stable parallel safe as $function$
    select procfleet_union('host', hosts, window_from, window_to, grain, $raw$
        select s.host_id, s.sampled_at, s.sampled_at as first_sampled_at, s.sampled_at as last_sampled_at,
               1 as sample_count, s.interval_ms::bigint as covered_ms,
               null::bigint as disk_read_bytes, null::bigint as disk_write_bytes,
               null::bigint as network_receive_bytes, null::bigint as network_transmit_bytes,
               s.cpu_count, s.cpu_user_us, s.cpu_system_us, s.cpu_iowait_us, s.cpu_steal_us, s.cpu_idle_us,
               s.load_1m as load_1m_sum, (s.load_1m is not null)::integer as load_1m_samples, s.load_5m as load_5m_sum,
               (s.load_5m is not null)::integer as load_5m_samples, s.load_15m as load_15m_sum,
               (s.load_15m is not null)::integer as load_15m_samples, s.memory_total_bytes as memory_total_bytes_max,
               s.memory_used_bytes as memory_used_bytes_max, s.swap_used_bytes as swap_used_bytes_max,
               s.memory_total_bytes as memory_total_bytes_sum,
               (s.memory_total_bytes is not null)::integer as memory_total_bytes_samples,
               s.memory_used_bytes as memory_used_bytes_sum,
               (s.memory_used_bytes is not null)::integer as memory_used_bytes_samples,
               s.memory_available_bytes as memory_available_bytes_sum,
               (s.memory_available_bytes is not null)::integer as memory_available_bytes_samples,
               s.memory_free_bytes as memory_free_bytes_sum,
               (s.memory_free_bytes is not null)::integer as memory_free_bytes_samples,
               s.swap_total_bytes as swap_total_bytes_sum,
               (s.swap_total_bytes is not null)::integer as swap_total_bytes_samples,
               s.swap_used_bytes as swap_used_bytes_sum,
               (s.swap_used_bytes is not null)::integer as swap_used_bytes_samples, s.pressure_cpu_some_us,
               s.pressure_memory_some_us, s.pressure_memory_full_us, s.pressure_io_some_us, s.pressure_io_full_us,
               s.uptime_s, s.context_switches, s.forks, s.agent_cpu_us,
               s.agent_memory_usage_bytes as agent_memory_usage_bytes_sum,
               (s.agent_memory_usage_bytes is not null)::integer as agent_memory_usage_bytes_samples,
               s.agent_spool_reports as agent_spool_reports_sum,
               (s.agent_spool_reports is not null)::integer as agent_spool_reports_samples,
               s.agent_spool_bytes as agent_spool_bytes_sum,
               (s.agent_spool_bytes is not null)::integer as agent_spool_bytes_samples,
               s.processes_running::bigint as processes_running_sum,
               (s.processes_running is not null)::integer as processes_running_samples,
               s.processes_total::bigint as processes_total_sum,
               (s.processes_total is not null)::integer as processes_total_samples
        from {join} host_samples s where {where}
        union all
        select s.host_id, s.sampled_at, null, null, null, null, s.read_bytes, s.write_bytes, null, null,
               null::integer, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint,
               null::double precision, null::integer, null::double precision, null::integer, null::double precision,
               null::integer, null::bigint, null::bigint, null::bigint, null::bigint, null::integer, null::bigint,
               null::integer, null::bigint, null::integer, null::bigint, null::integer, null::bigint, null::integer,
               null::bigint, null::integer, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint,
               null::bigint, null::bigint, null::bigint, null::bigint, null::bigint, null::integer, null::bigint,
               null::integer, null::bigint, null::integer, null::bigint, null::integer, null::bigint, null::integer
        from {join} block_device_samples s where {where} and procfleet_counts_device(s.device)
        union all
        select s.host_id, s.sampled_at, null, null, null, null, null, null, s.receive_bytes, s.transmit_bytes,
               null::integer, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint,
               null::double precision, null::integer, null::double precision, null::integer, null::double precision,
               null::integer, null::bigint, null::bigint, null::bigint, null::bigint, null::integer, null::bigint,
               null::integer, null::bigint, null::integer, null::bigint, null::integer, null::bigint, null::integer,
               null::bigint, null::integer, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint,
               null::bigint, null::bigint, null::bigint, null::bigint, null::bigint, null::integer, null::bigint,
               null::integer, null::bigint, null::integer, null::bigint, null::integer, null::bigint, null::integer
        from {join} network_interface_samples s where {where} and procfleet_counts_interface(s.interface)
    $raw$, $rolled$
        select s.host_id, s.sampled_at, s.first_sampled_at, s.last_sampled_at, s.sample_count, s.covered_ms,
               s.disk_read_bytes, s.disk_write_bytes, s.network_receive_bytes, s.network_transmit_bytes,
               s.cpu_count_max as cpu_count, s.cpu_user_us, s.cpu_system_us, s.cpu_iowait_us, s.cpu_steal_us,
               s.cpu_idle_us, s.load_1m_sum, s.load_1m_samples, s.load_5m_sum, s.load_5m_samples, s.load_15m_sum,
               s.load_15m_samples, s.memory_total_bytes_max, s.memory_used_bytes_max, s.swap_used_bytes_max,
               s.memory_total_bytes_sum, s.memory_total_samples as memory_total_bytes_samples, s.memory_used_bytes_sum,
               s.memory_used_samples as memory_used_bytes_samples, s.memory_available_bytes_sum,
               s.memory_available_samples as memory_available_bytes_samples, s.memory_free_bytes_sum,
               s.memory_free_samples as memory_free_bytes_samples, s.swap_total_bytes_sum,
               s.swap_total_samples as swap_total_bytes_samples, s.swap_used_bytes_sum,
               s.swap_used_samples as swap_used_bytes_samples, s.pressure_cpu_some_us, s.pressure_memory_some_us,
               s.pressure_memory_full_us, s.pressure_io_some_us, s.pressure_io_full_us, s.uptime_s_max as uptime_s,
               s.context_switches, s.forks, s.agent_cpu_us, s.agent_memory_usage_bytes_sum,
               s.agent_memory_usage_samples as agent_memory_usage_bytes_samples, s.agent_spool_reports_sum,
               s.agent_spool_reports_samples, s.agent_spool_bytes_sum, s.agent_spool_bytes_samples,
               s.processes_running_sum, s.processes_running_samples, s.processes_total_sum, s.processes_total_samples
        from {join} {table} s where {where}
    $rolled$, 'true')
$function$;

-- Sums, extremes and times of an instance's rows, and again of such sums: the names stay, so that a
-- group of groups is summed in the same words.
create function procfleet_sums(alias text) returns text language sql immutable parallel safe as $function$
    select replace($sql$
        max({a}.process_count) as process_count, sum({a}.sample_count) as sample_count,
        min({a}.first_sampled_at) as first_sampled_at, max({a}.last_sampled_at) as last_sampled_at,
        sum({a}.covered_ms) as covered_ms, sum({a}.cpu_covered_ms) as cpu_covered_ms,
        sum({a}.cpu_user_us) as cpu_user_us, sum({a}.cpu_system_us) as cpu_system_us,
        max({a}.cpu_cores_max) as cpu_cores_max,
        max({a}.memory_usage_bytes_max) as memory_usage_bytes_max,
        sum({a}.memory_usage_bytes_sum) as memory_usage_bytes_sum, sum({a}.memory_usage_samples) as memory_usage_samples,
        max({a}.memory_swap_bytes_max) as memory_swap_bytes_max,
        sum({a}.disk_read_bytes) as disk_read_bytes, sum({a}.disk_write_bytes) as disk_write_bytes,
        sum({a}.network_receive_bytes) as network_receive_bytes, sum({a}.network_transmit_bytes) as network_transmit_bytes,
        sum({a}.run_queue_delay_us) as run_queue_delay_us,
        max({a}.thread_count_max) as thread_count_max, max({a}.file_descriptor_count_max) as file_descriptor_count_max
    $sql$, '{a}', quote_ident(alias))
$function$;

-- What a resource is ranked by, as an expression over such sums. Of two directions, the known one
-- counts where the other is unknown.
create function procfleet_resource(resource text) returns text language plpgsql immutable parallel safe as $$
declare
    ranked constant text := case resource
        when 'cpu'              then 'coalesce(cpu_user_us + cpu_system_us, cpu_user_us, cpu_system_us)'
        when 'memory'           then 'memory_usage_bytes_max'
        when 'disk'             then 'coalesce(disk_read_bytes + disk_write_bytes, disk_read_bytes, disk_write_bytes)'
        when 'disk_read'        then 'disk_read_bytes'
        when 'disk_write'       then 'disk_write_bytes'
        when 'network'          then 'coalesce(network_receive_bytes + network_transmit_bytes, network_receive_bytes, network_transmit_bytes)'
        when 'network_receive'  then 'network_receive_bytes'
        when 'network_transmit' then 'network_transmit_bytes'
    end;
begin
    if ranked is null then
        raise exception 'unknown resource %', resource using errcode = '22023',
            hint = 'cpu, memory, disk, disk_read, disk_write, network, network_receive, network_transmit';
    end if;
    return ranked;
end
$$;

-- The kernel's short name of the newest run of a process, on a host or anywhere.
create function procfleet_executable_name(process uuid, host uuid) returns text language sql stable parallel safe as $$
    select i.executable_name from process_instances i
    where i.process_id = process and (host is null or i.host_id = host)
    order by i.creation_time desc, i.host_id limit 1
$$;

create type procfleet_usage as (
    place bigint, host_id uuid, host_name text, instance_id bigint,
    host_count bigint, instance_count bigint, process_count integer, sample_count bigint,
    first_sampled_at timestamptz, last_sampled_at timestamptz, covered_ms bigint,
    cpu_us bigint, cpu_user_us bigint, cpu_system_us bigint, cpu_cores double precision, cpu_cores_max double precision,
    memory_usage_bytes_max bigint, memory_usage_bytes_mean bigint, memory_swap_bytes_max bigint,
    disk_read_bytes bigint, disk_write_bytes bigint,
    network_receive_bytes bigint, network_transmit_bytes bigint,
    run_queue_delay_us bigint, thread_count_max integer, file_descriptor_count_max integer,
    process_id uuid, command_line text, executable_name text, executable_path text,
    pid integer, parent_pid integer, user_id bigint, owner text,
    systemd_unit text, container_id text, cgroup text, creation_time timestamptz
);

-- Who used most of a resource in a window: instances, processes (all instances of a command line, on
-- all hosts) or hosts (everything recorded of a host's processes). Three kinds of rows, which
-- together hold everything recorded:
--   place skip_rows + 1 .. skip_rows + max_rows   one subject each
--   place null, instance_id null  what the subjects after them sum to
--   place null, instance_id 0     the residual: what no tick kept by itself; hosts include theirs
-- covered_ms is how long the subject was sampled, summed over the instances of a process. cpu_cores
-- is over that time, for a process over the window.
create function procfleet_top(
    hosts uuid[], window_from timestamptz, window_to timestamptz, resource text,
    subject text default 'instance', max_rows bigint default 20, skip_rows bigint default 0
) returns setof procfleet_usage language plpgsql stable parallel restricted set work_mem = '64MB' set jit = off
    set random_page_cost = 1.1 as $function$
declare
    asked uuid[] := coalesce(hosts, procfleet_hosts_with('{}'));
    subjects text := case subject
        when 'instance' then
            'select g.*, null::uuid as process_id, 1::bigint as host_count, 1::bigint as instance_count,
                    g.covered_ms as seen_ms, g.cpu_covered_ms as busy_ms
             from groups g where g.instance_id <> 0'
        when 'process' then
            'select null::uuid as host_id, null::bigint as instance_id, {sums}, i.process_id,
                    count(distinct g.host_id) as host_count, count(*) as instance_count,
                    sum(g.covered_ms) as seen_ms, procfleet_window_ms($2, $3)::numeric as busy_ms
             from groups g left join process_instances i on i.host_id = g.host_id and i.instance_id = g.instance_id
             where g.instance_id <> 0 group by i.process_id'
        when 'host' then
            'select g.host_id, null::bigint as instance_id, {sums}, null::uuid as process_id,
                    1::bigint as host_count, count(*) filter (where g.instance_id <> 0) as instance_count,
                    max(g.covered_ms) as seen_ms, max(g.cpu_covered_ms) as busy_ms
             from groups g group by g.host_id'
        end;
    statement text := $sql$
        with groups as (
            select p.host_id, p.instance_id, {sums_p} from {source} p group by p.host_id, p.instance_id
        ), subjects as (
            {subjects}
        ), ranked as (
            select s.*, row_number() over (
                order by {rank} desc nulls last, s.last_sampled_at desc, s.instance_id, s.host_id, s.process_id) as place
            from subjects s
        ), shown as (
            select r.place, r.host_id, r.instance_id, r.process_id, r.host_count, r.instance_count,
                   r.seen_ms, r.busy_ms, r.process_count, r.sample_count, r.first_sampled_at, r.last_sampled_at,
                   r.cpu_user_us, r.cpu_system_us, r.cpu_cores_max, r.memory_usage_bytes_max,
                   r.memory_usage_bytes_sum, r.memory_usage_samples, r.memory_swap_bytes_max,
                   r.disk_read_bytes, r.disk_write_bytes, r.network_receive_bytes, r.network_transmit_bytes,
                   r.run_queue_delay_us, r.thread_count_max, r.file_descriptor_count_max
            from ranked r where r.place > $6 and r.place <= $6 + $4
            union all
            -- Memory of subjects that were not there at the same time does not add up: null.
            select null, null, null, null, null, sum(r.instance_count)::bigint,
                   null, null, null, sum(r.sample_count), min(r.first_sampled_at), max(r.last_sampled_at),
                   sum(r.cpu_user_us), sum(r.cpu_system_us), null, null,
                   null, null, null,
                   sum(r.disk_read_bytes), sum(r.disk_write_bytes), sum(r.network_receive_bytes), sum(r.network_transmit_bytes),
                   sum(r.run_queue_delay_us), null, null
            from ranked r where r.place > $6 + $4 having count(*) > 0
            union all
            select null, case when count(*) = 1 then (array_agg(g.host_id))[1] end, 0, null, count(*), 0,
                   sum(g.covered_ms), sum(g.cpu_covered_ms), max(g.process_count), sum(g.sample_count),
                   min(g.first_sampled_at), max(g.last_sampled_at),
                   sum(g.cpu_user_us), sum(g.cpu_system_us), max(g.cpu_cores_max), max(g.memory_usage_bytes_max),
                   sum(g.memory_usage_bytes_sum), sum(g.memory_usage_samples), max(g.memory_swap_bytes_max),
                   sum(g.disk_read_bytes), sum(g.disk_write_bytes), sum(g.network_receive_bytes), sum(g.network_transmit_bytes),
                   sum(g.run_queue_delay_us), max(g.thread_count_max), max(g.file_descriptor_count_max)
            from groups g where g.instance_id = 0 and $5 <> 'host' having count(*) > 0
        )
        select t.place, t.host_id, h.host_name, t.instance_id,
               t.host_count, t.instance_count, t.process_count, procfleet_total(t.sample_count),
               t.first_sampled_at, t.last_sampled_at, procfleet_total(t.seen_ms),
               procfleet_total(t.cpu_user_us + t.cpu_system_us), procfleet_total(t.cpu_user_us), procfleet_total(t.cpu_system_us),
               ((t.cpu_user_us + t.cpu_system_us) / (nullif(t.busy_ms, 0) * 1000))::double precision, t.cpu_cores_max,
               t.memory_usage_bytes_max, procfleet_total(t.memory_usage_bytes_sum / nullif(t.memory_usage_samples, 0)), t.memory_swap_bytes_max,
               procfleet_total(t.disk_read_bytes), procfleet_total(t.disk_write_bytes),
               procfleet_total(t.network_receive_bytes), procfleet_total(t.network_transmit_bytes),
               procfleet_total(t.run_queue_delay_us), t.thread_count_max, t.file_descriptor_count_max,
               p.process_id, p.command_line,
               coalesce(d.executable_name, procfleet_executable_name(t.process_id, null)), d.executable_path,
               d.pid, d.parent_pid, d.user_id, d.owner, d.systemd_unit, d.container_id, d.cgroup, d.creation_time
        from shown t
        left join hosts h on h.host_id = t.host_id
        left join process_instances d on d.host_id = t.host_id and d.instance_id = t.instance_id
        left join processes p on p.process_id = coalesce(t.process_id, d.process_id)
        order by t.place nulls last, t.instance_id nulls first
    $sql$;
begin
    if subjects is null then
        raise exception 'unknown subject %', subject using errcode = '22023', hint = 'instance, process, host';
    end if;
    statement := replace(statement, '{subjects}', replace(subjects, '{sums}', procfleet_sums('g')));
    statement := replace(statement, '{sums_p}', procfleet_sums('p'));
    statement := replace(statement, '{rank}', procfleet_resource(resource));
    statement := replace(statement, '{source}',
        procfleet_process_source(asked, window_from, window_to, procfleet_grain(window_from, window_to)));
    return query execute statement using asked, window_from, window_to, max_rows, subject, skip_rows;
end
$function$;


-- The grain of a series in buckets of `step`: the roll-up whose buckets fit into it.
create function procfleet_series_grain(step interval) returns interval language sql immutable parallel safe as $$
    select case
        when step is null then interval '0'
        when extract(epoch from step)::bigint % 3600 = 0 then interval '1 hour'
        when extract(epoch from step)::bigint % 300 = 0 then interval '5 minutes'
        else interval '0'
    end
$$;

-- The finest step that a series over the window can have: zero where every sample of it is kept.
create function procfleet_finest_step(subject text, window_from timestamptz, window_to timestamptz) returns interval
language sql stable parallel safe as $$
    select coalesce(max(case p.resolution when '1h' then interval '1 hour' when '5m' then interval '5 minutes' else interval '0' end), interval '0')
    from procfleet_pieces(subject, window_from, window_to, interval '0') p
$$;

-- The ends of the buckets that cut a window, at most 20,000: a series of more is an error.
create function procfleet_buckets(window_from timestamptz, window_to timestamptz, step interval) returns setof timestamptz
language plpgsql stable parallel safe as $$
begin
    if step <= interval '0' or (window_to - window_from) > step * 20000 then
        raise exception 'a window of % does not fit into buckets of %', window_to - window_from, step
            using errcode = '22023', hint = 'at most 20,000 buckets';
    end if;
    return query select generate_series(procfleet_bucket(step, window_from + interval '1 microsecond'),
        procfleet_bucket(step, window_to), step);
end
$$;

-- What a host did in a window. Devices are summed where they are not stacked upon others (dm, md,
-- loop, ram) and interfaces where traffic leaves the host's memory (not lo).
create function procfleet_host_totals(
    host uuid, window_from timestamptz, window_to timestamptz
) returns table (
    sample_count bigint, covered_ms bigint, cpu_count integer,
    cpu_user_us bigint, cpu_system_us bigint, cpu_iowait_us bigint, cpu_steal_us bigint, cpu_idle_us bigint,
    memory_total_bytes bigint, memory_used_bytes_max bigint, memory_used_bytes_mean bigint,
    swap_used_bytes_max bigint,
    disk_read_bytes bigint, disk_write_bytes bigint,
    network_receive_bytes bigint, network_transmit_bytes bigint
) language plpgsql stable parallel safe as $function$
begin
    return query execute replace($sql$
        select coalesce(sum(p.sample_count), 0)::bigint, procfleet_total(sum(p.covered_ms)), max(p.cpu_count),
               procfleet_total(sum(p.cpu_user_us)), procfleet_total(sum(p.cpu_system_us)),
               procfleet_total(sum(p.cpu_iowait_us)), procfleet_total(sum(p.cpu_steal_us)), procfleet_total(sum(p.cpu_idle_us)),
               max(p.memory_total_bytes_max), max(p.memory_used_bytes_max),
               procfleet_total(sum(p.memory_used_bytes_sum) / nullif(sum(p.memory_used_bytes_samples), 0)),
               max(p.swap_used_bytes_max),
               procfleet_total(sum(p.disk_read_bytes)), procfleet_total(sum(p.disk_write_bytes)),
               procfleet_total(sum(p.network_receive_bytes)), procfleet_total(sum(p.network_transmit_bytes))
        from {source} p
    $sql$, '{source}', procfleet_host_source(array[host], window_from, window_to, procfleet_grain(window_from, window_to)));
end
$function$;

-- The host's series, per sample or in buckets of `step`: deltas are summed, gauges averaged. A time
-- without samples is a row with sample_count 0 whose values are null: of every such bucket, or of
-- every stretch between two samples longer than half as long again as the later one's interval.
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
    disk_read_bytes bigint, disk_write_bytes bigint, network_receive_bytes bigint, network_transmit_bytes bigint,
    agent_cpu_us bigint, agent_memory_usage_bytes bigint, agent_spool_reports bigint, agent_spool_bytes bigint
) language plpgsql stable parallel safe as $function$
declare
    statement text := $sql$
        with points as (
            select procfleet_bucket($3, p.sampled_at) as at, sum(p.sample_count) as sample_count, sum(p.covered_ms) as covered_ms,
                   max(p.cpu_count) as cpu_count,
                   {sum cpu_user_us}, {sum cpu_system_us}, {sum cpu_iowait_us}, {sum cpu_steal_us}, {sum cpu_idle_us},
                   {ratio load_1m}, {ratio load_5m}, {ratio load_15m},
                   {mean memory_total_bytes}, {mean memory_used_bytes}, {mean memory_available_bytes}, {mean memory_free_bytes},
                   {mean swap_total_bytes}, {mean swap_used_bytes},
                   {sum pressure_cpu_some_us}, {sum pressure_memory_some_us}, {sum pressure_memory_full_us},
                   {sum pressure_io_some_us}, {sum pressure_io_full_us},
                   max(p.uptime_s) as uptime_s, {ratio processes_running}, {ratio processes_total},
                   {sum context_switches}, {sum forks},
                   {sum disk_read_bytes}, {sum disk_write_bytes}, {sum network_receive_bytes}, {sum network_transmit_bytes},
                   {sum agent_cpu_us}, {mean agent_memory_usage_bytes}, {mean agent_spool_reports}, {mean agent_spool_bytes}
            from {source} p group by 1 having sum(p.sample_count) > 0
        ), times as (
            {times}
        )
        select t.at, coalesce(p.sample_count, 0)::bigint, procfleet_total(coalesce(p.covered_ms, t.gap_ms)), p.cpu_count,
               p.cpu_user_us, p.cpu_system_us, p.cpu_iowait_us, p.cpu_steal_us, p.cpu_idle_us,
               p.load_1m, p.load_5m, p.load_15m,
               p.memory_total_bytes, p.memory_used_bytes, p.memory_available_bytes, p.memory_free_bytes,
               p.swap_total_bytes, p.swap_used_bytes,
               p.pressure_cpu_some_us, p.pressure_memory_some_us, p.pressure_memory_full_us,
               p.pressure_io_some_us, p.pressure_io_full_us,
               p.uptime_s, p.processes_running, p.processes_total, p.context_switches, p.forks,
               p.disk_read_bytes, p.disk_write_bytes, p.network_receive_bytes, p.network_transmit_bytes,
               p.agent_cpu_us, p.agent_memory_usage_bytes, p.agent_spool_reports, p.agent_spool_bytes
        from times t left join points p on p.at = t.at
        order by 1
    $sql$;
begin
    statement := regexp_replace(statement, '\{sum (\w+)\}', 'procfleet_total(sum(p.\1)) as \1', 'g');
    statement := regexp_replace(statement, '\{mean (\w+)\}',
        'procfleet_total(sum(p.\1_sum) / nullif(sum(p.\1_samples), 0)) as \1', 'g');
    statement := regexp_replace(statement, '\{ratio (\w+)\}',
        'sum(p.\1_sum)::double precision / nullif(sum(p.\1_samples), 0) as \1', 'g');
    statement := replace(statement, '{times}', case when step is null then
        'select p.at, null::numeric as gap_ms from points p union all
         select g.begins, extract(epoch from g.begins - g.before) * 1000 from (
             select p.at - p.covered_ms::double precision * interval ''1 millisecond'' as begins,
                    lag(p.at) over (order by p.at) as before, p.covered_ms
             from points p) g
         where g.begins - g.before > g.covered_ms::double precision * interval ''0.5 milliseconds'''
        else 'select b as at, null::numeric as gap_ms from procfleet_buckets($1, $2, $3) b' end);
    statement := replace(statement, '{source}',
        procfleet_host_source(array[host], window_from, window_to, procfleet_series_grain(step)));
    return query execute statement using window_from, window_to, step;
end
$function$;

-- The series of a process on a host, or of one instance: of each instance, for at most max_instances
-- of them, those seen last in the window. instances_in_window counts all of them. Gaps are rows as in
-- procfleet_host_series, between an instance's first and last sample: it was not there, too small to
-- keep, or nothing came. Without `process`, only_instance may have run anything.
create function procfleet_process_series(
    host uuid, process uuid, only_instance bigint, window_from timestamptz, window_to timestamptz,
    step interval, max_instances bigint
) returns table (
    instance_id bigint, instances_in_window bigint,
    sampled_at timestamptz, sample_count bigint, interval_ms bigint,
    cpu_user_us bigint, cpu_system_us bigint, cpu_cores_max double precision,
    memory_usage_bytes bigint, memory_usage_bytes_max bigint, memory_swap_bytes bigint,
    disk_read_bytes bigint, disk_write_bytes bigint,
    network_receive_bytes bigint, network_transmit_bytes bigint, run_queue_delay_us bigint,
    paging_faults_minor bigint, paging_faults_major bigint,
    context_switches_voluntary bigint, context_switches_involuntary bigint,
    thread_count double precision, file_descriptor_count double precision
) language plpgsql stable parallel safe as $function$
declare
    wanted bigint[] := case when process is null then array[only_instance] else array(
        select d.instance_id from process_instances d
        where d.host_id = host and d.process_id = process and (only_instance is null or d.instance_id = only_instance)) end;
    statement text := $sql$
        with points as (
            select p.instance_id, procfleet_bucket($3, p.sampled_at) as at,
                   sum(p.sample_count) as sample_count, sum(p.covered_ms) as covered_ms, max(p.last_sampled_at) as last_sampled_at,
                   {sum cpu_user_us}, {sum cpu_system_us}, max(p.cpu_cores_max) as cpu_cores_max,
                   {mean memory_usage_bytes}, max(p.memory_usage_bytes_max) as memory_usage_bytes_max, {mean memory_swap_bytes},
                   {sum disk_read_bytes}, {sum disk_write_bytes}, {sum network_receive_bytes}, {sum network_transmit_bytes},
                   {sum run_queue_delay_us}, {sum paging_faults_minor}, {sum paging_faults_major},
                   {sum context_switches_voluntary}, {sum context_switches_involuntary},
                   sum(p.thread_count_sum)::double precision / nullif(sum(p.thread_count_samples), 0) as thread_count,
                   sum(p.file_descriptor_count_sum)::double precision / nullif(sum(p.file_descriptor_samples), 0) as file_descriptor_count
            from {source} p group by 1, 2
        ), picked as (
            select p.instance_id, count(*) over () as instances_in_window, min(p.at) as begins, max(p.at) as ends
            from points p group by p.instance_id order by max(p.last_sampled_at) desc, p.instance_id limit $4
        ), times as (
            {times}
        )
        select k.instance_id, k.instances_in_window,
               t.at, coalesce(p.sample_count, 0)::bigint, procfleet_total(coalesce(p.covered_ms, t.gap_ms)),
               p.cpu_user_us, p.cpu_system_us, p.cpu_cores_max,
               p.memory_usage_bytes, p.memory_usage_bytes_max, p.memory_swap_bytes,
               p.disk_read_bytes, p.disk_write_bytes, p.network_receive_bytes, p.network_transmit_bytes,
               p.run_queue_delay_us, p.paging_faults_minor, p.paging_faults_major,
               p.context_switches_voluntary, p.context_switches_involuntary, p.thread_count, p.file_descriptor_count
        from picked k
        join times t on t.instance_id = k.instance_id
        left join points p on p.instance_id = t.instance_id and p.at = t.at
        order by t.at, k.instance_id
    $sql$;
begin
    statement := regexp_replace(statement, '\{sum (\w+)\}', 'procfleet_total(sum(p.\1)) as \1', 'g');
    statement := replace(statement, '{mean memory_usage_bytes}',
        'procfleet_total(sum(p.memory_usage_bytes_sum) / nullif(sum(p.memory_usage_samples), 0)) as memory_usage_bytes');
    statement := replace(statement, '{mean memory_swap_bytes}',
        'procfleet_total(sum(p.memory_swap_bytes_sum) / nullif(sum(p.memory_swap_samples), 0)) as memory_swap_bytes');
    statement := replace(statement, '{times}', case when step is null then
        'select p.instance_id, p.at, null::numeric as gap_ms from points p union all
         select g.instance_id, g.begins, extract(epoch from g.begins - g.before) * 1000 from (
             select p.instance_id, p.at - p.covered_ms::double precision * interval ''1 millisecond'' as begins,
                    lag(p.at) over (partition by p.instance_id order by p.at) as before, p.covered_ms
             from points p) g
         where g.begins - g.before > g.covered_ms::double precision * interval ''0.5 milliseconds'''
        else 'select k.instance_id, b as at, null::numeric as gap_ms
              from picked k join procfleet_buckets($1, $2, $3) b on b between k.begins and k.ends' end);
    statement := replace(statement, '{source}', procfleet_process_source(array[host], window_from, window_to,
        procfleet_series_grain(step), format('s.instance_id = any (%L::bigint[])', wanted)));
    return query execute statement using window_from, window_to, step, max_instances;
end
$function$;

-- How complete the data of each host are over a window: how much of the time since its enrolment,
-- and until now, its samples cover.
create function procfleet_coverage(
    hosts uuid[], window_from timestamptz, window_to timestamptz
) returns table (
    host_id uuid, host_name text, expected_ms bigint, covered_ms bigint, missing_ms bigint,
    interval_ms integer, first_sampled_at timestamptz, last_sampled_at timestamptz
) language plpgsql stable parallel safe as $function$
declare
    asked uuid[] := coalesce(hosts, procfleet_hosts_with('{}'));
begin
    return query execute replace($sql$
        select h.host_id, h.host_name, e.expected_ms, procfleet_total(coalesce(c.covered_ms, 0)),
               greatest(e.expected_ms - procfleet_total(coalesce(c.covered_ms, 0)), 0),
               b.interval_ms, c.first_sampled_at, c.last_sampled_at
        from hosts h
        left join heartbeats b on b.host_id = h.host_id
        left join (
            select p.host_id, sum(p.covered_ms) as covered_ms,
                   min(p.first_sampled_at) as first_sampled_at, max(p.last_sampled_at) as last_sampled_at
            from {source} p where p.sample_count > 0 group by p.host_id
        ) c on c.host_id = h.host_id
        cross join lateral (
            select greatest(procfleet_window_ms(
                greatest($2, least(h.enrolled_at, c.first_sampled_at)), least($3, now())), 0) as expected_ms
        ) e
        where h.host_id = any ($1)
    $sql$, '{source}', procfleet_host_source(asked, window_from, window_to, procfleet_grain(window_from, window_to)))
    using asked, window_from, window_to;
end
$function$;

-- Collectors that were late or failed in a window, as far as samples are kept.
create index host_samples_troubled on host_samples (host_id, sampled_at desc) where agent_collectors is not null;
create function procfleet_troubled_collectors(
    hosts uuid[], window_from timestamptz, window_to timestamptz
) returns table (collector text, outcome text, host_count bigint, run_count bigint, last_at timestamptz)
language sql stable parallel safe as $$
    select c.run ->> 'collector', c.run ->> 'outcome', count(distinct s.host_id), count(*), max(s.sampled_at)
    from host_samples s, jsonb_array_elements(s.agent_collectors) as c (run)
    where (hosts is null or s.host_id = any (hosts)) and s.sampled_at > window_from and s.sampled_at <= window_to
      and s.agent_collectors is not null
    group by 1, 2 order by 1, 2
$$;

-- What became different between two windows, per process and host: use per second of each window
-- (memory: the highest), ranked by how much it changed. A side on which nothing was recorded is null;
-- its change counts from zero, because it was absent or too small to keep.
create function procfleet_compare(
    hosts uuid[], window_from timestamptz, window_to timestamptz, base_from timestamptz, base_to timestamptz,
    resource text, max_rows bigint default 20
) returns table (
    place bigint, host_id uuid, host_name text, process_id uuid, command_line text, executable_name text,
    value double precision, base_value double precision, change double precision,
    instance_count bigint, base_instance_count bigint,
    first_sampled_at timestamptz, last_sampled_at timestamptz,
    base_first_sampled_at timestamptz, base_last_sampled_at timestamptz
) language plpgsql stable parallel restricted set work_mem = '64MB' set jit = off
    set random_page_cost = 1.1 as $function$
declare
    asked uuid[] := coalesce(hosts, procfleet_hosts_with('{}'));
    side text := $sql$
        select u.host_id, u.process_id, count(*) as instance_count,
               min(u.first_sampled_at) as first_sampled_at, max(u.last_sampled_at) as last_sampled_at,
               {total}(u.value)::double precision / {per} as value
        from (
            select g.host_id, i.process_id, g.first_sampled_at, g.last_sampled_at, {rank} as value
            from (
                select p.host_id, p.instance_id, {sums} from {source} p where p.instance_id <> 0
                group by p.host_id, p.instance_id
            ) g left join process_instances i on i.host_id = g.host_id and i.instance_id = g.instance_id
        ) u group by u.host_id, u.process_id
    $sql$;
    statement text := $sql$
        with later as materialized ({later}), base as materialized ({base}), changed as (
            select coalesce(n.host_id, b.host_id) as host_id, coalesce(n.process_id, b.process_id) as process_id,
                   n.value, b.value as base_value, coalesce(n.value, 0) - coalesce(b.value, 0) as change,
                   n.instance_count, b.instance_count as base_instance_count,
                   n.first_sampled_at, n.last_sampled_at,
                   b.first_sampled_at as base_first_sampled_at, b.last_sampled_at as base_last_sampled_at
            from later n full join base b on b.host_id = n.host_id
                and coalesce(b.process_id, '00000000-0000-0000-0000-000000000000') = coalesce(n.process_id, '00000000-0000-0000-0000-000000000000')
        ), ranked as (
            select c.*, row_number() over (order by abs(c.change) desc, c.host_id, c.process_id) as place
            from changed c where c.value is not null or c.base_value is not null
        )
        select r.place, r.host_id, h.host_name, r.process_id, p.command_line,
               procfleet_executable_name(r.process_id, r.host_id),
               r.value, r.base_value, r.change, r.instance_count, r.base_instance_count,
               r.first_sampled_at, r.last_sampled_at, r.base_first_sampled_at, r.base_last_sampled_at
        from ranked r
        left join hosts h on h.host_id = r.host_id
        left join processes p on p.process_id = r.process_id
        where r.place <= $2 order by r.place
    $sql$;
begin
    side := replace(side, '{rank}', procfleet_resource(resource));
    side := replace(side, '{sums}', procfleet_sums('p'));
    side := replace(side, '{total}', case resource when 'memory' then 'max' else 'sum' end);
    statement := replace(statement, '{later}', replace(replace(side,
        '{per}', case resource when 'memory' then '1' else (procfleet_window_ms(window_from, window_to) / 1000.0)::text end),
        '{source}', procfleet_process_source(asked, window_from, window_to, procfleet_grain(window_from, window_to))));
    statement := replace(statement, '{base}', replace(replace(side,
        '{per}', case resource when 'memory' then '1' else (procfleet_window_ms(base_from, base_to) / 1000.0)::text end),
        '{source}', procfleet_process_source(asked, base_from, base_to, procfleet_grain(base_from, base_to))));
    return query execute statement using asked, max_rows;
end
$function$;

-- Addresses a host was talked to at, or talked from, in a window; those of its loopback left out.
create function procfleet_host_addresses(host uuid, window_from timestamptz, window_to timestamptz) returns inet[]
language sql stable parallel safe as $$
    select coalesce(array_agg(distinct s.local_address), '{}') from connection_samples s
    where s.host_id = host and s.sampled_at > window_from and s.sampled_at <= window_to
      and s.scope is distinct from 'loopback' and s.local_address <> '0.0.0.0' and s.local_address <> '::'
$$;

-- Who talked to whom in a window, by bytes: of hosts, of one instance, with certain remote addresses.
-- A port is 0 where the rows folded several. Read from samples, as far as they are kept.
create function procfleet_connections(
    hosts uuid[], remotes inet[], only_instance bigint, window_from timestamptz, window_to timestamptz,
    max_rows bigint default 100, skip_rows bigint default 0
) returns table (
    place bigint, host_id uuid, host_name text, instance_id bigint, pid integer,
    process_id uuid, command_line text, protocol text, direction text, scope text,
    local_address inet, local_port integer, remote_address inet, remote_port integer,
    sample_count bigint, connection_count_max integer, receive_bytes bigint, transmit_bytes bigint, retransmits bigint,
    first_sampled_at timestamptz, last_sampled_at timestamptz
) language plpgsql stable parallel restricted set work_mem = '64MB' set jit = off as $function$
begin
    return query execute format($sql$
        with talks as (
            select s.host_id, s.instance_id, s.protocol, s.direction, s.scope,
                   s.local_address, s.local_port, s.remote_address, s.remote_port,
                   count(*) as sample_count, max(s.connection_count) as connection_count_max,
                   sum(s.receive_bytes) as receive_bytes, sum(s.transmit_bytes) as transmit_bytes, sum(s.retransmits) as retransmits,
                   min(s.sampled_at) as first_sampled_at, max(s.sampled_at) as last_sampled_at
            from connection_samples s
            where %s and s.sampled_at > %L and s.sampled_at <= %L %s %s
            group by 1, 2, 3, 4, 5, 6, 7, 8, 9
        ), ranked as (
            select t.*, row_number() over (order by coalesce(t.receive_bytes + t.transmit_bytes, t.receive_bytes, t.transmit_bytes) desc nulls last,
                t.last_sampled_at desc, t.host_id, t.instance_id, t.protocol, t.direction, t.scope,
                t.local_address, t.local_port, t.remote_address, t.remote_port) as place
            from talks t
        )
        select r.place, r.host_id, h.host_name, r.instance_id, d.pid, d.process_id, p.command_line,
               r.protocol, r.direction, r.scope, r.local_address, r.local_port, r.remote_address, r.remote_port,
               r.sample_count, r.connection_count_max,
               procfleet_total(r.receive_bytes), procfleet_total(r.transmit_bytes), procfleet_total(r.retransmits),
               r.first_sampled_at, r.last_sampled_at
        from ranked r
        left join hosts h on h.host_id = r.host_id
        left join process_instances d on d.host_id = r.host_id and d.instance_id = r.instance_id
        left join processes p on p.process_id = d.process_id
        where r.place > $3 and r.place <= $3 + $2 order by r.place
    $sql$, procfleet_host_condition('s', hosts), window_from, window_to,
        case when remotes is not null then format('and s.remote_address = any (%L::inet[])', remotes) end,
        case when only_instance is not null then format('and s.instance_id = %s', only_instance) end)
    using hosts, max_rows, skip_rows;
end
$function$;

-- Processes that ended in a window, newest first or by what their whole life used of a resource. A
-- row of many of one kind that began and ended within an interval has instance_id 0 and their number
-- in process_count. `failed`: only those ended by a signal or with another status than 0.
create function procfleet_exits(
    hosts uuid[], process uuid, only_instance bigint, failed boolean, window_from timestamptz, window_to timestamptz,
    resource text default null, max_rows bigint default 100, skip_rows bigint default 0
) returns table (
    place bigint, host_id uuid, host_name text, sampled_at timestamptz, instance_id bigint,
    process_id uuid, command_line text, pid integer, parent_pid integer, owner text, systemd_unit text, cgroup text,
    creation_time timestamptz, exit_time timestamptz, lifetime_us bigint, exit_code integer, exit_signal integer,
    process_count integer, failed_count integer,
    cpu_user_us bigint, cpu_system_us bigint, memory_usage_bytes_max bigint, disk_read_bytes bigint, disk_write_bytes bigint,
    network_receive_bytes bigint, network_transmit_bytes bigint
) language plpgsql stable parallel restricted set work_mem = '64MB' set jit = off as $function$
begin
    return query execute format($sql$
        with ended as (
            select s.host_id, s.sampled_at, s.instance_id, s.process_id, s.parent_pid, s.cgroup, s.exit_time, s.lifetime_us,
                   s.exit_code, s.exit_signal, s.process_count, s.failed_count, s.cpu_user_us, s.cpu_system_us,
                   s.memory_usage_bytes as memory_usage_bytes_max, s.disk_read_bytes, s.disk_write_bytes,
                   s.network_receive_bytes, s.network_transmit_bytes
            from process_exits s
            where %s and s.sampled_at > %L and s.sampled_at <= %L %s %s %s
        ), ranked as (
            select e.*, row_number() over (order by %s coalesce(e.exit_time, e.sampled_at) desc,
                e.host_id, e.instance_id, e.process_id, e.parent_pid, e.cgroup) as place
            from ended e
        )
        select r.place, r.host_id, h.host_name, r.sampled_at, r.instance_id,
               r.process_id, p.command_line, d.pid, coalesce(r.parent_pid, d.parent_pid), d.owner, d.systemd_unit,
               coalesce(r.cgroup, d.cgroup), d.creation_time, r.exit_time, r.lifetime_us, r.exit_code, r.exit_signal,
               r.process_count, r.failed_count, r.cpu_user_us, r.cpu_system_us, r.memory_usage_bytes_max,
               r.disk_read_bytes, r.disk_write_bytes, r.network_receive_bytes, r.network_transmit_bytes
        from ranked r
        left join hosts h on h.host_id = r.host_id
        left join process_instances d on d.host_id = r.host_id and d.instance_id = r.instance_id
        left join processes p on p.process_id = r.process_id
        where r.place > $3 and r.place <= $3 + $2 order by r.place
    $sql$, procfleet_host_condition('s', hosts), window_from, window_to,
        case when process is not null then format('and s.process_id = %L', process) end,
        case when only_instance is not null then format('and s.instance_id = %s', only_instance) end,
        case when failed then 'and (s.exit_code <> 0 or s.exit_signal is not null or s.failed_count > 0)' end,
        case when resource is not null then procfleet_resource(resource) || ' desc nulls last,' end)
    using hosts, max_rows, skip_rows;
end
$function$;
