//! Which machine this is, and whether the identity on its disk is that machine's.
//!
//! A disk is copied more often than one thinks: images are made of running machines. The copy holds
//! identity and spool of the original. So what tells machines apart is written beside the identity
//! (`identity/machine.json`) before a server hears of it, and looked at whenever the agent starts:
//!
//! | firmware's id (DMI product UUID) | `machine-id` | verdict |
//! |---|---|---|
//! | the same | any | this machine; another `machine-id` is a new system on it and is noted |
//! | another | any | a copy |
//! | unknown, now or then | the same | this machine |
//! | unknown, now or then | another | may be a copy: only one where the agent may enrol by itself |
//!
//! The firmware's id can be read by root only, and small boards and containers have none. There a
//! changed `machine-id` alone is too little to take a machine's identity away; if it is a copy, the
//! server refuses it while the original lives. A disk that was *moved* to another machine looks like a
//! copy: `procfleet-agent rebind` says that it is none.
//!
//! A copy loses nothing: what it carries is set aside (`identity.cloned-<time>`, `spool.cloned-<time>`),
//! the spool first, so that no crash leaves the original's reports to be sent under another name.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shared_model::Timestamp;
use uuid::Uuid;

use crate::durable;
use crate::facts;
use crate::procfs::Root;

/// What tells machines apart; hashes, as the ids are nobody's business.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Of `/etc/machine-id`.
    pub machine_id_hash: Option<String>,
    /// Of `/sys/class/dmi/id/product_uuid`.
    pub product_uuid_hash: Option<String>,
}

/// Whose identity it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This machine's.
    Ours,
    /// Perhaps that of the machine this one is a copy of.
    Doubtful,
    /// That of another machine.
    Copied,
}

/// The note beside an identity, or what is set aside, cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {path}")]
pub struct MachineError {
    step: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MachineError {
    let path = path.to_owned();
    move |source| MachineError { step, path, source }
}

fn note_path(identity_dir: &Path) -> PathBuf {
    identity_dir.join("machine.json")
}

impl Machine {
    /// This machine. What cannot be read is unknown, never an error.
    pub fn read(root: &Root) -> Self {
        let (machine_id_hash, product_uuid_hash) = facts::machine_ids(root);
        Self { machine_id_hash, product_uuid_hash }
    }

    /// Notes that the identity in `identity_dir` is this machine's.
    pub fn bind(&self, identity_dir: &Path) -> Result<(), MachineError> {
        let path = note_path(identity_dir);
        durable::create_dir(identity_dir).map_err(failed("create", identity_dir))?;
        let json = serde_json::to_vec_pretty(self)
            .map_err(|error| failed("write", &path)(io::Error::other(error)))?;
        durable::write(&path, &json).map_err(failed("write", &path))
    }

    /// Whose the identity in `identity_dir` is. One without a note is ours: it is older than notes.
    pub fn check(&self, identity_dir: &Path) -> Result<Verdict, MachineError> {
        Ok(self.compare(&noted(identity_dir)?))
    }

    /// Adds to the note of an identity that is ours what is known by now.
    pub fn refresh(&self, identity_dir: &Path) -> Result<(), MachineError> {
        let before = noted(identity_dir)?;
        let (then, now) = (before.clone(), self.clone());
        let known = Self {
            machine_id_hash: now.machine_id_hash.or(then.machine_id_hash),
            product_uuid_hash: now.product_uuid_hash.or(then.product_uuid_hash),
        };
        if known == before { Ok(()) } else { known.bind(identity_dir) }
    }

    fn compare(&self, bound: &Self) -> Verdict {
        match (&self.product_uuid_hash, &bound.product_uuid_hash) {
            (Some(now), Some(then)) if now == then => return Verdict::Ours,
            (Some(_), Some(_)) => return Verdict::Copied,
            _ => {}
        }
        match (&self.machine_id_hash, &bound.machine_id_hash) {
            (Some(now), Some(then)) if now != then => Verdict::Doubtful,
            _ => Verdict::Ours,
        }
    }
}

fn noted(identity_dir: &Path) -> Result<Machine, MachineError> {
    let path = note_path(identity_dir);
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Machine::default()),
        // A damaged note says nothing, and nothing is no reason to take an identity away.
        read => {
            Ok(serde_json::from_slice(&read.map_err(failed("read", &path))?).unwrap_or_default())
        }
    }
}

/// The place an agent runs in: machine, boot and state directory. A copy of any of them is another place; an
/// agent that is started again is in the same one.
pub fn place(machine: &Machine, root: &Root, state_dir: &Path) -> Uuid {
    let boot = fs::read(root.proc.join("sys/kernel/random/boot_id")).unwrap_or_default();
    let directory = fs::metadata(state_dir).map(|found| (found.dev(), found.ino())).ok();
    let digest = Sha256::new()
        .chain_update(format!("{machine:?}\n{directory:?}\n"))
        .chain_update(boot.trim_ascii())
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Uuid::from_bytes(bytes)
}

/// Sets what a copied disk brought aside, so that this machine can have an identity of its own.
pub fn set_aside(identity: &Path, spool: &Path, now: Timestamp) -> Result<(), MachineError> {
    for dir in [spool, identity] {
        let mut name = dir.file_name().unwrap_or_default().to_owned();
        name.push(format!(".cloned-{}", now.unix_timestamp()));
        match durable::rename(dir, &dir.with_file_name(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(failed("set aside", dir))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(id: &str, uuid: &str) -> Machine {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Machine { machine_id_hash: some(id), product_uuid_hash: some(uuid) }
    }

    #[test]
    fn the_verdict_table() {
        let check = |then: (&str, &str), now: (&str, &str), expected| {
            let verdict = machine(now.0, now.1).compare(&machine(then.0, then.1));
            assert_eq!(verdict, expected, "{then:?} {now:?}");
        };
        check(("a", "x"), ("a", "x"), Verdict::Ours);
        check(("a", "x"), ("b", "x"), Verdict::Ours);
        check(("a", "x"), ("a", "y"), Verdict::Copied);
        check(("a", "x"), ("b", "y"), Verdict::Copied);
        check(("a", "x"), ("a", ""), Verdict::Ours);
        check(("a", ""), ("a", "y"), Verdict::Ours);
        check(("a", ""), ("b", ""), Verdict::Doubtful);
        check(("a", "x"), ("b", ""), Verdict::Doubtful);
        check(("", ""), ("a", "x"), Verdict::Ours);
        check(("a", "x"), ("", ""), Verdict::Ours);
    }

    #[test]
    fn a_copy_is_known_by_its_machine_and_loses_nothing() {
        let dir = std::env::temp_dir().join(format!("procfleet-machine-{}", Uuid::new_v4()));
        let tree = |name: &str, uuid: &str| {
            let root = dir.join(name);
            fs::create_dir_all(root.join("etc")).unwrap();
            fs::create_dir_all(root.join("sys/class/dmi/id")).unwrap();
            fs::create_dir_all(root.join("proc/sys/kernel/random")).unwrap();
            fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
            fs::write(root.join("sys/class/dmi/id/product_uuid"), format!("{uuid}\n")).unwrap();
            fs::write(root.join("proc/sys/kernel/random/boot_id"), uuid).unwrap();
            Root::at(&root)
        };
        let one = tree("one", "11111111-1111-1111-1111-111111111112");
        let other = tree("other", "22222222-2222-2222-2222-222222222221");
        let (identity, spool) = (dir.join("state/identity"), dir.join("state/spool"));
        assert_eq!(Machine::read(&one).check(&identity).unwrap(), Verdict::Ours, "nothing yet");
        Machine::read(&one).bind(&identity).unwrap();
        fs::create_dir_all(&spool).unwrap();
        assert_eq!(Machine::read(&one).check(&identity).unwrap(), Verdict::Ours);
        assert_eq!(Machine::read(&other).check(&identity).unwrap(), Verdict::Copied);
        let note = fs::read_to_string(note_path(&identity)).unwrap();
        assert!(!note.contains("1111") && !note.contains("abcdef0123"), "hashes only: {note}");

        let here = |root: &Root| place(&Machine::read(root), root, &identity);
        assert_eq!(here(&one), here(&one));
        assert_ne!(here(&one), here(&other));
        assert_ne!(here(&one), place(&Machine::read(&one), &one, &spool));

        set_aside(&identity, &spool, Timestamp::UNIX_EPOCH).unwrap();
        assert!(!identity.exists() && !spool.exists());
        assert!(dir.join("state/identity.cloned-0/machine.json").exists());
        assert!(dir.join("state/spool.cloned-0").exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
