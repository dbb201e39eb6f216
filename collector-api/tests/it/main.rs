//! The server against real databases.

mod authorities;
mod bad_input;
mod concurrency;
mod doors;
mod enrollment;
mod fleet;
mod kit;
mod lifecycle;
mod maintenance;
mod migrations;
mod poison;
mod verdicts;
