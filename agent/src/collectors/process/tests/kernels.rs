//! Trees laid out as four kernels do: what is missing in one is null, the rest the same.

use super::*;

fn collect(kernel: &str) -> Batch {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let collector = Processes::new(&setup(&fixtures.join(format!("proc-{kernel}"))));
    Sampler { collector, seconds: 0, profile: keep_all() }.tick(false)
}

#[track_caller]
fn check(kernel: &str, swap: Option<u64>, kernel_thread: &str) {
    let batch = collect(kernel);
    assert_eq!(batch.processes.len(), 4, "{kernel}");
    let mysqld = row(&batch, id(812, 4321));
    assert_eq!(mysqld.memory_usage_bytes, Some(45_000 * 4096));
    assert_eq!((mysqld.memory_swap_bytes, mysqld.thread_count), (swap, Some(31)));
    assert_eq!((mysqld.cpu_user_us, mysqld.file_descriptor_count), (None, None));
    let find = |pid: u32| {
        let is_it = |instance: &&shared_model::InstanceDefinition| instance.pid == pid;
        let instance = batch.instance_definitions.iter().find(is_it).unwrap();
        let is_run =
            |process: &&shared_model::ProcessDefinition| process.process_id == instance.process_id;
        (instance, batch.process_definitions.iter().find(is_run).unwrap())
    };
    let (instance, process) = find(812);
    assert_eq!(process.command_line, "/usr/sbin/mysqld --daemonize --pid-file=/var/run/mysqld.pid");
    assert_eq!((instance.user_id, instance.owner.as_deref()), (Some(27), Some("mysql")));
    assert_eq!(instance.systemd_unit.as_deref(), Some("mysqld.service"));
    assert_eq!(instance.creation_time.unix_timestamp(), 1_600_000_043);
    let (instance, _) = find(813);
    assert_eq!(instance.executable_name.as_deref(), Some("a) R (b c"));
    assert_eq!(instance.container_id.as_deref().map(str::len), Some(64));
    assert_eq!(find(2).1.command_line, kernel_thread);
}

#[test]
fn linux_3_10() {
    // Here without VmSwap and without I/O accounting.
    check("3.10", None, "[kthreadd]");
}

#[test]
fn linux_4_18() {
    check("4.18", Some(96 << 10), "[kworker/0:1]");
}

#[test]
fn linux_5_10() {
    check("5.10", Some(96 << 10), "[kthreadd]");
}

#[test]
fn linux_6_18() {
    check("6.18", Some(96 << 10), "[kthreadd]");
}
