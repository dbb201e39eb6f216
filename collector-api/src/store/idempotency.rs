//! `idempotency_keys`: which requests were answered, and how, for a day.
//!
//! Rows older than [`KEPT_S`] are deleted when the next one is made.

use uuid::Uuid;

use super::{Store, StoreError};

/// How long an answer can be asked for again, s.
pub const KEPT_S: f64 = 86_400.0;

/// Which request: whose, its key's digest, and the digest of what it asks.
#[derive(Clone, Copy, Debug)]
pub struct RequestId {
    /// Whose.
    pub api_key_id: Uuid,
    /// SHA-256 of the `Idempotency-Key`.
    pub key_sha256: [u8; 32],
    /// SHA-256 of method, path, query and body.
    pub request_sha256: [u8; 32],
}

/// What is known of a request.
#[derive(Debug)]
pub enum Known {
    /// Nothing: it is this caller's to answer.
    New,
    /// It has no answer yet.
    InProgress,
    /// The key was used for another request.
    Other,
    /// Its answer: status, sealed body.
    Answered(u16, Vec<u8>),
}

impl Store {
    /// Begins a request, or says what is known of it.
    pub async fn begin_idempotent(&self, request: &RequestId) -> Result<Known, StoreError> {
        self.try_begin_idempotent(request).await.map_err(StoreError::of("begin_idempotent"))
    }

    async fn try_begin_idempotent(&self, request: &RequestId) -> Result<Known, sqlx::Error> {
        sqlx::query!(
            "-- Store::begin_idempotent
            delete from idempotency_keys where begun_at < now() - make_interval(secs => $1)",
            KEPT_S,
        )
        .execute(&self.pool)
        .await?;
        let inserted = sqlx::query!(
            "-- Store::begin_idempotent
            insert into idempotency_keys (api_key_id, key_sha256, request_sha256)
            values ($1, $2, $3) on conflict do nothing",
            request.api_key_id,
            &request.key_sha256[..],
            &request.request_sha256[..],
        )
        .execute(&self.pool)
        .await?;
        if inserted.rows_affected() == 1 {
            return Ok(Known::New);
        }
        let known = sqlx::query!(
            "-- Store::begin_idempotent
            select request_sha256, status, sealed_answer from idempotency_keys
            where api_key_id = $1 and key_sha256 = $2",
            request.api_key_id,
            &request.key_sha256[..],
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(match known {
            Some(known) if known.request_sha256 != request.request_sha256 => Known::Other,
            Some(known) => match (known.status.map(u16::try_from), known.sealed_answer) {
                (Some(Ok(status)), Some(sealed)) => Known::Answered(status, sealed),
                _ => Known::InProgress,
            },
            // It failed between the two statements: the caller may try again.
            None => Known::InProgress,
        })
    }

    /// Keeps the answer of a request.
    pub async fn finish_idempotent(
        &self,
        request: &RequestId,
        status: u16,
        sealed_answer: &[u8],
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "-- Store::finish_idempotent
            update idempotency_keys set status = $3, sealed_answer = $4
            where api_key_id = $1 and key_sha256 = $2",
            request.api_key_id,
            &request.key_sha256[..],
            status.cast_signed(),
            sealed_answer,
        )
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(StoreError::of("finish_idempotent"))
    }

    /// Forgets a request that changed nothing: it may be sent again.
    pub async fn forget_idempotent(&self, request: &RequestId) -> Result<(), StoreError> {
        sqlx::query!(
            "-- Store::forget_idempotent
            delete from idempotency_keys where api_key_id = $1 and key_sha256 = $2",
            request.api_key_id,
            &request.key_sha256[..],
        )
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(StoreError::of("forget_idempotent"))
    }
}
