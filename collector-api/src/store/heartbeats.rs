//! When hosts were last heard of, apart from their reports: contacts of any kind, and goodbyes.
//!
//! Reports move the heartbeat in their own transaction (`store::dictionaries`). Every statement locks
//! its rows in the order of the hosts' ids, as that transaction does. No indexed column is updated, so
//! all of it stays heap-only (HOT).

use shared_model::Goodbye;
use uuid::Uuid;

use super::{Store, StoreError};

impl Store {
    /// How many hosts are to report.
    pub async fn fleet_size(&self) -> Result<u32, StoreError> {
        let hosts = sqlx::query_scalar!(
            r#"-- Store::fleet_size
            select count(*) as "hosts!" from hosts where lifecycle = 'active'"#
        )
        .fetch_one(&self.pool)
        .await
        .map_err(StoreError::of("fleet_size"))?;
        Ok(u32::try_from(hosts).unwrap_or(u32::MAX))
    }

    /// Hosts that proved their identity just now. Their deadline moves on; what they said when they
    /// stopped is no longer true.
    pub async fn note_contacts(&self, hosts: &[Uuid]) -> Result<(), StoreError> {
        sqlx::query!(
            "-- Store::note_contacts
            with locked as (
                select host_id from heartbeats where host_id = any ($1) order by host_id for update
            )
            update heartbeats b set contacted_at = now(), goodbye = null, goodbye_at = null,
                deadline_at = procfleet_deadline(now(), b.interval_ms)
            from locked where b.host_id = locked.host_id",
            hosts
        )
        .execute(&self.pool)
        .await
        .map_err(StoreError::of("note_contacts"))?;
        Ok(())
    }

    /// The agent of a host stops and says why. One that means to come back has five minutes more, and holds
    /// the identity meanwhile. Of a place that does not hold it nothing is believed (`store::clones`).
    pub async fn say_goodbye(
        &self,
        host_id: Uuid,
        goodbye: Goodbye,
        place: Option<Uuid>,
    ) -> Result<(), StoreError> {
        let comes_back = matches!(goodbye, Goodbye::Restart | Goodbye::Upgrade);
        sqlx::query!(
            "-- Store::say_goodbye
            update heartbeats set contacted_at = now(), goodbye = $2, goodbye_at = now(),
                place_heard_at = case when $3 then place_heard_at end,
                deadline_at = procfleet_deadline(now(), interval_ms)
                    + case when $3 then interval '5 minutes' else interval '0' end
            where host_id = $1 and ($4::uuid is null or place is null or place = $4)",
            host_id,
            goodbye.as_str(),
            comes_back,
            place,
        )
        .execute(&self.pool)
        .await
        .map_err(StoreError::of("say_goodbye"))?;
        Ok(())
    }
}
