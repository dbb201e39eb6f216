//! One connection, from the handshake to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::limits::Admission;
use super::proxy_protocol::read_header;
use super::{
    ANONYMOUS_IDLE, HANDSHAKE_TIMEOUT, MAX_HEAD_BYTES, OPERATOR_IDLE, PeerAddress, VERIFIED_IDLE,
};
use crate::auth::agent::PeerCertificate;
use crate::lifecycle::Lifecycle;
use crate::metrics::{CONNECTIONS_FAILED, CONNECTIONS_SHED};

/// An accepted connection and what it needs.
pub struct Connection {
    pub(super) door: &'static str,
    pub(super) peer: SocketAddr,
    /// Whether a PROXY header comes first.
    pub(super) has_proxy_header: bool,
    pub(super) acceptor: Option<TlsAcceptor>,
    pub(super) router: Router,
    pub(super) lifecycle: Lifecycle,
    pub(super) admission: Admission,
    /// Age after which it is closed with its next answer, ± 20 %.
    pub(super) max_age: Duration,
}

impl Connection {
    /// Serves the connection until the peer, a limit or the lifecycle ends it.
    pub(super) async fn run(mut self, mut stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(peer = %self.peer, %error, "cannot set TCP_NODELAY");
        }
        if self.has_proxy_header {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, read_header(&mut stream)).await {
                Ok(Ok(Some(source))) => self.peer = source,
                Ok(Ok(None)) => {}
                Ok(Err(error)) => return self.failed("proxy_header", &error.to_string()),
                Err(_) => return self.failed("proxy_header", "too slow"),
            }
        }
        let Some(acceptor) = self.acceptor.take() else {
            // Plain HTTP has no client certificates: the limit on strangers is the door's own.
            self.admission.known();
            return self.serve(stream, None, Some(OPERATOR_IDLE)).await;
        };
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
        let stopped = self.lifecycle.stop.clone();
        let tls = tokio::select! {
            handshake = handshake => match handshake {
                Ok(Ok(tls)) => tls,
                Ok(Err(error)) => return self.failed("handshake", &error.to_string()),
                Err(_) => return self.failed("handshake_timeout", "too slow"),
            },
            () = stopped.cancelled() => return,
        };
        // On the other doors it is the proxy's.
        let shown = tls.get_ref().1.peer_certificates().filter(|_| self.door == "agent");
        let certificate = shown.and_then(<[_]>::first);
        let certificate = match certificate.map(|der| PeerCertificate::parse(der)).transpose() {
            Ok(certificate) => certificate,
            Err(error) => return self.failed("certificate", &error.to_string()),
        };
        let keep_alive = match (self.door, &certificate) {
            ("agent", None) => None,
            ("agent", Some(certificate)) => {
                if let Err(place) = self.admission.verified(certificate.host_id) {
                    metrics::counter!(CONNECTIONS_SHED, "door" => self.door, "place" => place)
                        .increment(1);
                    return;
                }
                Some(VERIFIED_IDLE)
            }
            ("proxied", _) => {
                self.admission.known();
                Some(VERIFIED_IDLE)
            }
            _ => {
                self.admission.known();
                Some(OPERATOR_IDLE)
            }
        };
        self.serve(tls, certificate.map(Arc::new), keep_alive).await;
    }

    fn failed(&self, reason: &'static str, error: &str) {
        metrics::counter!(CONNECTIONS_FAILED, "door" => self.door, "reason" => reason).increment(1);
        tracing::debug!(door = self.door, peer = %self.peer, reason, error, "connection failed");
    }

    /// `keep_alive`: how long the connection may be idle; none: it ends with the first answer.
    async fn serve<S>(
        self,
        stream: S,
        certificate: Option<Arc<PeerCertificate>>,
        keep_alive: Option<Duration>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let end_of_age = Instant::now() + jittered(self.max_age);
        let (router, peer, stop) =
            (self.router.clone(), PeerAddress(self.peer), self.lifecycle.stop.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            if let Some(certificate) = &certificate {
                request.extensions_mut().insert(Arc::clone(certificate));
            }
            let answer = router.clone().oneshot(request);
            let stop = stop.clone();
            async move {
                let mut response = answer.await?;
                if keep_alive.is_none() || stop.is_cancelled() || Instant::now() >= end_of_age {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(keep_alive.unwrap_or(ANONYMOUS_IDLE))
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.lifecycle.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = self.lifecycle.kill.cancelled() => return self.failed("killed", "stopping"),
                }
            }
        };
        if let Err(error) = ended {
            let reason = if error.is_parse() {
                "parse"
            } else if error.is_timeout() {
                "timeout"
            } else {
                "closed"
            };
            self.failed(reason, &error.to_string());
        }
    }
}

/// ± 20 %.
fn jittered(duration: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    duration.mul_f64(0.8 + 0.4 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::limits::ConnectionLimits;
    use super::*;

    const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    /// Asks twice on one connection; what came until it was closed or had answered both.
    async fn ask_twice(max_age: Duration) -> String {
        let connection = Connection {
            door: "agent",
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            has_proxy_header: false,
            acceptor: None,
            router: Router::new().fallback(async || "fine"),
            lifecycle: Lifecycle::default(),
            admission: ConnectionLimits::new("agent", 1, 1).admit().unwrap(),
            max_age,
        };
        let (ours, theirs) = tokio::io::duplex(4096);
        let serve = connection.serve(theirs, None, Some(VERIFIED_IDLE));
        let ask = async move {
            let (mut reader, mut writer) = tokio::io::split(ours);
            let mut heard = Vec::new();
            for _ in 0..2 {
                // The second one meets a closed connection where the first was the last.
                drop(writer.write_all(ASK).await);
                while !heard.ends_with(b"fine") && reader.read_buf(&mut heard).await.unwrap() > 0 {}
                heard.push(b'\n');
            }
            String::from_utf8(heard).unwrap()
        };
        tokio::join!(serve, ask).1
    }

    #[tokio::test]
    async fn a_connection_past_its_age_ends_with_its_next_answer() {
        let young = ask_twice(Duration::from_hours(1)).await;
        assert_eq!(young.matches("fine").count(), 2, "{young}");
        assert!(!young.contains("connection: close"), "{young}");
        let old = ask_twice(Duration::ZERO).await;
        assert_eq!(old.matches("fine").count(), 1, "{old}");
        assert!(old.contains("connection: close"), "{old}");
    }
}
