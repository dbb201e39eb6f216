//! Hosts that come and go: the server decommissions those that are gone.
//!
//! Gone is one that said that it shuts down, [`STOPPED_S`] ago (a machine that starts again is back by
//! then, and takes its goodbye back), or that is [`SILENT_S`] past its deadline, or that never reported
//! and was last heard of [`MUTE_S`] ago. Only of active ones: what waits for an operator, or was set aside
//! by one, is the operator's. Never of a host that is not ephemeral.
//!
//! As the sweep, it does not take the servers' own outage for the hosts': it waits until the sweep has
//! looked just now, which moves the deadlines after a gap, and while no host at all is heard of.

use serde_json::json;
use sqlx::Connection as _;

use super::StoreError;
use super::audit::{Actor, record_host};
use super::maintenance::{MaintenanceConnection, MaintenanceError, guard};

/// After a goodbye, seconds.
const STOPPED_S: f64 = 300.0;
/// After the deadline, seconds.
const SILENT_S: f64 = 1800.0;
/// After the last contact of a host that never reported, seconds.
const MUTE_S: f64 = 86_400.0;
/// The sweep looked at most this long ago, seconds: its own measure of a gap.
const SWEPT_S: f64 = 20.0;
/// Hosts in one transaction.
const BATCH: i64 = 500;

impl MaintenanceConnection {
    /// Decommissions a batch of ephemeral hosts that are gone. Returns how many.
    pub async fn retire_ephemeral(&mut self) -> Result<u64, MaintenanceError> {
        let lease = self.lease;
        let mut transaction =
            self.connection.begin().await.map_err(StoreError::of("retire_ephemeral.begin"))?;
        guard(&mut transaction, lease).await?;
        let retired = retire(&mut transaction).await.map_err(StoreError::of("retire_ephemeral"))?;
        transaction.commit().await.map_err(StoreError::of("retire_ephemeral.commit"))?;
        Ok(retired)
    }
}

async fn retire(transaction: &mut sqlx::PgTransaction<'_>) -> Result<u64, sqlx::Error> {
    // The heartbeats too: a host whose report is under way is not gone.
    let gone = sqlx::query!(
        r#"/* store::ephemeral::retire */
        select h.host_id, b.goodbye
        from hosts h join heartbeats b using (host_id)
        where h.ephemeral and h.lifecycle = 'active'
            and exists (select from alert_sweep
                where last_ok_at > now() - make_interval(secs => $4) and deaf_since is null)
            and case
                when h.lifecycle_changed_at > now() - make_interval(secs => $2) and h.lifecycle_changed_at > h.enrolled_at
                    then false -- approved or released a moment ago
                when b.goodbye in ('shutdown', 'uninstall') then b.goodbye_at < now() - make_interval(secs => $1)
                when b.last_seen_at is not null then b.deadline_at < now() - make_interval(secs => $2)
                else greatest(b.deadline_at, b.contacted_at, h.enrolled_at) < now() - make_interval(secs => $3)
            end
        order by h.host_id limit $5 for no key update of h, b skip locked"#,
        STOPPED_S,
        SILENT_S,
        MUTE_S,
        SWEPT_S,
        BATCH
    )
    .fetch_all(&mut **transaction)
    .await?;
    let ids: Vec<_> = gone.iter().map(|host| host.host_id).collect();
    if ids.is_empty() {
        return Ok(0);
    }
    sqlx::query!(
        "/* store::ephemeral::retire */
        update hosts h set lifecycle = 'decommissioned', lifecycle_changed_at = now(),
            lifecycle_reason = case when b.goodbye in ('shutdown', 'uninstall')
                then 'ephemeral, and it shut down' else 'ephemeral, and it fell silent' end
        from heartbeats b where b.host_id = h.host_id and h.host_id = any ($1)",
        &ids
    )
    .execute(&mut **transaction)
    .await?;
    for host in &gone {
        let detail = json!({
            "from": "active",
            "to": "decommissioned",
            "reason": "ephemeral",
            "goodbye": host.goodbye,
        });
        let action = "host.decommission";
        record_host(transaction, &Actor::server(), action, host.host_id, detail).await?;
    }
    Ok(ids.len() as u64)
}
