//! What both tiers see of a socket.

use std::net::IpAddr;

use shared_model::TransportProtocol;

/// One TCP or UDP socket as the kernel shows it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its number, unique since the boot (Linux 4.3+; before, its address in the kernel).
    pub cookie: u64,
    /// Of the file that processes hold it by; 0: no process does.
    pub inode: u32,
    /// Who made it.
    pub uid: u32,
    /// Transport.
    pub protocol: TransportProtocol,
    /// `TCP_ESTABLISHED` (1) and so on, `include/net/tcp_states.h`.
    pub state: u8,
    /// Local address, IPv4 also where it was mapped.
    pub local_address: IpAddr,
    /// Local port.
    pub local_port: u16,
    /// Remote address; unspecified where it has none.
    pub remote_address: IpAddr,
    /// Remote port; 0 where it has none.
    pub remote_port: u16,
    /// Since its birth.
    pub counters: Counters,
}

/// Payload that a socket moved since its birth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes received in order.
    pub received: Option<u64>,
    /// Bytes transmitted at least once.
    pub sent: Option<u64>,
    /// Segments transmitted again.
    pub retransmits: Option<u64>,
}

impl Counters {
    /// Those of a socket at its birth.
    pub const BIRTH: Self = Self { received: Some(0), sent: Some(0), retransmits: Some(0) };

    /// `self − before`, field by field; unknown where either is. A counter that fell (a FIN that was not
    /// known to be one) is 0.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let grown = |before: Option<u64>, now: Option<u64>| {
            before.zip(now).map(|(before, now)| now.saturating_sub(before))
        };
        Self {
            received: grown(before.received, self.received),
            sent: grown(before.sent, self.sent),
            retransmits: grown(before.retransmits, self.retransmits),
        }
    }

    /// Whether it moved anything that is known.
    pub fn is_idle(&self) -> bool {
        self.received.unwrap_or(0) == 0 && self.sent.unwrap_or(0) == 0
    }
}
