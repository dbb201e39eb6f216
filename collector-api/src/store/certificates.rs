//! Hosts' certificates: whether one is good, and the issue of its successor.
//!
//! A host has at most one `active` certificate and at most one `pending`. The pending one becomes
//! active with its first use, and only then is the old one `superseded`, which stays good for
//! [`SUPERSEDED_GRACE_S`] more. So whatever a host was doing when it crashed, the certificate on its
//! disk is good.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::{Store, StoreError};

/// How long a certificate is good after its successor was first used, s.
pub const SUPERSEDED_GRACE_S: f64 = 86_400.0;
/// How long after its end a certificate's key may still ask for another, s: half a year.
pub const RECOVERY_WINDOW_S: f64 = 180.0 * 86_400.0;
/// Most certificates issued to a host within a thirtieth of a certificate's life.
const MAX_ISSUES: i64 = 20;
/// After this no nonce is accepted anyway, s.
const NONCE_MEMORY_S: f64 = 3600.0;

/// What the database knows of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateState {
    /// Good, of an active host.
    Good,
    /// Not ours, or of another host or key than it says.
    Unknown,
    /// Revoked, superseded or expired.
    Revoked,
    /// The host waits for approval.
    HostPending,
    /// The host was set aside.
    HostQuarantined,
    /// The host was decommissioned.
    Decommissioned,
}

/// A certificate just signed. It counts once it is stored.
pub struct NewCertificate<'a> {
    /// Whose.
    pub host_id: Uuid,
    /// Hex.
    pub serial: &'a str,
    /// Who signed it.
    pub authority_id: Uuid,
    /// Of the CSR's key: what makes requests idempotent.
    pub spki_sha256: [u8; 32],
    /// Leaf first.
    pub chain_pem: &'a str,
    /// Of the leaf.
    pub not_before: OffsetDateTime,
    /// Of the leaf.
    pub not_after: OffsetDateTime,
    /// Life of a certificate, s: the measure of how often a host may ask.
    pub life_s: f64,
}

/// Why a host may have another certificate.
#[derive(Clone, Copy, Debug)]
pub enum Entitlement<'a> {
    /// It showed this certificate (serial, hex) in TLS.
    InUse(&'a str),
    /// It proved that it holds the key of this certificate, over a nonce that counts once.
    OldKey {
        /// Serial, hex.
        serial: &'a str,
        /// Of its key.
        spki_sha256: &'a [u8; 32],
        /// The random part of the nonce.
        nonce: Uuid,
    },
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issuance {
    /// It is pending now; another pending one was given up.
    Issued,
    /// The key has a certificate of this host already.
    Repeated {
        /// Leaf first.
        chain_pem: String,
        /// Of the leaf.
        not_after: OffsetDateTime,
    },
    /// The certificate it is based on does not entitle to another.
    Refused(CertificateState),
    /// It expired too long ago.
    WindowPassed,
    /// The nonce was used.
    NonceUsed,
    /// The key belongs to something else.
    KeyAlreadyRegistered,
    /// The host asks too often.
    TooOften,
}

/// A certificate as operators see it.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = HostCertificate)]
pub struct CertificateRow {
    /// Hex.
    pub serial: String,
    /// `pending` (not used yet), `active`, `superseded` or `revoked`.
    pub status: String,
    /// Beginning.
    #[serde(with = "time::serde::rfc3339")]
    pub not_before: OffsetDateTime,
    /// End.
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: OffsetDateTime,
    /// When it was signed, database clock.
    #[serde(with = "time::serde::rfc3339")]
    pub issued_at: OffsetDateTime,
    /// When its successor was first used.
    #[serde(with = "time::serde::rfc3339::option")]
    pub superseded_at: Option<OffsetDateTime>,
    /// When an operator revoked it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
}

/// Most certificates listed of a host.
const MAX_LISTED: i64 = 100;

impl Store {
    /// Looks a certificate up, by serial (hex), host and the SHA-256 of its key (SPKI), and makes a
    /// pending one the host's active one: it is in use.
    pub async fn certificate_state(
        &self,
        serial: &str,
        host_id: Uuid,
        spki_sha256: &[u8; 32],
    ) -> Result<CertificateState, StoreError> {
        let row = sqlx::query!(
            r#"-- Store::certificate_state
            select h.lifecycle, c.status = 'pending' as "pending!",
                (c.status in ('active', 'pending') or c.status = 'superseded'
                    and coalesce(c.superseded_at > now() - make_interval(secs => $4), false))
                and c.not_after > now() as "good!"
            from host_certificates c join hosts h using (host_id)
            where c.serial = $1 and c.host_id = $2 and c.spki_sha256 = $3"#,
            serial,
            host_id,
            &spki_sha256[..],
            SUPERSEDED_GRACE_S,
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::of("certificate_state"))?;
        Ok(match row {
            None => CertificateState::Unknown,
            Some(row) if row.lifecycle == "decommissioned" => CertificateState::Decommissioned,
            Some(row) if !row.good => CertificateState::Revoked,
            Some(row) => match of_lifecycle(&row.lifecycle) {
                CertificateState::Good if row.pending => {
                    let promoted = self.promote_certificate(host_id, serial).await;
                    promoted.map_err(StoreError::of("promote_certificate"))?
                }
                state => state,
            },
        })
    }

    /// Pending becomes active, active superseded; unless someone revoked it in between.
    async fn promote_certificate(
        &self,
        host_id: Uuid,
        serial: &str,
    ) -> Result<CertificateState, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        lock_host(&mut transaction, host_id).await?;
        let status = sqlx::query_scalar!(
            "-- Store::promote_certificate
            select status from host_certificates where serial = $1",
            serial
        )
        .fetch_one(&mut *transaction)
        .await?;
        match status.as_str() {
            "pending" => {}
            // Two first uses at once.
            "active" => return Ok(CertificateState::Good),
            _ => return Ok(CertificateState::Revoked),
        }
        sqlx::query!(
            "-- Store::promote_certificate
            update host_certificates set status = 'superseded', superseded_at = now()
            where host_id = $1 and status = 'active'",
            host_id
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "-- Store::promote_certificate
            update host_certificates set status = 'active' where serial = $1",
            serial
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(CertificateState::Good)
    }

    /// Stores the successor of a certificate as pending, if the host is entitled to it.
    pub async fn issue_certificate(
        &self,
        certificate: &NewCertificate<'_>,
        entitlement: Entitlement<'_>,
    ) -> Result<Issuance, StoreError> {
        let issuance = self.try_issue(certificate, entitlement).await;
        issuance.map_err(StoreError::of("issue_certificate"))
    }

    async fn try_issue(
        &self,
        new: &NewCertificate<'_>,
        entitlement: Entitlement<'_>,
    ) -> Result<Issuance, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        // Whatever else happens to the host's certificates waits here.
        let Some(lifecycle) = lock_host(&mut transaction, new.host_id).await? else {
            return Ok(Issuance::Refused(CertificateState::Unknown));
        };
        if lifecycle == "decommissioned" {
            return Ok(Issuance::Refused(CertificateState::Decommissioned));
        }
        if let Some(refused) = entitled(&mut transaction, new.host_id, entitlement).await? {
            return Ok(refused);
        }
        let state = of_lifecycle(&lifecycle);
        if state != CertificateState::Good {
            return Ok(Issuance::Refused(state));
        }
        if let Some(before) = issued_before(&mut transaction, new).await? {
            transaction.commit().await?;
            return Ok(before);
        }
        let recent = sqlx::query_scalar!(
            r#"-- Store::issue_certificate
            select count(*) as "count!" from host_certificates
            where host_id = $1 and issued_at > now() - make_interval(secs => $2)"#,
            new.host_id,
            new.life_s / 30.0,
        )
        .fetch_one(&mut *transaction)
        .await?;
        if recent >= MAX_ISSUES {
            return Ok(Issuance::TooOften);
        }
        sqlx::query!(
            "-- Store::issue_certificate
            update host_certificates set status = 'superseded'
            where host_id = $1 and status = 'pending'",
            new.host_id
        )
        .execute(&mut *transaction)
        .await?;
        insert_certificate(&mut transaction, new, "pending").await?;
        transaction.commit().await?;
        Ok(Issuance::Issued)
    }

    /// A host's certificates, newest first.
    pub async fn host_certificates(
        &self,
        host_id: Uuid,
    ) -> Result<Vec<CertificateRow>, StoreError> {
        sqlx::query_as!(
            CertificateRow,
            "-- Store::host_certificates
            select serial, status, not_before, not_after, issued_at, superseded_at, revoked_at
            from host_certificates where host_id = $1
            order by issued_at desc, serial limit $2",
            host_id,
            MAX_LISTED,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("host_certificates"))
    }
}

/// Locks a host's heartbeat. Whoever locks several rows of a host does so in this order, as the writers of
/// reports do: heartbeat, host, certificates.
pub(super) async fn lock_heartbeat(
    connection: &mut sqlx::PgConnection,
    host_id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- Store::lock_heartbeat
        select from heartbeats where host_id = $1 for no key update",
        host_id
    )
    .fetch_optional(connection)
    .await?;
    Ok(())
}

/// The host's life cycle, and its row locked against every change of its certificates.
pub(super) async fn lock_host(
    transaction: &mut sqlx::PgTransaction<'_>,
    host_id: Uuid,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- Store::lock_host
        select lifecycle from hosts where host_id = $1 for no key update",
        host_id
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// Inserts a certificate; `status` as in the table.
pub(super) async fn insert_certificate(
    transaction: &mut sqlx::PgTransaction<'_>,
    new: &NewCertificate<'_>,
    status: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- Store::insert_certificate
        insert into host_certificates
            (serial, host_id, spki_sha256, chain_pem, not_before, not_after, status, authority_id)
        values ($1, $2, $3, $4, $5, $6, $7, $8)",
        new.serial,
        new.host_id,
        &new.spki_sha256[..],
        new.chain_pem,
        new.not_before,
        new.not_after,
        status,
        new.authority_id,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

fn of_lifecycle(lifecycle: &str) -> CertificateState {
    match lifecycle {
        "active" => CertificateState::Good,
        "pending" => CertificateState::HostPending,
        "quarantined" => CertificateState::HostQuarantined,
        _ => CertificateState::Decommissioned,
    }
}

/// `None`: the host is entitled.
async fn entitled(
    transaction: &mut sqlx::PgTransaction<'_>,
    host_id: Uuid,
    entitlement: Entitlement<'_>,
) -> Result<Option<Issuance>, sqlx::Error> {
    let (serial, spki) = match entitlement {
        Entitlement::InUse(serial) => (serial, None),
        Entitlement::OldKey { serial, spki_sha256, .. } => (serial, Some(&spki_sha256[..])),
    };
    let row = sqlx::query!(
        r#"-- Store::issue_certificate
        select status, not_after <= now() as "expired!",
            not_after <= now() - make_interval(secs => $4) as "lost!"
        from host_certificates
        where serial = $1 and host_id = $2 and ($3::bytea is null or spki_sha256 = $3)"#,
        serial,
        host_id,
        spki,
        RECOVERY_WINDOW_S,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(row) = row else { return Ok(Some(Issuance::Refused(CertificateState::Unknown))) };
    if row.status == "revoked" {
        return Ok(Some(Issuance::Refused(CertificateState::Revoked)));
    }
    let Entitlement::OldKey { nonce, .. } = entitlement else {
        let over = row.expired.then_some(Issuance::Refused(CertificateState::Revoked));
        return Ok(over);
    };
    if row.lost {
        return Ok(Some(Issuance::WindowPassed));
    }
    sqlx::query!(
        "-- Store::issue_certificate
        delete from recovery_nonces where used_at < now() - make_interval(secs => $1)",
        NONCE_MEMORY_S
    )
    .execute(&mut **transaction)
    .await?;
    let first = sqlx::query!(
        "-- Store::issue_certificate
        insert into recovery_nonces (nonce) values ($1) on conflict do nothing",
        nonce
    )
    .execute(&mut **transaction)
    .await?;
    Ok((first.rows_affected() == 0).then_some(Issuance::NonceUsed))
}

/// What became of the key before, if anything did.
async fn issued_before(
    transaction: &mut sqlx::PgTransaction<'_>,
    new: &NewCertificate<'_>,
) -> Result<Option<Issuance>, sqlx::Error> {
    let known = sqlx::query!(
        r#"-- Store::issue_certificate
        select chain_pem, not_after,
            host_id = $2 and status in ('pending', 'active') and not_after > now() as "ours!"
        from host_certificates where spki_sha256 = $1"#,
        &new.spki_sha256[..],
        new.host_id,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(known.map(|known| {
        if known.ours {
            Issuance::Repeated { chain_pem: known.chain_pem, not_after: known.not_after }
        } else {
            Issuance::KeyAlreadyRegistered
        }
    }))
}
