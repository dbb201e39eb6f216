//! `api_keys`: what operators, scripts and Grafana show at the operator door.
//!
//! Only the SHA-256 of a secret is stored: it has 256 random bits, so a slow hash would add nothing
//! but a way to load the server. Rows are never deleted, so that a log line naming a key stays
//! explicable.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::scopes::{Rights, Scope};
use super::{Store, StoreError};

/// What a key may do. Each role may do everything the one before it may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads hosts, processes, samples, alerts, rules and profiles.
    Viewer,
    /// Also changes what the fleet does: alerts, rules, profiles, labels and life cycle of hosts.
    Operator,
    /// Also everything about access and identity: enrolment tokens, API keys, channels, certificates, the audit; and
    /// deletes data.
    Admin,
}

impl Role {
    /// As it is written in JSON, SQL and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A role nobody knows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is one of viewer, operator, admin")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(UnknownRole)
    }
}

/// A key to be stored.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// Random.
    pub api_key_id: Uuid,
    /// What its maker calls it.
    pub name: String,
    /// What it may do.
    pub rights: Rights,
    /// SHA-256 of the secret as it is written in the key.
    pub secret_sha256: [u8; 32],
    /// Null: until it is revoked.
    pub expires_at: Option<OffsetDateTime>,
}

/// A stored key, without anything secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ApiKey {
    /// Id: the part of the key between the first and the second `_`.
    pub api_key_id: Uuid,
    /// What its maker calls it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// What it may do of that; null: all of it.
    pub scopes: Option<Vec<Scope>>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ends by itself; null: never.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When it was revoked; null: it was not.
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
    /// When it was last used, to the minute; null: never.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
}

/// What checking a key needs.
#[derive(Clone, Debug)]
pub struct ApiKeyCheck {
    /// What its maker calls it.
    pub name: String,
    /// What it may do.
    pub rights: Rights,
    /// To compare the SHA-256 of the secret with.
    pub secret_sha256: Vec<u8>,
    /// By the database's clock.
    pub expired: bool,
    /// An operator ended it.
    pub revoked: bool,
}

impl Store {
    /// Stores a key, and who made it.
    pub async fn create_api_key(
        &self,
        new: &NewApiKey,
        actor: &Actor,
    ) -> Result<ApiKey, StoreError> {
        self.try_create_api_key(new, actor).await.map_err(StoreError::of("create_api_key"))
    }

    async fn try_create_api_key(
        &self,
        new: &NewApiKey,
        actor: &Actor,
    ) -> Result<ApiKey, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let scopes: Option<Vec<&str>> =
            new.rights.scopes.as_ref().map(|all| all.iter().map(|scope| scope.as_str()).collect());
        let created_at = sqlx::query_scalar!(
            "/* create_api_key */
             insert into api_keys (api_key_id, name, role, secret_sha256, expires_at, scopes)
             values ($1, $2, $3, $4, $5, $6) returning created_at",
            new.api_key_id,
            new.name,
            new.rights.role.as_str(),
            &new.secret_sha256[..],
            new.expires_at,
            scopes as _,
        )
        .fetch_one(&mut *transaction)
        .await?;
        let expires_at = new.expires_at.map(OffsetDateTime::unix_timestamp);
        let Rights { role, scopes } = new.rights.clone();
        let detail = json!({ "name": new.name, "role": role, "scopes": scopes, "expires_at_unix_s": expires_at });
        let id = new.api_key_id.to_string();
        audit::record(&mut transaction, actor, "api_key.create", ("api_key", &id), detail).await?;
        transaction.commit().await?;
        Ok(ApiKey {
            api_key_id: new.api_key_id,
            name: new.name.clone(),
            role,
            scopes,
            created_at,
            expires_at: new.expires_at,
            revoked_at: None,
            last_used_at: None,
        })
    }

    /// At most `limit` keys with an id above `after`, revoked and expired ones included, by id.
    pub async fn list_api_keys(
        &self,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<ApiKey>, StoreError> {
        sqlx::query!(
            "/* list_api_keys */
             select api_key_id, name, role, scopes, created_at, expires_at, revoked_at, last_used_at
             from api_keys where $1::uuid is null or api_key_id > $1
             order by api_key_id limit $2",
            after,
            limit,
        )
        .fetch_all(&self.pool)
        .await
        .and_then(|rows| {
            rows.into_iter()
                .map(|row| {
                    let Rights { role, scopes } = Rights::stored(&row.role, row.scopes)?;
                    Ok(ApiKey {
                        api_key_id: row.api_key_id,
                        name: row.name,
                        role,
                        scopes,
                        created_at: row.created_at,
                        expires_at: row.expires_at,
                        revoked_at: row.revoked_at,
                        last_used_at: row.last_used_at,
                    })
                })
                .collect()
        })
        .map_err(StoreError::of("list_api_keys"))
    }

    /// Ends a key; a second time changes nothing. False: there is no such key.
    pub async fn revoke_api_key(
        &self,
        api_key_id: Uuid,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let revoked = self.try_revoke_api_key(api_key_id, actor).await;
        revoked.map_err(StoreError::of("revoke_api_key"))
    }

    async fn try_revoke_api_key(
        &self,
        api_key_id: Uuid,
        actor: &Actor,
    ) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let key = sqlx::query!(
            r#"/* revoke_api_key */
             select name, revoked_at is not null as "revoked!"
             from api_keys where api_key_id = $1 for update"#,
            api_key_id,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(key) = key else { return Ok(false) };
        if key.revoked {
            return Ok(true);
        }
        sqlx::query!(
            "/* revoke_api_key */ update api_keys set revoked_at = now() where api_key_id = $1",
            api_key_id,
        )
        .execute(&mut *transaction)
        .await?;
        let (id, detail) = (api_key_id.to_string(), json!({ "name": key.name }));
        audit::record(&mut transaction, actor, "api_key.revoke", ("api_key", &id), detail).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// What is needed to check a key; `None`: there is no such key.
    pub async fn find_api_key(&self, api_key_id: Uuid) -> Result<Option<ApiKeyCheck>, StoreError> {
        sqlx::query!(
            r#"/* find_api_key */
             select name, role, scopes, secret_sha256, revoked_at is not null as "revoked!",
                    coalesce(expires_at <= now(), false) as "expired!"
             from api_keys where api_key_id = $1"#,
            api_key_id,
        )
        .fetch_optional(&self.pool)
        .await
        .and_then(|row| {
            row.map(|row| {
                Ok(ApiKeyCheck {
                    name: row.name,
                    rights: Rights::stored(&row.role, row.scopes)?,
                    secret_sha256: row.secret_sha256,
                    expired: row.expired,
                    revoked: row.revoked,
                })
            })
            .transpose()
        })
        .map_err(StoreError::of("find_api_key"))
    }

    /// Notes that a key was used, to the minute: at most one row version a minute and key.
    pub async fn touch_api_key(&self, api_key_id: Uuid) -> Result<(), StoreError> {
        sqlx::query!(
            "/* touch_api_key */
             update api_keys set last_used_at = date_trunc('minute', now())
             where api_key_id = $1
               and (last_used_at is null or last_used_at < date_trunc('minute', now()))",
            api_key_id,
        )
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(StoreError::of("touch_api_key"))
    }
}
