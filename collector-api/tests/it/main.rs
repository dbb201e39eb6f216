//! The server against real databases.
#![expect(clippy::unwrap_used, reason = "a test says what failed by failing there")]

mod alerts;
mod api;
mod authorities;
mod bad_input;
mod canaries;
mod certificates;
mod cli;
mod commit;
mod community;
mod concurrency;
mod configuration;
mod dictionaries;
mod doors;
mod enrollment;
mod exits;
mod fleet;
mod grafana;
mod host_identity;
mod host_labels;
mod kit;
mod lifecycle;
mod liveness;
mod maintenance;
mod migrations;
mod numbers;
mod openapi;
mod overload;
mod poison;
mod proxied;
mod reader;
mod rollups;
mod rotation;
mod upkeep;
mod verdicts;
