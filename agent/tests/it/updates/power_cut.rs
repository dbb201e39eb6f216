//! A power cut at every step: root's program is killed before each of its changes to the disk, one run after the other.
//! Whatever is left starts, is what a release says, and comes to the same end when it is taken up again.
//!
//! The steps are the system calls that change names or make bytes durable. strace kills at the n-th, for every n until none
//! is left. (What the kernel had not written is not lost here, as it would be with the power: the order of `fsync` before
//! `rename` is for that.)

use std::os::unix::process::ExitStatusExt as _;

use super::host::{Host, Made, Maker};

/// System calls that count as a step, those that there are on this machine.
const STEPS: [&str; 12] = [
    "?rename",
    "?renameat",
    "?renameat2",
    "?unlink",
    "?unlinkat",
    "?symlink",
    "?symlinkat",
    "?mkdir",
    "?rmdir",
    "fsync",
    "fchmod",
    "?chmod",
];
/// More than there are of any.
const MOST: u32 = 100;

/// Kills `update <command>` at each of its steps, on a fresh host each time; how many there were.
fn at_each_step(command: &str, host: impl Fn() -> Host, check: impl Fn(&Host, &str)) -> u32 {
    STEPS.iter().map(|call| at_each(call, command, &host, &check)).sum()
}

/// strace counts the calls of each kind by themselves.
fn at_each(
    call: &str,
    command: &str,
    host: &impl Fn() -> Host,
    check: &impl Fn(&Host, &str),
) -> u32 {
    for step in 1..MOST {
        let host = host();
        let trace = format!("trace={call}");
        let inject = format!("inject={call}:signal=SIGKILL:when={step}");
        let before = ["/usr/bin/strace", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let output = host.command(&before, command).output().unwrap();
        if output.status.success() {
            return step - 1;
        }
        assert_eq!(output.status.signal(), Some(9), "{call} {step}: {output:?}");
        check(&host, &format!("{command}, killed at {call} {step}"));
    }
    panic!("{command} has more than {MOST} steps of {call}");
}

fn one_of(found: &str, allowed: &[&Made], what: &str) {
    assert!(allowed.iter().any(|made| made.id == found), "{what}: {found}");
}

#[test]
fn while_a_release_is_installed() {
    let maker = Maker::new();
    let [one, two] = [1, 2].map(|seq| maker.release(seq));
    let asked = || {
        let host = Host::with(&maker, &one);
        host.ask(&two);
        host
    };
    let steps = at_each_step("work", asked, |host, what| {
        // `linked` runs the program.
        one_of(&host.linked("current"), &[&one, &two], what);
        assert_eq!(host.linked("confirmed"), one.id, "{what}");
        // The boot after it, then the request, which is still there unless it was followed.
        host.update("boot-check");
        one_of(&host.linked("current"), &[&one, &two], what);
        host.update("work");
        assert_eq!(host.links(), (two.id.clone(), one.id.clone()), "{what}");
        assert_eq!((host.state().as_str(), host.is_asked()), ("probation", false), "{what}");
        host.say_working(&two);
        host.update("work");
        assert_eq!(host.links(), (two.id.clone(), two.id.clone()), "{what}");
        assert_eq!(host.releases().len(), 2, "{what}");
    });
    assert!(steps >= 20, "{steps}");
}

#[test]
fn while_a_release_is_confirmed() {
    let maker = Maker::new();
    let [one, two] = [1, 2].map(|seq| maker.release(seq));
    let working = || {
        let host = Host::with(&maker, &one);
        host.ask(&two);
        host.update("work");
        host.say_working(&two);
        host
    };
    let steps = at_each_step("work", working, |host, what| {
        assert_eq!(host.linked("current"), two.id, "{what}");
        one_of(&host.linked("confirmed"), &[&one, &two], what);
        host.update("boot-check");
        // The agent says it again until it is confirmed.
        host.say_working(&two);
        host.update("work");
        assert_eq!(host.links(), (two.id.clone(), two.id.clone()), "{what}");
        assert_eq!(host.state(), "confirmed", "{what}");
    });
    assert!(steps >= 5, "{steps}");
}

#[test]
fn while_a_release_is_taken_back() {
    let maker = Maker::new();
    let [one, two] = [1, 2].map(|seq| maker.release(seq));
    let started_twice = || {
        let host = Host::with(&maker, &one);
        host.ask(&two);
        host.update("work");
        host.update("boot-check");
        host.update("boot-check");
        host
    };
    let steps = at_each_step("boot-check", started_twice, |host, what| {
        one_of(&host.linked("current"), &[&one, &two], what);
        host.update("boot-check");
        assert_eq!(host.links(), (one.id.clone(), one.id.clone()), "{what}");
        assert_eq!(host.state(), "rolled_back", "{what}");
    });
    assert!(steps >= 5, "{steps}");
}
