//! What collectors work by and what may change between two ticks, without a restart.
//!
//! Handed to everybody with every tick: nobody keeps a copy that could grow old, and nothing that was
//! expensive to build (BPF programs, baselines of counters) has to be built again because of a change.

use super::{block_device, filesystem, network_interface};
use crate::profile::{Pattern, Profile};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What is recorded.
    pub profile: Profile,
    /// Hidden in command lines beside what always is.
    pub redaction_patterns: Vec<Pattern>,
    /// Names of collectors that do not work.
    pub disabled: Vec<String>,
    /// Which file systems are reported.
    pub filesystem: filesystem::Options,
    /// Which block devices are reported.
    pub block_device: block_device::Options,
    /// Which interfaces are reported.
    pub network_interface: network_interface::Options,
}
