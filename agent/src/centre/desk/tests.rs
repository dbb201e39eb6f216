use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use shared_model::ProblemCode;
use uuid::Uuid;

use super::*;
use crate::config::limits::HostLimits;
use crate::uplink::news::Reject;

const STREAM: Uuid = Uuid::from_u128(1);

/// A directory, and a host whose own interval is 20 s.
struct Host {
    dir: PathBuf,
    limits: &'static str,
}

impl Host {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("procfleet-desk-{}", Uuid::new_v4()));
        crate::durable::create_dir(&dir).unwrap();
        Self { dir, limits: "" }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("configuration.json")
    }

    /// An agent starts: its desk, and its interval, ms.
    fn start(&self) -> (Desk, u32) {
        let mut local = Local::parse("interval_ms = 20000").unwrap();
        local.limits = HostLimits::parse(self.limits, "here").unwrap();
        let (desk, config) = Desk::open(self.path(), local).unwrap();
        (desk, config.interval_ms)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

fn hash(letter: char) -> String {
    letter.to_string().repeat(64)
}

fn answer(letter: char, configuration: Value) -> ConfigurationAnswer {
    let configuration = serde_json::from_value(configuration).unwrap();
    ConfigurationAnswer { hash: hash(letter), configuration }
}

/// Tells an interval; that of the order, ms.
fn tell(desk: &mut Desk, letter: char, interval_ms: u32) -> Option<u128> {
    let order = desk.take(answer(letter, json!({ "interval_ms": interval_ms }))).unwrap();
    order.map(|order| order.config.interval().as_millis())
}

/// The server has all reports up to `last`, without the `rejected`; those from 10 on are of the last order.
fn report(desk: &mut Desk, last: u64, rejected: &[u64]) -> Option<u128> {
    let (code, detail) = (ProblemCode::InvalidReport, "no".to_owned());
    let reject =
        |&at: &u64| Reject { stream_id: STREAM, sequence: at, code, detail: detail.clone() };
    let rejected = rejected.iter().map(reject).collect();
    let made = |sequence| Made { number: desk.number, stream_id: STREAM, sequence };
    let (first, newest) = (made(10), made(last));
    let before = Delivered { stream_id: STREAM, sequence: 9, ..Delivered::default() };
    assert!(desk.judge(Some(&first), &before).is_none());
    let order =
        desk.judge(Some(&newest), &Delivered { stream_id: STREAM, sequence: last, rejected });
    order.map(|order| order.config.interval().as_millis())
}

fn applied(desk: &Desk) -> Option<char> {
    desk.status().applied.and_then(|hash| hash.chars().next())
}

fn failed(desk: &Desk) -> Option<char> {
    desk.status().failed.and_then(|hash| hash.chars().next())
}

fn proven(host: &Host) {
    let (mut desk, _) = host.start();
    assert_eq!(tell(&mut desk, 'a', 1000), Some(1000));
    assert_eq!(report(&mut desk, 11, &[]), None);
    desk.close();
}

#[test]
fn what_was_told_is_applied_kept_and_used_without_a_server() {
    let host = Host::new();
    let (mut desk, interval) = host.start();
    assert_eq!((interval, desk.status()), (20_000, ConfigurationStatus::default()));
    assert_eq!(tell(&mut desk, 'a', 1000), Some(1000));
    let status = desk.status();
    assert_eq!((status.received, status.applied), (Some(hash('a')), Some(hash('a'))));
    assert_eq!(tell(&mut desk, 'a', 1000), None, "the same again");
    assert_eq!(report(&mut desk, 11, &[]), None);
    assert_eq!(std::fs::metadata(host.path()).unwrap().permissions().mode() & 0o777, 0o600);
    // Killed without a word: it was proven, so that says nothing.
    for _ in 0..5 {
        let (desk, interval) = host.start();
        assert_eq!((interval, applied(&desk), failed(&desk)), (1000, Some('a'), None));
    }
}

#[test]
fn reports_that_are_rejected_bring_the_last_known_good_back() {
    let host = Host::new();
    proven(&host);
    let (mut desk, _) = host.start();
    assert_eq!(tell(&mut desk, 'b', 2000), Some(2000));
    assert_eq!(applied(&desk), Some('b'));
    assert_eq!(report(&mut desk, 11, &[10, 11]), Some(1000));
    assert_eq!((applied(&desk), failed(&desk)), (Some('a'), Some('b')));
    assert!(
        desk.status()
            .error
            .unwrap()
            .ends_with("rejects the reports made by it: invalid_report: no")
    );
    assert_eq!(tell(&mut desk, 'b', 2000), None, "not tried again");
    desk.close();
    let (mut desk, interval) = host.start();
    assert_eq!((interval, desk.received()), (1000, Some(&*hash('b'))), "nor by the next agent");
    assert_eq!(tell(&mut desk, 'a', 1000), None, "it is in force");
    assert_eq!(tell(&mut desk, 'b', 2000), Some(2000), "told anew after something else");
}

#[test]
fn an_agent_that_dies_twice_on_trial_is_not_held_in_a_loop() {
    let host = Host::new();
    proven(&host);
    let (mut desk, _) = host.start();
    assert_eq!(tell(&mut desk, 'b', 2000), Some(2000));
    drop(desk);
    let (desk, interval) = host.start();
    assert_eq!((interval, applied(&desk)), (2000, Some('b')), "once may be a power cut");
    drop(desk);
    for _ in 0..2 {
        let (desk, interval) = host.start();
        assert_eq!((interval, applied(&desk), failed(&desk)), (1000, Some('a'), Some('b')));
        assert_eq!(desk.received(), Some(&*hash('b')));
        assert!(desk.status().error.unwrap().contains("ended unexpectedly 2 times"));
    }
}

#[test]
fn an_agent_that_is_stopped_on_trial_goes_on_with_it() {
    let host = Host::new();
    let (mut desk, _) = host.start();
    tell(&mut desk, 'b', 2000);
    desk.close();
    for _ in 0..5 {
        let (mut desk, interval) = host.start();
        assert_eq!((interval, applied(&desk)), (2000, Some('b')));
        desk.close();
    }
    let (mut desk, _) = host.start();
    assert_eq!(report(&mut desk, 11, &[]), None);
    drop(desk);
    assert_eq!(host.start().1, 2000);
}

#[test]
fn what_this_agent_cannot_apply_changes_nothing_and_is_said() {
    let host = Host::new();
    proven(&host);
    let (mut desk, _) = host.start();
    let unknown = answer('b', json!({ "interval_ms": 2000, "collect": { "disabled": ["gpu"] } }));
    assert!(desk.take(unknown.clone()).unwrap().is_none());
    assert_eq!((applied(&desk), failed(&desk)), (Some('a'), Some('b')));
    assert!(desk.status().error.unwrap().starts_with("collect.disabled holds \"gpu\""));
    assert_eq!(desk.received(), Some(&*hash('b')));
    // The next agent may be able to.
    let (mut desk, _) = host.start();
    assert_eq!((desk.received(), failed(&desk)), (None, None));
    assert!(desk.take(unknown).unwrap().is_none());
    assert_eq!(failed(&desk), Some('b'));
    let long = answer('c', json!({ "collect": { "disabled": ["é".repeat(256)] } }));
    assert!(desk.take(long).unwrap().is_none());
    let error = desk.status().error.unwrap();
    assert!((MAX_ERROR_BYTES - 1..=MAX_ERROR_BYTES).contains(&error.len()), "{error}");
}

#[test]
fn limits_bound_and_are_named() {
    let mut host = Host::new();
    host.limits = "min_interval_ms = 5000";
    let (mut desk, _) = host.start();
    assert_eq!(tell(&mut desk, 'a', 1000), Some(5000));
    assert_eq!(desk.status().limited, ["interval_ms"]);
    assert_eq!(tell(&mut desk, 'b', 6000), Some(6000));
    assert_eq!(desk.status().limited, [""; 0]);
}

#[test]
fn a_host_that_takes_nothing_says_so() {
    let mut host = Host::new();
    proven(&host);
    host.limits = "remote_configuration = false";
    let (mut desk, interval) = host.start();
    assert_eq!((interval, applied(&desk)), (20_000, None));
    assert_eq!(tell(&mut desk, 'b', 2000), None);
    assert_eq!((applied(&desk), failed(&desk)), (None, Some('b')));
    assert_eq!(host.start().1, 20_000);
    host.limits = "";
    let (mut desk, interval) = host.start();
    assert_eq!((interval, applied(&desk)), (1000, Some('a')));
    assert_eq!(tell(&mut desk, 'b', 2000), Some(2000));
}

#[test]
fn a_damaged_file_is_none_and_a_disk_that_cannot_be_written_applies_nothing() {
    let host = Host::new();
    proven(&host);
    std::fs::write(host.path(), b"{\"received\": 3").unwrap();
    let (mut desk, interval) = host.start();
    assert_eq!((interval, desk.received()), (20_000, None));
    // A directory where the file should be: root writes everything else.
    std::fs::remove_file(host.path()).unwrap();
    std::fs::create_dir_all(host.path().join("in the way")).unwrap();
    let before = desk.status();
    let error = desk.take(answer('a', json!({}))).unwrap_err();
    assert!(error.to_string().contains("cannot be kept"), "{error}");
    assert_eq!(desk.status(), before);
    assert!(Path::new(&host.path()).is_dir());
}
