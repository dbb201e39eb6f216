//! Idle TCP connections over loopback, held by children, both ends of each.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::child;

/// Most connections of one child: 4,000 descriptors fit every usual limit.
const PER_CHILD: usize = 2000;

/// The children; they end with their standard input.
pub(super) struct Connections(Vec<Child>);

impl Connections {
    /// Returns when all are established.
    pub(super) fn start(count: usize) -> Result<Self> {
        let mut connections = Self(Vec::new());
        let mut left = count;
        while left > 0 {
            let part = left.min(PER_CHILD);
            left -= part;
            let mut child = child::command(&std::env::current_exe()?)
                .args(["hold-connections", &part.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("start a holder of connections")?;
            let output = child.stdout.take();
            connections.0.push(child);
            let mut line = String::new();
            BufReader::new(output.context("its output")?).read_line(&mut line)?;
            ensure!(line == "ready\n", "a holder of connections says {line:?}");
        }
        Ok(connections)
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        // What cannot be killed or reaped has ended.
        for child in &mut self.0 {
            child.kill().unwrap_or_default();
            drop(child.wait());
        }
    }
}

/// Establishes `count` connections, says so, and holds them until standard input ends.
pub(super) fn hold(count: usize) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .context("raise the limit of open files")?;
    let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
    let address = listener.local_addr()?;
    let mut held = Vec::with_capacity(2 * count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).context("connect")?;
        let (mut other, _) = listener.accept().context("accept")?;
        // So that no connection is without traffic.
        stream.write_all(&[1; 100])?;
        other.read_exact(&mut [0; 100])?;
        held.extend([stream, other]);
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(held);
    Ok(())
}
