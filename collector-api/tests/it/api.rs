//! The operators' API over real databases, with data of known values.

mod access;
mod errors;
mod hosts;
mod kit;
mod processes;
mod samples;
