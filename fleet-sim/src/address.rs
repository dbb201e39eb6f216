//! A loopback address of this test's own, and free ports on it.
//!
//! Two tests that run at once must not race for ports, and a server killed and started again must get
//! its port back. On 127.0.0.1 neither can be promised: while the server is down, any outgoing connection
//! of the machine may take its port as source port. All of 127.0.0.0/8 is loopback, and outgoing
//! connections leave from 127.0.0.1; so every test process takes the address made of its pid.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Mutex;

use anyhow::{Context as _, Result};

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// 127.x.y.z of this process, never 127.0.0.1.
pub fn own_address() -> IpAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    // 64 keeps clear of 127.0.0.1; pids end at 2^22.
    IpAddr::V4(Ipv4Addr::new(127, 64 + (high & 63), middle, low))
}

/// A port of [`own_address`] that nobody listens on and that was not given out before.
pub fn free_address() -> Result<SocketAddr> {
    let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    loop {
        let listener = TcpListener::bind((own_address(), 0)).context("bind a free port")?;
        let address = listener.local_addr().context("read the free port")?;
        if given.insert(address.port()) {
            return Ok(address);
        }
    }
}
