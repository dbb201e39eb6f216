-- Processes that ended: rows of exits[], one process each (instance_id is theirs), and of exit_folds[], many
-- of one kind that began and ended in the interval (instance_id 0). Totals are of whole lives, so they are
-- not added to process_samples, which hold the same use interval by interval.

insert into series (series, chunk, retention) values
    ('process_exits', interval '6 hours', interval '30 days');

call procfleet_create_series('process_exits', $columns$
    sampled_at                   timestamptz not null,
    instance_id                  bigint      not null,
    exit_time                    timestamptz,          -- null: a fold
    lifetime_us                  bigint,
    cpu_user_us                  bigint,
    cpu_system_us                bigint,
    memory_usage_bytes           bigint,               -- the peak, of a fold the highest
    disk_read_bytes              bigint,
    disk_write_bytes             bigint,
    network_receive_bytes        bigint,
    network_transmit_bytes       bigint,
    run_queue_delay_us           bigint,
    paging_faults_minor          bigint,
    paging_faults_major          bigint,
    context_switches_voluntary   bigint,
    context_switches_involuntary bigint,
    user_id                      bigint,               -- folds only, as the next two
    host_id                      uuid        not null,
    process_id                   uuid,                 -- null: a fold of several kinds
    interval_ms                  integer     not null,
    process_count                integer     not null,
    failed_count                 integer,
    exit_code                    integer,
    exit_signal                  integer,
    parent_pid                   integer,
    cgroup                       text
$columns$, interval '6 hours');
