//! The operators' API over real databases, with data of known values.

mod access;
mod alerts;
mod cancel;
mod chunks;
mod connections;
mod errors;
mod exits;
pub(crate) mod hosts;
mod kit;
mod maintenance;
mod pictures;
mod processes;
mod routes;
mod runs;
mod samples;
mod session;
mod top;
mod windows;
