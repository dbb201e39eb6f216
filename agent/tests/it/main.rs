//! The agent's integration tests: one binary, one module per subject.

mod fixtures;
mod program;
mod support;
