//! The steps to another certificate. Each leaves the disk so that the next one can follow, whenever.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PublicKeyData as _};
use shared_model::certificate::recovery_message;
use shared_model::{
    CertificateInUse, EnrollResponse, PROTOCOL_VERSION, ProblemCode, RecoverRequest, RecoveryNonce,
    RenewRequest,
};

use super::{CertificateError, Keeper, exchange, url};
use crate::identity::{Identity, next};
use crate::server_clock::since_boot;
use crate::tls;

impl Keeper {
    /// Asks for a certificate under the one in use, and stages the answer.
    pub async fn obtain(&self, endpoint: &str) -> Result<Identity, CertificateError> {
        let key = next::key(&self.dir, &self.identity)?;
        let request = RenewRequest { version: PROTOCOL_VERSION, csr_pem: signing_request(&key)? };
        let client = client(&self.identity, Some(&self.identity))?;
        let asked = client.post(url(endpoint, "/v1/certificate")?).json(&request);
        self.stage(endpoint, exchange::send(asked, endpoint).await, &key)
    }

    /// Asks for a certificate by proof of the key in use, without a client certificate, and stages
    /// the answer.
    pub async fn recover(&self, endpoint: &str) -> Result<Identity, CertificateError> {
        let key = next::key(&self.dir, &self.identity)?;
        let csr_pem = signing_request(&key)?;
        let client = client(&self.identity, None)?;
        let asked = client.get(url(endpoint, "/v1/certificate/nonce")?);
        let RecoveryNonce { nonce } = exchange::send(asked, endpoint).await?;
        let certificate_pem = leaf_pem(&self.identity.certificate_chain_pem);
        let message = recovery_message(certificate_pem, &csr_pem, &nonce);
        let signature = self.identity.sign(&message).map_err(CertificateError::Sign)?;
        let request = RecoverRequest {
            version: PROTOCOL_VERSION,
            certificate_pem: certificate_pem.to_owned(),
            csr_pem,
            nonce,
            signature: STANDARD.encode(signature),
        };
        let asked = client.post(url(endpoint, "/v1/certificate/recovery")?).json(&request);
        self.stage(endpoint, exchange::send(asked, endpoint).await, &key)
    }

    /// Shows the server a certificate: one that was staged is in force from then on.
    pub async fn in_force(
        &self,
        endpoint: &str,
        identity: &Identity,
    ) -> Result<(), CertificateError> {
        let client = client(identity, Some(identity))?;
        let asked_at = since_boot();
        let asked = client.get(url(endpoint, "/v1/certificate")?);
        let answer: CertificateInUse = exchange::send(asked, endpoint).await?;
        // The uplink may not have been answered for long: without this, a host whose clock is behind would
        // let the new certificate end as well.
        self.clock.learn(answer.server_time, asked_at, since_boot());
        if answer.host_id != self.identity.host_id {
            return Err(CertificateError::BadAnswer {
                endpoint: endpoint.to_owned(),
                cause: "it is of another host".into(),
            });
        }
        Ok(())
    }

    fn stage(
        &self,
        endpoint: &str,
        answer: Result<EnrollResponse, CertificateError>,
        key: &KeyPair,
    ) -> Result<Identity, CertificateError> {
        let response = match answer {
            Err(CertificateError::Refused { code: ProblemCode::KeyAlreadyRegistered, .. }) => {
                // An earlier renewal used it and was given up: the next try makes another one.
                next::forget_key(&self.dir)?;
                return answer.map(|_| self.identity.clone());
            }
            answer => answer?,
        };
        let bad = |cause: String| CertificateError::BadAnswer { endpoint: endpoint.into(), cause };
        if response.host_id != self.identity.host_id {
            return Err(bad("it is of another host".into()));
        }
        tls::check_identity(&response, &key.subject_public_key_info()).map_err(bad)?;
        Ok(next::stage(&self.dir, &response, key)?)
    }
}

fn signing_request(key: &KeyPair) -> Result<String, CertificateError> {
    rcgen::CertificateParams::default()
        .serialize_request(key)
        .and_then(|csr| csr.pem())
        .map_err(CertificateError::Sign)
}

/// A client of its own, for one exchange: the certificate shown must be the one meant.
pub(super) fn client(
    trust: &Identity,
    show: Option<&Identity>,
) -> Result<reqwest::Client, CertificateError> {
    let roots = tls::certificates("CA bundle", &trust.ca_bundle_pem)?;
    Ok(tls::http_client(tls::client_config(roots, show, Some(trust))?)?)
}

/// The first certificate of a PEM chain.
fn leaf_pem(chain: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----";
    chain.find(END).map_or(chain, |at| &chain[..at + END.len()])
}
