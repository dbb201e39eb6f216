//! From a silent host to a message that arrived, with stand-ins for the providers.

mod channels;
mod delivery;
mod hostile;
mod kit;
mod ping;
mod rules;
mod silence;
mod silences;
mod verdicts;
