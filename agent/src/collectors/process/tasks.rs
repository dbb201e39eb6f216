//! Processes from the BPF iterator `tasks`: the whole host in one read.
//!
//! A record per thread comes; here they become processes. What a process counted is the sum of its live
//! threads and of those that are gone, so nothing falls when a thread ends. (Nearly: the pass is not
//! atomic, and a thread that ends during it may be in neither sum or in both. [`super::live`] keeps
//! the highest value seen.)

use std::collections::HashMap;

use super::files::Reading;
use super::live::Counted;
use crate::bpf::records::{Process, Task, Thread, parse_task};
use crate::bpf::{Bpf, BpfError};
use crate::procfs::pid::{Io, Stat};

/// `PF_KTHREAD`.
pub(super) const KERNEL_THREAD: u32 = 0x0020_0000;
/// `EXIT_DEAD`, `EXIT_ZOMBIE`.
const EXIT_DEAD: u32 = 0x10;
const EXIT_ZOMBIE: u32 = 0x20;

/// Every process there is, all threads summed, in the order of the iterator.
pub(super) fn read(bpf: &Bpf, processes: &mut Vec<Process>) -> Result<(), BpfError> {
    processes.clear();
    let mut places: HashMap<u32, usize> = HashMap::new();
    // A thread may come before its process: process ids wrap.
    let mut early: Vec<Thread> = Vec::new();
    bpf.read_iterator("processes", "tasks", |record| match parse_task(record) {
        Some(Task::Process(process)) => {
            places.insert(process.thread.tgid, processes.len());
            processes.push(process);
        }
        Some(Task::Thread(thread)) => match places.get(&thread.tgid) {
            Some(&place) => add(&mut processes[place], &thread),
            None => early.push(thread),
        },
        None => {}
    })?;
    for thread in early {
        if let Some(&place) = places.get(&thread.tgid) {
            add(&mut processes[place], &thread);
        }
    }
    Ok(())
}

fn add(process: &mut Process, thread: &Thread) {
    let first = &mut process.thread;
    first.used = first.used.plus(&thread.used);
    if first.pages.is_none() {
        (first.pages, first.is_exact) = (thread.pages, thread.is_exact);
    }
}

/// As `/proc` would say it, with CPU in µs, and what `/proc` does not say.
pub(super) fn reading(process: &Process, ticks_per_second: u64) -> Reading<'_> {
    let used = &process.thread.used;
    let is_kernel_thread = process.flags & KERNEL_THREAD != 0;
    let stat = Stat {
        comm: process.comm.bytes(),
        state: state(process.state),
        parent_pid: process.parent_pid,
        is_kernel_thread,
        faults_minor: used.faults_minor,
        faults_major: used.faults_major,
        user_ticks: used.user_ns / 1000,
        system_ticks: used.system_ns / 1000,
        children_user_ticks: process.children_user_ns / 1000,
        children_system_ticks: process.children_system_ns / 1000,
        thread_count: process.thread_count,
        start_ticks: start_ticks(process.start_ns, ticks_per_second),
        image: process.image,
    };
    // What has no memory: a kernel thread, or a process that gave it back at its end.
    let has_none = is_kernel_thread || (stat.is_dead() && process.thread_count <= 1);
    let (resident, swapped) = process.thread.pages.unzip();
    let none = has_none.then_some(0);
    Reading {
        resident_pages: resident.or(none),
        io: (process.thread.has_io && !is_kernel_thread).then_some(Io {
            read_bytes: used.read_bytes,
            write_bytes: used.write_bytes,
            cancelled_write_bytes: used.cancelled_write_bytes,
        }),
        counted: Some(Counted {
            runtime: used.runtime_ns / 1000,
            swapped_pages: swapped.or(none),
            run_queue_delay_us: used.run_delay_ns / 1000,
            switches_voluntary: used.switches_voluntary,
            switches_involuntary: used.switches_involuntary,
            descriptors: process.descriptors,
            user_id: process.user_id,
        }),
        stat,
    }
}

/// Field 22 of `stat`, which identifies the instance: nanoseconds in whole clock ticks.
pub(super) fn start_ticks(start_ns: u64, ticks_per_second: u64) -> u64 {
    start_ns / (1_000_000_000 / ticks_per_second.max(1)).max(1)
}

/// Field 3 of `stat`: what of the state is reported is its highest bit (`fs/proc/array.c`).
fn state(bits: u32) -> u8 {
    match bits & 0x7f {
        0 => b'R',
        bits if bits & 0x40 != 0 => b'P',
        bits if bits & EXIT_ZOMBIE != 0 => b'Z',
        bits if bits & EXIT_DEAD != 0 => b'X',
        bits if bits & 8 != 0 => b't',
        bits if bits & 4 != 0 => b'T',
        bits if bits & 2 != 0 => b'D',
        _ => b'S',
    }
}

#[cfg(test)]
mod tests;
