//! What describes a process: its arguments, executable, cgroup and user. Read beside the sampling path.
//!
//! `cmdline` and, on old kernels, `exe` take the lock of the target's address space and can hang for as long
//! as it is held (a page fault on a dead network file system). So one helper thread reads them, asked
//! only at the first row of an instance, after an exec, and every few hours. A thread that
//! sleeps in one and the same place for [`LOOKS_ASLEEP`] looks, [`LOOK`] apart, hangs: it is set aside with
//! the process it hangs on, at most [`MAX_STUCK`] of them, and another one does the rest. One that waits
//! for a processor on a loaded or throttled host does not hang; it has [`LONGEST`]. A thread set aside ends by itself once the kernel lets it go, and its
//! answer still counts. With all set aside nothing is asked until one comes back; the rows go out
//! all the same (see the dictionary).
//!
//! The directory is opened first and its `stat` compared, so that all details are of the instance that
//! was sampled and not of a later one with its number.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use shared_model::InstanceId;

use super::command_line::{MAX_RAW_BYTES, text};
use crate::metrics::PROCESS_DETAILS_LATE;
use crate::procfs::cgroup::parse_cgroup;
use crate::procfs::pid::{parse_stat, parse_status_user};
use crate::procfs::{Reader, amount_of, open_at, value_of};

/// Between two looks at a helper that has not answered.
const LOOK: Duration = Duration::from_millis(20);
/// Looks in a row that find it in the same sleep: it hangs.
const LOOKS_ASLEEP: u32 = 5;
/// Longest wait for one answer of a helper that gets no processor.
const LONGEST: Duration = Duration::from_secs(2);
/// Threads that may hang at the same time.
const MAX_STUCK: usize = 4;
/// Questions handed over at a time, and answers that may wait.
const QUEUE: usize = 64;
/// Stack of a helper thread: it reads files into buffers on the heap.
const STACK_BYTES: usize = 128 << 10;

/// Whose details are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) id: InstanceId,
    pub(super) pid: u32,
    /// `None`: whoever has the number now.
    pub(super) start_ticks: Option<u64>,
}

/// What the instance was when the rest was read.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) start_ticks: u64,
    pub(super) parent_pid: u32,
    pub(super) comm: Box<[u8]>,
}

/// What was found. Every part may be missing: denied, or not there.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Details {
    /// At most [`MAX_RAW_BYTES`].
    pub(super) command_line: Vec<u8>,
    pub(super) executable_path: Option<String>,
    pub(super) cgroup: Option<String>,
    pub(super) container_id: Option<String>,
    pub(super) pod_uid: Option<String>,
    pub(super) user_id: Option<u32>,
    pub(super) seen: Seen,
}

/// `None`: the instance ended.
type Answer = (Question, Option<Details>);

#[derive(Debug)]
struct Helper {
    questions: SyncSender<Vec<Question>>,
    answers: Receiver<Answer>,
    thread: JoinHandle<()>,
    /// Its thread id, once it runs.
    id: Arc<OnceLock<Pid>>,
}

impl Helper {
    /// The next answer; `None`: it hangs, or gets no processor, or is gone.
    fn wait(&self, reader: &mut Reader) -> Option<Answer> {
        let (mut asleep, mut before) = (0, None);
        for _ in 0..LONGEST.as_millis() / LOOK.as_millis() {
            match self.answers.recv_timeout(LOOK) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = self.sleep(reader);
            let is_same = asleep > 0 && now == before;
            asleep = if now.is_none() { 0 } else { 1 + if is_same { asleep } else { 0 } };
            before = now;
            if asleep >= LOOKS_ASLEEP {
                break;
            }
        }
        // It may have come between the timeout and the look.
        self.answers.try_recv().ok()
    }

    /// Which sleep its thread is in, by the number of times it went to sleep; `None`: it runs, waits for
    /// a processor, or has not begun. Where the kernel does not say, 0: it may hang.
    fn sleep(&self, reader: &mut Reader) -> Option<u64> {
        let id = self.id.get()?.as_raw_nonzero();
        let path = format!("/proc/self/task/{id}/status");
        let Ok(status) = reader.read(Path::new(&path)) else { return Some(0) };
        if value_of(status, "State").is_some_and(|state| state.starts_with(b"R")) {
            return None;
        }
        Some(amount_of(status, "voluntary_ctxt_switches").unwrap_or(0))
    }
}

/// The helper, and those that hang.
#[derive(Debug)]
pub(super) struct DetailReader {
    proc: PathBuf,
    reader: Reader,
    active: Option<Helper>,
    stuck: Vec<(Helper, Question)>,
}

impl DetailReader {
    pub(super) fn new(proc: &Path) -> Self {
        Self { proc: proc.into(), reader: Reader::default(), active: None, stuck: Vec::new() }
    }

    /// Asks, and hands over every answer that came in time, and late ones of earlier ticks.
    pub(super) fn read(
        &mut self,
        questions: &[Question],
        mut take: impl FnMut(Question, Option<Details>),
    ) {
        self.stuck.retain(|(helper, _)| {
            let mut is_stuck = true;
            while let Ok((question, details)) = helper.answers.try_recv() {
                take(question, details);
                is_stuck = false;
            }
            is_stuck
        });
        let unasked: Vec<_> =
            questions.iter().filter(|question| !self.is_stuck_on(question)).copied().collect();
        let mut open = unasked.as_slice();
        while !open.is_empty() {
            let chunk = &open[..open.len().min(QUEUE)];
            let answered = self.read_chunk(chunk, &mut take);
            open = &open[answered..];
            if answered < chunk.len() {
                // The first one without an answer is what the helper hangs on.
                PROCESS_DETAILS_LATE.add(1);
                let hangs_on = chunk[answered];
                open = &open[1..];
                if let Some(helper) = self.active.take() {
                    self.stuck.push((helper, hangs_on));
                }
            }
            if self.active.is_none() && self.stuck.len() >= MAX_STUCK {
                PROCESS_DETAILS_LATE.add(open.len() as u64);
                return;
            }
        }
    }

    fn is_stuck_on(&self, question: &Question) -> bool {
        self.stuck.iter().any(|(_, on)| on.id == question.id)
    }

    /// How many of `chunk` were answered before one was late.
    fn read_chunk(
        &mut self,
        chunk: &[Question],
        take: &mut impl FnMut(Question, Option<Details>),
    ) -> usize {
        if self.active.is_none() {
            self.active = start(self.proc.clone());
        }
        let Some(helper) = &self.active else { return 0 };
        // The helper is idle: its queue of one is empty.
        if helper.questions.try_send(chunk.to_vec()).is_err() {
            return 0;
        }
        for answered in 0..chunk.len() {
            match helper.wait(&mut self.reader) {
                Some((question, details)) => take(question, details),
                None => return answered,
            }
        }
        chunk.len()
    }
}

impl Drop for DetailReader {
    fn drop(&mut self) {
        // Idle, so it ends as soon as its queue closes. Those that hang end when the kernel lets them.
        if let Some(Helper { questions, answers, thread, .. }) = self.active.take() {
            drop((questions, answers));
            let _ended = thread.join();
        }
    }
}

/// `None` if no thread can be had: like one that hangs, the next tick tries again.
fn start(proc: PathBuf) -> Option<Helper> {
    let (questions, to_do) = sync_channel::<Vec<Question>>(1);
    let (done, answers) = sync_channel(QUEUE);
    let id = Arc::new(OnceLock::new());
    let own_id = Arc::clone(&id);
    let work = move || {
        own_id.get_or_init(rustix::thread::gettid);
        let mut reader = Reader::default();
        for questions in to_do {
            for question in questions {
                let details = read_details(&proc, &question, &mut reader);
                if done.send((question, details)).is_err() {
                    return;
                }
            }
        }
    };
    let thread = std::thread::Builder::new()
        .name("process-details".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(work)
        .ok()?;
    Some(Helper { questions, answers, thread, id })
}

/// `None`: it ended, or its number is another's by now.
fn read_details(proc: &Path, question: &Question, reader: &mut Reader) -> Option<Details> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = proc.join(question.pid.to_string());
    let directory = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let stat = parse_stat(reader.read_record_at(&directory, c"stat").ok()?).ok()?;
    if question.start_ticks.is_some_and(|start_ticks| start_ticks != stat.start_ticks) {
        return None;
    }
    let is_kernel_thread = stat.is_kernel_thread;
    let seen =
        Seen { start_ticks: stat.start_ticks, parent_pid: stat.parent_pid, comm: stat.comm.into() };
    let mut details = Details { seen, ..Details::default() };
    if let Ok(status) = reader.read_record_at(&directory, c"status") {
        details.user_id = parse_status_user(status);
    }
    if let Some(cgroup) = reader.read_record_at(&directory, c"cgroup").ok().and_then(parse_cgroup) {
        details.cgroup = Some(text(cgroup.path));
        details.container_id = cgroup.container_id.map(str::to_owned);
        details.pod_uid = cgroup.pod_uid;
    }
    if !is_kernel_thread {
        details.command_line = read_command_line(&directory);
        let target = rustix::fs::readlinkat(&directory, c"exe", Vec::new()).ok();
        details.executable_path = target.map(|target| text(target.as_bytes()));
    }
    Some(details)
}

/// Up to [`MAX_RAW_BYTES`] of `cmdline`; what cannot be read is as if there were none.
fn read_command_line(directory: &OwnedFd) -> Vec<u8> {
    let Ok(file) = open_at(directory, c"cmdline") else { return Vec::new() };
    let mut bytes = vec![0; MAX_RAW_BYTES];
    let mut length = 0;
    while length < bytes.len() {
        match rustix::io::read(&file, &mut bytes[length..]) {
            Ok(0) | Err(_) => break,
            Ok(read) => length += read,
        }
    }
    bytes.truncate(length);
    bytes
}
