/* store::rollups::host_5m */
insert into host_rollup_5m (
    sampled_at, host_id, first_sampled_at, last_sampled_at, covered_ms, cpu_covered_ms, cpu_user_us, cpu_system_us,
    cpu_iowait_us, cpu_steal_us, cpu_idle_us, cpu_cores_max, load_1m_sum, load_1m_max, load_5m_sum, load_15m_sum,
    memory_total_bytes_sum, memory_total_bytes_max, memory_used_bytes_sum, memory_used_bytes_max,
    memory_available_bytes_sum, memory_available_bytes_min, memory_free_bytes_sum, swap_total_bytes_sum,
    swap_used_bytes_sum, swap_used_bytes_max, pressure_cpu_some_us, pressure_memory_some_us, pressure_memory_full_us,
    pressure_io_some_us, pressure_io_full_us, uptime_s_max, context_switches, forks, interface_receive_bytes,
    interface_transmit_bytes, socket_receive_bytes, socket_transmit_bytes, agent_cpu_us, agent_memory_usage_bytes_sum,
    agent_memory_usage_bytes_max, agent_spool_reports_sum, agent_spool_bytes_sum, processes_running_sum,
    processes_total_sum, sample_count, load_1m_samples, load_5m_samples, load_15m_samples, memory_total_samples,
    memory_used_samples, memory_available_samples, memory_free_samples, swap_total_samples, swap_used_samples,
    agent_memory_usage_samples, agent_spool_reports_samples, agent_spool_bytes_samples, processes_running_samples,
    processes_total_samples, cpu_count_max, processes_running_max, processes_total_max, disk_read_bytes,
    disk_write_bytes, network_receive_bytes, network_transmit_bytes
)
select
    d.sampled_at, d.host_id, b.first_sampled_at, b.last_sampled_at, b.covered_ms, b.cpu_covered_ms, b.cpu_user_us,
    b.cpu_system_us, b.cpu_iowait_us, b.cpu_steal_us, b.cpu_idle_us, b.cpu_cores_max, b.load_1m_sum, b.load_1m_max,
    b.load_5m_sum, b.load_15m_sum, b.memory_total_bytes_sum, b.memory_total_bytes_max, b.memory_used_bytes_sum,
    b.memory_used_bytes_max, b.memory_available_bytes_sum, b.memory_available_bytes_min, b.memory_free_bytes_sum,
    b.swap_total_bytes_sum, b.swap_used_bytes_sum, b.swap_used_bytes_max, b.pressure_cpu_some_us,
    b.pressure_memory_some_us, b.pressure_memory_full_us, b.pressure_io_some_us, b.pressure_io_full_us,
    b.uptime_s_max, b.context_switches, b.forks, b.interface_receive_bytes, b.interface_transmit_bytes,
    b.socket_receive_bytes, b.socket_transmit_bytes, b.agent_cpu_us, b.agent_memory_usage_bytes_sum,
    b.agent_memory_usage_bytes_max, b.agent_spool_reports_sum, b.agent_spool_bytes_sum, b.processes_running_sum,
    b.processes_total_sum, b.sample_count, b.load_1m_samples, b.load_5m_samples, b.load_15m_samples,
    b.memory_total_samples, b.memory_used_samples, b.memory_available_samples, b.memory_free_samples,
    b.swap_total_samples, b.swap_used_samples, b.agent_memory_usage_samples, b.agent_spool_reports_samples,
    b.agent_spool_bytes_samples, b.processes_running_samples, b.processes_total_samples, b.cpu_count_max,
    b.processes_running_max, b.processes_total_max, disks.disk_read_bytes, disks.disk_write_bytes,
    interfaces.network_receive_bytes, interfaces.network_transmit_bytes
from unnest($1::uuid[], $2::timestamptz[]) as d (host_id, sampled_at)
cross join lateral (
    select min(s.sampled_at) as first_sampled_at,
        max(s.sampled_at) as last_sampled_at,
        sum(s.interval_ms) as covered_ms,
        sum(s.interval_ms) filter (where s.cpu_user_us is not null and s.cpu_system_us is not null) as cpu_covered_ms,
        procfleet_total(sum(s.cpu_user_us)) as cpu_user_us,
        procfleet_total(sum(s.cpu_system_us)) as cpu_system_us,
        procfleet_total(sum(s.cpu_iowait_us)) as cpu_iowait_us,
        procfleet_total(sum(s.cpu_steal_us)) as cpu_steal_us,
        procfleet_total(sum(s.cpu_idle_us)) as cpu_idle_us,
        max((s.cpu_user_us::double precision + s.cpu_system_us) / nullif(s.interval_ms, 0) / 1000) as cpu_cores_max,
        sum(s.load_1m) as load_1m_sum,
        max(s.load_1m) as load_1m_max,
        sum(s.load_5m) as load_5m_sum,
        sum(s.load_15m) as load_15m_sum,
        procfleet_total(sum(s.memory_total_bytes)) as memory_total_bytes_sum,
        max(s.memory_total_bytes) as memory_total_bytes_max,
        procfleet_total(sum(s.memory_used_bytes)) as memory_used_bytes_sum,
        max(s.memory_used_bytes) as memory_used_bytes_max,
        procfleet_total(sum(s.memory_available_bytes)) as memory_available_bytes_sum,
        min(s.memory_available_bytes) as memory_available_bytes_min,
        procfleet_total(sum(s.memory_free_bytes)) as memory_free_bytes_sum,
        procfleet_total(sum(s.swap_total_bytes)) as swap_total_bytes_sum,
        procfleet_total(sum(s.swap_used_bytes)) as swap_used_bytes_sum,
        max(s.swap_used_bytes) as swap_used_bytes_max,
        procfleet_total(sum(s.pressure_cpu_some_us)) as pressure_cpu_some_us,
        procfleet_total(sum(s.pressure_memory_some_us)) as pressure_memory_some_us,
        procfleet_total(sum(s.pressure_memory_full_us)) as pressure_memory_full_us,
        procfleet_total(sum(s.pressure_io_some_us)) as pressure_io_some_us,
        procfleet_total(sum(s.pressure_io_full_us)) as pressure_io_full_us,
        max(s.uptime_s) as uptime_s_max,
        procfleet_total(sum(s.context_switches)) as context_switches,
        procfleet_total(sum(s.forks)) as forks,
        procfleet_total(sum(s.interface_receive_bytes)) as interface_receive_bytes,
        procfleet_total(sum(s.interface_transmit_bytes)) as interface_transmit_bytes,
        procfleet_total(sum(s.socket_receive_bytes)) as socket_receive_bytes,
        procfleet_total(sum(s.socket_transmit_bytes)) as socket_transmit_bytes,
        procfleet_total(sum(s.agent_cpu_us)) as agent_cpu_us,
        procfleet_total(sum(s.agent_memory_usage_bytes)) as agent_memory_usage_bytes_sum,
        max(s.agent_memory_usage_bytes) as agent_memory_usage_bytes_max,
        procfleet_total(sum(s.agent_spool_reports)) as agent_spool_reports_sum,
        procfleet_total(sum(s.agent_spool_bytes)) as agent_spool_bytes_sum,
        sum(s.processes_running) as processes_running_sum,
        sum(s.processes_total) as processes_total_sum,
        count(*)::integer as sample_count,
        count(s.load_1m)::integer as load_1m_samples,
        count(s.load_5m)::integer as load_5m_samples,
        count(s.load_15m)::integer as load_15m_samples,
        count(s.memory_total_bytes)::integer as memory_total_samples,
        count(s.memory_used_bytes)::integer as memory_used_samples,
        count(s.memory_available_bytes)::integer as memory_available_samples,
        count(s.memory_free_bytes)::integer as memory_free_samples,
        count(s.swap_total_bytes)::integer as swap_total_samples,
        count(s.swap_used_bytes)::integer as swap_used_samples,
        count(s.agent_memory_usage_bytes)::integer as agent_memory_usage_samples,
        count(s.agent_spool_reports)::integer as agent_spool_reports_samples,
        count(s.agent_spool_bytes)::integer as agent_spool_bytes_samples,
        count(s.processes_running)::integer as processes_running_samples,
        count(s.processes_total)::integer as processes_total_samples,
        max(s.cpu_count) as cpu_count_max,
        max(s.processes_running) as processes_running_max,
        max(s.processes_total) as processes_total_max
    from host_samples s
    where s.host_id = d.host_id and s.sampled_at > d.sampled_at - interval '5 minutes' and s.sampled_at <= d.sampled_at
        and s.sampled_at > $3::timestamptz - interval '5 minutes' and s.sampled_at <= $4::timestamptz
    having count(*) > 0
) as b
cross join lateral (
    select procfleet_total(sum(s.read_bytes)) as disk_read_bytes, procfleet_total(sum(s.write_bytes)) as disk_write_bytes
    from block_device_samples s
    where procfleet_counts_device(s.device) and s.host_id = d.host_id and s.sampled_at > d.sampled_at - interval '5 minutes' and s.sampled_at <= d.sampled_at
        and s.sampled_at > $3::timestamptz - interval '5 minutes' and s.sampled_at <= $4::timestamptz
) as disks
cross join lateral (
    select procfleet_total(sum(s.receive_bytes)) as network_receive_bytes,
        procfleet_total(sum(s.transmit_bytes)) as network_transmit_bytes
    from network_interface_samples s
    where procfleet_counts_interface(s.interface) and s.host_id = d.host_id and s.sampled_at > d.sampled_at - interval '5 minutes' and s.sampled_at <= d.sampled_at
        and s.sampled_at > $3::timestamptz - interval '5 minutes' and s.sampled_at <= $4::timestamptz
) as interfaces
