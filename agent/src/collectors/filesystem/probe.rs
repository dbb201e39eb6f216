//! Asks a mount that may never answer.
//!
//! Questions are put to one thread. If it does not answer in [`ANSWER_TIMEOUT`] it is left alone with
//! its mount and another one takes over; the mount is not asked again until the thread is back. At
//! most [`MAX_THREADS`] exist in the whole process, however often the collector is built again; beyond
//! that mounts are not asked. A thread that hangs in the kernel ends with the process.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::mountinfo::Mount;

/// How long a mount has to answer. [`MAX_THREADS`] times this stays below the collector's deadline.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Most threads waiting for mounts.
const MAX_THREADS: usize = 8;

static THREADS: AtomicUsize = AtomicUsize::new(0);

type Question<T> = dyn Fn(&Path) -> io::Result<T> + Send + Sync;

/// See the module.
pub struct Prober<T> {
    question: Arc<Question<T>>,
    idle: Option<Asker<T>>,
    stuck: Vec<(PathBuf, Asker<T>)>,
    late: u64,
}

/// One thread; it ends when this is dropped and its question answered.
struct Asker<T> {
    ask: SyncSender<PathBuf>,
    answer: Receiver<io::Result<T>>,
}

impl<T: Send + 'static> Prober<T> {
    /// Asks by `question`, in practice statvfs(2).
    pub fn new(question: impl Fn(&Path) -> io::Result<T> + Send + Sync + 'static) -> Self {
        Self { question: Arc::new(question), idle: None, stuck: Vec::new(), late: 0 }
    }

    /// The answer of the file system at `path`; `None` if it failed, or did not come.
    pub fn ask(&mut self, path: &Path) -> Option<T> {
        if let Some(at) = self.stuck.iter().position(|(stuck, _)| stuck == path) {
            if self.stuck[at].1.answer.try_recv().is_err() {
                self.late += 1;
                return None;
            }
            // It came back: what it says is old, but the thread can ask again.
            self.idle = Some(self.stuck.swap_remove(at).1);
        }
        let Some(asker) = self.idle.take().or_else(|| self.start()) else {
            self.late += 1;
            return None;
        };
        asker.ask.try_send(path.to_owned()).ok()?;
        if let Ok(answer) = asker.answer.recv_timeout(ANSWER_TIMEOUT) {
            self.idle = Some(asker);
            answer.ok()
        } else {
            self.stuck.push((path.to_owned(), asker));
            self.late += 1;
            None
        }
    }

    /// Lets go of mounts that are gone.
    pub fn forget_all_but(&mut self, mounts: &[Mount]) {
        self.stuck.retain(|(stuck, _)| mounts.iter().any(|m| Path::new(&m.mount_point) == stuck));
    }

    /// Mounts that did not answer since the last call.
    pub fn take_late(&mut self) -> u64 {
        std::mem::take(&mut self.late)
    }

    fn start(&self) -> Option<Asker<T>> {
        if THREADS.fetch_add(1, Ordering::Relaxed) >= MAX_THREADS {
            THREADS.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let (ask, asked) = sync_channel::<PathBuf>(1);
        let (reply, answer) = sync_channel(1);
        let question = Arc::clone(&self.question);
        let run = move || {
            while let Ok(path) = asked.recv() {
                if reply.send(question(&path)).is_err() {
                    break;
                }
            }
            THREADS.fetch_sub(1, Ordering::Relaxed);
        };
        if thread::Builder::new().name("filesystem-probe".to_owned()).spawn(run).is_err() {
            THREADS.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Asker { ask, answer })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A prober whose `/dead*` mounts hang until the sender is dropped or sends.
    fn prober() -> (Prober<u32>, SyncSender<()>) {
        let (release, released) = sync_channel::<()>(0);
        let released = Mutex::new(released);
        let prober = Prober::new(move |path| {
            if path.starts_with("/dead") {
                let _released = released.lock().unwrap().recv();
            }
            Ok(7)
        });
        (prober, release)
    }

    #[test]
    fn a_dead_mount_is_late_alone_and_comes_back() {
        let (mut prober, release) = prober();
        assert_eq!(prober.ask(Path::new("/alive")), Some(7));
        assert_eq!(prober.ask(Path::new("/dead")), None);
        assert_eq!(prober.ask(Path::new("/alive")), Some(7), "others go on");
        assert_eq!(prober.ask(Path::new("/dead")), None, "not asked again while it hangs");
        assert_eq!(prober.stuck.len(), 1);
        assert_eq!(prober.take_late(), 2);
        drop(release);
        while prober.ask(Path::new("/dead")).is_none() {
            thread::yield_now();
        }
        assert_eq!(prober.stuck.len(), 0);
    }

    #[test]
    fn threads_are_bounded_across_rebuilds() {
        let (mut first, release) = prober();
        for mount in 0..MAX_THREADS {
            assert_eq!(first.ask(Path::new(&format!("/dead/{mount}"))), None);
        }
        let (mut second, _other) = prober();
        assert_eq!(second.ask(Path::new("/alive")), None, "no thread left to ask with");
        assert_eq!(second.take_late(), 1);
        drop(release);
        while second.ask(Path::new("/alive")).is_none() {
            first.ask(Path::new("/dead/0"));
            first.forget_all_but(&[]);
            thread::yield_now();
        }
    }
}
