//! What the kernel says a process used is what the table says.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::eventually::eventually;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use rustix::fs::statfs;
use shared_model::ProcessId;
use shared_model::limits::MAX_COMMAND_LINE_BYTES;
use uuid::Uuid;

use crate::fleet::{DEADLINE, Fleet, Workload, number, wait_for_deltas};

const WRITTEN_BYTES: i64 = 64 << 20;
/// `TMPFS_MAGIC` of statfs(2).
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// User and system CPU of all children that ended and were waited for, µs: what wait4(2) adds up.
fn children_cpu_us() -> Result<i64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
}

/// `write_bytes − cancelled_write_bytes` of `/proc/<pid>/io`.
fn written_bytes(pid: u32) -> Result<i64> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let field = |name: &str| -> Result<i64> {
        let line = io.lines().find_map(|line| line.strip_prefix(name)).context("a field of io")?;
        Ok(line.trim().parse()?)
    };
    Ok(field("write_bytes:")? - field("cancelled_write_bytes:")?)
}

#[tokio::test]
async fn cpu_bytes_and_command_line_arrive_as_the_kernel_has_them() -> Result<()> {
    let fleet = Fleet::start("kernel-to-table").await?;
    let directory = fleet.deployment.directory.path();
    ensure!(
        statfs(directory)?.f_type != TMPFS_MAGIC,
        "{} is in memory: build on a real file system (CARGO_TARGET_DIR)",
        directory.display()
    );
    let mut agent = fleet.agent("agent", Duration::from_millis(500), true).await?;
    let mut connection = fleet.connect().await?;
    wait_for_deltas(&mut connection, &mut agent).await?;

    let long = "x".repeat(100 << 10);
    let words =
        ["--rewrite", "it's", "\"quoted\"", "zażółć 日本", "two\nlines", "a\u{1}nul", "", &long];
    let mut workload = Workload::start("workload", directory, &words)?;
    let pid = workload.child.pid();
    workload.tell("burn 2000")?;
    let file = directory.join("written");
    workload.tell(&format!("write {WRITTEN_BYTES} {}", file.display()))?;
    workload.wait_done().await?;
    let written = written_bytes(pid)?;

    // It idles now; a sample taken from here on has seen all of its work.
    let done_at = crate::fleet::now();
    let host_id = agent.host_id()?;
    eventually(DEADLINE, "a sample after the work", async || {
        let newest: Option<time::OffsetDateTime> = sqlx::query_scalar(
            "select max(sampled_at) from procfleet_process_samples s join process_instances i
            using (host_id, instance_id) where host_id = $1 and pid = $2",
        )
        .bind(host_id)
        .bind(i32::try_from(pid)?)
        .fetch_one(&mut connection)
        .await?;
        ensure!(newest > Some(done_at), "the newest sample is of {newest:?}, done at {done_at}");
        Ok(())
    })
    .await
    .with_context(|| agent.log())?;
    let before = children_cpu_us()?;
    workload.finish().await?;
    let used = children_cpu_us()? - before;

    let total = |column: &str| {
        format!(
            "select sum({column})::bigint from procfleet_process_samples s join process_instances i
            using (host_id, instance_id) where host_id = $1 and pid = {pid}"
        )
    };
    let unknown = format!("{} and cpu_user_us is null", total("process_count"));
    let unknown = number(&mut connection, &unknown, host_id).await?;
    assert_eq!(unknown, 0, "the collector was late, its hole is marked:\n{}", agent.log());
    let user = number(&mut connection, &total("cpu_user_us"), host_id).await?;
    let system = number(&mut connection, &total("cpu_system_us"), host_id).await?;
    let difference = (user + system - used).abs();
    println!("cpu: {user} + {system} µs in the table, {used} µs by wait4");
    assert!(difference * 100 <= used * 3, "{user} + {system} µs stored, wait4 says {used} µs");
    assert!(used >= 2_000_000 && user > 0 && system > 0, "{used}: {user} + {system}");

    let stored = number(&mut connection, &total("disk_write_bytes"), host_id).await?;
    println!("disk: {stored} bytes in the table, {written} by the kernel");
    assert_eq!(stored, written, "bytes are exact");
    assert!((WRITTEN_BYTES..WRITTEN_BYTES + (1 << 20)).contains(&written), "{written}");

    let (process_id, command_line): (Uuid, String) = sqlx::query_as(
        "select process_id, command_line from processes join process_instances using (process_id)
        where host_id = $1 and pid = $2",
    )
    .bind(host_id)
    .bind(i32::try_from(pid)?)
    .fetch_one(&mut connection)
    .await?;
    check_command_line(&command_line);
    assert_eq!(ProcessId::of(&command_line), ProcessId(process_id));
    agent.terminate().await
}

fn check_command_line(command_line: &str) {
    println!("command line: {:?}", &command_line[..200]);
    assert!(command_line.len() <= MAX_COMMAND_LINE_BYTES, "{} bytes", command_line.len());
    assert!(command_line.len() > MAX_COMMAND_LINE_BYTES - 100, "{} bytes", command_line.len());
    assert!(!command_line.contains(char::is_control), "{command_line:?}");
    for part in ["workload --rewrite it's \"quoted\" zażółć 日本 two", "lines a", "nul", "xxxxx"]
    {
        assert!(command_line.contains(part), "{part:?} is missing in {command_line:?}");
    }
}
