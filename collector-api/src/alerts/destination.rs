//! Where messages may go. The name is resolved once, every address is looked at, and the connection is
//! made to those very addresses: a name that changes its mind in between gains nothing.
//!
//! Never: what names this machine or its link (loopback, link-local and with it cloud metadata,
//! unspecified, multicast), unless the configuration's `[alerts] allowed_networks` names it. Private
//! networks are allowed: receivers on the premises are the rule.

use std::net::{IpAddr, SocketAddr};

use reqwest::Url;

use crate::config::network::Network;

/// Whether a message may go to `address`.
pub fn is_allowed(address: IpAddr, allowed: &[Network]) -> bool {
    let address = address.to_canonical();
    let forbidden = match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets()[0] == 0
                || v4.octets() == [100, 100, 100, 200]
        }
        IpAddr::V6(v6) => {
            // NAT64 and 6to4 carry an IPv4 address in an IPv6 one: nobody's webhook lives there.
            let head = v6.segments();
            v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || head[..2] == [0x64, 0xff9b]
                || head[0] == 0x2002
                || head[..6] == [0; 6]
                || head == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        }
    };
    !forbidden || allowed.iter().any(|network| network.contains(address))
}

/// Why a message cannot go there. No text holds the address: it may be a credential.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// Not `http` or `https` with a host.
    #[error("the address is no http or https URL with a host")]
    NoUrl,
    /// The name has no address.
    #[error("the name of the receiver cannot be resolved")]
    Unresolved(#[source] std::io::Error),
    /// See the module.
    #[error(
        "the receiver {0} is this machine, its link or a multicast group: name its network in alerts.allowed_networks if it is meant"
    )]
    Forbidden(IpAddr),
}

/// The addresses of `url`'s host, every one of them allowed.
pub async fn resolve(url: &Url, allowed: &[Network]) -> Result<Vec<SocketAddr>, DestinationError> {
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() {
        return Err(DestinationError::NoUrl);
    }
    let host = url.host_str().ok_or(DestinationError::NoUrl)?;
    let port = url.port_or_known_default().ok_or(DestinationError::NoUrl)?;
    resolve_host(host, port, allowed).await
}

/// The addresses of a host, every one of them allowed.
pub async fn resolve_host(
    host: &str,
    port: u16,
    allowed: &[Network],
) -> Result<Vec<SocketAddr>, DestinationError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
        .await
        .map_err(DestinationError::Unresolved)?
        .collect();
    match found.iter().find(|address| !is_allowed(address.ip(), allowed)) {
        Some(address) => Err(DestinationError::Forbidden(address.ip())),
        None => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_its_link_are_forbidden_in_every_spelling() {
        let forbidden = [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ];
        for address in forbidden {
            assert!(!is_allowed(address.parse().unwrap(), &[]), "{address}");
        }
        for address in ["10.1.2.3", "192.168.1.1", "8.8.8.8", "2001:db8::1", "fd00::1"] {
            assert!(is_allowed(address.parse().unwrap(), &[]), "{address}");
        }
        let network = |text: &str| Network::try_from(text.to_owned()).unwrap();
        let allowed = [network("127.0.0.0/8"), network("::1/128")];
        for (address, is) in
            [("127.0.0.1", true), ("::ffff:127.0.0.1", true), ("::1", true), ("169.254.1.1", false)]
        {
            assert_eq!(is_allowed(address.parse().unwrap(), &allowed), is, "{address}");
        }
    }
}
