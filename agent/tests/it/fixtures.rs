//! The host's collectors over trees of several kernels: a baseline, then a second look.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent::collectors::{
    Batch, CollectError, REGISTRY, Setup, Tick, block_device, filesystem, network_interface,
};
use agent::procfs::Root;
use agent::profile::Profile;
use serde_json::{Map, Value, json};

use crate::support::{TestDir, copy_tree};

/// Between the two looks.
const INTERVAL: Duration = Duration::from_secs(10);
/// The collectors whose files the trees hold; `process` has tests of its own.
const COLLECTORS: [&str; 7] =
    ["cpu", "memory", "load", "pressure", "block_device", "network_interface", "filesystem"];

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

fn check(kernel: &str) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(kernel);
    let made = two_looks(&fixture);
    let expected = std::fs::read_to_string(fixture.join("expected.json")).unwrap_or_default();
    let made_text = serde_json::to_string_pretty(&made).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap_or_default();
    assert!(
        made == expected,
        "{kernel}: expected.json is not what the collectors make:\n{made_text}"
    );
}

/// What is seen at the baseline that is not null, and at the second look.
fn two_looks(fixture: &Path) -> Value {
    let directory = TestDir::new();
    for tree in ["proc", "sys", "etc"] {
        copy_tree(&fixture.join(tree), &directory.0.join(tree));
    }
    let mut collectors: Vec<_> = REGISTRY
        .iter()
        .filter(|line| COLLECTORS.contains(&line.name))
        .map(|line| (line.name, (line.build)(&setup(&directory.0))))
        .collect();
    assert_eq!(collectors.len(), COLLECTORS.len());
    let mut looks = Vec::new();
    for look in 0..2 {
        if look == 1 {
            copy_tree(&fixture.join("later"), &directory.0);
        }
        let mut whole = Batch::default();
        let mut no_data = Vec::new();
        for (name, collector) in &mut collectors {
            let mut batch = Batch::default();
            match collector.collect(&tick(look), &mut batch) {
                Ok(()) => whole.merge(batch),
                Err(CollectError::NoData) => no_data.push(*name),
                Err(error) => panic!("{name}: {error:?}"),
            }
        }
        looks.push(seen(&whole, &no_data));
    }
    let second = looks.pop().unwrap();
    json!({ "baseline": looks.pop().unwrap(), "second": second })
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
        redaction_patterns: Vec::new(),
        filesystem: filesystem::Options::default(),
        block_device: block_device::Options::default(),
        network_interface: network_interface::Options::default(),
    }
}

fn tick(look: u32) -> Tick {
    Tick {
        sampled_at: shared_model::Timestamp::UNIX_EPOCH,
        monotonic: INTERVAL * look,
        describe_all: false,
        profile: Arc::new(Profile::default()),
    }
}
