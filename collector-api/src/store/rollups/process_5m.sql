/* store::rollups::process_5m */
insert into process_rollup_5m (
    sampled_at, host_id, instance_id, first_sampled_at, last_sampled_at, covered_ms, cpu_covered_ms, cpu_user_us,
    cpu_system_us, cpu_cores_max, memory_usage_bytes_sum, memory_usage_bytes_max, memory_swap_bytes_sum,
    memory_swap_bytes_max, disk_read_bytes, disk_write_bytes, network_receive_bytes, network_transmit_bytes,
    run_queue_delay_us, paging_faults_minor, paging_faults_major, context_switches_voluntary,
    context_switches_involuntary, thread_count_sum, file_descriptor_count_sum, sample_count, memory_usage_samples,
    memory_swap_samples, thread_count_samples, file_descriptor_samples, process_count_max, thread_count_max,
    file_descriptor_count_max
)
select
    d.sampled_at, d.host_id, b.instance_id, b.first_sampled_at, b.last_sampled_at, b.covered_ms, b.cpu_covered_ms,
    b.cpu_user_us, b.cpu_system_us, b.cpu_cores_max, b.memory_usage_bytes_sum, b.memory_usage_bytes_max,
    b.memory_swap_bytes_sum, b.memory_swap_bytes_max, b.disk_read_bytes, b.disk_write_bytes, b.network_receive_bytes,
    b.network_transmit_bytes, b.run_queue_delay_us, b.paging_faults_minor, b.paging_faults_major,
    b.context_switches_voluntary, b.context_switches_involuntary, b.thread_count_sum, b.file_descriptor_count_sum,
    b.sample_count, b.memory_usage_samples, b.memory_swap_samples, b.thread_count_samples, b.file_descriptor_samples,
    b.process_count_max, b.thread_count_max, b.file_descriptor_count_max
from unnest($1::uuid[], $2::timestamptz[]) as d (host_id, sampled_at)
cross join lateral (
    select s.instance_id,
        min(s.sampled_at) as first_sampled_at,
        max(s.sampled_at) as last_sampled_at,
        sum(s.interval_ms) as covered_ms,
        sum(s.interval_ms) filter (where s.cpu_user_us is not null and s.cpu_system_us is not null) as cpu_covered_ms,
        procfleet_total(sum(s.cpu_user_us)) as cpu_user_us,
        procfleet_total(sum(s.cpu_system_us)) as cpu_system_us,
        max((s.cpu_user_us::double precision + s.cpu_system_us) / nullif(s.interval_ms, 0) / 1000) as cpu_cores_max,
        procfleet_total(sum(s.memory_usage_bytes)) as memory_usage_bytes_sum,
        max(s.memory_usage_bytes) as memory_usage_bytes_max,
        procfleet_total(sum(s.memory_swap_bytes)) as memory_swap_bytes_sum,
        max(s.memory_swap_bytes) as memory_swap_bytes_max,
        procfleet_total(sum(s.disk_read_bytes)) as disk_read_bytes,
        procfleet_total(sum(s.disk_write_bytes)) as disk_write_bytes,
        procfleet_total(sum(s.network_receive_bytes)) as network_receive_bytes,
        procfleet_total(sum(s.network_transmit_bytes)) as network_transmit_bytes,
        procfleet_total(sum(s.run_queue_delay_us)) as run_queue_delay_us,
        procfleet_total(sum(s.paging_faults_minor)) as paging_faults_minor,
        procfleet_total(sum(s.paging_faults_major)) as paging_faults_major,
        procfleet_total(sum(s.context_switches_voluntary)) as context_switches_voluntary,
        procfleet_total(sum(s.context_switches_involuntary)) as context_switches_involuntary,
        sum(s.thread_count) as thread_count_sum,
        sum(s.file_descriptor_count) as file_descriptor_count_sum,
        count(*)::integer as sample_count,
        count(s.memory_usage_bytes)::integer as memory_usage_samples,
        count(s.memory_swap_bytes)::integer as memory_swap_samples,
        count(s.thread_count)::integer as thread_count_samples,
        count(s.file_descriptor_count)::integer as file_descriptor_samples,
        max(s.process_count) as process_count_max,
        max(s.thread_count) as thread_count_max,
        max(s.file_descriptor_count) as file_descriptor_count_max
    from procfleet_process_samples s
    where s.host_id = d.host_id and s.sampled_at > d.sampled_at - interval '5 minutes' and s.sampled_at <= d.sampled_at
        and s.sampled_at > $3::timestamptz - interval '5 minutes' and s.sampled_at <= $4::timestamptz
    group by s.instance_id
) as b
