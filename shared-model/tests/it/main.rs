//! The contract under test: golden encodings, round trips, validation, and the paste.

#![cfg(test)]
mod arbitrary;
mod golden;
mod join_token;
mod round_trip;
mod validation;
