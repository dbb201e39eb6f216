//! What operators decide about a host: approve it, set it aside, end it; end its certificates.
//!
//! Every change is made and audited in one transaction, under the lock of the host's row, which
//! renewal and recovery take as well: no certificate slips past a revocation.

use serde_json::json;
use uuid::Uuid;

use super::audit::{Actor, record_host};
use super::certificates::{lock_heartbeat, lock_host};
use crate::store::{Store, StoreError};

/// The administrative state of a host, as operators set it. `pending` is set by enrolment only.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// Its reports are taken.
    Active,
    /// It keeps its identity; its reports wait on the host.
    Quarantined,
    /// A tombstone. Its key is never taken again, and it never comes back.
    Decommissioned,
}

impl Lifecycle {
    /// As in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Quarantined => "quarantined",
            Self::Decommissioned => "decommissioned",
        }
    }
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LifecycleChange {
    /// Done.
    Changed,
    /// It was so already.
    Unchanged,
    /// There is no such host.
    NoHost,
    /// A decommissioned host stays so.
    Tombstone,
}

/// Longest pause of an agent that is refused because of its host's life cycle, and a minute, s.
pub(super) const REFUSED_PAUSE_S: f64 = 960.0;

impl Store {
    /// Sets a host's life cycle.
    pub async fn set_lifecycle(
        &self,
        host_id: Uuid,
        to: Lifecycle,
        reason: Option<&str>,
        actor: &Actor,
    ) -> Result<LifecycleChange, StoreError> {
        let changed = self.try_set_lifecycle(host_id, to, reason, actor).await;
        changed.map_err(StoreError::of("set_lifecycle"))
    }

    async fn try_set_lifecycle(
        &self,
        host_id: Uuid,
        to: Lifecycle,
        reason: Option<&str>,
        actor: &Actor,
    ) -> Result<LifecycleChange, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        lock_heartbeat(&mut transaction, host_id).await?;
        let Some(from) = lock_host(&mut transaction, host_id).await? else {
            return Ok(LifecycleChange::NoHost);
        };
        if from == to.as_str() {
            return Ok(LifecycleChange::Unchanged);
        }
        if from == "decommissioned" {
            return Ok(LifecycleChange::Tombstone);
        }
        sqlx::query!(
            "-- Store::set_lifecycle
            update hosts set lifecycle = $2, lifecycle_reason = $3, lifecycle_changed_at = now()
            where host_id = $1",
            host_id,
            to.as_str(),
            reason,
        )
        .execute(&mut *transaction)
        .await?;
        if to == Lifecycle::Active {
            // Its agent asks again within a quarter of an hour: nobody is to be woken before that.
            sqlx::query!(
                "-- Store::set_lifecycle
                update heartbeats set deadline_at = greatest(deadline_at, now() + make_interval(secs => $2))
                where host_id = $1 and contacted_at is not null",
                host_id,
                REFUSED_PAUSE_S,
            )
            .execute(&mut *transaction)
            .await?;
        }
        let action = match (from.as_str(), to) {
            ("pending", Lifecycle::Active) => "host.approve",
            (_, Lifecycle::Active) => "host.release",
            (_, Lifecycle::Quarantined) => "host.quarantine",
            (_, Lifecycle::Decommissioned) => "host.decommission",
        };
        let detail = json!({ "from": from, "to": to.as_str(), "reason": reason });
        record_host(&mut transaction, actor, action, host_id, detail).await?;
        transaction.commit().await?;
        Ok(LifecycleChange::Changed)
    }

    /// Revokes every certificate of a host that is not revoked yet. How many; none: no such host.
    pub async fn revoke_certificates(
        &self,
        host_id: Uuid,
        actor: &Actor,
    ) -> Result<Option<u64>, StoreError> {
        let revoked = self.try_revoke_certificates(host_id, actor).await;
        revoked.map_err(StoreError::of("revoke_certificates"))
    }

    async fn try_revoke_certificates(
        &self,
        host_id: Uuid,
        actor: &Actor,
    ) -> Result<Option<u64>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        if lock_host(&mut transaction, host_id).await?.is_none() {
            return Ok(None);
        }
        let serials = sqlx::query_scalar!(
            "-- Store::revoke_certificates
            update host_certificates set status = 'revoked', revoked_at = now()
            where host_id = $1 and status <> 'revoked' returning serial",
            host_id
        )
        .fetch_all(&mut *transaction)
        .await?;
        if !serials.is_empty() {
            let detail = json!({ "serials": serials });
            let action = "host.revoke_certificates";
            record_host(&mut transaction, actor, action, host_id, detail).await?;
        }
        transaction.commit().await?;
        Ok(Some(serials.len() as u64))
    }
}
