//! Network truth: processes that move known bytes, and what the agent says of them, on both tiers.

pub(crate) mod host;
pub(crate) mod peer;
mod sharing;
mod truth;
