//! What this host says of itself.

use std::fs;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use shared_model::HostFacts;
use shared_model::limits::MAX_TEXT_BYTES;

use crate::procfs::Root;

/// Hashed with the machine id, as machine-id(5) asks, so that the hash is of use to Procfleet only.
const APPLICATION_ID: &str = "procfleet-host-v1";

/// Reads uname(2), `os-release` and the ids of the machine. What cannot be read is unknown, never an error.
pub fn read(root: &Root) -> HostFacts {
    let uname = rustix::system::uname();
    let text = |value: &std::ffi::CStr| clean(&value.to_string_lossy());
    let (machine_id_hash, product_uuid_hash) = machine_ids(root);
    let system = fs::read_to_string(root.etc.join("os-release")).ok();
    HostFacts {
        // An empty host name is legal for the kernel, not for a report.
        host_name: Some(text(uname.nodename()))
            .filter(|n| !n.is_empty())
            .unwrap_or("(none)".to_owned()),
        machine_id_hash,
        product_uuid_hash,
        os_description: system.and_then(|text| parse_os_release(&text)),
        kernel_release: text(uname.release()),
        host_arch: text(uname.machine()),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Hashes of `/etc/machine-id` and of `/sys/class/dmi/id/product_uuid`. What cannot be read is unknown, never an error.
pub fn machine_ids(root: &Root) -> (Option<String>, Option<String>) {
    let hash = |path: PathBuf| fs::read_to_string(path).ok().and_then(|id| hash_id(&id));
    (hash(root.etc.join("machine-id")), hash(root.sys.join("class/dmi/id/product_uuid")))
}

/// Of a `machine-id` or a firmware's UUID. Null unless it is 32 hex digits, hyphens aside, that are not all the same:
/// `uninitialized`, an empty file, and what firmware without an id says, are no ids.
pub fn hash_id(id: &str) -> Option<String> {
    let id = id.trim().replace('-', "");
    let same = id.bytes().all(|byte| byte == id.as_bytes()[0]);
    let valid = !same && id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digest =
        Sha256::new().chain_update(APPLICATION_ID).chain_update(id.to_ascii_lowercase()).finalize();
    let hex =
        |byte: &u8| [byte >> 4, byte & 15].map(|n| char::from(b"0123456789abcdef"[usize::from(n)]));
    valid.then(|| digest.iter().flat_map(hex).collect())
}

/// `PRETTY_NAME`, unquoted as os-release(5) says.
fn parse_os_release(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix("PRETTY_NAME="))?.trim();
    let value = ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value);
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    Some(clean(&plain)).filter(|name| !name.is_empty())
}

fn clean(text: &str) -> String {
    let mut text: String = text.chars().filter(|c| !c.is_control()).collect();
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_unquoted() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(parse_os_release(text).as_deref(), expected, "{text:?}");
        };
        check(
            "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
            Some("Debian GNU/Linux 12 (bookworm)"),
        );
        check("PRETTY_NAME='CentOS Linux 7 (Core)'", Some("CentOS Linux 7 (Core)"));
        check("PRETTY_NAME=Plain", Some("Plain"));
        check(r#"PRETTY_NAME="a \"b\" \$c""#, Some("a \"b\" $c"));
        check("PRETTY_NAME=\"\"", None);
        check("NAME=x", None);
    }

    #[test]
    fn only_real_machine_ids_are_hashed() {
        let hash = hash_id("0123456789abcdef0123456789abcdef\n").unwrap();
        assert_eq!(hash.len(), 64);
        assert_eq!(hash_id("0123456789ABCDEF0123456789ABCDEF"), Some(hash.clone()));
        assert!(!hash.contains("0123456789abcdef"));
        assert_eq!(hash_id("uninitialized\n"), None);
        assert_eq!(hash_id(""), None);
    }

    #[test]
    fn this_host_has_a_name_and_a_kernel() {
        let facts = read(&Root::system());
        assert!(!facts.host_name.is_empty() && !facts.kernel_release.is_empty());
        let bare = read(&Root::at(std::path::Path::new("/nonexistent")));
        assert_eq!((bare.machine_id_hash, bare.os_description), (None, None));
    }
}
