//! Selection rules, and the law that nothing is lost or counted twice.

use proptest::prelude::*;

use super::*;

const SECOND: Option<Duration> = Some(Duration::from_secs(1));

fn row(id: i64, cpu: u64, memory: u64, disk: u64) -> ProcessSample {
    ProcessSample {
        instance_id: InstanceId(id),
        process_count: 1,
        cpu_user_us: Some(cpu),
        cpu_system_us: Some(0),
        memory_usage_bytes: Some(memory),
        disk_write_bytes: Some(disk),
        ..ProcessSample::default()
    }
}

fn profile(top: usize) -> Profile {
    Profile { top, ..Profile::default() }
}

fn kept(rows: &[ProcessSample], profile: &Profile, interval: Option<Duration>) -> Vec<usize> {
    let kept = select(rows, |_| false, profile, interval);
    (0..rows.len()).filter(|&index| kept[index]).collect()
}

#[test]
fn thresholds_are_rates_over_the_interval() {
    let rows = [
        row(1, 99_999, 0, 0),
        row(2, 100_000, 0, 0),
        row(3, 0, (1 << 30) - 1, 0),
        row(4, 0, 1 << 30, 0),
        row(5, 0, 0, (1 << 20) - 1),
        row(6, 0, 0, 1 << 20),
    ];
    assert_eq!(kept(&rows, &profile(0), SECOND), [1, 3, 5]);
    assert_eq!(kept(&rows, &profile(0), Some(Duration::from_secs(2))), [3]);
    assert_eq!(kept(&rows, &profile(0), None), [3], "no rates at the baseline");
    let none = Profile { cpu_cores: 0.0, ..profile(0) };
    assert_eq!(kept(&rows, &none, SECOND).len(), 6);
    assert_eq!(kept(&[ProcessSample::default()], &none, SECOND), [0; 0], "unknown is not 0");
}

#[test]
fn the_top_of_every_resource_is_kept() {
    let rows = [row(1, 30, 1, 0), row(2, 20, 2, 0), row(3, 10, 3, 5), row(4, 0, 0, 0)];
    assert_eq!(kept(&rows, &profile(1), SECOND), [0, 2]);
    assert_eq!(kept(&rows, &profile(2), SECOND), [0, 1, 2]);
    assert_eq!(kept(&rows, &profile(9), SECOND), [0, 1, 2], "nothing used is no top use");
    let swapped =
        [row(1, 0, 5, 0), ProcessSample { memory_swap_bytes: Some(9), ..row(2, 0, 1, 0) }];
    assert_eq!(kept(&swapped, &profile(1), SECOND), [1], "swapped memory is memory");
}

#[test]
fn patterns_and_keep_all() {
    let rows = [row(1, 0, 0, 0), row(2, 0, 0, 0)];
    assert_eq!(select(&rows, |index| index == 1, &profile(0), SECOND), [false, true]);
    let all = Profile { keep_all: true, ..profile(0) };
    assert_eq!(kept(&rows, &all, SECOND), [0, 1]);
    let many = vec![row(1, 0, 0, 0); MAX_KEPT + 7];
    assert_eq!(kept(&many, &all, SECOND).len(), MAX_KEPT);
}

/// Every number of a row, so that a field added to the type and forgotten in the sum fails here.
fn numbers(row: &ProcessSample) -> serde_json::Map<String, serde_json::Value> {
    let mut fields = serde_json::to_value(row).unwrap().as_object().unwrap().clone();
    fields.remove("instance_id");
    fields
}

fn totals<'a>(
    rows: impl Iterator<Item = &'a ProcessSample>,
) -> serde_json::Map<String, serde_json::Value> {
    let mut totals = serde_json::Map::new();
    for row in rows {
        for (name, value) in numbers(row) {
            let sum = totals.get(&name).and_then(serde_json::Value::as_u64).unwrap_or(0);
            totals.insert(name, (sum + value.as_u64().unwrap()).into());
        }
    }
    totals
}

prop_compose! {
    fn any_row()(
        id in 1_i64..,
        counters in proptest::array::uniform13(proptest::option::of(0_u64..1 << 40)),
        counts in proptest::array::uniform2(proptest::option::of(0_u32..1000)),
    ) -> ProcessSample {
        ProcessSample {
            instance_id: InstanceId(id),
            process_count: 1,
            cpu_user_us: counters[0],
            cpu_system_us: counters[1],
            memory_usage_bytes: counters[2],
            memory_swap_bytes: counters[3],
            disk_read_bytes: counters[4],
            disk_write_bytes: counters[5],
            network_receive_bytes: counters[6],
            network_transmit_bytes: counters[7],
            run_queue_delay_us: counters[8],
            thread_count: counts[0],
            file_descriptor_count: counts[1],
            paging_faults_minor: counters[9],
            paging_faults_major: counters[10],
            context_switches_voluntary: counters[11],
            context_switches_involuntary: counters[12],
        }
    }
}

proptest! {
    #[test]
    fn kept_and_residual_add_up_to_everything(
        rows in proptest::collection::vec(any_row(), 0..40),
        top in 0_usize..6,
        memory in 0_u64..1 << 41,
    ) {
        let profile = Profile { memory_bytes: memory, ..profile(top) };
        let kept = select(&rows, |_| false, &profile, SECOND);
        let split = |wanted: bool| {
            rows.iter().zip(&kept).filter(move |(_, kept)| **kept == wanted).map(|(row, _)| row)
        };
        let residual = residual(split(false), None);
        prop_assert_eq!(residual.is_none(), split(false).next().is_none());
        prop_assert_eq!(totals(split(true).chain(&residual)), totals(rows.iter()));
    }
}
