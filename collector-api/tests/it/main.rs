//! The server against real databases.

mod bad_input;
mod concurrency;
mod kit;
mod maintenance;
mod migrations;
mod poison;
mod verdicts;
