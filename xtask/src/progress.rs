//! One line per step with its elapsed time: on a terminal it counts while the step runs,
//! otherwise (CI, a pipe) a line at its start, one every 20 s, and one at its end.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Between two signs of life when nobody watches a terminal.
const QUIET_REMINDER: Duration = Duration::from_secs(20);

/// A running step; dropping it without `done` reports a failure.
pub(crate) struct Step {
    name: String,
    started: Instant,
    note: Note,
    stop: Arc<AtomicBool>,
    ticker: Option<JoinHandle<()>>,
}

/// What a step is at, shown behind its name.
#[derive(Clone, Default)]
pub(crate) struct Note(Arc<Mutex<String>>);

impl Note {
    /// Shows this from now on.
    pub(crate) fn set(&self, note: &str) {
        note.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// As it is shown.
    fn suffix(&self) -> String {
        let note = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if note.is_empty() { String::new() } else { format!(": {note}") }
    }
}

impl Step {
    /// Shows the step and counts its seconds.
    pub(crate) fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        let started = Instant::now();
        let (stop, note) = (Arc::new(AtomicBool::new(false)), Note::default());
        let ticker = thread::spawn({
            let (name, stop, note) = (name.clone(), Arc::clone(&stop), note.clone());
            move || tick(&name, started, &stop, &note)
        });
        Self { name, started, note, stop, ticker: Some(ticker) }
    }

    /// Where to say what it is at.
    pub(crate) fn note(&self) -> Note {
        self.note.clone()
    }

    /// Ends the step; `detail` says what came out, empty is fine.
    pub(crate) fn done(mut self, detail: &str) {
        self.finish("ok", detail);
    }

    fn finish(&mut self, word: &str, detail: &str) {
        let Some(ticker) = self.ticker.take() else { return };
        self.stop.store(true, Ordering::Release);
        ticker.thread().unpark();
        drop(ticker.join());
        let clear = if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
        let separator = if detail.is_empty() { "" } else { ": " };
        eprintln!(
            "{clear}{word:>6} {:>7.1} s  {}{separator}{detail}",
            self.started.elapsed().as_secs_f64(),
            self.name
        );
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.finish("FAILED", "");
    }
}

fn tick(name: &str, started: Instant, stop: &AtomicBool, note: &Note) {
    let terminal = std::io::stderr().is_terminal();
    let mut next = Duration::ZERO;
    while !stop.load(Ordering::Acquire) {
        let elapsed = started.elapsed();
        if terminal {
            eprint!("\r\x1b[K   ... {:>7} s  {name}{}", elapsed.as_secs(), note.suffix());
            drop(std::io::stderr().flush());
            thread::park_timeout(Duration::from_millis(500));
            continue;
        }
        // A step that is done within a second needs no line of its own for its start.
        if elapsed >= next && elapsed >= Duration::from_secs(1) {
            eprintln!("   ... {:>7} s  {name}{}", elapsed.as_secs(), note.suffix());
            next = elapsed + QUIET_REMINDER;
        }
        thread::park_timeout(Duration::from_millis(250));
    }
}

/// Polls `condition` until it gives a value or `patience` is over.
pub(crate) fn poll<T>(
    patience: Duration,
    mut condition: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let started = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(Some(value));
        }
        if started.elapsed() > patience {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(100));
    }
}
