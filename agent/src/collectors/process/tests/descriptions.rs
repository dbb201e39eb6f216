//! When an instance is described again: a title of its own, new names without end, ports.

use std::collections::HashMap;

use super::*;

fn command_lines(batch: &Batch) -> Vec<&str> {
    batch.process_definitions.iter().map(|process| process.command_line.as_str()).collect()
}

#[test]
fn a_title_that_comes_late_is_seen_after_a_minute_and_shortened() {
    let tree = Tree::new("late-title");
    tree.process(10, ("postgres", 1), 500, 0);
    tree.write("proc/10/cmdline", "/usr/lib/postgresql/bin/postgres\0-D\0/data\0");
    let mut sampler = tree.collector();
    assert_eq!(command_lines(&sampler.tick(false)), ["/usr/lib/postgresql/bin/postgres -D /data"]);
    tree.write("proc/10/cmdline", "postgres: app shop 10.0.0.7(54321) idle\0\0\0");
    assert_eq!(sampler.tick(false).instance_definitions.len(), 0);
    sampler.seconds += 60;
    let batch = sampler.tick(false);
    assert_eq!(command_lines(&batch), ["postgres: app shop 10.0.0.7"]);
    assert_eq!(batch.instance_definitions.len(), 1);
    // From now on every six hours, and another client's port is no news.
    tree.write("proc/10/cmdline", "postgres: app shop 10.0.0.7(54999) SELECT\0\0\0");
    for hour in 0..14 {
        sampler.seconds += 3600;
        let batch = sampler.tick(false);
        assert_eq!(command_lines(&batch), [""; 0], "hour {hour}");
    }
}

#[test]
fn the_second_look_says_nothing_where_nothing_changed() {
    let tree = Tree::new("second-look");
    tree.process(10, ("a", 1), 500, 0);
    let mut sampler = tree.collector();
    assert_eq!(sampler.tick(false).instance_definitions.len(), 1);
    for _ in 0..30 {
        assert_eq!(sampler.tick(false).instance_definitions.len(), 0);
    }
}

#[test]
fn a_name_that_changes_without_end_does_not_flood() {
    let tree = Tree::new("renames");
    let mut sampler = tree.collector();
    let mut descriptions = 0;
    for tick in 0..100 {
        tree.process(10, (&format!("job-{tick}"), 1), 500, 0);
        descriptions += sampler.tick(false).instance_definitions.len();
    }
    // Born once, renamed eight times, looked at again a minute after the last of them.
    assert!((9..=10).contains(&descriptions), "{descriptions} descriptions");
    tree.process(10, ("another", 2), 500, 0);
    assert_eq!(sampler.tick(false).instance_definitions.len(), 1, "an exec always counts");
}

#[test]
fn ports_are_described_when_they_change() {
    let tree = Tree::new("ports");
    tree.process(10, ("mysqld", 1), 500, 0);
    tree.process(11, ("client", 1), 600, 0);
    let mut sampler = tree.collector();
    let batch = sampler.tick(false);
    assert!(batch.instance_definitions.iter().all(|row| row.service_ports.is_none()), "unknown");
    let mut listening = HashMap::from([(10, vec![3306, 33_060])]);
    let mut tick = |listening: &HashMap<u32, Vec<u16>>| {
        Dictionary::listen(&mut sampler.collector.table, listening);
        let described = sampler.tick(false).instance_definitions;
        described.into_iter().map(|row| (row.pid, row.service_ports)).collect::<Vec<_>>()
    };
    assert_eq!(tick(&listening), [(10, Some(vec![3306, 33_060]))]);
    assert_eq!(tick(&listening), []);
    listening.insert(10, (1..=100).collect());
    let ports = tick(&listening);
    assert_eq!(ports, [(10, Some((1..=64).collect()))], "bounded");
    listening.clear();
    assert_eq!(tick(&listening), [(10, Some(vec![]))], "it stopped listening");
}

#[test]
fn another_pattern_hides_from_its_first_tick_on() {
    let tree = Tree::new("patterns");
    tree.process(10, ("a", 1), 500, 0);
    tree.process(11, ("b", 1), 600, 0);
    tree.write("proc/10/cmdline", "/bin/a\0--pin\x004711\0");
    tree.write("proc/11/cmdline", "/bin/b\0");
    let mut sampler = tree.collector();
    let mut seconds = 0;
    let mut tick = |patterns: &[&str]| {
        seconds += 10;
        let patterns = patterns.iter().map(|&text| Pattern::try_from(text.to_owned()).unwrap());
        let settings = Settings {
            profile: keep_all(),
            redaction_patterns: patterns.collect(),
            ..Settings::default()
        };
        let tick = Tick {
            sampled_at: Timestamp::UNIX_EPOCH,
            monotonic: Duration::from_secs(seconds),
            clock_offset: time::Duration::ZERO,
            describe_all: false,
            settings: Arc::new(settings),
        };
        let mut batch = Batch::default();
        sampler.collector.collect(&tick, &mut batch).unwrap();
        let mut lines: Vec<_> =
            batch.process_definitions.iter().map(|it| it.command_line.clone()).collect();
        lines.sort();
        (lines, batch.instance_definitions.len())
    };
    assert_eq!(tick(&[]), (vec!["/bin/a --pin 4711".to_owned(), "/bin/b".to_owned()], 2));
    assert_eq!(tick(&[]), (Vec::new(), 0));
    assert_eq!(
        tick(&["--pin (.*)"]),
        (vec!["/bin/a --pin ***".to_owned(), "/bin/b".to_owned()], 2)
    );
    assert_eq!(tick(&["--pin (.*)"]), (Vec::new(), 0));
    assert_eq!(tick(&[]).0, ["/bin/a --pin 4711", "/bin/b"]);
}
