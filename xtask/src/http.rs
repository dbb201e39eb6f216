//! The little HTTP that a look at our own loopback door needs. HTTP/1.0: no chunks, no keep-alive.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// No answer of ours is larger.
const MAX_ANSWER_BYTES: u64 = 8 << 20;

/// Status and body of `GET path` on the loopback address.
pub(crate) fn get(port: u16, path: &str, key: Option<&str>) -> Result<(u16, String)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let patience = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, patience)
        .with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let authorization =
        key.map_or_else(String::new, |key| format!("authorization: Bearer {key}\r\n"));
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nhost: {address}\r\naccept: application/json\r\n{authorization}\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).context("read the answer")?;
    parse(&String::from_utf8_lossy(&answer)).context("the answer is not HTTP")
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.lines().next()?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn status_and_body_are_separated() {
        let answer = "HTTP/1.0 404 Not Found\r\ncontent-length: 4\r\n\r\nbody";
        assert_eq!(super::parse(answer), Some((404, "body".to_owned())));
        assert_eq!(super::parse("SSH-2.0-x\r\n\r\n"), None);
    }
}
