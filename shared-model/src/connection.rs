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

/// How far its bytes travelled: so that a host's totals count nothing twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionScope {
    /// Within one network namespace: a loopback address, or both ends have the same address. The
    /// other end is a row of the same host.
    Loopback,
    /// Between two network namespaces of this host (veth, bridge, macvlan): the remote address
    /// belongs to another namespace of the host. The other end is a row of the same host.
    Local,
    /// To another host, or through something that hides the other end (NAT, a virtual machine).
    External,
}

impl TransportProtocol {
    /// The word on the wire and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl Direction {
    /// The word on the wire and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

impl ConnectionScope {
    /// The word on the wire and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Local => "local",
            Self::External => "external",
        }
    }
}

/// One connection, or several folded into one row, over one interval.
///
/// Rows are folded by (instance, protocol, scope, direction, remote address, service port): the
/// service port is `local_port` of inbound rows and `remote_port` of outbound ones; the other port is
/// then `0`. The rest beyond the agent's limit of rows is one row per (instance, protocol, scope, direction)
/// with the unspecified address `0.0.0.0` on both sides and both ports `0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionSample {
    /// Transport.
    pub protocol: TransportProtocol,
    /// Local address; IPv4 also where the socket is IPv6 with a mapped address.
    pub local_address: IpAddr,
    /// Local port; `0` where the local ports of several connections were folded.
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
    /// Null where it could not be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<ConnectionScope>,
    /// Several processes hold the socket (forked, passed, activated); it is counted once, for the
    /// lowest process id of those that hold it. In a folded row: this is so for some of it.
    #[serde(default)]
    pub shared: bool,
    /// Connections in this row, those that ended in the interval included.
    pub connection_count: u32,
    /// Received, delta, bytes of payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_bytes: Option<u64>,
    /// Transmitted, delta, bytes of payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transmit_bytes: Option<u64>,
    /// Segments transmitted again, delta. TCP only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<u64>,
}
