-- What charts ask, beside the queries' functions and in their terms.

-- The use of a resource by the processes of a host over a window, to be stacked: per sample or in
-- buckets of `step`, of at most max_processes processes. Three kinds of rows, which together hold
-- everything recorded:
--   place 1 .. max_processes            a process, all its instances together
--   place null, is_residual false       all other processes
--   place null, is_residual true        the residual: what no tick kept by itself
-- Places alternate between the largest sums and the highest peaks, so that neither who was busy all
-- day nor who was busy for a minute is left out. covered_ms is the time that samples of the host cover
-- in the bucket. value: CPU in µs and bytes are sums; memory is the mean over that time.
create function procfleet_stack(
    host uuid, window_from timestamptz, window_to timestamptz, step interval, resource text, max_processes bigint default 12
) returns table (
    place bigint, is_residual boolean, process_id uuid, command_line text, executable_name text, instance_count bigint,
    sampled_at timestamptz, covered_ms bigint, value double precision
) language plpgsql stable parallel restricted set work_mem = '64MB' set jit = off as $function$
declare
    statement text := $sql$
        with points as materialized (
            select g.instance_id, g.at, g.covered_ms,
                   coalesce(case when g.instance_id <> 0 then i.process_id end, '00000000-0000-0000-0000-000000000000') as process_id,
                   {value} as value
            from (
                select p.host_id, p.instance_id, procfleet_bucket($1, p.sampled_at) as at, {sums}
                from {source} p group by 1, 2, 3
            ) g
            left join process_instances i on i.host_id = g.host_id and i.instance_id = g.instance_id
        ), covered as (
            select p.at, max(p.covered_ms) as covered_ms from points p group by p.at
        ), lines as (
            select p.process_id, p.at, sum(p.value) as value from points p where p.instance_id <> 0 group by 1, 2
        ), counted as (
            select p.process_id, count(distinct p.instance_id) as instance_count from points p where p.instance_id <> 0 group by 1
        ), sized as (
            select l.process_id, row_number() over (order by sum(l.value) desc nulls last, l.process_id) as by_sum,
                   row_number() over (order by max(l.value / nullif(c.covered_ms, 0)) desc nulls last, l.process_id) as by_peak
            from lines l join covered c on c.at = l.at group by l.process_id
        ), ranked as (
            select s.process_id, row_number() over (order by least(s.by_sum, s.by_peak), s.by_sum) as place from sized s
        ), shown as (
            select r.place, r.process_id, d.command_line, procfleet_executable_name(r.process_id, $3) as executable_name, c.instance_count
            from ranked r join counted c on c.process_id = r.process_id
            left join processes d on d.process_id = r.process_id
            where r.place <= $2
        ), stacked as (
            select s.place, false as is_residual, l.at, l.value from lines l join shown s on s.process_id = l.process_id
            union all
            select null, false, l.at, sum(l.value) from lines l join ranked r on r.process_id = l.process_id where r.place > $2 group by l.at
            union all
            select null, true, p.at, sum(p.value) from points p where p.instance_id = 0 group by p.at
        )
        select k.place, k.is_residual, nullif(s.process_id, '00000000-0000-0000-0000-000000000000'), s.command_line, s.executable_name,
               s.instance_count, k.at, procfleet_total(c.covered_ms), (k.value / {per})::double precision
        from stacked k join covered c on c.at = k.at left join shown s on s.place = k.place
        order by k.at, k.place nulls last, k.is_residual
    $sql$;
begin
    statement := replace(statement, '{value}', case resource
        when 'memory' then 'g.memory_usage_bytes_sum / nullif(g.memory_usage_samples, 0) * g.covered_ms'
        else procfleet_resource(resource) end);
    statement := replace(statement, '{per}', case resource when 'memory' then 'nullif(c.covered_ms, 0)' else '1' end);
    statement := replace(statement, '{sums}', procfleet_sums('p'));
    statement := replace(statement, '{source}',
        procfleet_process_source(array[host], window_from, window_to, procfleet_series_grain(step)));
    return query execute statement using step, max_processes, host;
end
$function$;

-- The load of hosts over a window in buckets of `step`, in short: how busy CPU and memory were, 0 to 1.
create function procfleet_sparklines(
    hosts uuid[], window_from timestamptz, window_to timestamptz, step interval
) returns table (
    host_id uuid, sampled_at timestamptz, cpu_utilization_ratio double precision, memory_utilization_ratio double precision
) language plpgsql stable parallel restricted set work_mem = '64MB' set jit = off as $function$
begin
    return query execute replace($sql$
        select p.host_id, procfleet_bucket($2, p.sampled_at),
               ((sum(p.cpu_user_us) + sum(p.cpu_system_us)) / nullif(sum(p.cpu_user_us) + sum(p.cpu_system_us)
                    + coalesce(sum(p.cpu_iowait_us), 0) + coalesce(sum(p.cpu_steal_us), 0) + sum(p.cpu_idle_us), 0))::double precision,
               ((sum(p.memory_used_bytes_sum) / nullif(sum(p.memory_used_bytes_samples), 0))
                    / nullif(sum(p.memory_total_bytes_sum) / nullif(sum(p.memory_total_bytes_samples), 0), 0))::double precision
        from {source} p group by 1, 2 order by 1, 2
    $sql$, '{source}', procfleet_host_source(hosts, window_from, window_to, procfleet_series_grain(step)))
    using hosts, step;
end
$function$;
