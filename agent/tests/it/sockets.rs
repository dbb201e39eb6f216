//! Network truth: processes that move known bytes, and what the agent says of them, on both tiers.

mod host;
mod peer;
mod sharing;
mod truth;
