//! End to end: real agents, real servers, real databases, and the truth known beforehand.
//!
//! The programs are found beside this test's binary, built by `cargo build --workspace --bins`. A
//! missing program or database is a failure that says what to run, never a skip.

mod kit;
