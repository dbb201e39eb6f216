//! The doors: where connections come in, and everything that protects a handler from them.
//!
//! The agent door speaks TLS with our own certificates; the operator door plain HTTP on loopback, or
//! TLS from files. They are never the same listener, and neither serves a route of the other.
//!
//! A third one, the proxied door, is for proxies that end the agents' TLS ([`forwarded`]); off unless
//! configured.
//!
//! A connection passes, in this order: the networks it may come from, the accept limit (beyond it: closed at once, counted, nothing
//! parsed), the limit on connections without a verified client certificate, the PROXY header where there is one, the TLS handshake with
//! its timeout, the limit on connections of one host, the header timeout, the request timeout, the
//! body limit of the route. A connection that never proved a host's identity serves one request and has [`ANONYMOUS_IDLE`] to ask it, so
//! that strangers can hold few connections, briefly, and never those of the fleet. A verified one is
//! kept for [`Door::max_age`] ± 20 %, so that new replicas behind a TCP balancer get their share.
//!
//! HTTP/1.1 only: an agent has one request in flight, and a multiplexed connection would need its
//! own set of limits.

pub mod connection;
pub mod forwarded;
pub mod layers;
pub mod limits;
pub mod proxied;
pub mod proxy_protocol;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::config::OperatorDoor;
use crate::config::network::Network;
use crate::lifecycle::Lifecycle;
use crate::metrics::{CONNECTIONS_FAILED, CONNECTIONS_SHED};

/// Time for a TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a whole request head, and between requests, without a verified certificate.
pub const ANONYMOUS_IDLE: Duration = Duration::from_secs(10);
/// The same for a verified host: above the 90 s after which common clients drop an idle connection
/// themselves, so that requests rarely meet a closing one.
pub const VERIFIED_IDLE: Duration = Duration::from_secs(100);
/// The same at the operator door: longer than browsers and Grafana pause between questions.
pub const OPERATOR_IDLE: Duration = Duration::from_secs(20);
/// Time from the end of a request's head to its answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a verified host, whose reports have limits of their own (the body's arrival, the
/// group commit): this is what holds when those fail.
pub const VERIFIED_REQUEST_TIMEOUT: Duration = Duration::from_mins(2);
/// Age after which a connection to the operator door is closed with its next answer, ± 20 %. The agent door's is
/// configured.
pub const MAX_OPERATOR_CONNECTION_AGE: Duration = Duration::from_mins(10);
/// Largest request head, bytes.
pub const MAX_HEAD_BYTES: usize = 16 << 10;
/// Pause after a failed `accept` (out of descriptors): the listener's backlog holds the clients.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The peer's address, in every request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub SocketAddr);

/// A listener and what it serves.
pub struct Door {
    /// `agent`, `proxied` or `operator`: label of metrics and logs.
    pub name: &'static str,
    /// Bound already, so that a taken port fails the start.
    pub listener: TcpListener,
    /// Who may be connected.
    pub limits: limits::ConnectionLimits,
    /// Age after which a connection is closed with its next answer, ± 20 %.
    pub max_age: Duration,
    /// None: plain HTTP.
    pub tls: Option<tls::LiveTls>,
    /// Networks whose connections are taken; none: all.
    pub only_from: Option<Vec<Network>>,
    /// Networks whose connections begin with a PROXY header.
    pub proxy_protocol_from: Vec<Network>,
    /// The routes.
    pub router: Router,
}

/// A door that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The address cannot be bound.
    #[error(
        "the {door} door cannot listen on {address}: if another program has the port, stop it or set PROCFLEET_{variable}__LISTEN to another one"
    )]
    Bind {
        /// Which door.
        door: &'static str,
        /// Where.
        address: SocketAddr,
        /// First part of the variable that changes it.
        variable: &'static str,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Anybody could say to be any host.
    #[error(
        "the proxied door believes what proxies say: set proxied_door.trusted_proxies to their networks, and proxied_door.proxy_ca_file or proxied_door.secret_file"
    )]
    AnyProxy,
    /// The name of a header.
    #[error("proxied_door.certificate_header is not the name of a header: {0:?}")]
    Header(String),
    /// The secret of the proxy.
    #[error("the proxy's secret {} {advice}", .path.display())]
    Secret {
        /// Its file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        advice: String,
    },
    /// Plain HTTP would leave this machine.
    #[error(
        "the operator door would send API keys in clear over the network: {0} is not a loopback address. Set operator_door.tls_certificate_file and operator_door.tls_key_file, or, behind a proxy that encrypts, operator_door.insecure = true"
    )]
    Insecure(SocketAddr),
}

/// Binds the listener of a door.
pub async fn bind(door: &'static str, address: SocketAddr) -> Result<TcpListener, DoorError> {
    let variable = match door {
        "agent" => "AGENT_DOOR",
        "proxied" => "PROXIED_DOOR",
        _ => "OPERATOR_DOOR",
    };
    TcpListener::bind(address).await.map_err(|source| DoorError::Bind {
        door,
        address,
        variable,
        source,
    })
}

/// Refuses to carry API keys in clear over a network, unless told to.
pub fn check_operator_door(config: &OperatorDoor) -> Result<(), DoorError> {
    let tls = config.tls_certificate_file.is_some() || config.tls_key_file.is_some();
    if tls || config.insecure || config.listen.ip().to_canonical().is_loopback() {
        Ok(())
    } else {
        Err(DoorError::Insecure(config.listen))
    }
}

impl Door {
    /// Accepts until `stop`, then waits for the connections, at most until `kill`.
    pub async fn run(self, lifecycle: Lifecycle) {
        let Self { name, listener, limits, max_age, tls, only_from, proxy_protocol_from, router } =
            self;
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = lifecycle.stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    metrics::counter!(CONNECTIONS_FAILED, "door" => name, "reason" => "accept")
                        .increment(1);
                    tracing::warn!(door = name, %error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let is_in = |networks: &[Network]| networks.iter().any(|net| net.contains(peer.ip()));
            if only_from.as_ref().is_some_and(|networks| !is_in(networks)) {
                metrics::counter!(CONNECTIONS_FAILED, "door" => name, "reason" => "untrusted_proxy")
                    .increment(1);
                continue;
            }
            match limits.admit() {
                Ok(admission) => {
                    let connection = connection::Connection {
                        door: name,
                        peer,
                        has_proxy_header: is_in(&proxy_protocol_from),
                        acceptor: tls.as_ref().map(|tls| Arc::clone(&tls.borrow()).into()),
                        router: router.clone(),
                        lifecycle: lifecycle.clone(),
                        admission,
                        max_age,
                    };
                    connections.spawn(connection.run(stream));
                }
                Err(place) => {
                    metrics::counter!(CONNECTIONS_SHED, "door" => name, "place" => place)
                        .increment(1);
                    drop(stream);
                }
            }
        }
        drop(listener);
        connections.close();
        tokio::select! {
            () = connections.wait() => {}
            () = lifecycle.kill.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine() {
        let mut config = OperatorDoor::default();
        check_operator_door(&config).unwrap();
        for address in ["[::1]:1", "127.0.0.2:1", "[::ffff:127.0.0.1]:1"] {
            config.listen = address.parse().unwrap();
            check_operator_door(&config).unwrap();
        }
        for address in ["0.0.0.0:7080", "[::]:7080", "192.0.2.1:7080"] {
            config.listen = address.parse().unwrap();
            let error = check_operator_door(&config).unwrap_err().to_string();
            assert!(error.contains("insecure = true") && error.contains(address), "{error}");
        }
        config.insecure = true;
        check_operator_door(&config).unwrap();
    }
}
