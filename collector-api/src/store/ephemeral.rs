//! Hosts that come and go, such as those of an autoscaler: the servers decommission them.
//!
//! One that said it shuts down is ended after [`AFTER_GOODBYE`], for it may be a reboot; one that
//! vanished without a word, or never reported, after [`AFTER_SILENCE`] past its deadline. The key is never taken
//! again: a machine that comes back enrols again, and is another host.

use serde_json::json;
use sqlx::Connection as _;

use super::StoreError;
use super::audit::{Actor, record_host};
use super::maintenance::{MaintenanceConnection, MaintenanceError, guard};

/// Minutes between a goodbye and the end.
const AFTER_GOODBYE: i32 = 10;
/// Minutes between a missed deadline and the end.
const AFTER_SILENCE: i32 = 60;
/// Hosts ended in one transaction.
const BATCH: i64 = 500;

impl MaintenanceConnection {
    /// Decommissions ephemeral hosts that are gone, each with its row in the audit. Returns how many.
    pub async fn end_ephemeral(&mut self) -> Result<u64, MaintenanceError> {
        let lease = self.lease;
        let step = StoreError::of("end_ephemeral");
        let mut transaction =
            self.connection.begin().await.map_err(StoreError::of("end_ephemeral.begin"))?;
        guard(&mut transaction, lease).await?;
        let ended = sqlx::query!(
            r#"-- Store::end_ephemeral
            with gone as (
                select h.host_id, b.goodbye from hosts h join heartbeats b using (host_id)
                where h.ephemeral and h.lifecycle in ('pending', 'active') and case
                    when b.goodbye in ('shutdown', 'uninstall')
                        then b.goodbye_at < now() - make_interval(mins => $1)
                    else coalesce(b.deadline_at, h.enrolled_at) < now() - make_interval(mins => $2) end
                order by h.host_id limit $3 for no key update of h skip locked)
            update hosts h set lifecycle = 'decommissioned', lifecycle_changed_at = now(),
                lifecycle_reason = 'ephemeral: ' || coalesce(gone.goodbye, 'silent')
            from gone where h.host_id = gone.host_id
            returning h.host_id, gone.goodbye"#,
            AFTER_GOODBYE,
            AFTER_SILENCE,
            BATCH
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(step)?;
        for host in &ended {
            let reason = host.goodbye.as_deref().unwrap_or("silent");
            let detail =
                json!({ "to": "decommissioned", "reason": format!("ephemeral: {reason}") });
            record_host(
                &mut transaction,
                &Actor::server(),
                "host.decommission",
                host.host_id,
                detail,
            )
            .await
            .map_err(StoreError::of("end_ephemeral.audit"))?;
        }
        transaction.commit().await.map_err(StoreError::of("end_ephemeral.commit"))?;
        Ok(ended.len() as u64)
    }
}
