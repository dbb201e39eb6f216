//! Connections: who talked to whom, and how much.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::InstanceId;

/// Transport of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportProtocol {
    /// TCP, MPTCP subflows included.
    Tcp,
    /// UDP and UDP-Lite.
    Udp,
}

/// Which side opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The local side connected.
    Outbound,
    /// The local side listens on `local_port`.
    Inbound,
}

/// One connection, or several folded into one row, over one interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionSample {
    /// Transport.
    pub protocol: TransportProtocol,
    /// Local address; IPv4 also where the socket is IPv6 with a mapped address.
    pub local_address: IpAddr,
    /// Local port.
    pub local_port: u16,
    /// Remote address.
    pub remote_address: IpAddr,
    /// Remote port; `0` where the remote ports of several connections were folded.
    pub remote_port: u16,
    /// Null where it could not be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Owner; null is unattributed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<InstanceId>,
    /// Connections in this row.
    pub connection_count: u32,
    /// Received, delta, bytes of payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_bytes: Option<u64>,
    /// Transmitted, delta, bytes of payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transmit_bytes: Option<u64>,
}
