-- What readers build upon; what they ask is in the migration of the queries.

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

-- One row per host with its heartbeat and its newest sample. `silent` is null for a host that never
-- reported. The sample is looked for where the heartbeat says, never over the whole series.
-- `liveness` is of active hosts. late: half an interval overdue. silent: past its deadline. stopped: it
-- said goodbye and was meant to. dormant: silent or stopped for two weeks.
create view procfleet_hosts as
    select h.host_id, h.host_name, h.lifecycle, h.os_description, h.kernel_release, h.host_arch,
           h.agent_version, h.machine_id_hash, h.enrollment_token_id, h.enrolled_at, h.facts_updated_at,
           b.last_seen_at, b.last_sampled_at, b.clock_offset_ms, b.deadline_at, b.interval_ms, b.boot_id,
           case when b.last_seen_at is not null then b.deadline_at < now() end as silent,
           s.cpu_count,
           (s.cpu_user_us::double precision + s.cpu_system_us)
               / nullif(s.cpu_user_us::double precision + s.cpu_system_us + coalesce(s.cpu_iowait_us, 0)
                        + coalesce(s.cpu_steal_us, 0) + s.cpu_idle_us, 0)
               as cpu_utilization_ratio,
           s.load_1m, s.memory_total_bytes, s.memory_used_bytes, h.labels,
           b.contacted_at, b.goodbye, b.goodbye_at, h.ephemeral,
           case
               when h.lifecycle <> 'active' then null
               when b.contacted_at is null then 'never_reported'
               when b.goodbye in ('shutdown', 'uninstall') then
                   case when now() > b.goodbye_at + interval '14 days' then 'dormant' else 'stopped' end
               when now() > b.deadline_at + interval '14 days' then 'dormant'
               when now() > b.deadline_at then 'silent'
               when b.goodbye is null
                   and now() > b.contacted_at + coalesce(b.interval_ms, 30000) * interval '1.5 ms' + interval '10 s' then 'late'
               else 'up'
           end as liveness,
           -- Two machines show its identity: since when, while it lasts.
           case when c.seen_at > now() - interval '1 hour' then c.detected_at end as clone_detected_at,
           h.duplicate_machine_at
    from hosts h
    left join heartbeats b on b.host_id = h.host_id
    left join clone_conflicts c on c.host_id = h.host_id
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
