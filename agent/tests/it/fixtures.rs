//! The collectors over trees of several kernels: a baseline, then a second look.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent::bpf::{Bpf, OBJECTS};
use agent::collectors::settings::Settings;
use agent::collectors::{Batch, CollectError, REGISTRY, Setup, Tick};
use agent::procfs::Root;
use agent::profile::Profile;
use serde_json::{Map, Value, json};
use shared_model::{InstanceDefinition, ProcessDefinition, ProcessSample};

use crate::support::{TestDir, copy_tree};

/// Between the two looks at trees with made-up numbers.
const INTERVAL: Duration = Duration::from_secs(10);
/// The collectors whose files every tree holds.
const HOST: [&str; 7] =
    ["cpu", "memory", "load", "pressure", "block_device", "network_interface", "filesystem"];
/// Of a captured command line, so many characters stand in `expected.json`, besides its length.
const COMMAND_LINE_SHOWN: usize = 40;

#[test]
fn linux_3_10() {
    check("linux-3.10");
}

#[test]
fn linux_4_18() {
    check("linux-4.18");
}

#[test]
fn linux_5_10() {
    check("linux-5.10");
}

#[test]
fn linux_6_18() {
    check("linux-6.18");
}

#[test]
fn captured_5_10() {
    check_captured("captured-5.10", Duration::from_millis(36_090));
}

#[test]
fn captured_6_12() {
    check_captured("captured-6.12", Duration::from_millis(41_550));
}

fn check(kernel: &str) {
    let fixture = fixture(kernel);
    let [(baseline, _), (second, _)] = two_looks(&fixture, &HOST, INTERVAL);
    expect(&fixture, &json!({ "baseline": baseline, "second": second }));
}

/// Host and processes of a tree captured from a running kernel, `interval` between the looks.
fn check_captured(kernel: &str, interval: Duration) {
    let fixture = fixture(kernel);
    let names = HOST.into_iter().chain(["process"]).collect::<Vec<_>>();
    let [(baseline, before), (second, now)] = two_looks(&fixture, &names, interval);
    // All are described at the first look, and none again.
    assert_eq!(before.processes.len(), before.instance_definitions.len());
    assert_eq!(now.instance_definitions, []);
    let mut processes: Vec<_> = before
        .instance_definitions
        .iter()
        .map(|instance| process(instance, &before, &now))
        .collect();
    processes.sort_by_key(|row| row["pid"].as_u64());
    expect(&fixture, &json!({ "baseline": baseline, "second": second, "processes": processes }));
}

/// What is known of one instance at the second look; its description is that of the first.
fn process(instance: &InstanceDefinition, before: &Batch, now: &Batch) -> Value {
    let is_its = |definition: &&ProcessDefinition| definition.process_id == instance.process_id;
    let definition = before.process_definitions.iter().find(is_its).unwrap();
    let is_its = |row: &&ProcessSample| row.instance_id == instance.instance_id;
    let (baseline, sample) =
        (before.processes.iter().find(is_its), now.processes.iter().find(is_its));
    assert_eq!(baseline.unwrap().cpu_user_us, None, "a baseline knows gauges only");
    let sample = sample.unwrap();
    let shown: String = definition.command_line.chars().take(COMMAND_LINE_SHOWN).collect();
    let mut row = json!({
        "pid": instance.pid,
        "parent_pid": instance.parent_pid,
        "start_ticks": instance.start_ticks,
        "created_ms": instance.creation_time.unix_timestamp_nanos() / 1_000_000,
        "executable_name": instance.executable_name,
        "command_line": shown,
        "command_line_bytes": definition.command_line.len(),
        "user_id": instance.user_id,
        "owner": instance.owner,
        "executable_path": instance.executable_path,
        "cgroup": instance.cgroup,
        "systemd_unit": instance.systemd_unit,
        "container_id": instance.container_id,
        "pod_uid": instance.pod_uid,
        "threads": sample.thread_count,
        "memory": sample.memory_usage_bytes,
        "swap": sample.memory_swap_bytes,
        "cpu_user_us": sample.cpu_user_us,
        "cpu_system_us": sample.cpu_system_us,
        "faults_minor": sample.paging_faults_minor,
        "faults_major": sample.paging_faults_major,
        "disk_read_bytes": sample.disk_read_bytes,
        "disk_write_bytes": sample.disk_write_bytes,
    });
    row.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    row
}

fn fixture(kernel: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(kernel)
}

#[track_caller]
fn expect(fixture: &Path, made: &Value) {
    let expected = std::fs::read_to_string(fixture.join("expected.json")).unwrap_or_default();
    let made_text = serde_json::to_string_pretty(made).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap_or_default();
    assert!(
        *made == expected,
        "{}: expected.json is not what the collectors make:\n{made_text}",
        fixture.display()
    );
}

/// What is seen at the baseline that is not null, and at the second look; each with all that was made.
fn two_looks(fixture: &Path, names: &[&str], interval: Duration) -> [(Value, Batch); 2] {
    let directory = TestDir::new();
    for tree in ["proc", "sys", "etc"] {
        copy_tree(&fixture.join(tree), &directory.0.join(tree));
    }
    let mut collectors: Vec<_> = REGISTRY
        .iter()
        .filter(|line| names.contains(&line.name))
        .map(|line| (line.name, (line.build)(&setup(&directory.0))))
        .collect();
    assert_eq!(collectors.len(), names.len());
    [0, 1].map(|look| {
        if look == 1 {
            copy_tree(&fixture.join("later"), &directory.0);
        }
        let mut whole = Batch::default();
        let mut no_data = Vec::new();
        for (name, collector) in &mut collectors {
            let mut batch = Batch::default();
            match collector.collect(&tick(interval * look), &mut batch) {
                Ok(()) => whole.merge(batch),
                Err(CollectError::NoData) => no_data.push(*name),
                Err(error) => panic!("{name}: {error:?}"),
            }
        }
        (seen(&whole, &no_data), whole)
    })
}

fn seen(batch: &Batch, no_data: &[&str]) -> Value {
    let mounts: Vec<_> = batch
        .filesystems
        .iter()
        .map(|row| json!([row.mount_point, row.device, row.filesystem_type]))
        .collect();
    let mut seen = Map::new();
    seen.insert("host".to_owned(), json!(batch.host));
    seen.insert("block_devices".to_owned(), json!(batch.block_devices));
    seen.insert("network_interfaces".to_owned(), json!(batch.network_interfaces));
    // Their sizes are those of the machine that runs the test.
    seen.insert("mounts".to_owned(), json!(mounts));
    seen.insert("no_data".to_owned(), json!(no_data));
    Value::Object(seen)
}

fn setup(directory: &Path) -> Setup {
    Setup {
        root: Root::at(directory),
        boot_id: uuid::Uuid::nil(),
        bpf: std::sync::Arc::new(Bpf::none(OBJECTS, "a fixture")),
        titles: agent::collectors::process::titles::Options::default(),
    }
}

fn tick(monotonic: Duration) -> Tick {
    Tick {
        sampled_at: shared_model::Timestamp::UNIX_EPOCH,
        clock_offset: time::Duration::ZERO,
        monotonic,
        describe_all: false,
        settings: Arc::new(Settings {
            profile: Profile { keep_all: true, ..Profile::default() },
            ..Settings::default()
        }),
    }
}
