//! Certificate signing requests (PKCS #10, RFC 2986), of which only the key is believed.

use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::FromDer;

/// Why a CSR is not acceptable. Sent to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Not PEM, or not PKCS #10.
    #[error("csr_pem is not a PEM certificate request")]
    Unreadable,
    /// Another algorithm.
    #[error("the key must be on the curve P-256")]
    NotP256,
    /// The sender does not hold the private key.
    #[error("the request is not signed by its own key")]
    Signature,
}

/// A key whose private half the sender was shown to hold.
#[derive(Debug)]
pub struct HostKey {
    /// For the certificate.
    pub public_key: SubjectPublicKeyInfo,
    /// What identifies it.
    pub spki_sha256: [u8; 32],
}

/// Takes the key out of a CSR, if the CSR is signed with it.
pub fn public_key(csr_pem: &str) -> Result<HostKey, CsrError> {
    let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes())
        .map_err(|_| CsrError::Unreadable)?;
    let (rest, request) =
        X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Unreadable)?;
    if !rest.is_empty() {
        return Err(CsrError::Unreadable);
    }
    let spki = &request.certification_request_info.subject_pki;
    let curve = spki.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    if spki.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return Err(CsrError::NotP256);
    }
    request.verify_signature().map_err(|_| CsrError::Signature)?;
    let public_key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|_| CsrError::NotP256)?;
    Ok(HostKey { public_key, spki_sha256: Sha256::digest(spki.raw).into() })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};

    use super::*;

    fn csr(algorithm: &'static rcgen::SignatureAlgorithm) -> (KeyPair, String) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let csr = CertificateParams::new(vec!["evil.example".into()])
            .unwrap()
            .serialize_request(&key)
            .unwrap();
        (key, csr.pem().unwrap())
    }

    #[test]
    fn takes_a_p256_key() {
        let (key, pem) = csr(&rcgen::PKCS_ECDSA_P256_SHA256);
        let taken = public_key(&pem).unwrap();
        assert_eq!(taken.spki_sha256, *Sha256::digest(key.subject_public_key_info()));
        assert_eq!(taken.public_key.der_bytes(), key.public_key_raw());
    }

    #[test]
    fn refuses_what_is_not_a_p256_request_signed_by_its_key() {
        let (_, other) = csr(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(public_key(&other).unwrap_err(), CsrError::NotP256);
        let (_, ed25519) = csr(&rcgen::PKCS_ED25519);
        assert_eq!(public_key(&ed25519).unwrap_err(), CsrError::NotP256);
        assert_eq!(public_key("x").unwrap_err(), CsrError::Unreadable);
        let (_, pem) = csr(&rcgen::PKCS_ECDSA_P256_SHA256);
        let mut der =
            CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().as_ref().to_vec();
        // A byte of the subject alternative name, within what is signed.
        let at = der.windows(4).position(|window| window == b"evil").unwrap();
        der[at] = b'd';
        assert_eq!(public_key(&to_pem(&der)).unwrap_err(), CsrError::Signature);
    }

    fn to_pem(der: &[u8]) -> String {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
    }
}
