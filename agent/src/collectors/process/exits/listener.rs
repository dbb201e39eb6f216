//! Exits without BPF (tier B): [`taskstats`](super::taskstats) tells what threads used, the process
//! [`connector`](super::connector) which process they were of, when and how they ended, and who executed.
//!
//! Either is optional: without taskstats exits have no totals; without the connector they have no command line
//! unless a tick saw the process, and kernels before taskstats 12 tell no exits at all.
//!
//! A thread looks [`PAUSE`] after each wake, so a storm costs 100 looks a second. What a process executed is
//! read from `/proc` then, at most [`MAX_READS`] at a time and about 100 a second: who lived for less than
//! the pause has a name and no command line. Start times are those that `/proc` said, else the moment of the end less
//! the time since the start: a little late, because a thread's record is older than its end.
//!
//! **Losses.** The kernel says when a socket overran, not by how much ([`EXIT_OVERRUNS`]). A record whose
//! end was lost is dropped after [`MAX_AGE_NS`], an end whose record was lost is told without totals ([`EXIT_TOTALS_LOST`]).

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::time::{ClockId, clock_gettime};
use shared_model::InstanceId;

use super::super::details::{DetailReader, Details, Question};
use super::super::live::Units;
use super::connector::{Connector, Event};
use super::log::{Exit, Group, Interval, Life, Log};
use super::taskstats::{Record, Taskstats};
use super::threads::{End, Threads};
use crate::bpf;
use crate::bpf::records::Comm;
use crate::causes::chain;
use crate::metrics::{EXIT_OVERRUNS, EXIT_TOTALS_LOST};
use crate::procfs::Reader;
use crate::procfs::pid::parse_stat;

/// Between a wake and the look.
const PAUSE: Duration = Duration::from_millis(10);
/// Processes whose command lines are read at one look.
const MAX_READS: usize = 128;
/// Executed programs that wait to be read.
const MAX_EXECUTED: usize = 4096;
/// Records that wait for the end of their thread.
const MAX_RECORDS: usize = 65_536;
/// How long they do.
const MAX_AGE_NS: u64 = 5_000_000_000;
/// By how much a start that was calculated may be before the one that `/proc` says: its clock tick, and one more.
const TICK_SLACK_NS: u64 = 20_000_000;
/// Stack of the thread: it reads into buffers on the heap.
const STACK_BYTES: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Listener {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    pub(super) has_totals: bool,
}

#[derive(Debug)]
struct Shared {
    hub: Mutex<Hub>,
    stops: AtomicBool,
    /// Written to: the thread looks.
    wake: OwnedFd,
}

/// What both the thread and the tick work on.
#[derive(Debug)]
struct Hub {
    proc: PathBuf,
    reader: Reader,
    taskstats: Option<Taskstats>,
    connector: Option<Connector>,
    log: Log,
    threads: Threads,
    /// By thread, with the moment they came.
    records: HashMap<u32, VecDeque<(Record, u64)>>,
    executed: Vec<u32>,
}

impl Listener {
    /// Why not, where the kernel tells no exits.
    pub(super) fn start(proc: &Path, sys: &Path, units: Units) -> Result<Self, String> {
        let path = sys.join("devices/system/cpu/possible");
        let cpus = std::fs::read_to_string(&path).unwrap_or_else(|_| "0".to_owned());
        let taskstats = Taskstats::open(cpus.trim())
            .map_err(|error| format!("cannot listen to taskstats: {}", chain(&error)));
        let connector = Connector::open()
            .map_err(|error| format!("cannot listen to the process connector: {}", chain(&error)));
        let heard = match (&taskstats, &connector) {
            (_, Ok(_)) => Ok(()),
            (Ok(taskstats), Err(_)) if taskstats.knows_processes => Ok(()),
            (Ok(_), Err(reason)) => Err(reason.clone()),
            (Err(one), Err(other)) => Err(format!("{one}; {other}")),
        };
        heard?;
        Self::listen(taskstats.ok(), connector.ok(), proc, units)
    }

    fn listen(
        taskstats: Option<Taskstats>,
        connector: Option<Connector>,
        proc: &Path,
        units: Units,
    ) -> Result<Self, String> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| format!("cannot listen: {error}"))?;
        let has_totals = taskstats.is_some();
        let threads = Threads {
            since_ns: now(ClockId::Boottime),
            page_bytes: units.page_bytes,
            ..Threads::default()
        };
        let hub = Hub {
            proc: proc.into(),
            reader: Reader::default(),
            taskstats,
            connector,
            log: Log::default(),
            threads,
            records: HashMap::new(),
            executed: Vec::new(),
        };
        let fds = hub.descriptors().map_err(|error| format!("cannot listen: {error}"))?;
        let shared = Arc::new(Shared { hub: Mutex::new(hub), stops: AtomicBool::new(false), wake });
        let (worker, proc) = (Arc::clone(&shared), proc.to_owned());
        let thread = std::thread::Builder::new()
            .name("process-exits".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || worker.work(&fds, &proc, units))
            .map_err(|error| format!("cannot listen: {error}"))?;
        Ok(Self { shared, thread: Some(thread), has_totals })
    }

    /// The exits since the last call. Who began before `since_ns` may have a row.
    pub(super) fn interval(&mut self, since_ns: u64) -> Interval {
        let mut hub = self.shared.hub();
        hub.drain();
        if !hub.executed.is_empty() {
            self.shared.wake();
        }
        hub.log.interval(since_ns)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl Shared {
    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It cannot be full: the thread empties it at every look.
        let _written = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// The thread.
    fn work(&self, fds: &[OwnedFd], proc: &Path, units: Units) {
        let mut details = DetailReader::new(proc);
        let mut allowed = MAX_READS;
        loop {
            let mut all: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            all.push(self.wake.as_fd());
            bpf::wait(&all);
            let _emptied = rustix::io::read(&self.wake, &mut [0; 8]);
            std::thread::sleep(PAUSE);
            if self.stops.load(Ordering::Acquire) {
                return;
            }
            allowed = MAX_READS.min(allowed + 1);
            let executed = {
                let mut hub = self.hub();
                hub.drain();
                std::mem::take(&mut hub.executed)
            };
            let questions: Vec<Question> = executed.into_iter().take(allowed).map(ask).collect();
            allowed -= questions.len();
            details.read(&questions, |question, found| {
                if let Some(found) = found {
                    self.hub().began(question.pid, &found, units);
                }
            });
        }
    }
}

/// Whoever has the number `pid` now.
fn ask(pid: u32) -> Question {
    Question { id: InstanceId(pid.into()), pid, start_ticks: None }
}

impl Hub {
    fn descriptors(&self) -> std::io::Result<Vec<OwnedFd>> {
        let sockets =
            [self.taskstats.as_ref().map(AsFd::as_fd), self.connector.as_ref().map(AsFd::as_fd)];
        sockets.into_iter().flatten().map(|fd| fd.try_clone_to_owned()).collect()
    }

    /// Takes everything that both sockets have.
    fn drain(&mut self) {
        let now_ns = now(ClockId::Boottime);
        let asleep_ns = now_ns.saturating_sub(now(ClockId::Monotonic));
        // First the connector: an end comes after its record, so all its ends have theirs then.
        let (mut events, mut records) = (Vec::new(), Vec::new());
        let mut overruns = 0;
        if let Some(connector) = &mut self.connector {
            overruns += connector.drain(|event| events.push(event)).unwrap_or(1);
        }
        if let Some(taskstats) = &mut self.taskstats {
            overruns += taskstats.drain(|record| records.push(record)).unwrap_or(1);
        }
        EXIT_OVERRUNS.add(overruns);
        if overruns > 0 {
            let proc = &self.proc;
            self.threads.forget(|pid| proc.join(pid.to_string()).exists());
        }
        for record in records {
            self.record(record, now_ns);
        }
        for event in events {
            match event {
                Event::Ended { tid, pid, at_ns, status } => {
                    let record = self.record_of(tid);
                    if record.is_none() && self.taskstats.is_some() {
                        EXIT_TOTALS_LOST.add(1);
                    }
                    self.ended(&End { tid, pid, at_ns: at_ns + asleep_ns, status, record });
                }
                Event::Executed { pid } if self.executed.len() < MAX_EXECUTED => {
                    self.executed.push(pid);
                }
                Event::Executed { .. } | Event::Acknowledged(_) => {}
            }
        }
        for exit in self.threads.gone(now_ns) {
            self.tell(exit);
        }
        self.records.retain(|_, waiting| {
            waiting.retain(|(_, came_ns)| now_ns.saturating_sub(*came_ns) < MAX_AGE_NS);
            !waiting.is_empty()
        });
    }

    fn record(&mut self, record: Record, now_ns: u64) {
        if self.connector.is_some() {
            if self.records.len() < MAX_RECORDS {
                self.records.entry(record.tid).or_default().push_back((record, now_ns));
            } else {
                EXIT_TOTALS_LOST.add(1);
            }
        } else if let Some((pid, _)) = record.group {
            let status = record.status;
            let end = End { tid: record.tid, pid, at_ns: now_ns, status, record: Some(record) };
            self.ended(&end);
        }
    }

    fn record_of(&mut self, tid: u32) -> Option<Record> {
        let waiting = self.records.get_mut(&tid)?;
        let record = waiting.pop_front().map(|(record, _)| record);
        if waiting.is_empty() {
            self.records.remove(&tid);
        }
        record
    }

    fn ended(&mut self, end: &End) {
        let (proc, reader) = (&self.proc, std::cell::RefCell::new(&mut self.reader));
        let has_others = |pid: u32| {
            let path = proc.join(format!("{pid}/stat"));
            let mut reader = reader.borrow_mut();
            let stat = reader.read(&path).ok().and_then(|stat| parse_stat(stat).ok());
            stat.is_some_and(|stat| stat.thread_count > 1)
        };
        let earlier = self.threads.ended(end, has_others);
        if let Some(exit) = earlier {
            self.tell(exit);
        }
    }

    fn tell(&mut self, mut exit: Exit) {
        let of = &mut exit.of;
        if let Some(start_ns) = self.log.start_of(of.pid)
            && start_ns <= of.start_ns.saturating_add(TICK_SLACK_NS)
        {
            of.start_ns = start_ns;
            exit.is_start_unknown = false;
        }
        self.log.ended(exit);
    }

    /// `pid` was found to run something.
    fn began(&mut self, pid: u32, found: &Details, units: Units) {
        let mut comm = Comm::default();
        let name = &found.seen.comm[..found.seen.comm.len().min(comm.0.len())];
        comm.0[..name.len()].copy_from_slice(name);
        let of = Life {
            pid,
            start_ns: units.nanoseconds(found.seen.start_ticks),
            at_ns: 0,
            parent_pid: Some(found.seen.parent_pid),
            user_id: found.user_id,
            group: found.cgroup.as_deref().map_or(Group::Unknown, |path| Group::Path(path.into())),
            comm,
        };
        if !found.command_line.is_empty() {
            self.log.began(of, &found.command_line);
        }
    }
}

/// A clock that began at the boot, ns.
fn now(clock: ClockId) -> u64 {
    let now = Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use super::super::log::{Ended, Totals};
    use super::*;

    const UNITS: Units = Units { ticks_per_second: 100, cpu_per_second: 100, page_bytes: 4096 };

    fn listen(taskstats: bool, connector: bool) -> Listener {
        let cpus = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap();
        let taskstats = taskstats.then(|| Taskstats::open(cpus.trim()).unwrap());
        let connector = connector.then(|| Connector::open().unwrap());
        Listener::listen(taskstats, connector, Path::new("/proc"), UNITS).unwrap()
    }

    /// The exit of a shell that lives until its command line was read, and used some CPU.
    fn exit_of_a_shell(listener: &mut Listener) -> Ended {
        let script = "for ((i = 0; i < 50000; i++)); do :; done; exit 5";
        let mut shell = Command::new("bash").args(["-c", script]).spawn().unwrap();
        assert_eq!(shell.wait().unwrap().code(), Some(5));
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let ended = listener.interval(u64::MAX).ended;
            if let Some(ended) = ended.into_iter().find(|it| it.exit.of.pid == shell.id()) {
                return ended;
            }
            assert!(Instant::now() < deadline, "its exit never came");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn used(ended: &Ended) -> Option<u64> {
        ended.exit.totals.map(|Totals { used, .. }| used.runtime_ns)
    }

    #[test]
    fn each_source_tells_what_it_knows() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let both = exit_of_a_shell(&mut listen(true, true));
        assert_eq!(both.exit.status, Some(0x500));
        assert!(used(&both).unwrap() > 1_000_000);
        assert!(both.line.unwrap().starts_with(b"bash\0-c\0for "));
        assert_eq!(both.exit.of.parent_pid, Some(std::process::id()));

        let events = exit_of_a_shell(&mut listen(false, true));
        assert_eq!((events.exit.status, used(&events)), (Some(0x500), None));
        assert!(events.line.is_some() && !events.exit.is_start_unknown, "read when it began");

        let stats = exit_of_a_shell(&mut listen(true, false));
        assert_eq!((stats.exit.status, stats.line), (Some(0x500), None));
        assert_eq!(stats.exit.of.comm.bytes(), b"bash");
        assert!(stats.exit.totals.unwrap().used.runtime_ns > 1_000_000);
    }
}
