//! The test kit: real servers, agents, load balancers and databases as processes of a test, simulated
//! agents with an oracle of what they sent, and a proxy that misbehaves on purpose.
//!
//! Every process started here is the child of the test, dies with it, and listens only on a loopback
//! address of the test's own ([`address`]). Nothing here waits by sleeping for a fixed time: conditions
//! are polled with a deadline ([`eventually`]).
//!
//! The kit is test code that happens to live in a library, so that `collector-api`'s tests can use it
//! too: it panics and uses `anyhow` where a test would.

pub mod address;
pub mod agent;
pub mod bench_agent;
pub mod bench_alerts;
pub mod bench_fleet;
pub mod bench_ingest;
pub mod bench_query;
pub mod bench_storage;
pub mod bench_web;
pub mod child;
pub mod database;
pub mod eventually;
pub mod faketime;
pub mod faults;
pub mod fleet;
pub mod haproxy;
pub mod heartbeats;
pub mod installed;
pub mod network;
pub mod nginx;
pub mod oracle;
pub mod panels;
pub mod pgbouncer;
pub mod postgres;
pub mod provider;
pub mod proxy;
pub mod random;
pub mod releases;
pub mod replica_kills;
pub mod rootfs;
pub mod server;
pub mod simulated;
pub mod spooled;
pub mod tier;
pub mod volume;
pub mod workload;
