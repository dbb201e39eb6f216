//! Whether a certificate is still good.

use uuid::Uuid;

use crate::store::{Store, StoreError};

/// What the database knows of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateState {
    /// Active, not expired, of an active host.
    Good,
    /// Not ours, or of another host or key than it says.
    Unknown,
    /// Revoked, superseded or expired.
    Revoked,
    /// The host was decommissioned.
    Decommissioned,
}

impl Store {
    /// Looks a certificate up, by serial (hex), host and the SHA-256 of its key (SPKI).
    pub async fn certificate_state(
        &self,
        serial: &str,
        host_id: Uuid,
        spki_sha256: &[u8; 32],
    ) -> Result<CertificateState, StoreError> {
        let row = sqlx::query!(
            r#"-- Store::certificate_state
            select h.lifecycle, c.status = 'active' and c.not_after > now() as "good!"
            from host_certificates c join hosts h using (host_id)
            where c.serial = $1 and c.host_id = $2 and c.spki_sha256 = $3"#,
            serial,
            host_id,
            &spki_sha256[..],
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::of("certificate_state"))?;
        Ok(match row {
            None => CertificateState::Unknown,
            Some(row) if row.lifecycle != "active" => CertificateState::Decommissioned,
            Some(row) if row.good => CertificateState::Good,
            Some(_) => CertificateState::Revoked,
        })
    }
}
