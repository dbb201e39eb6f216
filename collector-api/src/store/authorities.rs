//! The certificate authorities and how they take turns.
//!
//! Every step of a rotation is one transaction under the lock of the active authority's row, with its
//! audit. The conditions of a step are looked at inside it.

use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::audit::{Actor, record};
use crate::store::{Store, StoreError};

/// One row of `certificate_authorities` that is not history.
#[derive(Clone)]
pub struct AuthorityRow {
    /// Also bound into the seal.
    pub authority_id: Uuid,
    /// `server` or `client`.
    pub purpose: String,
    /// `next`, `active` or `retired`.
    pub state: String,
    /// PEM.
    pub certificate_pem: String,
    /// See [`Authority::bridge_pem`](crate::authority::Authority::bridge_pem); PEM.
    pub bridge_pem: String,
    /// SHA-256 of the `SubjectPublicKeyInfo`.
    pub spki_sha256: Vec<u8>,
    /// Nonce and AES-256-GCM ciphertext of the PKCS #8 key.
    pub sealed_private_key: Vec<u8>,
    /// Which sealing key opens it.
    pub sealing_key_id: String,
    /// End of the certificate.
    pub not_after: OffsetDateTime,
    /// When it came into its state, database clock.
    pub state_changed_at: OffsetDateTime,
}

/// A step of a rotation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RotationStep<'a> {
    /// `next` becomes `active`, `active` becomes `retired`.
    Activate {
        /// What hosts must say they keep.
        trust_id: &'a str,
        /// Shortest time since `next` was made, s: every replica has read it by then.
        settled_s: f64,
        /// Also while hosts lack it.
        force: bool,
    },
    /// `retired` becomes `removed`.
    Finish {
        /// Shortest time since it retired, s.
        settled_s: f64,
        /// Also while certificates of it are in use.
        force: bool,
    },
    /// `next` becomes `removed`: the rotation is given up.
    Abort,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// Done.
    Done,
    /// Another rotation of this purpose is under way.
    UnderWay,
    /// There is no authority in the state that the step needs.
    NotNow,
    /// Too soon: some replica may not have read the step before yet.
    TooSoon,
    /// So many hosts would be shut out.
    Needed(i64),
}

impl Store {
    /// The authorities that count: none, or one active per purpose, and at most one next and one retired.
    pub async fn authorities(&self) -> Result<Vec<AuthorityRow>, StoreError> {
        sqlx::query_as!(
            AuthorityRow,
            "-- Store::authorities
            select authority_id, purpose, state, certificate_pem, bridge_pem, spki_sha256,
                sealed_private_key, sealing_key_id, not_after, state_changed_at
            from certificate_authorities where state <> 'removed' order by purpose, created_at"
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("authorities"))
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
                on conflict (purpose) where state = 'active' do nothing",
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

    /// SHA-256 of the `SubjectPublicKeyInfo` of the active server authority and of the next: what
    /// tokens pin.
    pub async fn server_authority_pins(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        sqlx::query_scalar!(
            "-- Store::server_authority_pins
            select spki_sha256 from certificate_authorities
            where purpose = 'server' and state in ('active', 'next') order by state"
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("server_authority_pins"))
    }

    /// Begins a rotation: stores the next authority of a purpose.
    pub async fn begin_rotation(
        &self,
        next: &AuthorityRow,
        actor: &Actor,
    ) -> Result<Rotated, StoreError> {
        let begun = self.try_begin_rotation(next, actor).await;
        begun.map_err(StoreError::of("begin_rotation"))
    }

    async fn try_begin_rotation(
        &self,
        next: &AuthorityRow,
        actor: &Actor,
    ) -> Result<Rotated, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        if lock_active(&mut transaction, &next.purpose).await?.is_none() {
            return Ok(Rotated::NotNow);
        }
        if of_state(&mut transaction, &next.purpose, "next").await?.is_some()
            || of_state(&mut transaction, &next.purpose, "retired").await?.is_some()
        {
            return Ok(Rotated::UnderWay);
        }
        sqlx::query!(
            "-- Store::begin_rotation
            insert into certificate_authorities (authority_id, purpose, state, certificate_pem,
                spki_sha256, sealed_private_key, sealing_key_id, not_after, bridge_pem)
            values ($1, $2, 'next', $3, $4, $5, $6, $7, $8)",
            next.authority_id,
            next.purpose,
            next.certificate_pem,
            next.spki_sha256,
            next.sealed_private_key,
            next.sealing_key_id,
            next.not_after,
            next.bridge_pem,
        )
        .execute(&mut *transaction)
        .await?;
        let detail = json!({ "purpose": next.purpose });
        let id = next.authority_id.to_string();
        record(&mut transaction, actor, "authority.begin_rotation", ("authority", &id), detail)
            .await?;
        transaction.commit().await?;
        Ok(Rotated::Done)
    }

    /// Takes a rotation one step further.
    pub async fn rotate_authority(
        &self,
        purpose: &str,
        step: RotationStep<'_>,
        actor: &Actor,
    ) -> Result<Rotated, StoreError> {
        let rotated = self.try_rotate(purpose, step, actor).await;
        rotated.map_err(StoreError::of("rotate_authority"))
    }

    async fn try_rotate(
        &self,
        purpose: &str,
        step: RotationStep<'_>,
        actor: &Actor,
    ) -> Result<Rotated, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let Some(active) = lock_active(&mut transaction, purpose).await? else {
            return Ok(Rotated::NotNow);
        };
        let from = if matches!(step, RotationStep::Finish { .. }) { "retired" } else { "next" };
        let Some((authority_id, age_s)) = of_state(&mut transaction, purpose, from).await? else {
            return Ok(Rotated::NotNow);
        };
        let (action, forced) = match step {
            RotationStep::Activate { trust_id, settled_s, force } => {
                let missing = hosts_without(&mut transaction, trust_id).await?;
                if age_s < settled_s {
                    return Ok(Rotated::TooSoon);
                }
                if purpose == "server" && missing > 0 && !force {
                    return Ok(Rotated::Needed(missing));
                }
                set_state(&mut transaction, active, "retired").await?;
                set_state(&mut transaction, authority_id, "active").await?;
                ("authority.activate", force)
            }
            RotationStep::Finish { settled_s, force } => {
                if age_s < settled_s {
                    return Ok(Rotated::TooSoon);
                }
                let signed = hosts_signed_by(&mut transaction, authority_id).await?;
                if signed > 0 && !force {
                    return Ok(Rotated::Needed(signed));
                }
                set_state(&mut transaction, authority_id, "removed").await?;
                ("authority.finish_rotation", force)
            }
            RotationStep::Abort => {
                set_state(&mut transaction, authority_id, "removed").await?;
                ("authority.abort_rotation", false)
            }
        };
        let detail = json!({ "purpose": purpose, "forced": forced });
        let id = authority_id.to_string();
        record(&mut transaction, actor, action, ("authority", &id), detail).await?;
        transaction.commit().await?;
        Ok(Rotated::Done)
    }

    /// Hosts that have not said that they keep this set of authorities, decommissioned ones left out.
    pub async fn hosts_without_trust(&self, trust_id: &str) -> Result<i64, StoreError> {
        let failed = || StoreError::of("hosts_without_trust");
        let mut connection = self.pool.begin().await.map_err(failed())?;
        hosts_without(&mut connection, trust_id).await.map_err(failed())
    }

    /// Hosts with a good certificate signed by this authority.
    pub async fn hosts_signed_by(&self, authority_id: Uuid) -> Result<i64, StoreError> {
        let failed = || StoreError::of("hosts_signed_by");
        let mut connection = self.pool.begin().await.map_err(failed())?;
        hosts_signed_by(&mut connection, authority_id).await.map_err(failed())
    }

    /// Notes which set of authorities a host keeps, if it says so; who signed the certificate it uses.
    pub async fn note_trust(
        &self,
        host_id: Uuid,
        serial: &str,
        trust_id: Option<&str>,
    ) -> Result<Option<Uuid>, StoreError> {
        sqlx::query!(
            "-- Store::note_trust
            update hosts set trust_id = $2::text where host_id = $1 and trust_id is distinct from $2 and $2 is not null",
            host_id,
            trust_id,
        )
        .execute(&self.pool)
        .await
        .map_err(StoreError::of("note_trust"))?;
        let signer = sqlx::query_scalar!(
            "-- Store::note_trust
            select authority_id from host_certificates where serial = $1",
            serial
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::of("note_trust"))?;
        Ok(signer.flatten())
    }
}

type Transaction<'a> = sqlx::PgTransaction<'a>;

/// The active authority of a purpose; whoever else rotates waits.
async fn lock_active(
    transaction: &mut Transaction<'_>,
    purpose: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    // By purpose, not by state: who waited must see which one is active by now.
    sqlx::query!(
        "-- Store::rotate_authority
        select authority_id from certificate_authorities where purpose = $1
        order by authority_id for update",
        purpose
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(of_state(transaction, purpose, "active").await?.map(|(id, _)| id))
}

/// The authority in a state, and for how long it has been in it, s.
async fn of_state(
    transaction: &mut Transaction<'_>,
    purpose: &str,
    state: &str,
) -> Result<Option<(Uuid, f64)>, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- Store::rotate_authority
        select authority_id, extract(epoch from now() - state_changed_at)::float8 as "age_s!"
        from certificate_authorities where purpose = $1 and state = $2"#,
        purpose,
        state,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(row.map(|row| (row.authority_id, row.age_s)))
}

async fn set_state(
    transaction: &mut Transaction<'_>,
    authority_id: Uuid,
    state: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- Store::rotate_authority
        update certificate_authorities set state = $2, state_changed_at = now()
        where authority_id = $1",
        authority_id,
        state,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn hosts_without(
    transaction: &mut Transaction<'_>,
    trust_id: &str,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- Store::hosts_without_trust
        select count(*) as "count!" from hosts
        where lifecycle <> 'decommissioned' and trust_id is distinct from $1"#,
        trust_id
    )
    .fetch_one(&mut **transaction)
    .await
}

async fn hosts_signed_by(
    transaction: &mut Transaction<'_>,
    authority_id: Uuid,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- Store::hosts_signed_by
        select count(distinct c.host_id) as "count!"
        from host_certificates c join hosts h using (host_id)
        where c.authority_id = $1 and c.status in ('active', 'pending') and c.not_after > now()
            and h.lifecycle <> 'decommissioned'"#,
        authority_id
    )
    .fetch_one(&mut **transaction)
    .await
}
