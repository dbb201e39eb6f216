//! `GET /v1/install.sh`: the script that installs the agent, made for the release that is mirrored.
//!
//! It holds what a host has to know before it trusts anything: the hash of the binary of each target, where the servers
//! are, and their authorities' certificates. Who fetches the script over a pinned connection has all of it from this server;
//! the rest is public. What is put into it is checked: nothing of a configuration or a manifest ends a shell's quotes.

use shared_model::release::{Manifest, PublicKey, Release};

/// What the script is made of.
const TEMPLATE: &str = include_str!("install.sh");
/// Units that it puts on a host with systemd.
const UNITS: [(&str, &str); 4] = [
    ("procfleet-agent.service", include_str!("../../../deploy/systemd/procfleet-agent.service")),
    (
        "procfleet-agent-update.service",
        include_str!("../../../deploy/systemd/procfleet-agent-update.service"),
    ),
    (
        "procfleet-agent-update.path",
        include_str!("../../../deploy/systemd/procfleet-agent-update.path"),
    ),
    (
        "procfleet-agent-update.timer",
        include_str!("../../../deploy/systemd/procfleet-agent-update.timer"),
    ),
];
/// Of these, what is started.
const ENABLED: &str = "procfleet-agent.service procfleet-agent-update.path";

/// What varies.
pub(super) struct Script<'a> {
    pub(super) release: &'a Release,
    pub(super) manifest: &'a Manifest,
    /// Roots' public keys that hosts are to trust beside those of their build.
    pub(super) trusted_keys: &'a [PublicKey],
    /// Of agents, in order of preference.
    pub(super) endpoints: &'a [String],
    /// Where the release is served under a certificate that hosts trust anyway; none: by the endpoints.
    pub(super) public_url: Option<&'a str>,
    /// Hashes of the server authorities' keys, as tokens have them.
    pub(super) pins: &'a [String],
    /// Their certificates.
    pub(super) authorities_pem: &'a str,
}

/// Something that may not stand in a script.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotPlain {
    #[error("{0:?} cannot stand in the install script: it is no plain https:// address")]
    Address(String),
    #[error("the release cannot be written as JSON")]
    Release(#[from] serde_json::Error),
}

impl Script<'_> {
    /// The script.
    pub(super) fn render(&self) -> Result<String, NotPlain> {
        for url in self.endpoints.iter().map(String::as_str).chain(self.public_url) {
            let is_plain = url.starts_with("https://")
                && url.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:/[]".contains(&b));
            if !is_plain {
                return Err(NotPlain::Address(url.to_owned()));
            }
        }
        let artifacts = self.manifest.artifacts.iter();
        let artifacts: Vec<String> = artifacts
            .map(|artifact| format!("{} {} {}", artifact.target, artifact.sha256, artifact.size))
            .collect();
        let endpoints = self.endpoints.join(" ");
        let sources = self.public_url.unwrap_or(&endpoints).trim_end_matches('/');
        let units: Vec<String> = UNITS
            .iter()
            .map(|(name, unit)| format!("write_unit {name} <<'UNIT'\n{}\nUNIT", unit.trim_end()))
            .collect();
        // One line: JSON escapes what would end it.
        let release = serde_json::to_string(self.release)?;
        let keys: Vec<String> = self.trusted_keys.iter().map(ToString::to_string).collect();
        let names: Vec<&str> = UNITS.iter().map(|(name, _)| *name).collect();
        let values = [
            ("@VERSION@", self.manifest.version.as_str()),
            ("@ARTIFACTS@", &artifacts.join("\n")),
            ("@ENDPOINTS@", &endpoints),
            ("@SOURCES@", sources),
            ("@PUBLIC@", if self.public_url.is_some() { "yes" } else { "" }),
            ("@PINS@", &self.pins.join(" ")),
            ("@AUTHORITY@", self.authorities_pem.trim_end()),
            ("@RELEASE@", &release),
            ("@KEYS@", &keys.join(" ")),
            ("@UNITS@", &units.join("\n")),
            ("@UNIT_NAMES@", &names.join(" ")),
            ("@ENABLED@", ENABLED),
        ];
        let fill = |text: String, (name, value): &(&str, &str)| text.replace(name, value);
        Ok(values.iter().fold(TEMPLATE.to_owned(), fill))
    }
}

#[cfg(test)]
mod tests {
    use shared_model::release::{Artifact, Signed};
    use time::macros::datetime;

    use super::*;

    fn manifest() -> Manifest {
        let sha256 = "a".repeat(64);
        Manifest {
            seq: 1,
            version: "1.2.3".into(),
            created_at: datetime!(2026-01-02 03:04:05 UTC),
            artifacts: vec![Artifact { target: "x86_64-linux".into(), size: 7, sha256 }],
            allow_downgrade_to: Vec::new(),
            yanked: Vec::new(),
        }
    }

    fn release() -> Release {
        let signed = |payload: &str| Signed { payload: payload.into(), signatures: Vec::new() };
        Release { signing_keys: signed("a\nRELEASE\nreboot"), manifest: signed("b'") }
    }

    fn render(endpoint: &str, public_url: Option<&str>) -> Result<String, NotPlain> {
        let (endpoints, pins) = ([endpoint.to_owned()], ["00".to_owned()]);
        let authorities_pem = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
        Script {
            release: &release(),
            manifest: &manifest(),
            trusted_keys: &[],
            endpoints: &endpoints,
            public_url,
            pins: &pins,
            authorities_pem,
        }
        .render()
    }

    #[test]
    fn everything_is_filled_in() {
        let script = render("https://c.example:7443", None).unwrap();
        assert!(script.contains(&format!("artifacts='x86_64-linux {} 7'", "a".repeat(64))));
        assert!(script.contains("sources='https://c.example:7443'"), "{script}");
        assert!(script.contains("write_unit procfleet-agent.service <<'UNIT'\n"), "{script}");
        let left: Vec<&str> = script
            .split('@')
            .filter(|word| {
                word.len() > 2 && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
            })
            .collect();
        assert_eq!(left, Vec::<&str>::new());
        let public = render("https://c:1", Some("https://get.example/")).unwrap();
        assert!(public.contains("sources='https://get.example'\n"), "{public}");
        assert!(public.contains("is_public='yes'"), "{public}");
        assert_eq!(script.lines().filter(|line| *line == "RELEASE").count(), 1, "{script}");
    }

    #[test]
    fn nothing_ends_the_quotes() {
        for bad in ["https://c'; reboot; '", "http://c:1", "https://c:1/$(reboot)", "https://c\n"] {
            assert!(render(bad, None).is_err(), "{bad}");
            assert!(render("https://c:1", Some(bad)).is_err(), "{bad}");
        }
    }
}
