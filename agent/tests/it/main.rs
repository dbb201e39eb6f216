//! The agent's integration tests: one binary, one module per subject.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failed step fails the test")]

mod adds_up;
mod fixtures;
mod lives;
mod old_kernel;
mod program;
mod run;
mod sockets;
mod stuck;
mod support;
mod top;
mod unprivileged;
mod updates;
