//! The agent's integration tests: one binary, one module per subject.

mod fixtures;
mod program;
mod run;
mod support;
mod unprivileged;
