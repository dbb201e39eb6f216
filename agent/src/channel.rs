//! Who is told when no server answers: what the configuration says of it ([`crate::uplink::fallback`] acts on it).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[fallback]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// What is at the address.
    pub kind: Kind,
    /// Holds the address, which is a credential: for its owner alone to read.
    pub url_file: PathBuf,
    /// How long no server may answer before somebody is told, s.
    pub after_s: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kind: Kind::Off,
            url_file: PathBuf::from("/etc/procfleet/fallback-url"),
            after_s: 600,
        }
    }
}

/// What is at the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Nobody is told.
    #[default]
    Off,
    /// A group robot of WeCom.
    Wecom,
    /// Whatever takes a POST of JSON.
    Webhook,
}
