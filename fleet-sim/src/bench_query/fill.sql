-- Fills a migrated database with what a fleet of {hosts} hosts leaves behind: {days} days of roll-ups
-- of an hour, {fine_days} of 5 minutes, {raw_hours} hours of samples every 30 s. A host keeps 40 instances
-- and the residual at a time; 30 run all the while, 10 are others every 6 hours. {commands} command
-- lines. Statements are separated by lines of `--;`, and each begins with what it makes.
--;
-- dictionary
insert into enrollment_tokens (token_id, name, secret_sha256, expires_at)
    values ('00000000-0000-0000-0000-000000000001', 'bench', sha256('bench'), now() + interval '1 day');
insert into hosts (host_id, host_name, kernel_release, host_arch, agent_version, enrollment_token_id, enrolled_at, labels)
    select lpad(to_hex(n), 32, '0')::uuid, 'host-' || n, '6.1', 'x86_64', '0', '00000000-0000-0000-0000-000000000001',
           timestamptz '{now}' - interval '{days} days',
           jsonb_build_object('role', (array['db', 'web', 'batch', 'cache'])[1 + n % 4])
    from generate_series(1, {hosts}) n;
insert into heartbeats (host_id, last_seen_at, last_sampled_at, interval_ms) select host_id, '{now}', '{now}', 30000 from hosts;
--;
-- command lines
drop index if exists processes_command_line;
insert into processes (process_id, command_line)
    select md5(line)::uuid, line from (
        select format('/srv/%s/bin/%s --instance=%s --listen=10.%s.%s.%s:%s --data=/var/lib/%s/%s %s',
            (array['mysql', 'kafka', 'redis', 'nginx', 'spark', 'postgres'])[1 + n % 6],
            (array['mysqld', 'java', 'redis-server', 'worker', 'executor', 'postmaster', 'python3'])[1 + n % 7],
            n, n % 250, n / 250 % 250, n % 77, 1024 + n % 60000, md5((n % 997)::text), n,
            repeat('-Dproperty.' || md5((n % 4001)::text) || '=' || n || ' ', 1 + (n * 7919 % 100) * (n * 7919 % 100) / 400)) as line
        from generate_series(1, {commands}) n) lines
    on conflict do nothing;
do $$ begin
    if exists (select from pg_extension where extname = 'pg_trgm') then
        create index processes_command_line on processes using gin (command_line gin_trgm_ops);
    end if;
end $$;
--;
-- instances
create unlogged table bench_commands as select row_number() over (order by process_id) as n, process_id from processes;
create index on bench_commands (n);
create unlogged table bench_instances as
    select h.host_id, h.host_number, k.slot, e.era,
           case when k.slot = 0 then 0 else 1 + hashint8extended(k.slot * 1000000 + case when k.slot > 30 then e.era else 0 end, h.n) & 4611686018427387903 end as instance_id
    from (select host_id, host_number, row_number() over (order by host_id) as n from hosts) h,
         generate_series(0, 40) k (slot), generate_series(0, {days} * 4) e (era);
create index on bench_instances (era, host_id, slot);
insert into process_instances (host_id, instance_id, process_id, boot_id, creation_time, described_at, start_ticks, pid)
    select i.host_id, i.instance_id, c.process_id, i.host_id,
           timestamptz '{now}' - interval '{days} days' + min(i.era) * interval '6 hours', '{now}', 1, 1 + i.slot
    from bench_instances i
    join bench_commands c on c.n = 1 + (i.instance_id % (select count(*) from bench_commands))
    where i.slot > 0
    group by i.host_id, i.instance_id, i.slot, c.process_id;
analyze hosts, heartbeats, processes, process_instances, bench_instances;
--;
-- chunks
do $$ declare piece timestamptz; begin
    -- The pieces that hold nothing here would be there too: planning must look past them.
    if procfleet_engine() = 'timescaledb' then
        for piece in select generate_series(timestamptz '{now}' - interval '{days} days', '{now}', interval '6 hours') loop
            insert into process_samples (sampled_at, instance_id, host_number, interval_ms, process_count)
                values (piece, 0, 0, 1, 1);
            insert into host_samples (sampled_at, host_id, interval_ms) values (piece, '00000000-0000-0000-0000-000000000000', 1);
            insert into process_rollup_5m (sampled_at, instance_id, first_sampled_at, last_sampled_at, covered_ms, host_id, sample_count,
                memory_usage_samples, memory_swap_samples, thread_count_samples, file_descriptor_samples, process_count_max)
                values (piece, 0, piece, piece, 0, '00000000-0000-0000-0000-000000000000', 0, 0, 0, 0, 0, 0);
        end loop;
    end if;
end $$;
--;
-- 1h roll-ups of processes
insert into process_rollup_1h (sampled_at, instance_id, first_sampled_at, last_sampled_at, covered_ms, cpu_covered_ms,
        cpu_user_us, cpu_system_us, cpu_cores_max, memory_usage_bytes_sum, memory_usage_bytes_max, memory_swap_bytes_sum, memory_swap_bytes_max,
        disk_read_bytes, disk_write_bytes, network_receive_bytes, network_transmit_bytes, run_queue_delay_us, paging_faults_minor, paging_faults_major,
        context_switches_voluntary, context_switches_involuntary, thread_count_sum, file_descriptor_count_sum,
        host_id, sample_count, memory_usage_samples, memory_swap_samples, thread_count_samples, file_descriptor_samples,
        process_count_max, thread_count_max, file_descriptor_count_max)
    select t, i.instance_id, t - interval '3570 s', t, 3600000, 3600000,
           (r * 3600 * 10000)::bigint * (1 + i.slot), (r * 3600 * 3000)::bigint, r, (r * 120 * 1e8)::bigint, (r * 1.1e8)::bigint, 0, 0,
           (r * 1e7)::bigint, (r * 2e7)::bigint, (r * 3e6)::bigint, (r * 4e6)::bigint, (r * 1e5)::bigint, (r * 1e4)::bigint, 0,
           (r * 1e4)::bigint, (r * 1e3)::bigint, 120 * 20, 120 * 50,
           i.host_id, 120, 120, 120, 120, 120, case i.slot when 0 then 260 else 1 end, 20, 50
    from generate_series(timestamptz '{hour}' - interval '{days} days', '{hour}', interval '3600 s') t
    cross join lateral (
        select b.host_id, b.instance_id, b.slot, random() as r from bench_instances b
        where b.era = floor(extract(epoch from t - (timestamptz '{now}' - interval '{days} days')) / 21600)::integer
        order by b.host_id, b.slot
    ) i;
--;
-- 1h roll-ups of hosts
insert into host_rollup_1h (sampled_at, first_sampled_at, last_sampled_at, covered_ms, cpu_covered_ms, cpu_user_us, cpu_system_us, cpu_idle_us,
        memory_total_bytes_sum, memory_total_bytes_max, memory_used_bytes_sum, memory_used_bytes_max, disk_read_bytes, disk_write_bytes,
        network_receive_bytes, network_transmit_bytes, host_id, sample_count, cpu_count_max,
        load_1m_samples, load_5m_samples, load_15m_samples, memory_total_samples, memory_used_samples, memory_available_samples, memory_free_samples, swap_total_samples, swap_used_samples, agent_memory_usage_samples, agent_spool_reports_samples, agent_spool_bytes_samples, processes_running_samples, processes_total_samples)
    select t, t - interval '3570 s', t, 3600000, 3600000, (random() * 3600 * 1e6)::bigint, 1000000, (random() * 3600 * 1e6)::bigint,
           120 * 17179869184, 17179869184, 120 * 8589934592, 8589934592, 1000000, 1000000, 1000000, 1000000, h.host_id, 120, 8,
           120, 120, 120, 120, 120, 120, 120, 120, 120, 120, 120, 120, 120, 120
    from generate_series(timestamptz '{hour}' - interval '{days} days', '{hour}', interval '3600 s') t, hosts h;
--;
-- 5m roll-ups of processes
insert into process_rollup_5m (sampled_at, instance_id, first_sampled_at, last_sampled_at, covered_ms, cpu_covered_ms,
        cpu_user_us, cpu_system_us, cpu_cores_max, memory_usage_bytes_sum, memory_usage_bytes_max, memory_swap_bytes_sum, memory_swap_bytes_max,
        disk_read_bytes, disk_write_bytes, network_receive_bytes, network_transmit_bytes, run_queue_delay_us, paging_faults_minor, paging_faults_major,
        context_switches_voluntary, context_switches_involuntary, thread_count_sum, file_descriptor_count_sum,
        host_id, sample_count, memory_usage_samples, memory_swap_samples, thread_count_samples, file_descriptor_samples,
        process_count_max, thread_count_max, file_descriptor_count_max)
    select t, i.instance_id, t - interval '270 s', t, 300000, 300000,
           (r * 300 * 10000)::bigint * (1 + i.slot), (r * 300 * 3000)::bigint, r, (r * 10 * 1e8)::bigint, (r * 1.1e8)::bigint, 0, 0,
           (r * 1e7)::bigint, (r * 2e7)::bigint, (r * 3e6)::bigint, (r * 4e6)::bigint, (r * 1e5)::bigint, (r * 1e4)::bigint, 0,
           (r * 1e4)::bigint, (r * 1e3)::bigint, 10 * 20, 10 * 50,
           i.host_id, 10, 10, 10, 10, 10, case i.slot when 0 then 260 else 1 end, 20, 50
    from generate_series(timestamptz '{fine}' - interval '{fine_days} days', '{fine}', interval '300 s') t
    cross join lateral (
        select b.host_id, b.instance_id, b.slot, random() as r from bench_instances b
        where b.era = floor(extract(epoch from t - (timestamptz '{now}' - interval '{days} days')) / 21600)::integer
        order by b.host_id, b.slot
    ) i;
--;
-- 5m roll-ups of hosts
insert into host_rollup_5m (sampled_at, first_sampled_at, last_sampled_at, covered_ms, cpu_covered_ms, cpu_user_us, cpu_system_us, cpu_idle_us,
        memory_total_bytes_sum, memory_total_bytes_max, memory_used_bytes_sum, memory_used_bytes_max, disk_read_bytes, disk_write_bytes,
        network_receive_bytes, network_transmit_bytes, host_id, sample_count, cpu_count_max,
        load_1m_samples, load_5m_samples, load_15m_samples, memory_total_samples, memory_used_samples, memory_available_samples, memory_free_samples, swap_total_samples, swap_used_samples, agent_memory_usage_samples, agent_spool_reports_samples, agent_spool_bytes_samples, processes_running_samples, processes_total_samples)
    select t, t - interval '270 s', t, 300000, 300000, (random() * 300 * 1e6)::bigint, 1000000, (random() * 300 * 1e6)::bigint,
           10 * 17179869184, 17179869184, 10 * 8589934592, 8589934592, 1000000, 1000000, 1000000, 1000000, h.host_id, 10, 8,
           10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10
    from generate_series(timestamptz '{fine}' - interval '{fine_days} days', '{fine}', interval '300 s') t, hosts h;
--;
-- samples of processes
insert into process_samples (sampled_at, instance_id, cpu_user_us, cpu_system_us, memory_usage_bytes, memory_swap_bytes,
        disk_read_bytes, disk_write_bytes, network_receive_bytes, network_transmit_bytes, run_queue_delay_us,
        paging_faults_minor, paging_faults_major, context_switches_voluntary, context_switches_involuntary,
        host_number, interval_ms, process_count, thread_count, file_descriptor_count)
    select t, i.instance_id, (r * 300000)::bigint * (1 + i.slot), (r * 90000)::bigint, (r * 1e8)::bigint, 0,
           (r * 8e4)::bigint, (r * 16e4)::bigint, (r * 2e4)::bigint, (r * 3e4)::bigint, (r * 1e3)::bigint,
           (r * 100)::bigint, 0, (r * 100)::bigint, (r * 10)::bigint,
           i.host_number, 30000, case i.slot when 0 then 260 else 1 end, 20, 50
    from generate_series(timestamptz '{now}' - interval '{raw_hours} hours', '{now}', interval '30 s') t
    cross join lateral (
        select b.host_number, b.host_id, b.instance_id, b.slot, random() as r from bench_instances b
        where b.era = floor(extract(epoch from t - (timestamptz '{now}' - interval '{days} days')) / 21600)::integer
        order by b.host_id, b.slot
    ) i;
--;
-- samples of hosts
insert into host_samples (sampled_at, host_id, interval_ms, cpu_count, cpu_user_us, cpu_system_us, cpu_idle_us, memory_total_bytes, memory_used_bytes)
    select t, h.host_id, 30000, 8, 1000000, 1000000, 1000000, 17179869184, 8589934592
    from generate_series(timestamptz '{now}' - interval '{raw_hours} hours', '{now}', interval '30 s') t, hosts h;
--;
-- watermark
update rollup_watermark set horizon = '{fine}', expanded = '{fine}';
drop table bench_instances, bench_commands;
