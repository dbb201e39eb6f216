//! Machines that enrol again: what becomes of the hosts they were before.
//!
//! Two enrolments are of the same machine if its firmware says the same id, and the `machine-id` or the host
//! name is the same too: a machine that was installed anew keeps its name, containers share the firmware's id
//! and nothing else. Where one of them does not know that id, the `machine-id` alone decides. It is a claim,
//! not a proof, and so it takes nothing from anybody who lives:
//!
//! | host of that machine | token | what happens |
//! |---|---|---|
//! | stopped, or not heard of for ten minutes and past its deadline | `same_machine` | the machine is that host again: its certificates are revoked, its history is kept |
//! | the same | other | a new host |
//! | lives, or enrolled within ten minutes, or waits for approval | any | a new host; both are marked, as two machines may have one id |
//!
//! While no server watches the fleet, or nobody gets through (the servers' own outage), every host counts as
//! living. A host that an operator set aside stays set aside, and one that was decommissioned never comes
//! back. Labels of the token are added where the host has none of that name, as long as there is room.
//!
//! A machine that enrols again and again (it loses its state directory) is held to so many times an hour,
//! counted here for all replicas, by both ids together: copies of an image share one of them, containers
//! the other. Machines that do not know both (no firmware id, or an agent that is not root) are not counted,
//! and one that knows neither is never the same as another.

use serde_json::json;
use shared_model::HostFacts;
use sqlx::types::Json;
use uuid::Uuid;

use super::audit::{Actor, record_host};
use super::certificates::{insert_certificate, lock_heartbeat, lock_host};
use super::enrollment::{Begin, NewHost};
use super::labels::{Labels, MAX_LABELS};
use super::lifecycle::REFUSED_PAUSE_S;
use crate::store::{Store, StoreError};

/// How long enrolments are counted, s.
const HOUR_S: f64 = 3600.0;
/// How long nothing may be heard of a host before it counts as gone, s.
const GONE_S: f64 = 600.0;
/// How old the last sweep over the fleet may be, s: without one nobody knows who lives.
const SWEPT_S: f64 = 20.0;

/// What is known of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The host it was and is not any more: the one heard of last.
    gone: Option<Uuid>,
    /// A host that lives as the same machine.
    pub(super) alive: Option<Uuid>,
}

impl Known {
    /// The host that the machine is again, if its token allows it.
    pub(super) fn again(self) -> Option<Uuid> {
        if self.alive.is_some() { None } else { self.gone }
    }
}

impl Store {
    /// The host that a machine would be again with this token; none: a new one. For the certificate, which
    /// is signed before: [`Store::enroll`] looks again.
    pub async fn host_again(
        &self,
        token_id: Uuid,
        facts: &HostFacts,
    ) -> Result<Option<Uuid>, StoreError> {
        self.find_host_again(token_id, facts).await.map_err(StoreError::of("host_again"))
    }

    async fn find_host_again(
        &self,
        token_id: Uuid,
        facts: &HostFacts,
    ) -> Result<Option<Uuid>, sqlx::Error> {
        let allowed = sqlx::query_scalar!(
            "-- Store::host_again
            select same_machine from enrollment_tokens where token_id = $1",
            token_id
        )
        .fetch_optional(&self.pool)
        .await?;
        if allowed != Some(true) {
            return Ok(None);
        }
        let mut connection = self.pool.acquire().await?;
        Ok(known(&mut connection, facts).await?.again())
    }

    /// Notes on the host that the machine is or was that it wanted to enrol too often.
    pub(super) async fn note_refused_enrollment(
        &self,
        facts: &HostFacts,
    ) -> Result<(), sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        let known = known(&mut connection, facts).await?;
        sqlx::query!(
            "-- Store::enroll
            update hosts set enrollment_refused_at = now() where host_id = $1",
            known.alive.or(known.gone)
        )
        .execute(&mut *connection)
        .await?;
        Ok(())
    }
}

/// Makes enrolments of one machine wait for each other.
pub(super) async fn lock(
    connection: &mut sqlx::PgConnection,
    facts: &HostFacts,
) -> Result<(), sqlx::Error> {
    let ids: Vec<String> =
        [&facts.machine_id_hash, &facts.product_uuid_hash].into_iter().flatten().cloned().collect();
    sqlx::query!(
        "-- Store::enroll
        select pg_advisory_xact_lock(hashtextextended(id, 7))
        from (select id from unnest($1::text[]) as t (id) order by id) as ids",
        &ids
    )
    .fetch_all(connection)
    .await?;
    Ok(())
}

/// The hosts that a machine was, or is.
pub(super) async fn known(
    connection: &mut sqlx::PgConnection,
    facts: &HostFacts,
) -> Result<Known, sqlx::Error> {
    let alive = one_host(connection, facts, true).await?;
    let gone = match alive {
        // Which one it was does not matter then, and there may be thousands of an image.
        Some(_) => None,
        None => one_host(connection, facts, false).await?,
    };
    Ok(Known { gone, alive })
}

async fn one_host(
    connection: &mut sqlx::PgConnection,
    facts: &HostFacts,
    alive: bool,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- Store::enroll
        select host_id from (
            select h.host_id, b.contacted_at, h.lifecycle = 'pending'
                or not exists (select from alert_sweep
                    where last_ok_at > now() - make_interval(secs => $5) and deaf_since is null)
                or coalesce(b.goodbye, '') not in ('shutdown', 'uninstall')
                    and greatest(b.deadline_at, b.contacted_at + make_interval(secs =>
                            case when h.lifecycle = 'active' then $4::float8 else $6::float8 end),
                        h.enrolled_at + make_interval(secs => $4)) > now() as alive
            from hosts h join heartbeats b using (host_id)
            where h.lifecycle <> 'decommissioned' and (
                h.product_uuid_hash = $2 and (h.machine_id_hash = $1 or h.host_name = $3)
                or h.machine_id_hash = $1 and ($2::text is null or h.product_uuid_hash is null))) as of_machine
        where alive = $7 order by contacted_at desc nulls last, host_id limit 1"#,
        facts.machine_id_hash.as_deref(),
        facts.product_uuid_hash.as_deref(),
        facts.host_name,
        GONE_S,
        SWEPT_S,
        REFUSED_PAUSE_S,
        alive,
    )
    .fetch_optional(connection)
    .await
}

/// Whether the machine is this host again, and nobody came between: the host's rows are locked from now on.
pub(super) async fn is_still(
    connection: &mut sqlx::PgTransaction<'_>,
    facts: &HostFacts,
    host_id: Uuid,
) -> Result<bool, sqlx::Error> {
    lock_heartbeat(connection, host_id).await?;
    lock_host(connection, host_id).await?;
    Ok(known(connection, facts).await?.again() == Some(host_id))
}

/// What machines are counted by.
fn counted_as(facts: &HostFacts) -> Option<String> {
    let (machine, firmware) =
        (facts.machine_id_hash.as_deref()?, facts.product_uuid_hash.as_deref()?);
    Some(format!("{machine}/{firmware}"))
}

/// Whether the machine enrolled as often within the last hour as it may.
pub(super) async fn enrolls_too_often(
    connection: &mut sqlx::PgConnection,
    host: &NewHost<'_>,
) -> Result<bool, sqlx::Error> {
    let Some(machine) = counted_as(host.facts).filter(|_| host.machine_per_hour > 0) else {
        return Ok(false);
    };
    let enrolled = sqlx::query_scalar!(
        r#"-- Store::enroll
        select count(*) as "count!" from machine_enrollments
        where machine = $1 and enrolled_at > now() - make_interval(secs => $2)"#,
        machine,
        HOUR_S,
    )
    .fetch_one(connection)
    .await?;
    Ok(enrolled >= i64::from(host.machine_per_hour))
}

/// Counts one; forgets some of those that count no more.
pub(super) async fn count(
    connection: &mut sqlx::PgConnection,
    facts: &HostFacts,
) -> Result<(), sqlx::Error> {
    let Some(machine) = counted_as(facts) else { return Ok(()) };
    sqlx::query!(
        "-- Store::enroll
        delete from machine_enrollments where ctid = any (array(
            select ctid from machine_enrollments where enrolled_at < now() - make_interval(secs => $1)
            limit 100 for update skip locked))",
        HOUR_S
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "-- Store::enroll
        insert into machine_enrollments (machine) values ($1)",
        machine
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Marks two hosts that are one machine, as they say.
pub(super) async fn mark(
    connection: &mut sqlx::PgConnection,
    [alive, new]: [Uuid; 2],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- Store::enroll
        update hosts set duplicate_machine_at = now() where host_id = any ($1)",
        &[alive, new]
    )
    .execute(&mut *connection)
    .await?;
    for (host_id, other) in [(alive, new), (new, alive)] {
        let detail = json!({ "other_host_id": other });
        let action = "host.duplicate_machine";
        record_host(connection, &Actor::server(), action, host_id, detail).await?;
    }
    Ok(())
}

/// Makes the machine the host again that it was, with a new certificate alone; after [`is_still`].
pub(super) async fn take_back(
    transaction: &mut sqlx::PgTransaction<'_>,
    host: &NewHost<'_>,
    begin: &Begin,
) -> Result<(), sqlx::Error> {
    let host_id = host.certificate.host_id;
    // The place of before is gone with what was installed there, and so is what it said; this is the first
    // time that the host is heard of again.
    sqlx::query!(
        "-- Store::enroll
        update heartbeats set place = null, place_heard_at = null, goodbye = null, goodbye_at = null,
            contacted_at = now(), deadline_at = now() + make_interval(secs => $2)
        where host_id = $1",
        host_id,
        GONE_S,
    )
    .execute(&mut **transaction)
    .await?;
    let before = sqlx::query!(
        r#"-- Store::enroll
        select lifecycle, labels as "labels: Json<Labels>" from hosts where host_id = $1"#,
        host_id
    )
    .fetch_one(&mut **transaction)
    .await?;
    let mut labels = before.labels.0;
    for (name, value) in &begin.labels {
        if labels.len() < MAX_LABELS {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    let lifecycle = if before.lifecycle == "quarantined" { "quarantined" } else { begin.lifecycle };
    sqlx::query!(
        "-- Store::enroll
        update hosts set host_name = $2, machine_id_hash = $3, product_uuid_hash = $4, os_description = $5,
            kernel_release = $6, host_arch = $7, agent_version = $8, enrollment_token_id = $9, lifecycle = $10,
            labels = $11, ephemeral = $12, enrolled_at = now(), lifecycle_changed_at = now(), facts_updated_at = now()
        where host_id = $1",
        host_id,
        host.facts.host_name,
        host.facts.machine_id_hash,
        host.facts.product_uuid_hash,
        host.facts.os_description,
        host.facts.kernel_release,
        host.facts.host_arch,
        host.facts.agent_version,
        host.token_id,
        lifecycle,
        Json(&labels) as _,
        begin.ephemeral,
    )
    .execute(&mut **transaction)
    .await?;
    let revoked = sqlx::query!(
        "-- Store::enroll
        update host_certificates set status = 'revoked', revoked_at = now()
        where host_id = $1 and status <> 'revoked'",
        host_id
    )
    .execute(&mut **transaction)
    .await?;
    insert_certificate(transaction, &host.certificate, "active").await?;
    let detail = json!({
        "token_id": host.token_id,
        "certificates_revoked": revoked.rows_affected(),
        "from": before.lifecycle,
        "to": lifecycle,
        "labels": labels,
    });
    record_host(transaction, &Actor::server(), "host.reenroll", host_id, detail).await
}
