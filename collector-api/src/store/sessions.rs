//! `operator_sessions`: browsers that logged in with an API key.
//!
//! Only the SHA-256 of the cookie's token is stored. A session ends with itself, with its key's
//! expiry or revocation, or when its browser logs out. Rows that ended are deleted when the next one
//! is made, so the table needs no maintenance.

use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::scopes::Rights;
use super::{Store, StoreError};

/// A session that lives.
#[derive(Clone, Debug)]
pub struct Session {
    /// With which key it was begun.
    pub api_key_id: Uuid,
    /// What the key's maker calls it.
    pub name: String,
    /// What it may do, now.
    pub rights: Rights,
    /// When it ends by itself.
    pub expires_at: OffsetDateTime,
}

impl Store {
    /// Begins a session of `life_s` seconds, or less if the key expires before. Returns its end.
    pub async fn begin_session(
        &self,
        token_sha256: &[u8; 32],
        (api_key_id, name): (Uuid, &str),
        life_s: f64,
    ) -> Result<OffsetDateTime, StoreError> {
        let begun = self.try_begin_session(token_sha256, (api_key_id, name), life_s).await;
        begun.map_err(StoreError::of("begin_session"))
    }

    async fn try_begin_session(
        &self,
        token_sha256: &[u8; 32],
        (api_key_id, name): (Uuid, &str),
        life_s: f64,
    ) -> Result<OffsetDateTime, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let expires_at = sqlx::query_scalar!(
            r#"/* begin_session */
            with ended as (delete from operator_sessions where expires_at <= now())
            insert into operator_sessions (token_sha256, api_key_id, expires_at)
            select $1, k.api_key_id, least(now() + make_interval(secs => $3), k.expires_at)
            from api_keys k where k.api_key_id = $2
            returning expires_at"#,
            &token_sha256[..],
            api_key_id,
            life_s,
        )
        .fetch_one(&mut *transaction)
        .await?;
        let (actor, id) = (Actor::api_key(api_key_id, name), short(token_sha256));
        let object = ("session", id.as_str());
        audit::record(&mut transaction, &actor, "session.begin", object, json!({})).await?;
        transaction.commit().await?;
        Ok(expires_at)
    }

    /// The session of this token, if it lives and its key does.
    pub async fn find_session(
        &self,
        token_sha256: &[u8; 32],
    ) -> Result<Option<Session>, StoreError> {
        sqlx::query!(
            r#"/* find_session */
            select s.api_key_id, k.name, k.role, k.scopes, s.expires_at
            from operator_sessions s join api_keys k using (api_key_id)
            where s.token_sha256 = $1 and s.expires_at > now() and k.revoked_at is null
              and (k.expires_at is null or k.expires_at > now())"#,
            &token_sha256[..],
        )
        .fetch_optional(&self.pool)
        .await
        .and_then(|row| {
            row.map(|row| {
                let rights = Rights::stored(&row.role, row.scopes)?;
                let (api_key_id, name, expires_at) = (row.api_key_id, row.name, row.expires_at);
                Ok(Session { api_key_id, name, rights, expires_at })
            })
            .transpose()
        })
        .map_err(StoreError::of("find_session"))
    }

    /// Ends a session. One that does not exist is no error.
    pub async fn end_session(&self, token_sha256: &[u8; 32]) -> Result<(), StoreError> {
        self.try_end_session(token_sha256).await.map_err(StoreError::of("end_session"))
    }

    async fn try_end_session(&self, token_sha256: &[u8; 32]) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let ended = sqlx::query!(
            "/* end_session */
            delete from operator_sessions s using api_keys k
            where s.token_sha256 = $1 and k.api_key_id = s.api_key_id
            returning k.api_key_id, k.name",
            &token_sha256[..],
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(ended) = ended else { return Ok(()) };
        let (actor, id) = (Actor::api_key(ended.api_key_id, &ended.name), short(token_sha256));
        let object = ("session", id.as_str());
        audit::record(&mut transaction, &actor, "session.end", object, json!({})).await?;
        transaction.commit().await
    }
}

/// How the audit names a session: 64 bits of its token's digest.
fn short(token_sha256: &[u8; 32]) -> String {
    let mut head = [0; 8];
    head.copy_from_slice(&token_sha256[..8]);
    format!("{:016x}", u64::from_be_bytes(head))
}
