//! The iterator against `/proc`, on the host of the test.

use std::time::Duration;

use super::*;
use crate::bpf::OBJECTS;
use crate::collectors::process::files::Files;
use crate::procfs::Root;

fn loaded() -> Option<Bpf> {
    rustix::process::geteuid().is_root().then(|| Bpf::load(OBJECTS))
}

#[test]
fn states_are_those_of_stat() {
    let bits = [(0, b'R'), (1, b'S'), (2, b'D'), (0x402, b'D'), (4, b'T'), (8, b't'), (0x20, b'Z')];
    for (bits, letter) in bits {
        assert_eq!(char::from(state(bits)), char::from(letter), "{bits:x}");
    }
}

/// Of every process that holds still between two looks at `/proc`, the iterator in between says the same.
#[test]
fn the_iterator_agrees_with_proc() {
    let Some(bpf) = loaded() else { return };
    let mut files = Files::open(&Root::system().proc).unwrap();
    let hz = rustix::param::clock_ticks_per_second();
    let (mut processes, mut compared) = (Vec::new(), 0);
    for _ in 0..50 {
        read(&bpf, &mut processes).unwrap();
        let mut again = Vec::new();
        for process in &processes {
            let pid = process.thread.tgid;
            let Ok(Some(proc)) = files.read(pid, &mut None) else { continue };
            let ours = reading(process, hz);
            assert_eq!(ours.stat.start_ticks, proc.stat.start_ticks, "start of {pid}");
            let quiet = proc.stat.state == b'S' && ours.stat.state == b'S';
            if !quiet || proc.stat.thread_count != ours.stat.thread_count {
                continue;
            }
            again.push((pid, proc.resident_pages, proc.io, proc.stat.image, proc.stat.parent_pid));
            if !ours.stat.is_kernel_thread {
                assert_eq!(ours.stat.comm, proc.stat.comm, "name of {pid}");
            }
        }
        let mut second = Vec::new();
        read(&bpf, &mut second).unwrap();
        for (pid, pages, io, image, parent) in again {
            let find =
                |list: &[Process]| list.iter().find(|process| process.thread.tgid == pid).copied();
            let (Some(first), Some(last)) = (find(&processes), find(&second)) else { continue };
            // Held still: nothing ran in between.
            if first.thread.used != last.thread.used || first.start_ns != last.start_ns {
                continue;
            }
            let ours = reading(&last, hz);
            assert_eq!(ours.stat.image, image, "image of {pid}");
            assert_eq!(ours.stat.parent_pid, parent, "parent of {pid}");
            assert_eq!(ours.resident_pages, pages, "memory of {pid}");
            if io.is_some() && ours.io.is_some() {
                assert_eq!(ours.io, io, "disk of {pid}");
            }
            compared += 1;
        }
        if compared > 20 {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("only {compared} processes held still");
}
