-- File systems, devices and interfaces of the first host every 30 s for {days} days; its connections
-- and what ended on it for 2 days. {now} is in seconds since the Unix epoch.
insert into filesystem_samples (sampled_at, total_bytes, used_bytes, available_bytes, inodes_total, inodes_used, host_id, mount_point, device, filesystem_type)
    select t, 1e12, 1e11 + random() * 1e9, 8e11, 1000000, 5000, '00000000-0000-0000-0000-000000000001', '/data' || n, '/dev/sd' || n, 'xfs'
    from generate_series(to_timestamp({now}) - interval '{days} days', to_timestamp({now}), interval '30 s') t, generate_series(1, 4) n;
insert into block_device_samples (sampled_at, read_bytes, write_bytes, queue_length, utilization_ratio, host_id, interval_ms, device)
    select t, random() * 1e7, random() * 1e7, random(), random(), '00000000-0000-0000-0000-000000000001', 30000, 'sd' || n
    from generate_series(to_timestamp({now}) - interval '{days} days', to_timestamp({now}), interval '30 s') t, generate_series(1, 4) n;
insert into network_interface_samples (sampled_at, speed_bits_per_second, receive_bytes, transmit_bytes, receive_errors, transmit_errors, receive_drops, transmit_drops, host_id, interval_ms, interface)
    select t, 1e10, random() * 1e7, random() * 1e7, 0, 0, 0, 0, '00000000-0000-0000-0000-000000000001', 30000, 'eth' || n
    from generate_series(to_timestamp({now}) - interval '{days} days', to_timestamp({now}), interval '30 s') t, generate_series(1, 2) n;
insert into connection_samples (sampled_at, instance_id, receive_bytes, transmit_bytes, retransmits, host_id, interval_ms, connection_count, local_port, remote_port, shared, protocol, direction, scope, local_address, remote_address)
    select t, n, random() * 1e6, random() * 1e6, 0, '00000000-0000-0000-0000-000000000001', 30000, 1 + n, 1000 + n, 0, false, 'tcp',
           (array['inbound', 'outbound'])[1 + n % 2], (array['local', 'external'])[1 + n / 2 % 2], '10.0.0.1', ('10.1.' || n || '.1')::inet
    from generate_series(to_timestamp({now}) - interval '2 days', to_timestamp({now}), interval '30 s') t, generate_series(1, 50) n;
insert into process_exits (sampled_at, instance_id, exit_time, lifetime_us, cpu_user_us, cpu_system_us, host_id, process_id, interval_ms, process_count, exit_code)
    select t, hashint8(n) + extract(epoch from t)::bigint, t, 1000, 10, 10, '00000000-0000-0000-0000-000000000001',
           (select process_id from processes limit 1), 30000, 1, n % 2
    from generate_series(to_timestamp({now}) - interval '2 days', to_timestamp({now}), interval '30 s') t, generate_series(1, 10) n;
analyze filesystem_samples, block_device_samples, network_interface_samples, connection_samples, process_exits;
