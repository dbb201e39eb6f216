//! End to end: real agents, real servers, real databases, and the truth known beforehand.
//!
//! The programs are found beside this test's binary, built by `cargo build --workspace --bins`. A
//! missing program or database is a failure that says what to run, never a skip.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failed step fails the test")]

mod balancers;
mod browser;
mod certificates;
mod clock;
mod clones;
mod configuration;
mod delivery;
mod deploy;
mod docs;
mod endpoints;
mod exactly_once;
mod fallback;
mod faults;
mod first_culprit;
mod fleet;
mod goodbye;
mod install;
mod kernel_to_table;
mod kit;
mod load_balancer;
mod outage;
mod packages;
mod pooler;
mod replica_kills;
mod rotation;
mod schemathesis;
mod secrets;
mod thousand_processes;
mod tokens_at_rest;
mod updates;
