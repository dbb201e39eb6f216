//! CPU of the ended: made family trees, and a shell with children that live for milliseconds.

use super::live::{Shell, live_sampler, row_of};
use super::*;

impl Tree {
    /// A process of `parent` since the start that used `own` ticks and waited for children that used
    /// `reaped`, all user time.
    fn member(&self, pid: u32, parent: u32, own: u64, reaped: u64) {
        self.process(pid, ("member", 1), 500, 0);
        let stat = format!(
            "{pid} (member) S {parent} 1 1 0 -1 0 0 0 0 0 {own} 0 {reaped} 0 20 0 1 0 500 0 9 0 1 0 5\n"
        );
        self.write(&format!("proc/{pid}/stat"), stat);
    }

    /// 1 (init) ← 20 (shell) ← 30 ← 40.
    fn family(name: &str) -> (Self, Sampler) {
        let tree = Self::new(name);
        tree.member(1, 0, 10, 1000);
        tree.member(20, 1, 10, 200);
        tree.member(30, 20, 300, 50);
        tree.member(40, 30, 700, 0);
        let mut sampler = tree.collector();
        assert_eq!(ended(&sampler.tick(false)), None, "a baseline knows nothing of the past");
        (tree, sampler)
    }
}

/// User ticks of the residual, which is nothing else: every row is kept.
fn ended(batch: &Batch) -> Option<u64> {
    let residual = batch.processes.iter().find(|row| row.instance_id == InstanceId::RESIDUAL)?;
    assert_eq!((residual.process_count, residual.memory_usage_bytes), (0, None));
    assert_eq!(residual.cpu_system_us, Some(0));
    residual.cpu_user_us.map(|us| us / 10_000)
}

#[test]
fn the_unseen_are_counted_whole_and_the_known_from_where_they_were() {
    let (tree, mut sampler) = Tree::family("ended-plain");
    assert_eq!(ended(&sampler.tick(false)), None, "nobody ended");
    // The shell waits for 25 ticks of strangers; 40 uses 9 more, ends, and is waited for by 30.
    tree.member(20, 1, 10, 225);
    tree.member(30, 20, 300, 50 + 709);
    tree.remove(40);
    assert_eq!(ended(&sampler.tick(false)), Some(25 + 9));
    assert_eq!(ended(&sampler.tick(false)), None, "once");
}

#[test]
fn a_branch_that_ends_goes_to_the_survivor() {
    let (tree, mut sampler) = Tree::family("ended-branch");
    // 40 ends (4 more), then 30 (5 more), after 6 ticks of a stranger: all of it lands in the shell.
    tree.remove(40);
    tree.remove(30);
    tree.member(20, 1, 10, 200 + 350 + 700 + 4 + 5 + 6);
    assert_eq!(ended(&sampler.tick(false)), Some(15));
}

#[test]
fn orphans_are_waited_for_higher_up() {
    let (tree, mut sampler) = Tree::family("ended-orphan");
    // 30 ends first, the shell waits for it; 40 is adopted by init, ends there after 8 more.
    tree.remove(40);
    tree.remove(30);
    tree.member(20, 1, 10, 200 + 350);
    tree.member(1, 0, 10, 1000 + 708);
    assert_eq!(ended(&sampler.tick(false)), Some(8));
}

#[test]
fn a_parent_read_too_early_is_settled_one_tick_later() {
    let (tree, mut sampler) = Tree::family("ended-race");
    tree.remove(40);
    assert_eq!(ended(&sampler.tick(false)), None);
    tree.member(30, 20, 300, 50 + 703);
    assert_eq!(ended(&sampler.tick(false)), Some(3));
}

#[test]
fn children_nobody_waits_for_are_never_negative_and_soon_forgotten() {
    let (tree, mut sampler) = Tree::family("ended-ignored");
    tree.remove(40);
    assert_eq!(ended(&sampler.tick(false)), None);
    assert_eq!(ended(&sampler.tick(false)), None);
    tree.member(30, 20, 300, 50 + 30);
    assert_eq!(ended(&sampler.tick(false)), Some(30), "an old debt takes nothing any more");
}

#[test]
fn a_reused_number_ended_too() {
    let (tree, mut sampler) = Tree::family("ended-reuse");
    tree.member(30, 20, 300, 50 + 702);
    tree.process(40, ("new", 2), 100_100, 1);
    tree.uptime(1010);
    assert_eq!(ended(&sampler.tick(false)), Some(2));
}

#[test]
fn never_more_than_the_host_has() {
    let (tree, mut sampler) = Tree::family("ended-limit");
    tree.write("sys/devices/system/cpu/online", "0-1\n");
    // Two CPUs have 2,000 ticks in ten seconds; the row of 40 has 500 of them.
    tree.member(40, 30, 1200, 0);
    tree.member(20, 1, 10, 200 + 9000);
    assert_eq!(ended(&sampler.tick(false)), Some(1500));
}

#[test]
fn the_residual_has_them_beside_the_living() {
    let (tree, mut sampler) = Tree::family("ended-residual");
    sampler.profile = Profile { top: 0, ..Profile::default() };
    tree.member(20, 1, 12, 225);
    let batch = sampler.tick(false);
    let residual = row(&batch, InstanceId::RESIDUAL);
    assert_eq!((residual.process_count, residual.cpu_user_us), (4, Some(270_000)));
}

/// What `times` of a shell says its children used, in seconds.
fn children_time(shell: &mut Shell) -> f64 {
    let seconds = |text: &str| {
        let (minutes, seconds) = text.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    };
    shell.line();
    shell.line().split_whitespace().map(seconds).sum()
}

fn ticks_of(sampler: &Sampler, pid: u32) -> f64 {
    let reaped = sampler.collector.ended.reaped(pid);
    let hundredths = u32::try_from(reaped.user_ticks + reaped.system_ticks).unwrap();
    f64::from(hundredths) / 100.0
}

#[test]
fn short_lived_children_of_a_real_shell_are_accounted_for() {
    let mut sampler = live_sampler();
    let mut shell = Shell::start(
        "burn() { for ((i = 0; i < $1; i++)); do :; done; }
        echo; read; for ((n = 0; n < 60; n++)); do (burn 4000); done; times; read",
        &[],
    );
    shell.line();
    sampler.tick(false);
    shell.tell();
    let truth = children_time(&mut shell);
    let batch = sampler.tick(false);
    let told = ticks_of(&sampler, shell.pid());
    assert!(truth > 0.2, "{truth}");
    assert!((told - truth).abs() <= truth * 0.03 + 0.02, "told {told}, truth {truth}");
    let residual = row(&batch, InstanceId::RESIDUAL);
    let all = residual.cpu_user_us.unwrap() + residual.cpu_system_us.unwrap();
    assert!(Duration::from_micros(all).as_secs_f64() >= told, "{all} {told}");
}

#[test]
fn a_real_child_that_ends_is_reported_once() {
    let mut sampler = live_sampler();
    sampler.tick(false);
    let mut shell = Shell::start(
        "burn() { for ((i = 0; i < 400000; i++)); do :; done; }
        (burn; echo $BASHPID; read; burn); times; read",
        &[],
    );
    let child = shell.line().trim().parse().unwrap();
    let batch = sampler.tick(false);
    let row = row_of(&sampler, &batch, child);
    let before = Duration::from_micros(row.cpu_user_us.unwrap() + row.cpu_system_us.unwrap());
    shell.tell();
    let truth = children_time(&mut shell);
    sampler.tick(false);
    let told = before.as_secs_f64() + ticks_of(&sampler, shell.pid());
    assert!(before.as_secs_f64() > 0.1 && truth > 0.2, "{before:?} of {truth}");
    assert!((told - truth).abs() <= truth * 0.03 + 0.03, "told {told}, truth {truth}");
}
