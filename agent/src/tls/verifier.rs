//! Whether a server's certificate is good, on a host whose clock may be wrong.
//!
//! rustls' own verifier decides, at the time of the host's clock. If it says that a certificate is not valid
//! yet, or no longer, it is asked once more at the latest time of which the host has proof: when its own
//! certificate was issued, or when the server's was, if that is later. A host whose clock is years off
//! therefore goes on reporting, and can renew and recover its own certificate.
//!
//! The price: a server certificate of our authority that expired after the host's own was issued is taken by the hosts
//! that still have that one, at most for as long as their own certificates live. Hosts that enrol have no
//! proof of any time yet: they are strict, and say what their clock says.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// See the module.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Decides.
    pub(super) inner: Arc<WebPkiServerVerifier>,
    /// When the host's own certificate began; `None`: it has none.
    pub(super) issued_at: Option<UnixTime>,
}

/// The begin of a certificate's validity.
pub(super) fn not_before(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(parsed.validity().not_before.timestamp()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let at = |time| {
            let inner = &self.inner;
            inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, time)
        };
        let refused = match at(now) {
            Err(error) if is_of_time(&error) => error,
            decided => return decided,
        };
        let proven = self.issued_at.max(not_before(end_entity));
        let (Some(_), Some(proven)) = (self.issued_at, proven) else { return Err(refused) };
        let verified = at(proven).map_err(|_| refused)?;
        tracing::debug!("the host's clock contradicts the server's certificate, which is good");
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn is_of_time(error: &Error) -> bool {
    let Error::InvalidCertificate(error) = error else { return false };
    matches!(
        error,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
    )
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd,
    };
    use rustls::RootCertStore;

    use super::*;
    use crate::tls::provider;

    const YEAR: u64 = 365 * 86_400;

    fn year(year: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(
            (year - 1970) * YEAR + (year - 1969) / 4 * 86_400,
        ))
    }

    /// Whether a certificate for 2026 is taken in `now` by a host whose own is of `issued`.
    fn taken(now: u64, issued: Option<u64>) -> Result<(), Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::new(vec!["server".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 12, 31);
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), &authority).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        let verifier = Verifier { inner: inner.build().unwrap(), issued_at: issued.map(year) };
        let name = ServerName::try_from("server").unwrap();
        verifier.verify_server_cert(leaf.der(), &[], &name, &[], year(now)).map(|_| ())
    }

    #[test]
    fn a_clock_years_off_keeps_no_host_from_its_servers() {
        for (now, issued) in [(2036, 2026), (2016, 2026), (2036, 2025), (2016, 2025)] {
            taken(now, Some(issued)).unwrap();
        }
    }

    #[test]
    fn what_expired_before_the_hosts_own_was_issued_stays_expired() {
        assert!(is_of_time(&taken(2036, Some(2028)).unwrap_err()));
        assert!(is_of_time(&taken(2016, Some(2028)).unwrap_err()));
    }

    #[test]
    fn a_host_without_a_certificate_is_strict() {
        assert!(is_of_time(&taken(2036, None).unwrap_err()));
        assert!(is_of_time(&taken(2016, None).unwrap_err()));
    }
}
