//! The `procfleet-server` program.
fn main() {}
