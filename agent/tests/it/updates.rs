//! Self-update, root's side, by the real program: what is installed, what stays, what is taken back, and what is refused.

mod host;
mod power_cut;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use shared_model::release::Signed;

use host::{Host, Maker, key_pair};

#[test]
fn a_release_runs_at_once_and_stays_when_it_works() {
    let maker = Maker::new();
    let [one, two, three] = [1, 2, 3].map(|seq| maker.release(seq));
    let host = Host::with(&maker, &one);
    host.ask(&two);
    host.update("work");
    assert_eq!(host.links(), (two.id.clone(), one.id.clone()));
    assert_eq!((host.state().as_str(), host.is_asked()), ("probation", false));
    host.update("boot-check");
    // Meanwhile nothing else is tried, and another release's word is worth nothing.
    host.ask(&three);
    host.say_working(&three);
    host.update("work");
    assert_eq!(host.links(), (two.id.clone(), one.id.clone()));

    host.say_working(&two);
    host.update("work");
    assert_eq!(host.links(), (two.id.clone(), two.id.clone()));
    assert_eq!(host.state(), "confirmed");
    let status = String::from_utf8(host.update("status").stdout).unwrap();
    assert!(status.contains(&format!("runs       release 2 (1.2.0), {}", two.id)), "{status}");

    host.ask(&three);
    host.update("work");
    host.say_working(&three);
    host.update("work");
    let mut kept = vec![two.id, three.id];
    kept.sort();
    assert_eq!(host.releases(), kept, "the one before stays, older ones go");
}

#[test]
fn a_release_that_is_started_three_times_is_taken_back_and_not_tried_again() {
    let maker = Maker::new();
    let [one, two, three] = [1, 2, 3].map(|seq| maker.release(seq));
    let host = Host::with(&maker, &one);
    host.ask(&two);
    host.update("work");
    for _ in 0..2 {
        host.update("boot-check");
        assert_eq!(host.linked("current"), two.id);
    }
    host.update("boot-check");
    assert_eq!(host.links(), (one.id.clone(), one.id.clone()));
    assert_eq!(host.state(), "rolled_back");
    assert!(host.reason().starts_with("it was started 3 times"), "{}", host.reason());

    host.ask(&two);
    host.update("work");
    assert_eq!(host.linked("current"), one.id);
    assert_eq!(host.reason(), "release 2 was tried on this host and did not work");
    host.ask(&three);
    host.update("work");
    assert_eq!((host.linked("current"), host.state()), (three.id, "probation".into()));
}

/// Asks for something and gets nothing: why.
fn refused(host: &Host, current: &str) -> String {
    host.update("work");
    assert_eq!(host.links(), (current.to_owned(), current.to_owned()));
    assert_eq!((host.state().as_str(), host.is_asked()), ("failed", false));
    assert_eq!(host.releases(), [current]);
    host.reason()
}

#[test]
fn what_is_older_or_signed_by_nobody_who_counts_is_not_installed() {
    let maker = Maker::new();
    let [old, one, two] = [1, 5, 6].map(|seq| maker.release(seq));
    let host = Host::with(&maker, &one);

    host.ask(&old);
    assert_eq!(refused(&host, &one.id), "release 1 is not newer than the installed release 5");

    let stranger = Maker { signing: key_pair(), root: key_pair(), ..Maker::new() };
    host.ask(&stranger.release(7));
    assert!(refused(&host, &one.id).contains("no signature of a key that is trusted"));

    // A root's key signs keys, not releases.
    let mut by_root = maker.release(7);
    let manifest = by_root.release.unverified().unwrap();
    by_root.release.manifest = Signed::sign(&manifest, &[&maker.root]);
    host.ask(&by_root);
    assert!(refused(&host, &one.id).contains("no signature of a key that is trusted"));

    let mut yanked = maker.release_of(7, two.binary.clone(), |manifest| manifest.yanked = vec![7]);
    host.ask(&yanked);
    assert_eq!(refused(&host, &one.id), "release 7 was withdrawn");

    // One of each, mixed.
    yanked.release.signing_keys = stranger.release(7).release.signing_keys;
    host.ask(&yanked);
    assert!(refused(&host, &one.id).contains("no signature of a key that is trusted"));

    // Whoever may write the keys may write the agent.
    let key = host.keys().join("maker.pub");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o666)).unwrap();
    host.ask(&two);
    assert!(refused(&host, &one.id).starts_with("no root key is known"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    host.ask(&two);
    host.update("work");
    assert_eq!(host.linked("current"), two.id);
}

#[test]
fn a_file_that_is_not_the_binary_of_the_release_is_not_installed() {
    let maker = Maker::new();
    let [one, two] = [1, 2].map(|seq| maker.release(seq));
    let host = Host::with(&maker, &one);
    let artifact = host.drop_box().join("artifact");
    let ask_with = |binary: &[u8]| {
        host.ask(&two);
        fs::write(&artifact, binary).unwrap();
        refused(&host, &one.id)
    };
    let cut = ask_with(&two.binary[..two.binary.len() - 1]);
    assert!(cut.contains("bytes instead of"), "{cut}");
    let longer = ask_with(&[two.binary.as_slice(), b"x"].concat());
    assert!(longer.contains("more than"), "{longer}");
    let mut other = two.binary.clone();
    *other.last_mut().unwrap() ^= 1;
    let swapped = ask_with(&other);
    assert!(swapped.contains("its SHA-256 is"), "{swapped}");

    fs::remove_file(host.drop_box().join("artifact")).ok();
    host.ask(&two);
    fs::remove_file(&artifact).unwrap();
    symlink("/proc/self/exe", &artifact).unwrap();
    assert!(refused(&host, &one.id).contains("is a link"));
    fs::remove_file(&artifact).ok();
    host.ask(&two);
    fs::remove_file(&artifact).unwrap();
    assert!(Command::new("mkfifo").arg(&artifact).status().unwrap().success());
    assert!(refused(&host, &one.id).contains("not a regular file"));
}

#[test]
fn a_request_that_is_none_tells_nothing_of_what_it_points_at() {
    let maker = Maker::new();
    let one = maker.release(1);
    let host = Host::with(&maker, &one);
    let request = host.drop_box().join("request.json");
    let secret = host.state_dir().join("secret");
    fs::write(&secret, "\"canary\"").unwrap();
    symlink(&secret, &request).unwrap();
    assert!(refused(&host, &one.id).contains("is a link"));
    fs::write(&request, "\"canary\"").unwrap();
    let reason = refused(&host, &one.id);
    assert!(reason.contains("no release") && !reason.contains("canary"), "{reason}");
    fs::write(&request, vec![b' '; 1 << 20]).unwrap();
    assert!(refused(&host, &one.id).contains("too large"));

    fs::remove_dir_all(host.drop_box()).unwrap();
    symlink(host.base(), host.drop_box()).unwrap();
    let output = host.command(&[], "work").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(host.linked("current"), one.id);
}

/// Whoever holds the drop box changes the file while root copies it: either all of the right bytes are there, or nothing.
#[test]
fn a_file_that_is_swapped_meanwhile_is_installed_whole_or_not_at_all() {
    let maker = Maker::new();
    let [one, two] = [1, 2].map(|seq| maker.release(seq));
    let mut evil = two.binary.clone();
    evil[..4].copy_from_slice(b"evil");
    for _ in 0..5 {
        let host = Host::with(&maker, &one);
        host.ask(&two);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let [good, bad, artifact] =
                    ["good", "bad", "artifact"].map(|name| host.drop_box().join(name));
                while !is_over.load(Ordering::Relaxed) {
                    for (path, bytes) in [(&bad, &evil), (&good, &two.binary)] {
                        fs::write(path, bytes).unwrap();
                        fs::rename(path, &artifact).unwrap();
                        // In place, too.
                        fs::write(&artifact, &bytes[..bytes.len() / 2]).unwrap();
                    }
                }
            });
            host.update("work");
            is_over.store(true, Ordering::Relaxed);
        });
        // `linked` compares the program's hash with its name.
        let current = host.linked("current");
        match host.state().as_str() {
            "probation" => assert_eq!(current, two.id),
            state => assert_eq!((state, current.as_str()), ("failed", one.id.as_str())),
        }
    }
}

#[test]
fn a_release_that_cannot_work_here_is_not_installed() {
    let maker = Maker::new();
    let one = maker.release(1);
    let host = Host::with(&maker, &one);
    let broken =
        maker.release_of(2, b"#!/bin/sh\necho no such luck >&2\nexit 1\n".to_vec(), |_| {});
    host.ask(&broken);
    let reason = refused(&host, &one.id);
    assert!(
        reason.contains("cannot run on this host") && reason.contains("no such luck"),
        "{reason}"
    );
    host.ask(&broken);
    assert_eq!(refused(&host, &one.id), "release 2 was tried on this host and did not work");

    // An identity that no release can read is not the release's fault.
    let three = maker.release(3);
    let identity = host.state_dir().join("identity");
    fs::create_dir(&identity).unwrap();
    fs::write(identity.join("identity.json"), "{").unwrap();
    host.ask(&three);
    let reason = refused(&host, &one.id);
    assert!(reason.contains("does not pass its own test either"), "{reason}");
    fs::remove_dir_all(&identity).unwrap();
    host.ask(&three);
    host.update("work");
    assert_eq!(host.linked("current"), three.id);
}

#[test]
fn a_step_back_needs_the_installed_release_to_allow_it() {
    let maker = Maker::new();
    let old = maker.release(1);
    let binary = maker.release(5).binary;
    let five = maker.release_of(5, binary, |manifest| manifest.allow_downgrade_to = vec![1]);
    let host = Host::with(&maker, &five);
    host.ask(&old);
    host.update("work");
    assert_eq!((host.linked("current"), host.state()), (old.id, "probation".into()));
}

#[test]
fn the_same_binary_under_another_number_needs_no_restart() {
    let maker = Maker::new();
    let one = maker.release(1);
    let host = Host::with(&maker, &one);
    let renumbered = maker.release_of(2, one.binary.clone(), |_| {});
    host.ask(&renumbered);
    host.update("work");
    assert_eq!((host.links(), host.state()), ((one.id.clone(), one.id), "confirmed".into()));
    let status = String::from_utf8(host.update("status").stdout).unwrap();
    assert!(status.contains("runs       release 2"), "{status}");
}
