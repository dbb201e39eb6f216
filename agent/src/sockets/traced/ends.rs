//! The ring of connections that ended. A thread of its own empties it when it fills, so that it need not
//! hold a whole interval; the tick takes what was gathered.

use std::io::{self, PipeWriter};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::record::{self, Record};
use super::{OBJECT, RING};
use crate::bpf::{self, Bpf};
use crate::metrics::SOCKET_ENDS_LOST;

/// Connections that ended, gathered between two ticks. Beyond, they are counted as lost.
const MAX_ENDS: usize = 65_536;
/// Least time between two looks: the ring is readable as long as anything is in it.
const REST: Duration = Duration::from_millis(200);

/// See the module. Dropped, its thread ends.
pub(super) struct Ends {
    gathering: Arc<Gathering>,
    /// Its closing tells the thread to end.
    _stop: PipeWriter,
}

struct Gathering {
    bpf: Arc<Bpf>,
    records: Mutex<Vec<Record>>,
}

impl Ends {
    pub(super) fn start(bpf: Arc<Bpf>) -> io::Result<Self> {
        let ring = bpf
            .ring_descriptor(OBJECT, RING)
            .ok_or_else(|| io::Error::other("the ring is not there"))?;
        let (stopped, stop) = io::pipe()?;
        let gathering = Arc::new(Gathering { bpf, records: Mutex::new(Vec::new()) });
        let of_thread = Arc::clone(&gathering);
        let gather = move || loop {
            bpf::wait(&[ring.as_fd(), stopped.as_fd()]);
            if bpf::is_ready(stopped.as_fd()) {
                break;
            }
            of_thread.gather();
            thread::sleep(REST);
        };
        thread::Builder::new().name("socket-ends".into()).spawn(gather)?;
        Ok(Self { gathering, _stop: stop })
    }

    /// What ended since the last call.
    pub(super) fn take(&self) -> Vec<Record> {
        self.gathering.gather();
        let mut records = self.gathering.records.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut records)
    }
}

impl Gathering {
    fn gather(&self) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        self.bpf.drain(OBJECT, RING, |bytes| {
            if records.len() >= MAX_ENDS {
                SOCKET_ENDS_LOST.add(1);
            } else if let Some(record) = record::parse(bytes) {
                records.push(record);
            }
        });
    }
}
