//! `run` of the real binary, from a directory that holds an identity to the signal that ends it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};

use agent::identity::{Identity, load_or_create_key};
use agent::spool::{Limits, PeekLimits, Spool};
use rustix::process::{Pid, Signal, kill_process};
use shared_model::{EnrollResponse, Record, Timestamp};
use uuid::Uuid;

use crate::program::program;
use crate::support::{TestDir, wait_for};

/// An enrolled host whose server does not answer.
pub(crate) fn enrolled(state_dir: &Path) -> Uuid {
    let directory = state_dir.join("identity");
    let key = load_or_create_key(&directory).unwrap();
    let names = vec!["localhost".to_owned()];
    let pem = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
    let response = EnrollResponse {
        host_id: Uuid::from_u128(7),
        certificate_chain_pem: pem.clone(),
        ca_bundle_pem: pem,
        not_after: Timestamp::UNIX_EPOCH.replace_year(2100).unwrap(),
        renew_after: Timestamp::UNIX_EPOCH.replace_year(2099).unwrap(),
        server_time: Timestamp::UNIX_EPOCH,
        // Discard: nobody listens there.
        endpoints: vec!["https://localhost:9".to_owned()],
    };
    Identity::store(&directory, &response).unwrap().host_id
}

/// What ends with the test even if that fails.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
}

/// Bytes of every file below `directory`.
pub(crate) fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let bytes_of = |path: &Path| match fs::metadata(path) {
        Ok(data) if data.is_dir() => bytes_below(path),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.map(|entry| bytes_of(&entry.unwrap().path())).sum()
}

#[test]
fn a_signal_leaves_a_clean_spool() {
    let directory = TestDir::new();
    let host_id = enrolled(&directory.0);
    let spool_dir = directory.0.join("spool");
    let mut command = program();
    command.arg("run").stdout(Stdio::piped());
    command.env("PROCFLEET_AGENT_STATE_DIR", &directory.0);
    command.env("PROCFLEET_AGENT_INTERVAL_MS", "200");
    command.env("PROCFLEET_AGENT_BUDGET__CPU_CORES", "100");
    let mut agent = Running(command.spawn().unwrap());
    // Every append makes it grow: at least two reports after the third size that is seen.
    let mut sizes = BTreeSet::new();
    wait_for("some reports", || {
        assert!(agent.0.try_wait().unwrap().is_none(), "it ended by itself");
        sizes.insert(bytes_below(&spool_dir));
        (sizes.len() > 4).then_some(())
    });
    let pid = Pid::from_child(&agent.0);
    kill_process(pid, Signal::TERM).unwrap();
    let status = wait_for("the agent's end", || agent.0.try_wait().unwrap());
    let mut log = String::new();
    agent.0.stdout.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("SIGTERM"), "{log}");

    let spool = Spool::open(&spool_dir, Limits::default(), host_id).unwrap();
    let records =
        spool.peek(PeekLimits { bytes: 64 << 20, inflated_bytes: 1 << 30, records: 100_000 });
    assert!(records.len() > 1);
    for (at, spooled) in records.iter().enumerate() {
        let line = zstd::bulk::decompress(&spooled.frame, 16 << 20).unwrap();
        let record = Record::decode(line.trim_ascii_end()).unwrap();
        record.validate().unwrap();
        let Record::Report(report) = record else { panic!("a gap") };
        assert_eq!((report.sequence, report.host_id), (at as u64 + 1, host_id));
        assert_eq!(report.facts.is_some(), at == 0, "facts once");
    }
    assert!(spool.stats().lost.values().all(|&count| count == 0));
}
