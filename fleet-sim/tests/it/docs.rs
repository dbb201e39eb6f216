//! The documents are held to the truth: commands in them are run, what they name exists.
//!
//! A fenced block says what it is: `sh test=<name>` is run by the test of that name, in the order of the page;
//! `<language> example` is for another system or needs what no test has; `toml server` and `toml agent` are read as those
//! programs read them.

mod blocks;
mod named;
mod run;
