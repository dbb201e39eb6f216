//! The PROXY protocol, version 2 (HAProxy's `proxy-protocol.txt`, section 2.2): a balancer that passes
//! TLS through says, before the first byte of TLS, who connected to it.
//!
//! It is read from configured networks only, and there it must come: whether a connection carries it is
//! never guessed. From anybody else its bytes are no TLS, and the handshake fails. The address decides
//! over rates and stands in logs; no identity comes from it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What every header begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Largest rest of a header accepted, bytes: addresses and a few extensions.
const MAX_REST: usize = 1024;

/// A header that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProxyHeaderError {
    /// The connection ended or failed in it.
    #[error("the connection ended in the PROXY header")]
    Io(#[from] io::Error),
    /// Something else came.
    #[error("no PROXY protocol version 2 header")]
    NotAHeader,
    /// Its parts contradict each other.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// Longer than [`MAX_REST`].
    #[error("the PROXY header is too long")]
    TooLong,
}

/// Reads the header. `None`: the proxy speaks for itself, such as a health check, or of an address that
/// is not of the Internet.
pub async fn read_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).await?;
    let [signature @ .., version_command, family, high, low] = head;
    if signature != SIGNATURE || version_command >> 4 != 2 {
        return Err(ProxyHeaderError::NotAHeader);
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_REST {
        return Err(ProxyHeaderError::TooLong);
    }
    let mut rest = [0; MAX_REST];
    let rest = &mut rest[..length];
    stream.read_exact(rest).await?;
    match version_command & 0x0f {
        0 => Ok(None),
        1 => source(family, rest),
        _ => Err(ProxyHeaderError::Malformed),
    }
}

/// Addresses are source, destination, source port, destination port; what follows are extensions.
fn source(family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let malformed = || ProxyHeaderError::Malformed;
    let (ip, port_at) = match family {
        0x11 => {
            let octets: [u8; 4] = *rest.first_chunk().ok_or_else(malformed)?;
            (IpAddr::V4(Ipv4Addr::from(octets)), 8)
        }
        0x21 => {
            let octets: [u8; 16] = *rest.first_chunk().ok_or_else(malformed)?;
            (IpAddr::V6(Ipv6Addr::from(octets)), 32)
        }
        _ => return Ok(None),
    };
    let Some(&[high, low, _, _]) = rest.get(port_at..port_at + 4) else { return Err(malformed()) };
    Ok(Some(SocketAddr::new(ip, u16::from_be_bytes([high, low]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version_command, family], &length, rest].concat()
    }

    async fn read(bytes: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
        let mut bytes = bytes;
        let read = read_header(&mut bytes).await;
        assert!(read.is_err() || bytes == b"TLS", "reads the header and no more: {bytes:?}");
        read
    }

    #[tokio::test]
    async fn the_source_is_read_and_nothing_behind_the_header() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb, 0x03, 0, 1, 9];
        let mut bytes = header(0x21, 0x11, &v4);
        bytes.extend(b"TLS");
        assert_eq!(read(&bytes).await.unwrap(), Some("192.0.2.1:12345".parse().unwrap()));
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        v6[32..34].copy_from_slice(&[0, 80]);
        let mut bytes = header(0x21, 0x21, &v6);
        bytes.extend(b"TLS");
        assert_eq!(read(&bytes).await.unwrap(), Some("[2001:db8::]:80".parse().unwrap()));
        for (command, family) in [(0x20, 0x00), (0x21, 0x00), (0x21, 0x31)] {
            let mut bytes = header(command, family, &[1, 2, 3]);
            bytes.extend(b"TLS");
            assert_eq!(read(&bytes).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let bad = [
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a hello of TLS".to_vec(),
            header(0x11, 0x11, &[0; 12]),
            header(0x22, 0x11, &[0; 12]),
            header(0x21, 0x11, &[0; 11]),
            header(0x21, 0x21, &[0; 35]),
            header(0x21, 0x11, &[0; MAX_REST + 1]),
            header(0x21, 0x11, &[0; 12])[..20].to_vec(),
            Vec::new(),
        ];
        for bytes in bad {
            assert!(read(&bytes).await.is_err(), "{bytes:?}");
        }
    }
}
