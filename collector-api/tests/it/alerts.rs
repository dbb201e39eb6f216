//! From a silent host to a message that arrived, with stand-ins for the providers.

mod alertmanager;
mod channels;
mod dead_letters;
mod delivery;
mod email;
mod endpoints;
mod evidence;
mod hostile;
mod kit;
mod ping;
mod rules;
mod silence;
mod silences;
mod verdicts;
