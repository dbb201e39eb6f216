//! `top` on a terminal of its own.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::program::program;
use crate::support::wait_for;

/// Leaves the alternate screen; shows the cursor.
const RESTORED: [&str; 2] = ["\x1b[?1049l", "\x1b[?25h"];

/// The program on a pseudo-terminal.
struct Session {
    child: Child,
    keyboard: File,
    terminal: OwnedFd,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Session {
    fn start() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = openpt(flags).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        let size = Winsize { ws_row: 30, ws_col: 140, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).unwrap();
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let child = program()
            .args(["top", "--interval", "300ms"])
            .env("TERM", "xterm")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keyboard = File::from(controller);
        let (mut screen, all) = (keyboard.try_clone().unwrap(), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut bytes) {
                all.lock().unwrap().extend_from_slice(&bytes[..length]);
            }
        });
        Self { child, keyboard, terminal, seen }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    fn wait_to_see(&mut self, text: &str) {
        wait_for(text, || {
            assert_eq!(self.child.try_wait().unwrap(), None, "it ended: {}", self.text());
            self.text().contains(text).then_some(())
        });
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    /// Its exit code, once it ended and gave the terminal back.
    fn end(mut self) -> Option<i32> {
        let status = wait_for("its end", || self.child.try_wait().unwrap());
        wait_for("the screen given back", || {
            RESTORED.iter().all(|code| self.text().contains(code)).then_some(())
        });
        assert!(!self.is_raw(), "the terminal is as it was");
        status.code()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

#[test]
fn it_shows_processes_obeys_keys_and_gives_the_terminal_back() {
    let mut session = Session::start();
    // Only what changes on the screen is drawn: words, but not the spaces between them.
    session.wait_to_see("COMMAND");
    assert!(session.is_raw());
    session.keyboard.write_all(b"n").unwrap();
    session.wait_to_see("network");
    session.keyboard.write_all(b"e").unwrap();
    session.wait_to_see("Ended,");
    session.keyboard.write_all(b"q").unwrap();
    assert_eq!(session.end(), Some(0));
}

#[test]
fn a_signal_gives_the_terminal_back() {
    for signal in [Signal::TERM, Signal::HUP] {
        let mut session = Session::start();
        session.wait_to_see("Looking");
        kill_process(Pid::from_child(&session.child), signal).unwrap();
        assert_eq!(session.end(), Some(0), "{signal:?}");
    }
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let (code, _, errors) = crate::program::output(program().arg("top"));
    assert_eq!(code, Some(1));
    assert!(errors.contains("once --json"), "{errors}");
}
