//! Enrolment tokens and the hosts they let in.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use shared_model::HostFacts;
use sqlx::types::Json;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::audit::{self, Actor};
use crate::store::certificates::{NewCertificate, insert_certificate};
use crate::store::labels::Labels;
use crate::store::machines;
use crate::store::{Store, StoreError};

/// SQLSTATE of a unique violation.
const UNIQUE_VIOLATION: &str = "23505";

/// An enrolment token as operators see it: without its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = EnrollmentToken)]
pub struct EnrollmentTokenRow {
    /// In the paste. A `UUIDv7`: tokens sort by their time.
    pub token_id: Uuid,
    /// For people.
    pub name: String,
    /// Database clock.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Database clock.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// When an operator revoked it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
    /// None: as many as wanted.
    pub max_uses: Option<i32>,
    /// Hosts enrolled.
    pub uses: i32,
    /// Hosts wait for an operator's approval.
    pub approval_needed: bool,
    /// Labels that hosts begin with.
    #[schema(value_type = Object, example = json!({"env": "prod"}))]
    pub labels: serde_json::Value,
    /// Hosts may vanish without a word: they are then decommissioned, and nobody is woken.
    pub ephemeral: bool,
    /// A machine that enrols again is its silent or stopped host again, with its history.
    pub same_machine: bool,
}

/// A token to be stored.
pub struct NewEnrollmentToken<'a> {
    /// In the paste.
    pub token_id: Uuid,
    /// For people.
    pub name: &'a str,
    /// SHA-256 of the secret as it is written in the paste.
    pub secret_sha256: [u8; 32],
    /// Life from now, by the database's clock; at most 90 days.
    pub ttl: Duration,
    /// None: as many as wanted.
    pub max_uses: Option<i32>,
    /// Hosts wait for an operator's approval.
    pub approval_needed: bool,
    /// Labels that hosts begin with.
    pub labels: &'a Labels,
    /// See [`EnrollmentTokenRow::ephemeral`].
    pub ephemeral: bool,
    /// See [`EnrollmentTokenRow::same_machine`].
    pub same_machine: bool,
}

/// A host about to be enrolled. Its certificate is signed already; it counts once it is stored.
pub struct NewHost<'a> {
    /// Whose secret matched.
    pub token_id: Uuid,
    /// What the host says of itself, validated.
    pub facts: &'a HostFacts,
    /// Most enrolments of one machine in an hour; 0: any number.
    pub machine_per_hour: u32,
    /// Whether the certificate is for a host that the machine was before.
    pub again: bool,
    /// For its key.
    pub certificate: NewCertificate<'a>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub enum Enrollment {
    /// The host is new.
    Enrolled,
    /// The same key and token enrolled before: what was answered then. No use was consumed.
    Repeated {
        /// The host.
        host_id: Uuid,
        /// Leaf first.
        chain_pem: String,
        /// Of the leaf.
        not_after: OffsetDateTime,
    },
    /// The certificate is for the wrong host: the machine is this one again; none: a new one.
    Elsewhere(Option<Uuid>),
    /// The machine enrols again and again.
    TooOften,
    /// The key is registered through another token.
    KeyAlreadyRegistered,
    /// The key is that of a host which was decommissioned.
    Decommissioned,
    /// The key's certificate was revoked.
    CertificateRevoked,
    /// The token was revoked.
    TokenRevoked,
    /// The token's time is over.
    TokenExpired,
    /// The token's uses are used up.
    TokenExhausted,
}

impl Store {
    /// The digest of a token's secret.
    pub async fn enrollment_token_digest(&self, id: Uuid) -> Result<Option<Vec<u8>>, StoreError> {
        sqlx::query_scalar!(
            "-- Store::enrollment_token_digest
            select secret_sha256 from enrollment_tokens where token_id = $1",
            id
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::of("enrollment_token_digest"))
    }

    /// Ids and digests of the newest tokens that are neither revoked nor expired, at most `limit`.
    pub async fn live_token_digests(&self, limit: i64) -> Result<Vec<(Uuid, Vec<u8>)>, StoreError> {
        let rows = sqlx::query!(
            "-- Store::live_token_digests
            select token_id, secret_sha256 from enrollment_tokens
            where revoked_at is null and expires_at > now() order by token_id desc limit $1",
            limit
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("live_token_digests"))?;
        Ok(rows.into_iter().map(|row| (row.token_id, row.secret_sha256)).collect())
    }

    /// Stores a host, its certificate and its use of the token, all or nothing.
    ///
    /// The guarded update makes `max_uses` hold across replicas: concurrent ones wait for the row and
    /// look at `uses` again. Two requests with one key at once: the second meets the unique key of
    /// `spki_sha256`, and finds the first one's host when it looks again.
    pub async fn enroll(&self, host: &NewHost<'_>) -> Result<Enrollment, StoreError> {
        let outcome = match self.try_enroll(host).await {
            Err(error) if is_unique_violation(&error) => self.try_enroll(host).await,
            outcome => outcome,
        }
        .map_err(StoreError::of("enroll"))?;
        if matches!(outcome, Enrollment::TooOften) {
            let noted = self.note_refused_enrollment(host.facts).await;
            noted.map_err(StoreError::of("enroll"))?;
        }
        Ok(outcome)
    }

    async fn try_enroll(&self, host: &NewHost<'_>) -> Result<Enrollment, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        if let Some(before) = enrolled_before(&mut transaction, host).await? {
            return Ok(before);
        }
        let used = sqlx::query!(
            r#"-- Store::enroll
            update enrollment_tokens set uses = uses + 1
            where token_id = $1 and revoked_at is null and expires_at > now()
                and (max_uses is null or uses < max_uses)
            returning approval_needed, labels as "labels: Json<Labels>", ephemeral, same_machine"#,
            host.token_id
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(token) = used else {
            // The last use may have gone to this very key, while the update waited for the row.
            return match enrolled_before(&mut transaction, host).await? {
                Some(before) => Ok(before),
                None => why_refused(&mut transaction, host.token_id).await,
            };
        };
        let begin = Begin {
            lifecycle: if token.approval_needed { "pending" } else { "active" },
            labels: token.labels.0,
            ephemeral: token.ephemeral,
            same_machine: token.same_machine,
        };
        let enrolled = place_host(&mut transaction, host, &begin).await?;
        if matches!(enrolled, Enrollment::Enrolled) {
            transaction.commit().await?;
        }
        Ok(enrolled)
    }

    /// Stores a new token.
    pub async fn insert_enrollment_token(
        &self,
        token: &NewEnrollmentToken<'_>,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        let inserted = self.try_insert_enrollment_token(token, actor).await;
        inserted.map_err(StoreError::of("insert_enrollment_token"))
    }

    async fn try_insert_enrollment_token(
        &self,
        token: &NewEnrollmentToken<'_>,
        actor: &Actor,
    ) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!(
            "-- Store::insert_enrollment_token
            insert into enrollment_tokens
                (token_id, name, secret_sha256, expires_at, max_uses, approval_needed, labels, ephemeral,
                same_machine)
            values ($1, $2, $3, now() + make_interval(secs => $4), $5, $6, $7, $8, $9)",
            token.token_id,
            token.name,
            &token.secret_sha256[..],
            token.ttl.as_secs_f64(),
            token.max_uses,
            token.approval_needed,
            Json(token.labels) as _,
            token.ephemeral,
            token.same_machine,
        )
        .execute(&mut *transaction)
        .await?;
        let detail = json!({
            "name": token.name,
            "ttl_s": token.ttl.as_secs(),
            "max_uses": token.max_uses,
            "approval_needed": token.approval_needed,
            "labels": token.labels,
            "ephemeral": token.ephemeral,
            "same_machine": token.same_machine,
        });
        let (action, id) = ("enrollment_token.create", token.token_id.to_string());
        let object = ("enrollment_token", id.as_str());
        audit::record(&mut transaction, actor, action, object, detail).await?;
        transaction.commit().await
    }

    /// Tokens, newest first, those older than `after`, at most `limit`.
    pub async fn enrollment_tokens(
        &self,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<EnrollmentTokenRow>, StoreError> {
        sqlx::query_as!(
            EnrollmentTokenRow,
            "-- Store::enrollment_tokens
            select token_id, name, created_at, expires_at, revoked_at, max_uses, uses,
                approval_needed, labels, ephemeral, same_machine
            from enrollment_tokens where $1::uuid is null or token_id < $1
            order by token_id desc limit $2",
            after,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("enrollment_tokens"))
    }

    /// Lets nobody else in by this token; hosts that are in stay. False: there is no such token.
    pub async fn revoke_enrollment_token(
        &self,
        id: Uuid,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let revoked = self.try_revoke_enrollment_token(id, actor).await;
        revoked.map_err(StoreError::of("revoke_enrollment_token"))
    }

    async fn try_revoke_enrollment_token(
        &self,
        id: Uuid,
        actor: &Actor,
    ) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let token = sqlx::query!(
            r#"-- Store::revoke_enrollment_token
            select name, revoked_at is not null as "revoked!"
            from enrollment_tokens where token_id = $1 for update"#,
            id
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(token) = token else { return Ok(false) };
        if token.revoked {
            return Ok(true);
        }
        sqlx::query!(
            "-- Store::revoke_enrollment_token
            update enrollment_tokens set revoked_at = now() where token_id = $1",
            id
        )
        .execute(&mut *transaction)
        .await?;
        let (action, id) = ("enrollment_token.revoke", id.to_string());
        let (object, detail) = (("enrollment_token", id.as_str()), json!({ "name": token.name }));
        audit::record(&mut transaction, actor, action, object, detail).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// What became of the key before, if anything did.
async fn enrolled_before(
    transaction: &mut sqlx::PgTransaction<'_>,
    host: &NewHost<'_>,
) -> Result<Option<Enrollment>, sqlx::Error> {
    let known = sqlx::query!(
        "-- Store::enroll
        select h.host_id, h.lifecycle, h.enrollment_token_id, c.status, c.chain_pem, c.not_after
        from host_certificates c join hosts h using (host_id) where c.spki_sha256 = $1",
        &host.certificate.spki_sha256[..]
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(known.map(|known| {
        if known.enrollment_token_id != host.token_id {
            Enrollment::KeyAlreadyRegistered
        } else if known.lifecycle == "decommissioned" {
            Enrollment::Decommissioned
        } else if known.status != "active" {
            Enrollment::CertificateRevoked
        } else {
            Enrollment::Repeated {
                host_id: known.host_id,
                chain_pem: known.chain_pem,
                not_after: known.not_after,
            }
        }
    }))
}

async fn why_refused(
    transaction: &mut sqlx::PgTransaction<'_>,
    token_id: Uuid,
) -> Result<Enrollment, sqlx::Error> {
    let token = sqlx::query!(
        r#"-- Store::enroll
        select revoked_at is not null as "revoked!", expires_at <= now() as "expired!"
        from enrollment_tokens where token_id = $1"#,
        token_id
    )
    .fetch_one(&mut **transaction)
    .await?;
    Ok(match (token.revoked, token.expired) {
        (true, _) => Enrollment::TokenRevoked,
        (_, true) => Enrollment::TokenExpired,
        _ => Enrollment::TokenExhausted,
    })
}

/// What the token says of its hosts.
pub(super) struct Begin {
    pub(super) lifecycle: &'static str,
    pub(super) labels: Labels,
    pub(super) ephemeral: bool,
    same_machine: bool,
}

/// The machine's host: the one it was, if the token allows that, or a new one.
async fn place_host(
    transaction: &mut sqlx::PgTransaction<'_>,
    host: &NewHost<'_>,
    begin: &Begin,
) -> Result<Enrollment, sqlx::Error> {
    machines::lock(transaction, host.facts).await?;
    if machines::enrolls_too_often(transaction, host).await? {
        return Ok(Enrollment::TooOften);
    }
    let known = machines::known(transaction, host.facts).await?;
    let again = known.again().filter(|_| begin.same_machine);
    match again {
        Some(host_id) if host_id == host.certificate.host_id => {
            if !machines::is_still(transaction, host.facts, host_id).await? {
                return Ok(Enrollment::Elsewhere(None));
            }
            machines::take_back(transaction, host, begin).await?;
        }
        None if !host.again => {
            insert_host(transaction, host, begin).await?;
            if let Some(alive) = known.alive {
                machines::mark(transaction, [alive, host.certificate.host_id]).await?;
            }
        }
        elsewhere => return Ok(Enrollment::Elsewhere(elsewhere)),
    }
    machines::count(transaction, host.facts).await?;
    Ok(Enrollment::Enrolled)
}

async fn insert_host(
    transaction: &mut sqlx::PgTransaction<'_>,
    host: &NewHost<'_>,
    begin: &Begin,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- Store::enroll
        insert into hosts (host_id, host_name, machine_id_hash, os_description, kernel_release,
            host_arch, agent_version, enrollment_token_id, lifecycle, labels, ephemeral, product_uuid_hash)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        host.certificate.host_id,
        host.facts.host_name,
        host.facts.machine_id_hash,
        host.facts.os_description,
        host.facts.kernel_release,
        host.facts.host_arch,
        host.facts.agent_version,
        host.token_id,
        begin.lifecycle,
        Json(&begin.labels) as _,
        begin.ephemeral,
        host.facts.product_uuid_hash,
    )
    .execute(&mut **transaction)
    .await?;
    insert_certificate(transaction, &host.certificate, "active").await?;
    sqlx::query!(
        "-- Store::enroll
        insert into heartbeats (host_id) values ($1)",
        host.certificate.host_id
    )
    .execute(&mut **transaction)
    .await?;
    let detail = json!({ "token_id": host.token_id, "lifecycle": begin.lifecycle });
    let host_id = host.certificate.host_id;
    audit::record_host(transaction, &Actor::server(), "host.enroll", host_id, detail).await
}

fn is_unique_violation(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some(UNIQUE_VIOLATION))
}
