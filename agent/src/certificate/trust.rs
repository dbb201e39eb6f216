//! Whom to trust: the server authorities change while the host lives.
//!
//! The server names its set of authorities in every answer. Another one than the host keeps is fetched
//! over a connection that the old set verified, tried, stored, and only then acknowledged: so the server
//! never counts on a host that could not follow it.

use shared_model::{TrustAnswer, TrustRequest};

use super::{CertificateError, Keeper, exchange, renew, url};
use crate::identity::Identity;
use crate::tls;

impl Keeper {
    /// Takes over the set of the server. Its id, and whether anything changed.
    pub async fn refresh_trust(
        &mut self,
        endpoint: &str,
    ) -> Result<(String, bool), CertificateError> {
        let offered = tell(endpoint, &self.identity).await?;
        let same = self.identity.trust_id.as_ref() == Some(&offered.trust_id);
        if same && offered.renew_after.is_none() {
            return Ok((offered.trust_id, false));
        }
        let mut next = self.identity.clone();
        next.ca_bundle_pem = offered.ca_bundle_pem;
        next.trust_id = Some(offered.trust_id.clone());
        next.renew_after =
            offered.renew_after.map_or(next.renew_after, |at| at.min(next.renew_after));
        // Reached with the new set alone: it holds whoever serves now.
        self.in_force(endpoint, &next).await?;
        next.keep(&self.dir)?;
        self.identity = next;
        tell(endpoint, &self.identity).await?;
        Ok((offered.trust_id, true))
    }
}

async fn tell(endpoint: &str, identity: &Identity) -> Result<TrustAnswer, CertificateError> {
    let client = renew::client(identity, Some(identity))?;
    let request = TrustRequest { trust_id: identity.trust_id.clone() };
    let asked = client.put(url(endpoint, "/v1/trust")?).json(&request);
    let answer: TrustAnswer = exchange::send(asked, endpoint).await?;
    let bad = |cause: String| CertificateError::BadAnswer { endpoint: endpoint.into(), cause };
    let roots = tls::certificates("CA bundle", &answer.ca_bundle_pem)
        .map_err(|error| bad(tls::chain(&error)))?;
    if roots.is_empty() {
        return Err(bad("its set of authorities is empty".into()));
    }
    Ok(answer)
}
