//! `procfleet-agent`: the program on a monitored host.
//!
//! `main → agent → {collectors, spool, uplink} → {sockets, procfs, bpf, metrics} → shared-model`. Siblings never
//! import each other; only `uplink` knows TLS and HTTP.

pub mod agent;
pub mod bpf;
pub mod causes;
pub mod centre;
pub mod certificate;
pub mod channel;
pub mod cli;
pub mod collectors;
pub mod config;
pub mod durable;
pub mod enroll;
pub mod facts;
pub mod identity;
pub mod logs;
pub mod machine;
pub mod metrics;
pub mod once;
pub mod procfs;
pub mod profile;
pub mod server_clock;
pub mod show;
pub mod sockets;
pub mod spool;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod top;
pub mod update;
pub mod updater;
pub mod updates;
pub mod uplink;
