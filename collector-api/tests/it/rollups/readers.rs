//! What readers are told at any moment is what the samples say at that moment: roll-ups may be
//! computed, marked or still to come.

use fleet_sim::database::TestDatabase;
use fleet_sim::random::Random;
use shared_model::Timestamp;

use super::some_time;

/// In one statement, and so in one snapshot: the top of every instance against the samples.
const DIFFERENCES: &str = "
    select coalesce(jsonb_agg(d), '[]') from (
        select to_jsonb(a) as read, to_jsonb(b) as direct
        from (
            select host_id, instance_id, cpu_user_us, cpu_system_us, sample_count, covered_ms, memory_usage_bytes_max,
                   disk_read_bytes, disk_write_bytes, first_sampled_at, last_sampled_at
            from procfleet_top(null, $1, $2, 'cpu', 'instance', 1000000) where place is not null
        ) a full join (
            select host_id, instance_id, procfleet_total(sum(cpu_user_us)) as cpu_user_us,
                   procfleet_total(sum(cpu_system_us)) as cpu_system_us, count(*) as sample_count,
                   procfleet_total(sum(interval_ms)) as covered_ms, max(memory_usage_bytes) as memory_usage_bytes_max,
                   procfleet_total(sum(disk_read_bytes)) as disk_read_bytes, procfleet_total(sum(disk_write_bytes)) as disk_write_bytes,
                   min(sampled_at) as first_sampled_at, max(sampled_at) as last_sampled_at
            from procfleet_process_samples where sampled_at > $1 and sampled_at <= $2 and instance_id <> 0
            group by host_id, instance_id
        ) b on b.host_id = a.host_id and b.instance_id = a.instance_id
        where to_jsonb(a) is distinct from to_jsonb(b) limit 3
    ) d";

/// Asks `times` times about random windows.
pub(super) async fn assert_told_truly(
    database: &TestDatabase,
    now: Timestamp,
    mut random: Random,
    times: u32,
) {
    let mut connection = database.connect().await.unwrap();
    for _ in 0..times {
        let (one, other) = (some_time(&mut random, now), some_time(&mut random, now));
        // Sometimes without a moment in it.
        let other = if random.below(8) == 0 { one } else { other };
        let (from, to) = (one.min(other), one.max(other));
        let differences: serde_json::Value = sqlx::query_scalar(DIFFERENCES)
            .bind(from)
            .bind(to)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(differences, serde_json::json!([]), "{from} to {to}");
    }
}
