//! The certificate authorities.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::{Store, StoreError};

/// One row of `certificate_authorities`.
#[derive(Clone)]
pub struct AuthorityRow {
    /// Also bound into the seal.
    pub authority_id: Uuid,
    /// `server` or `client`.
    pub purpose: String,
    /// PEM.
    pub certificate_pem: String,
    /// SHA-256 of the `SubjectPublicKeyInfo`.
    pub spki_sha256: Vec<u8>,
    /// Nonce and AES-256-GCM ciphertext of the PKCS #8 key.
    pub sealed_private_key: Vec<u8>,
    /// Which sealing key opens it.
    pub sealing_key_id: String,
    /// End of the certificate.
    pub not_after: OffsetDateTime,
}

impl Store {
    /// The active authorities: none, or one per purpose.
    pub async fn active_authorities(&self) -> Result<Vec<AuthorityRow>, StoreError> {
        sqlx::query_as!(
            AuthorityRow,
            "-- Store::active_authorities
            select authority_id, purpose, certificate_pem, spki_sha256, sealed_private_key,
                sealing_key_id, not_after
            from certificate_authorities where active order by purpose"
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("active_authorities"))
    }

    /// Stores all of `rows`, or none of those whose purpose another replica was first with.
    ///
    /// One transaction, in the order of `rows`, the same everywhere: who inserts the first one keeps
    /// the others waiting at it, so all purposes are won by one replica and sealed with one key.
    pub async fn insert_authorities(&self, rows: &[AuthorityRow]) -> Result<(), StoreError> {
        let failed = || StoreError::of("insert_authorities");
        let mut transaction = self.pool.begin().await.map_err(failed())?;
        for row in rows {
            sqlx::query!(
                "-- Store::insert_authorities
                insert into certificate_authorities (authority_id, purpose, certificate_pem,
                    spki_sha256, sealed_private_key, sealing_key_id, not_after)
                values ($1, $2, $3, $4, $5, $6, $7)
                on conflict (purpose) where active do nothing",
                row.authority_id,
                row.purpose,
                row.certificate_pem,
                row.spki_sha256,
                row.sealed_private_key,
                row.sealing_key_id,
                row.not_after,
            )
            .execute(&mut *transaction)
            .await
            .map_err(failed())?;
        }
        transaction.commit().await.map_err(failed())
    }

    /// SHA-256 of the active server authority's `SubjectPublicKeyInfo`: what tokens pin.
    pub async fn server_authority_pins(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        sqlx::query_scalar!(
            "-- Store::server_authority_pins
            select spki_sha256 from certificate_authorities where active and purpose = 'server'"
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("server_authority_pins"))
    }
}
