//! Processes.
mod redaction;
