//! Which of the two ways processes are read by: the BPF iterator where there is one, else `/proc`.
//!
//! An iterator that fails in a tick is replaced by `/proc` in that tick (see [`super::walk`]): what needs the
//! iterator is unknown then.

use crate::bpf::{Bpf, records};

/// Where processes are read.
#[derive(Debug)]
pub(super) enum Source {
    /// `/proc`, and why not the other.
    Proc(String),
    /// The BPF iterator; what it said last.
    Tasks(Vec<records::Process>),
}

impl Source {
    pub(super) fn of(bpf: &Bpf) -> Self {
        match bpf.refusal("tasks") {
            Some(reason) => Self::Proc(reason.to_owned()),
            None => Self::Tasks(Vec::new()),
        }
    }

    /// See [`super::live::Units::cpu_per_second`].
    pub(super) fn cpu_per_second(&self) -> u64 {
        match self {
            Self::Proc(_) => rustix::param::clock_ticks_per_second(),
            Self::Tasks(_) => 1_000_000,
        }
    }
}
