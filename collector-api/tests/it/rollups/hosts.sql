-- The roll-up of hosts, straight from the samples.
with hosts as (
    select procfleet_bucket($1, s.sampled_at) as sampled_at, s.host_id,
        min(s.sampled_at) as first_sampled_at, max(s.sampled_at) as last_sampled_at, count(*) as sample_count,
        sum(interval_ms) as covered_ms,
        sum(case when cpu_user_us + cpu_system_us is not null then interval_ms end) as cpu_covered_ms,
        max((cpu_user_us::double precision + cpu_system_us) / interval_ms / 1000) as cpu_cores_max,
        min(memory_available_bytes) as memory_available_bytes_min,
        sum(memory_total_bytes) as memory_total_bytes_sum, count(memory_total_bytes) as memory_total_samples,
        sum(memory_used_bytes) as memory_used_bytes_sum, count(memory_used_bytes) as memory_used_samples,
        sum(memory_available_bytes) as memory_available_bytes_sum, count(memory_available_bytes) as memory_available_samples,
        sum(memory_free_bytes) as memory_free_bytes_sum, count(memory_free_bytes) as memory_free_samples,
        sum(swap_total_bytes) as swap_total_bytes_sum, count(swap_total_bytes) as swap_total_samples,
        sum(swap_used_bytes) as swap_used_bytes_sum, count(swap_used_bytes) as swap_used_samples,
        sum(agent_memory_usage_bytes) as agent_memory_usage_bytes_sum, count(agent_memory_usage_bytes) as agent_memory_usage_samples,
        sum(agent_spool_reports) as agent_spool_reports_sum, count(agent_spool_reports) as agent_spool_reports_samples,
        sum(agent_spool_bytes) as agent_spool_bytes_sum, count(agent_spool_bytes) as agent_spool_bytes_samples,
        sum(processes_running) as processes_running_sum, count(processes_running) as processes_running_samples,
        sum(processes_total) as processes_total_sum, count(processes_total) as processes_total_samples,
        sum(load_1m) as load_1m_sum, count(load_1m) as load_1m_samples,
        sum(load_5m) as load_5m_sum, count(load_5m) as load_5m_samples,
        sum(load_15m) as load_15m_sum, count(load_15m) as load_15m_samples,
        sum(cpu_user_us) as cpu_user_us,
        sum(cpu_system_us) as cpu_system_us,
        sum(cpu_iowait_us) as cpu_iowait_us,
        sum(cpu_steal_us) as cpu_steal_us,
        sum(cpu_idle_us) as cpu_idle_us,
        sum(pressure_cpu_some_us) as pressure_cpu_some_us,
        sum(pressure_memory_some_us) as pressure_memory_some_us,
        sum(pressure_memory_full_us) as pressure_memory_full_us,
        sum(pressure_io_some_us) as pressure_io_some_us,
        sum(pressure_io_full_us) as pressure_io_full_us,
        sum(context_switches) as context_switches,
        sum(forks) as forks,
        sum(agent_cpu_us) as agent_cpu_us,
        sum(interface_receive_bytes) as interface_receive_bytes,
        sum(interface_transmit_bytes) as interface_transmit_bytes,
        sum(socket_receive_bytes) as socket_receive_bytes,
        sum(socket_transmit_bytes) as socket_transmit_bytes,
        max(load_1m) as load_1m_max,
        max(memory_total_bytes) as memory_total_bytes_max,
        max(memory_used_bytes) as memory_used_bytes_max,
        max(swap_used_bytes) as swap_used_bytes_max,
        max(uptime_s) as uptime_s_max,
        max(agent_memory_usage_bytes) as agent_memory_usage_bytes_max,
        max(cpu_count) as cpu_count_max,
        max(processes_running) as processes_running_max,
        max(processes_total) as processes_total_max
    from host_samples s group by 1, 2
), disks as (
    select procfleet_bucket($1, s.sampled_at) as sampled_at, s.host_id, sum(read_bytes) as disk_read_bytes,
        sum(write_bytes) as disk_write_bytes
    from block_device_samples s where device = 'vda' group by 1, 2
), interfaces as (
    select procfleet_bucket($1, s.sampled_at) as sampled_at, s.host_id, sum(receive_bytes) as network_receive_bytes,
        sum(transmit_bytes) as network_transmit_bytes
    from network_interface_samples s where interface = 'eth0' group by 1, 2
)
select * from hosts left join disks using (sampled_at, host_id) left join interfaces using (sampled_at, host_id)
