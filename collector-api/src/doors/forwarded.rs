//! The door behind a proxy that ends TLS: the proxy verified the host's certificate and forwards it in
//! a header.
//!
//! A listener of its own, because a header is worth nothing where clients can send it: the agent door
//! ignores and counts them. Here a connection must come from a configured network and be the proxy's,
//! by a client certificate of its own authority or by a secret that only it adds. The header must be
//! there once or not at all, in the one configured form. And the certificate in it is verified again in
//! full, chain, validity and usage, as if the host had shown it to us: what a proxy lets through
//! unverified, or compares by name only, ends here. Then the database is asked, as on the agent door.
//!
//! Rates are by the last address in `X-Forwarded-For`, which is the one the proxy added.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use shared_model::ProblemCode;
use time::OffsetDateTime;

use super::PeerAddress;
use crate::auth::agent::PeerCertificate;
use crate::auth::secret;
use crate::authority::live::LiveAuthorities;
use crate::config::CertificateForm;
use crate::error::ApiError;
use crate::metrics::{FORWARDED_IGNORED, FORWARDED_REFUSED};

/// Carries the secret of the proxy.
pub const PROXY_SECRET: HeaderName = HeaderName::from_static("procfleet-proxy-secret");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Headers in which proxies forward certificates. None of them means anything on the agent door.
const CERTIFICATE_HEADERS: [&str; 8] = [
    "client-cert",
    "client-cert-chain",
    "ssl-client-cert",
    "x-ssl-client-cert",
    "x-client-cert",
    "x-forwarded-client-cert",
    "x-amzn-mtls-clientcert",
    "x-amzn-mtls-clientcert-leaf",
];

/// What the door believes.
pub struct Forwarding {
    /// In which header the certificate comes.
    pub header: HeaderName,
    /// How it is written there.
    pub form: CertificateForm,
    /// SHA-256 of the secret that the proxy adds, if it does not show a certificate.
    pub secret_sha256: Option<[u8; 32]>,
    /// Whose certificates count.
    pub authorities: LiveAuthorities,
}

/// Why a forwarded certificate is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Secret,
    Duplicate,
    Unreadable,
    NotOurs,
}

impl Refusal {
    fn reason(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Duplicate => "duplicate",
            Self::Unreadable => "unreadable",
            Self::NotOurs => "not_verified",
        }
    }

    fn error(self) -> ApiError {
        let (code, detail) = match self {
            Self::Secret => (
                ProblemCode::BadForwarding,
                "The proxy does not show the secret it has in common with this server.",
            ),
            Self::Duplicate => (
                ProblemCode::BadForwarding,
                "The header of the client certificate is there more than once: the proxy must replace what clients send.",
            ),
            Self::Unreadable => (
                ProblemCode::BadForwarding,
                "The header of the client certificate is not of the configured form.",
            ),
            Self::NotOurs => (
                ProblemCode::NoClientCertificate,
                "The forwarded client certificate is not of this server's authority, or not valid now.",
            ),
        };
        ApiError::new(code, detail).closing()
    }
}

/// Gives a request on the proxied door its identity and its address, or refuses it.
pub async fn identify(
    State(forwarding): State<Arc<Forwarding>>,
    mut request: Request,
    next: Next,
) -> Response {
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge of the protocol: read once per request"
    )]
    let now = OffsetDateTime::now_utc();
    match forwarding.certificate(request.headers(), now) {
        Ok(None) => {}
        Ok(Some(certificate)) => {
            request.extensions_mut().insert(Arc::new(certificate));
        }
        Err(refusal) => {
            metrics::counter!(FORWARDED_REFUSED, "reason" => refusal.reason()).increment(1);
            return refusal.error().into_response();
        }
    }
    if let Some(client) = client_address(request.headers()) {
        request.extensions_mut().insert(PeerAddress(SocketAddr::new(client, 0)));
    }
    request.headers_mut().remove(&PROXY_SECRET);
    next.run(request).await
}

/// Counts requests on the agent door that carry a certificate in a header. The header means nothing.
pub async fn ignore(request: Request, next: Next) -> Response {
    if CERTIFICATE_HEADERS.iter().any(|name| request.headers().contains_key(*name)) {
        metrics::counter!(FORWARDED_IGNORED).increment(1);
    }
    next.run(request).await
}

impl Forwarding {
    fn certificate(
        &self,
        headers: &HeaderMap,
        now: OffsetDateTime,
    ) -> Result<Option<PeerCertificate>, Refusal> {
        if let Some(wanted) = &self.secret_sha256 {
            let mut shown = headers.get_all(&PROXY_SECRET).iter();
            let (Some(only), None) = (shown.next(), shown.next()) else {
                return Err(Refusal::Secret);
            };
            let shown = only.to_str().map_err(|_| Refusal::Secret)?;
            if !secret::matches(shown, Some(wanted)) {
                return Err(Refusal::Secret);
            }
        }
        let mut values = headers.get_all(&self.header).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Refusal::Duplicate);
        }
        if value.is_empty() {
            return Ok(None);
        }
        let value = value.to_str().map_err(|_| Refusal::Unreadable)?;
        let der = decode(self.form, value).ok_or(Refusal::Unreadable)?;
        let verifier = Arc::clone(&self.authorities.borrow().trust.client_verifier);
        let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        verifier.verify_client_cert(&der, &[], at).map_err(|_| Refusal::NotOurs)?;
        PeerCertificate::parse(&der).map(Some).map_err(|_| Refusal::NotOurs)
    }
}

/// The certificate in a header's value, if it is there exactly once.
fn decode(form: CertificateForm, value: &str) -> Option<CertificateDer<'static>> {
    match form {
        // RFC 9440 §2.2: a byte sequence of RFC 8941.
        CertificateForm::Rfc9440 => {
            let text = value.trim().strip_prefix(':')?.strip_suffix(':')?;
            STANDARD.decode(text).ok().map(CertificateDer::from)
        }
        CertificateForm::EscapedPem => only_certificate(&unescape(value)?),
        CertificateForm::Xfcc => only_certificate(&unescape(xfcc_certificate(value)?)?),
    }
}

fn only_certificate(pem: &str) -> Option<CertificateDer<'static>> {
    let mut all = CertificateDer::pem_slice_iter(pem.as_bytes());
    let (Some(Ok(only)), None) = (all.next(), all.next()) else { return None };
    Some(only)
}

/// Percent-decodes (RFC 3986 §2.1); a plus is a plus.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
            bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The `Cert` of Envoy's `x-forwarded-client-cert`, if there is one element with one: more elements are
/// of proxies before it, or of the client.
fn xfcc_certificate(value: &str) -> Option<&str> {
    let mut found = None;
    let mut rest = value;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let (text, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let end = closing_quote(quoted)?;
                (&quoted[..end], &quoted[end + 1..])
            }
            None => after.split_at(after.find([';', ',']).unwrap_or(after.len())),
        };
        if key.trim().eq_ignore_ascii_case("cert") && found.replace(text).is_some() {
            return None;
        }
        rest = match after.strip_prefix(';') {
            Some(more) => more,
            None if after.is_empty() => after,
            None => return None,
        };
    }
    found
}

/// Where a quoted string ends; a backslash takes the next byte's meaning.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

/// The last address of the last `X-Forwarded-For`: what stands before it is the client's word.
fn client_address(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all(FORWARDED_FOR).iter().next_back()?.to_str().ok()?;
    last.rsplit(',').next()?.trim().trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn escaped(text: &str) -> String {
        let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let one = |byte: u8| {
            if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
        };
        text.bytes().map(one).collect()
    }

    #[test]
    fn each_form_gives_the_certificate_back() {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let (der, pem) = (certificate.der(), escaped(&certificate.pem()));
        let rfc9440 = format!(":{}:", STANDARD.encode(der));
        let aws = certificate.pem().replace('\n', "%0A").replace(' ', "%20");
        let envoy = format!(
            "By=spiffe://a;Hash=0a;Subject=\"CN=\\\"x\\\",O=y;z\";URI=;Cert=\"{pem}\";DNS=a"
        );
        let good = [
            (CertificateForm::Rfc9440, &rfc9440),
            (CertificateForm::EscapedPem, &pem),
            (CertificateForm::EscapedPem, &aws),
            (CertificateForm::Xfcc, &envoy),
            (CertificateForm::Xfcc, &format!("Cert={pem}")),
        ];
        for (form, value) in good {
            assert_eq!(decode(form, value).as_ref(), Some(der), "{form:?} {value}");
        }
        let twice = format!("{pem}{pem}");
        let bad = [
            (CertificateForm::Rfc9440, &pem),
            (CertificateForm::Rfc9440, &STANDARD.encode(der)),
            (CertificateForm::Rfc9440, &format!("{rfc9440}, {rfc9440}")),
            (CertificateForm::EscapedPem, &rfc9440),
            (CertificateForm::EscapedPem, &twice),
            (CertificateForm::EscapedPem, &"%4".to_owned()),
            (CertificateForm::Xfcc, &format!("Cert=\"{pem}\",Cert=\"{pem}\"")),
            (CertificateForm::Xfcc, &format!("Cert=\"{pem}\";Cert=\"{pem}\"")),
            (CertificateForm::Xfcc, &format!("Hash=1,Cert=\"{pem}\"")),
            (CertificateForm::Xfcc, &format!("Cert=\"{pem}")),
            (CertificateForm::Xfcc, &"Subject=\"Cert=x\"".to_owned()),
        ];
        for (form, value) in bad {
            assert_eq!(decode(form, value), None, "{form:?} {value}");
        }
    }

    #[test]
    fn the_address_is_the_one_that_the_proxy_added() {
        let mut headers = HeaderMap::new();
        assert_eq!(client_address(&headers), None);
        headers.append(FORWARDED_FOR, "203.0.113.9".parse().unwrap());
        headers.append(FORWARDED_FOR, "198.51.100.1, 192.0.2.7".parse().unwrap());
        assert_eq!(client_address(&headers), Some("192.0.2.7".parse().unwrap()));
        headers.append(FORWARDED_FOR, "unknown".parse().unwrap());
        assert_eq!(client_address(&headers), None);
    }
}
