//! The `procfleet-agent` program.
fn main() {}
